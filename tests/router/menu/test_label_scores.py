"""Baselines of tasks with a few fixed labels: the bias of the base model, and what is right without it."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.tasks import Example, get_task
from router.menu.label_scores import (
    FILE,
    LabelScores,
    content_free,
    encoded_scores,
    fixed_labels,
    read_label_scores,
    without_content,
)

LABELS = ("joy", "anger")


def example(name: str, answer: str = "joy", options: tuple[str, ...] = LABELS) -> Example:
    return Example(
        id=name, task="arc-likelihood", question=f"Question: a tweet: {name}\nAnswer:", answer=answer, options=options
    )


def test_which_examples_have_fixed_labels():
    """Catches a calibration of options that differ from example to example, or of answers that are written."""
    task = get_task("arc-likelihood")
    assert fixed_labels(task, [example("a"), example("b", "anger")]) == LABELS
    assert fixed_labels(task, [example("a"), example("b", options=("joy", "fear"))]) is None
    assert fixed_labels(get_task("arithmetic"), [example("a"), example("b")]) is None


def test_a_prompt_without_content_keeps_its_wording():
    """Catches a calibration on a prompt that shows no wording, or that still shows the example."""
    questions = [one.question for one in without_content(example("sad"))]
    assert questions == ["Question: N/A\nAnswer:", "Question: [MASK]\nAnswer:", "Question: \nAnswer:"]


def test_a_question_without_wording_is_never_empty():
    """Catches a menu that never ends, since an empty text is no prompt."""
    bare = Example(id="a", task="mine", question="so sad", answer="joy", options=LABELS)
    assert [one.question for one in without_content(bare)] == ["N/A", "[MASK]"]


def test_a_bias_is_calibrated_away():
    """Catches a bias that is added instead of taken away, or taken from the wrong label."""
    bias = content_free([[-1.0, -3.0], [-1.0, -3.0]])
    assert bias[0] - bias[1] == pytest.approx(2.0)
    scores = LabelScores(
        labels=LABELS,
        right=np.array([1, 1, 0]),
        scores=np.array([[-1.0, -2.0], [-1.0, -3.5], [-0.5, -3.0]]),
        content_free=np.array(bias),
    )
    assert scores.scores.argmax(1).tolist() == [0, 0, 0]
    assert scores.calibrated().tolist() == [True, False, True]


def test_scores_come_back(tmp_path):
    """Catches labels or scores that are exchanged on the disk, and a damaged file that ends in a traceback."""
    assert read_label_scores(tmp_path) is None
    rows = [example("a", "anger"), example("b")]
    (tmp_path / FILE).write_bytes(encoded_scores(rows, LABELS, [[-1.0, -2.0], [-3.0, -4.0]], [-0.5, -1.5]))
    read = read_label_scores(tmp_path)
    assert read is not None and read.labels == LABELS and read.right.tolist() == [1, 0]
    assert read.scores.tolist() == [[-1.0, -2.0], [-3.0, -4.0]] and read.content_free.tolist() == [-0.5, -1.5]
    for damaged in (
        b"no table",
        encoded_scores(rows, LABELS, [[-1.0], [-3.0, -4.0]], [-0.5, -1.5]),
        encoded_scores(rows, LABELS, [[-1.0, -2.0], [-3.0, -4.0]], []),
    ):
        (tmp_path / FILE).write_bytes(damaged)
        with pytest.raises(UserError, match="is damaged"):
            read_label_scores(tmp_path)
