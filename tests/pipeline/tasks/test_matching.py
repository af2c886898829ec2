"""When a written answer matches its reference, by each rule."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.tasks.matching import (
    MATCHES,
    answer_line,
    could_match,
    flaw_of_reference,
    has_answer_line,
    matches,
    normalized,
    number_in,
)

#: Natural rows: the accepted answers, a response, and whether a person calls it right by the default rule.
NATURAL = [
    (["Paris"], "Paris.", True),
    (["Paris"], "The Paris", True),
    (["Paris"], " paris\nParis is the capital of France.", True),
    (["Paris"], "Paris is the capital", False),
    (["Paris"], "London", False),
    (["Paris"], "\n\n**Paris**", True),
    (["Rome"], '"Rome".', True),
    (["Berlin"], "Berlin!", True),
    (["Mount Everest", "Everest"], "everest", True),
    (["Mount Everest", "Everest"], "Mount  Everest.", True),
    (["Mount Everest", "Everest"], "K2", False),
    (["The Beatles"], "Beatles", True),
    (["Jupiter"], "JUPITER", True),
    (["Jupiter"], "Saturn, not Jupiter", False),
    (["H2O"], "h2o", True),
    (["8"], "8.", True),
    (["8"], "18", False),
    (["A"], "a)", False),
    (["A"], "A", True),
    (["Vitamin C"], "vitamin c", True),
    (["United States of America", "USA", "U.S."], "the United States of America", True),
    (["United States of America", "USA", "U.S."], "U.S.", True),
    (["Leonardo da Vinci"], "Leonardo da Vinci…", True),
    (["gold"], "", False),
    (["gold"], "\n", False),
]


@pytest.mark.parametrize(("references", "response", "right"), NATURAL)
def test_natural_answers_are_judged_as_a_person_would(references, response, right):
    """Catches a right answer that counts as wrong for its full stop, case or article, and a wrong one that is right."""
    assert matches("normalized", answer_line(response), references) == right


@pytest.mark.parametrize(
    ("rule", "reference", "line", "right"),
    [
        ("exact", "Paris", "Paris", True),
        ("exact", "Paris", "Paris.", False),
        ("exact", "Paris", "paris", False),
        ("contains", "Paris", "The capital of France is Paris.", True),
        ("contains", "Paris", "A Parisian answer", False),
        ("contains", "the big apple", "New York, the Big Apple, of course", True),
        ("contains", "C++", "It is C++, I think", True),
        ("contains", "5", "1.5 litres", False),
        ("contains", "5", "5,000", False),
        ("contains", "5", "It is 5.", True),
        ("contains", ".*", "anything", False),
        ("contains", "5", "-5", False),
        ("contains", "5", "It is \u22125.", False),
        ("contains", "5", "1/5", False),
        ("contains", "1", "1/5", False),
        ("contains", "1/5", "It is 1/5.", True),
        ("contains", "-5", "It is -5.", True),
        ("contains", "5", "1-5", True),
        ("contains", "C-5", "the C-5 plane", True),
        ("contains", "A", "A is correct", True),
        ("contains", "B", "B is correct", True),
        ("contains", "A", "It is a B", False),
        ("contains", "A", "(A)", True),
        ("contains", "A", "a", True),
        ("contains", "vitamin A", "Vitamin A is one", True),
        ("contains", "\u30d1\u30ea", "\u30d1\u30ea\u3067\u3059", True),
        ("contains", "Paris", "\u306fParis\u3067\u3059", True),
        ("contains", "5", "\u7b545\u500b", True),
        ("contains", "\u043c\u0438\u0440", "\u043c\u0438\u0440\u043e\u0432\u043e\u0439", False),
        ("contains", "caf\u00e9", "a cafe\u0301, I think", True),
        ("exact", "caf\u00e9", "cafe\u0301", True),
        ("normalized", "cafe\u0301", "Caf\u00e9.", True),
        ("regex", "caf\u00e9s?", "cafe\u0301", True),
        ("number", "42", "42.0", True),
        ("number", "42", "about 42 km", True),
        ("number", "42", "42km", True),
        ("number", "42", "6 * 7 = 42.", True),
        ("number", "42", "42 of 43", False),
        ("number", "1,000", "1000", True),
        ("number", "1000", "$1,000.00", True),
        ("number", "-3", "It is -3 degrees", True),
        ("number", "-3", "\u22123", True),
        ("number", "-3", "3", False),
        ("number", "12", "10-12", True),
        ("number", "0.5", ".5", True),
        ("number", "2", "H2O", False),
        ("number", "1500", "1.5e3", True),
        ("number", "42", "forty-two", False),
        ("regex", r"(19|20)\d\d", "1969", True),
        ("regex", r"(19|20)\d\d", "In 1969", False),
        ("regex", "(?i)paris.*", "Paris, France", True),
    ],
)
def test_each_rule(rule, reference, line, right):
    """Catches a rule that is looser or stricter than its help says."""
    assert matches(rule, line, [reference]) == right
    assert matches(rule, line, ["another", reference]) == right or rule == "regex"


def test_a_pattern_is_not_searched_for_but_matched():
    """Catches ``re.search`` and ``re.match`` in place of ``re.fullmatch``."""
    assert not matches("regex", "42 km", [r"\d+"]) and not matches("regex", "about 42", [r"\d+"])


@pytest.mark.parametrize(
    ("rule", "reference", "flaw"),
    [
        ("number", "Paris", "holds no number"),
        ("number", "1/2", "several numbers"),
        ("number", "1 000", "several numbers"),
        ("number", "1,000", None),
        ("regex", "(", "no regular expression"),
        ("number", "42 km", None),
        ("regex", r"\d+", None),
        ("normalized", "(", None),
    ],
)
def test_a_reference_that_nothing_could_match_is_named(rule, reference, flaw):
    """Catches rows of which every answer is wrong, and a pattern that fails at the first answer."""
    found = flaw_of_reference(rule, reference)
    assert found is None if flaw is None else flaw in str(found)


def test_the_number_of_a_text_is_its_last_one():
    """Catches a rule other than the one that the help states, and an exponent that takes for ever to compare."""
    assert number_in("3 of 4") == Decimal(4) and number_in("no number, H2O") is None
    assert number_in("1e999999999999") == 1 and number_in("1e99") == Decimal("1e99")


def test_a_normal_form_is_never_empty():
    """Catches "A", "The" and "?" as references that an empty answer matches."""
    assert [normalized(text) for text in ("A", "The", "?", " The  A ")] == ["a", "the", "?", "a"]
    assert not matches("normalized", "", ["?"])


WORDS = st.lists(
    st.sampled_from(
        ["the", "The", "a", "paris", "Paris", "par", "is", '"', ".", "**", "U.S.", "é", "e\u0301", "e", "\u0323", "1"]
    )
)
SPACES = st.sampled_from([" ", "", "  "])


@given(WORDS, WORDS, SPACES, SPACES)
@example(["the", "."], ["the"], " ", " ")
@example(["Paris", ".", "."], ["paris"], " ", " ")
def test_what_may_still_match_is_read_on(written, wanted, between, apart):
    """Catches an answer that is given up although its end would make it right: the verdict would depend on the stop."""
    line, reference = answer_line(between.join(written)), apart.join(wanted).strip() or "x"
    for rule in MATCHES[:3]:
        if matches(rule, line, [reference]):
            assert all(could_match(rule, line[:end], [reference]) for end in range(len(line) + 1))


@pytest.mark.parametrize("begun", ["I", "Lon", "The capital", "Paris is", "A London"])
def test_what_cannot_match_is_not_read_on(begun):
    """Catches a search that writes every wrong answer to its limit."""
    assert not could_match("normalized", begun, ["Paris"])
    assert could_match("contains", begun, ["Paris"])


def test_the_answer_line_is_the_first_that_is_not_empty():
    """Catches an answer behind an empty line that is lost, and one that is taken before its line has ended."""
    assert answer_line(" \n\n Paris \nParis is") == "Paris" and answer_line("") == ""
    assert has_answer_line("\nParis\n") and not has_answer_line("\n Paris") and not has_answer_line("\n\n")
