"""Examples as they are shown: on a page, by ``inspect``, and before a search."""

from __future__ import annotations

import pytest
from report_rows import DEPTH, frame, steps

from pipeline.report.analysis import GROUPS, PathStudy
from pipeline.report.examples import examples, shown_examples
from pipeline.report.page import render
from pipeline.report.preview import preview_lines
from pipeline.report.shortened import beginning_of, both_ends_of, end_of, ends_of
from pipeline.tasks.base_answer import BaseAnswer
from pipeline.tasks.task_options import TaskOptions

IDENTITY = tuple(range(DEPTH))
QUESTIONS = [
    ("made", {IDENTITY: True, (0, 1, 2): True}),
    ("made", {IDENTITY: True, (0, 1): False}),
    ("made", {IDENTITY: False, (0, 2, 1): True}),
    ("made", {IDENTITY: False, (0, 2): False}),
    ("made", {IDENTITY: False, (0, 3): False}),
]


@pytest.fixture
def study():
    rows = frame(QUESTIONS)
    for number in range(len(rows)):
        rows.loc[number, "prompt"] = f"Read this.\nQuestion {rows.example_id[number]}:"
        rows.loc[number, "response"] = f"response {number} <b>"
    return PathStudy.of(rows, {"task": "made", "keep": "all", "search.budget": 1.0}, steps(QUESTIONS))


def test_each_group_shows_its_examples_with_their_answers(study):
    """Catches the best program's answer in place of the base model's, and an example in another group."""
    shown = shown_examples(study, 1)
    assert [[one.example_id for one in shown[group]] for group in GROUPS] == [["q0"], ["q1"], ["q2"], ["q3"]]
    [shortened], [kept], [corrected], [unsolved] = shown.values()
    assert shortened.prompt == r"Read this.\nQuestion q0:" and shortened.expected == "!"
    assert (shortened.base_response, shortened.program, shortened.response) == (
        "response 0 <b>",
        "0-2",
        "response 1 <b>",
    )
    assert (kept.base_response, kept.program) == ("response 2 <b>", None)
    assert (corrected.base_response, corrected.response) == ("response 4 <b>", "response 5 <b>")
    assert (unsolved.base_response, unsolved.program, unsolved.response) == ("response 6 <b>", None, "–")
    assert len(shown_examples(study, 9)[GROUPS[3]]) == 2


def test_answers_that_were_not_read_are_dashes():
    """Catches a page of a run, or of an imported one, that holds no answers and ends in a traceback."""
    found = PathStudy.of(frame(QUESTIONS), {"keep": "all", "search.budget": 1.0}, steps(QUESTIONS))
    assert {one.base_response for group in shown_examples(found, 9).values() for one in group} == {"–"}


def test_texts_on_a_page_are_escaped(study):
    """Catches an answer of a model that is markup in the page."""
    page = render("title", [], [examples(study)])
    assert "response 0 &lt;b&gt;" in page and "<b>" not in page


def test_long_texts_are_shortened_where_they_matter_least():
    """Catches a prompt whose question is cut off, an answer whose beginning is, and a line break in a line."""
    assert end_of("a" * 500 + "?", 10) == "…aaaaaaaa?" and beginning_of("b" + "a" * 500, 10) == "baaaaaaaa…"
    assert end_of("a\nb\x1b[31m", 90) == r"a\nb\x1b[31m" and beginning_of("é 東", 90) == "é 東"


def answers(right, number, **changes):
    """Answers of which so many are right."""
    return [
        BaseAnswer(
            **{
                "prompt": f"The capital of country {n} is",
                "references": ("Paris", "Lutetia"),
                "response": "Paris is the capital.",
                "correct": n < right,
                "reason": "ended" if n < right else "unequal",
                **changes,
            }
        )
        for n in range(number)
    ]


def test_three_answers_are_shown_with_what_was_expected():
    """Catches a preview that floods the terminal, or hides what the answer was compared with."""
    lines = preview_lines(answers(10, 32), task="jsonl")
    assert sum("got" in line for line in lines) == 3 and len(lines) == 11
    assert lines[:4] == [
        "Prompts: column 'prompt'. Answers: column 'answer', compared by --match normalized.",
        "  prompt    The capital of country 0 is",
        "  expected  'Paris' or 'Lutetia'",
        "  got       'Paris is the capital.'  right",
    ]
    assert lines[-1].startswith("The base model is right on 10 of the first 32 examples (31 %)")
    assert preview_lines([], task="jsonl") == []


@pytest.mark.parametrize(
    ("right", "task", "said"),
    [
        (1, "jsonl", "nearly no example. --match contains would call 32 of the first 32 right"),
        (0, "gsm8k", "nearly no example. If answers above are right to you, check"),
        (31, "jsonl", "nearly every example"),
        (2, "jsonl", None),
        (30, "jsonl", None),
    ],
)
def test_a_share_that_looks_like_a_mistake_is_warned_of(right, task, said):
    """Catches a run of hours in which nothing can be right, and a warning of an ordinary model."""
    lines = preview_lines(answers(right, 32), task=task)
    warnings = [line for line in lines if line.startswith("Warning: ")]
    assert lines[-1].startswith("Ctrl-C stops the search") == bool(warnings)
    assert len(warnings) == (said is not None) and (said is None or said in warnings[0])
    assert all(("--match" in line) == (task == "jsonl") for line in warnings)


def test_answers_that_are_cut_are_warned_of():
    """Catches a run whose answers all need more tokens than they get."""
    lines = preview_lines(answers(10, 16) + answers(0, 16, reason="cut"), task="jsonl")
    assert lines[-2].startswith("Warning: of the first 32 answers 16 are cut by --max-new-tokens")
    assert any(
        "of the first 3 answers 1 is cut" in line
        for line in preview_lines([*answers(2, 2), *answers(0, 1, reason="cut")], task="jsonl")
    )
    assert "wrong: unequal" in preview_lines(answers(0, 1), task="jsonl")[3]


@pytest.mark.parametrize(
    ("response", "options", "said"),
    [
        (
            "",
            {},
            "32 are empty: the model ends at once. Try --chat, if the model was tuned for chats, or a",
        ),
        ("", {"chat": True}, "32 are empty: the model ends at once. Try a prompt with solved examples"),
        ("It is Paris.", {"chat": True}, "--match contains would call 32 of the first 32 right"),
        ("paris.", {"match": "exact"}, "--match normalized would call 32 of the first 32 right"),
        ("It is Rome.", {}, "give lists of accepted answers; if they are beside the point, try --chat, if the model"),
        ("It is Rome.", {"chat": True}, "if they are beside the point, try a prompt with solved examples"),
    ],
)
def test_the_cure_is_the_one_that_fits(response, options, said):
    """Catches advice that a user has followed already, and advice that would not help."""
    lines = preview_lines(answers(0, 32, response=response), task="jsonl", options=TaskOptions(**options))
    assert said in lines[-2] and ("--chat" in said or "--chat" not in lines[-2])


def test_a_pattern_is_shown_as_it_stands():
    r"""Catches a reference ``Paris\.?`` that is shown with two backslashes."""
    lines = preview_lines(answers(1, 1, references=(r"Paris\.?",)), task="jsonl", options=TaskOptions(match="regex"))
    assert lines[2] == r"  expected  'Paris\.?'"


def test_references_that_cannot_be_written_are_warned_of():
    """Catches answers that are all cut before they could match."""
    lines = preview_lines(answers(10, 32, reference_fits=False), task="jsonl")
    assert "for 32 of the first 32 examples the first accepted answer is longer than --max-new-tokens" in lines[-2]


def test_a_number_may_be_written_shorter():
    """Catches a warning of 1,000,000.00 where the model may write 1000000."""
    said = preview_lines(answers(10, 32, reference_fits=False), task="jsonl", options=TaskOptions(match="number"))
    assert not any("accepted answer is longer" in line for line in said)


def test_a_chat_shows_its_question_and_a_solution_its_end():
    """Catches three prompts that show the chat template alone, and solutions without the answers that they state."""
    template = "<end>\n<turn>assistant\n<think>\n\n</think>\n\n" * 3
    chats = [f"<turn>user\nHow many are {n} and {n}?{template}" for n in range(3)]
    assert all(f"How many are {n} and {n}?…" in end for n, end in enumerate(ends_of(chats)))
    assert all("assistant" not in end and len(end) <= 90 for end in ends_of(chats))
    assert ends_of(["What is 1?", "What is 2?"]) == ["What is 1?", "What is 2?"]
    assert ends_of(["a" * 500 + "?"] * 2, 10) == ["…aaaaaaaa?"] * 2, "equal prompts share all"
    solution = both_ends_of("First" + "." * 500 + "The answer is 5.")
    assert solution.startswith("First") and solution.endswith("The answer is 5.") and len(solution) == 90
