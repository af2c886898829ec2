"""Questions asked in several ways: which ways there are, and what counts as right."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.program import LayerProgram
from pipeline.tasks import TASKS, DataRequest, get_task
from pipeline.tasks.renderings import rotations, score_renderings
from pipeline.tasks.types import Example, Outcome, PreparedExample

PROGRAM = LayerProgram.identity(3)


@pytest.fixture
def read(tmp_path):
    """The examples of one row."""

    def read_row(task, row, renderings=1):
        file = tmp_path / "data.jsonl"
        file.write_text(json.dumps(row) + "\n")
        return TASKS[task].read(DataRequest(data=str(file), renderings=renderings))

    return read_row


@given(st.lists(st.text(min_size=1), min_size=2, max_size=8, unique=True), st.data())
def test_every_rotation_moves_the_right_option(options, data):
    """Catches a rotation whose answer points to another option, and one that leaves a letter's guess right."""
    reference = data.draw(st.integers(0, len(options) - 1))
    found = rotations(options, reference, len(options) + 3)
    assert len(found) == len(options) - 1
    assert all(sorted(order) == sorted(options) and order[place] == options[reference] for order, place in found)
    assert {reference, *(place for _, place in found)} == set(range(len(options)))


class Guesser:
    """Judges by a table of what is answered to which question."""

    def __init__(self, answers):
        self.answers, self.asked = answers, []

    def score(self, model, questions, programs, *, need_response):
        self.asked += [question.prompt for question in questions]
        return [self._outcome(*asked, need_response) for asked in zip(questions, programs)]

    def _outcome(self, question, program, need_response):
        correct = self.answers[question.prompt] == question.example.answer
        return Outcome(
            correct=correct,
            reason="ended" if correct else "unequal",
            margin=len(question.prompt) * (1.0 if correct else -1.0),
            response=self.answers[question.prompt] if need_response else None,
            layer_executions=len(program),
        )


def asked(prompts, answers):
    """A question in several ways."""
    first, *others = (
        PreparedExample(
            example=Example(id="q", task="t", question=prompt, answer=answer), prompt=prompt, prompt_ids=[1], answers=[]
        )
        for prompt, answer in zip(prompts, answers)
    )
    return replace(first, renderings=others)


@pytest.mark.parametrize("seed", range(20))
def test_right_means_right_in_every_way(seed):
    """Catches an answer that counts though it is wrong in one way, or that does not though it is right in all."""
    rng = random.Random(seed)
    questions, truth = [], {}
    for number in range(6):
        prompts = [f"{number}{'+' * way}" for way in range(rng.randint(1, 4))]
        questions.append(asked(prompts, ["A"] * len(prompts)))
        truth |= {prompt: rng.choice("AAB") for prompt in prompts}
    scoring = Guesser(truth)
    outcomes = score_renderings(scoring, None, questions, [PROGRAM] * 6, need_response=True)
    for question, outcome in zip(questions, outcomes):
        ways = [question, *question.renderings]
        assert outcome.correct == all(truth[way.prompt] == "A" for way in ways)
        assert outcome.correct_as_asked == (truth[question.prompt] == "A" if question.renderings else None)
        assert outcome.response == truth[question.prompt]
        assert (outcome.margin > 0) == outcome.correct
        read = len(ways) if truth[question.prompt] == "A" else 1
        assert outcome.layer_executions == 3 * read
        assert sum(prompt in [way.prompt for way in ways] for prompt in scoring.asked) == read


def test_a_model_that_always_says_b_is_never_right(read):
    """Catches rotations under which a preference for a letter is rewarded."""
    row = {
        "question": "Hard?",
        "choices": {"text": ["ice", "sand", "iron", "air"], "label": list("ABCD")},
        "answerKey": "B",
    }
    [example] = read("arc", row, renderings=4)
    assert [example.answer, *(way.answer for way in example.renderings)] == ["B", "A", "D", "C"]
    for way in (example, *example.renderings):
        assert f"{way.answer}. sand\n" in way.question and way.question.count("\n") == 5
    [shorter] = read("arc", row, renderings=2)
    assert shorter.renderings == example.renderings[:1]


@pytest.mark.parametrize(
    ("task", "row"),
    [
        ("gsm8k", {"question": "1 + 1?", "answer": "#### 2"}),
        ("dart-math", {"query": "1 + 1?", "gt_ans": "2"}),
        (
            "arc-likelihood",
            {"question": "1 + 1?", "choices": {"text": ["2", "3"], "label": ["A", "B"]}, "answerKey": "A"},
        ),
        ("jsonl", {"prompt": "1 + 1?", "answer": "2", "renderings": ["What is 1 + 1?", "x = 1 + 1?", "Is 1 + 1? 2"]}),
    ],
)
def test_other_words_ask_the_same(read, task, row):
    """Catches wordings that are alike, that lose the question, or that ask for something else."""
    [example] = read(task, row, renderings=4)
    ways = [example.question, *(way.question for way in example.renderings)]
    assert len(set(ways)) == 4 and all("1 + 1?" in way for way in ways)
    assert {way.answer for way in example.renderings} == {example.answer}
    [plain] = read(task, row)
    assert plain == replace(example, renderings=())


def test_worked_examples_in_another_order_ask_the_same():
    """Catches a rendering that shows other examples, or another question."""
    request = DataRequest(limit=12, renderings=4)
    plain = TASKS["arithmetic"].read(replace(request, renderings=1))
    for example, alone in zip(TASKS["arithmetic"].read(request), plain, strict=True):
        assert alone == replace(example, renderings=())
        ways = [example.question, *(way.question for way in example.renderings)]
        assert len(set(ways)) == 4
        assert len({tuple(sorted(way.split("\n")[:-1])) for way in ways}) == 1
        assert len({way.split("\n")[-1] for way in ways}) == 1


def test_more_ways_than_there_are_options_are_refused(tmp_path):
    """Catches a stricter reward that was asked for and silently is the one before."""
    file = tmp_path / "data.jsonl"
    rows = [
        {"question": "Hard?", "choices": {"text": texts, "label": list("ABC"[: len(texts)])}, "answerKey": "A"}
        for texts in (["ice", "air"], ["ice", "sand", "air"])
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    assert [len(e.renderings) for e in TASKS["arc"].read(DataRequest(data=str(file), renderings=3))] == [1, 2]
    with pytest.raises(UserError, match="--permutations 4, but no example here has more than 3 options"):
        TASKS["arc"].read(DataRequest(data=str(file), renderings=4))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "'renderings' must hold a list of texts, found None"),
        ({"renderings": "What?"}, "must hold a list of texts, found 'What"),
        ({"renderings": ["What?", ""]}, "must hold a list of texts"),
        ({"renderings": ["What?", "\u202ewhat"]}, "hidden character"),
        ({"renderings": ["What?"]}, "--permutations 3 needs 2 texts in the column 'renderings', found 1"),
        ({"renderings": ["What?", "?"]}, "is the prompt again, or is there twice"),
        ({"renderings": ["What?", "What?"]}, "is the prompt again, or is there twice"),
    ],
)
def test_own_rows_must_bring_their_other_wordings(read, row, message):
    """Catches a question that is asked in fewer ways than its neighbours, or twice in the same."""
    with pytest.raises(UserError, match=rf"line 1: .*{message}"):
        read("jsonl", {"prompt": "?", "answer": "2", **row}, renderings=3)


def test_a_question_that_is_asked_once_is_written_as_it_always_was():
    """Catches runs of earlier releases that cannot be gone on with, since their questions seem to have changed."""
    [example] = get_task("arithmetic").read(DataRequest(limit=1))
    assert set(example.to_json()) == {"id", "task", "question", "answer", "options"}
