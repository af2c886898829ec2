r"""The rules by which a written answer matches a reference: ``--match``. Pure functions of texts.

Only the *answer line* is compared: the first line of a response that is not empty. ``could_match`` lets a search stop
reading an answer that has gone wrong already.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Literal, get_args

#: The names of the rules, as ``--match`` takes them.
Match = Literal["exact", "normalized", "contains", "number", "regex"]
MATCHES: tuple[Match, ...] = get_args(Match)

#: Punctuation that ends an answer, and marks that models put around it: ``**Paris**.``
_FINAL = ".,;:!?\u2026\u3002"
_AROUND = "\"'*`_\u201c\u201d\u2018\u2019\u00ab\u00bb\u201e"
_ARTICLES = frozenset({"a", "an", "the"})
#: A number: not inside a word (``H2O``), with commas between thousands. A unit may follow at once (``42km``), and a
#: minus behind a digit is a hyphen (``10-12``).
_NUMBER = re.compile(
    r"(?<![\w.])[-+\u2212]?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:e[-+]?\d{1,3})?(?!\d)", re.IGNORECASE
)


def answer_line(text: str) -> str:
    """The first line of a response that is not empty, without white space around it."""
    return text.lstrip().partition("\n")[0].rstrip()


def has_answer_line(text: str) -> bool:
    """Whether the answer line of a text that may go on has ended."""
    return "\n" in text.lstrip()


def matches(rule: Match, line: str, references: Sequence[str]) -> bool:
    """Whether an answer line matches one of the references.

    Args:
        rule: ``exact``: to the letter. ``normalized``: the same words; see ``normalized``. ``contains``: the words of
            the reference stand in the line, one after the other. ``number``: the last number of the line equals the
            last number of the reference. ``regex``: the reference is a regular expression for the whole line.
        line: The answer line.
        references: The accepted answers.
    """
    return any(_matches_one(rule, line, reference) for reference in references)


def could_match(rule: Match, begun: str, references: Sequence[str]) -> bool:
    """Whether an answer line that begins so may still match. True where only the whole line can tell.

    Args:
        rule: The rule.
        begun: The text so far, whose answer line has not ended.
        references: The accepted answers.
    """
    begun = begun.lstrip().rstrip("\ufffd")  # a character of several bytes may still be on its way
    match rule:
        case "exact":
            return any(reference.startswith(begun.rstrip()) for reference in references)
        case "normalized":
            return any(_could_be_normalized(begun, reference) for reference in references)
        case _:
            return True


def flaw_of_reference(rule: Match, reference: str) -> str | None:
    """Why nothing could match a reference, as words behind "the answer"; None for a reference that can be matched."""
    if rule == "number" and number_in(reference) is None:
        return f"{reference!r} holds no number, and --match number compares numbers"
    if rule == "regex":
        try:
            re.compile(reference)
        except (re.error, OverflowError, RecursionError) as error:
            return f"{reference!r} is no regular expression ({error}), and --match regex takes it for one"
    return None


def normalized(text: str) -> str:
    """A text without what a reader overlooks.

    Letters are in lower case and words one space apart. Final punctuation, and quotation marks and asterisks at both
    ends, are gone. So are the articles a, an and the before another word: an answer "A" stays. A text of nothing else
    stays as it is.
    """
    words = text.casefold().split()
    bare = " ".join(words).lstrip(_AROUND).rstrip(_AROUND + _FINAL + " ").split()
    kept = [word for word, following in zip(bare, [*bare[1:], None]) if following is None or word not in _ARTICLES]
    return " ".join(kept or words)


def number_in(text: str) -> Decimal | None:
    """The last number that a text states; None where it states none. Commas separate thousands."""
    found = _NUMBER.findall(text)
    return Decimal(found[-1].replace(",", "").replace("\u2212", "-")) if found else None


def _matches_one(rule: Match, line: str, reference: str) -> bool:
    match rule:
        case "exact":
            return line == reference
        case "normalized":
            return bool(line) and normalized(line) == normalized(reference)
        case "contains":
            # Neither a word nor a number goes on at its ends: 5 does not stand in 1.5.
            words = rf"(?<!\w)(?<!\d[.,]){re.escape(normalized(reference))}(?!\w)(?![.,]\d)"
            return re.search(words, normalized(line)) is not None
        case "number":
            stated, wanted = number_in(line), number_in(reference)
            return stated is not None and stated == wanted
        case "regex":
            return re.fullmatch(reference, line) is not None


def _could_be_normalized(begun: str, reference: str) -> bool:
    """Whether some continuation of ``begun`` has the reference's normal form; False only where none has."""
    words = begun.casefold().split()
    newest = "" if not words or begun[-1:].isspace() else words.pop()
    written, wanted = _bare(words), _bare(reference.casefold().split())
    if wanted[: len(written)] != written:
        return False
    # The newest word may go on.
    newest = newest.lstrip(_AROUND).rstrip(_AROUND + _FINAL)
    following = wanted[len(written) :][:1]
    return any(word.startswith(newest) for word in (*following, *_ARTICLES))


def _bare(words: Sequence[str]) -> list[str]:
    """The words without the marks at their ends and without articles: equal for texts of one normal form."""
    bare = (word.lstrip(_AROUND).rstrip(_AROUND + _FINAL) for word in words)
    return [word for word in bare if word and word not in _ARTICLES]
