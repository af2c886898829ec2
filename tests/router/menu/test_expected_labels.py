"""Labels by what questions like it tell: exact arithmetic, no luck, nothing run twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.errors import UserError
from pipeline.program import LayerProgram
from pipeline.tasks import Example, TaskOptions
from router.menu import candidates as menu
from router.menu.candidates import SearchedRun
from router.menu.expected_labels import expected_labels
from router.menu.ridge import RIDGES, components, leave_one_out, summarize
from router.menu.verdict_store import VerdictStore

NUM_LAYERS = 6
WHOLE, SHORT, LUCKY = (1, 1, 1, 1, 1, 1), (1, 1, 0, 1, 1, 1), (1, 0, 1, 0, 2, 1)


def test_leaving_one_out_equals_fitting_without_it():
    """Catches a question that tells what to expect of itself, through the weights or through the mean."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(30, 8)) * 10.0 ** np.arange(8)
    outcomes = inputs[:, :2] / [1, 10] + rng.normal(size=(30, 2))
    scores = components(inputs)
    anew = []
    for ridge in RIDGES * np.square(np.linalg.svd(scores, compute_uv=False)).mean():
        expected = np.empty_like(outcomes)
        for left_out in range(30):
            others = np.arange(30) != left_out
            design = np.column_stack([np.ones(29), scores[others]])
            penalty = np.diag([0.0] + [ridge] * scores.shape[1])
            weights = np.linalg.solve(design.T @ design + penalty, design.T @ outcomes[others])
            expected[left_out] = np.append(1.0, scores[left_out]) @ weights
        anew.append(expected)
    # Each outcome has its own penalty.
    errors = np.array([np.square(outcomes - expected).mean(0) for expected in anew])
    best = np.stack([anew[ridge][:, place] for place, ridge in enumerate(errors.argmin(0))], axis=1)
    np.testing.assert_allclose(leave_one_out(inputs, outcomes), best, atol=1e-6)


def test_where_prompts_tell_nothing_all_expect_the_mean():
    """Catches an expectation that follows noise: more inputs than questions fit anything."""
    rng = np.random.default_rng(1)
    outcomes = rng.integers(0, 2, size=(200, 3)).astype(float)
    expected = leave_one_out(rng.normal(size=(200, 500)), outcomes)
    assert np.abs(expected - outcomes.mean(0)).max() < 0.12


def test_a_summary_tells_the_question_from_what_came_before():
    """Catches a mean over the whole prompt alone, in which the last line drowns, and the wrong axis."""
    features = np.zeros((2, 12, 8, 5), dtype=np.float16)
    features[1, :, -1] = 1
    summaries = summarize(features)
    assert summaries.shape == (2, 4 * 2 * 5)
    assert not summaries[0].any() and set(np.unique(summaries[1])) == {0.125, 1.0}


class World:
    """Made-up questions of two kinds: easy ones, which a short program answers best, and hard ones, left to luck."""

    def __init__(self, questions=600):
        rng = np.random.default_rng(2)
        self.easy = rng.random(questions) < 0.5
        self.examples = [
            Example(id=f"q{number}", task="made", question="", answer="", prompt=f"prompt of q{number}")
            for number in range(questions)
        ]
        chances = {
            WHOLE: np.where(self.easy, 0.7, 0.3),
            SHORT: np.where(self.easy, 0.9, 0.1),
            LUCKY: np.full(questions, 0.15),
        }
        self.right = {program: rng.random(questions) < chance for program, chance in chances.items()}
        self.judged = 0
        rows = [
            {
                "example_id": example.id,
                "prompt": f"prompt of {example.id}",
                "num_layers": NUM_LAYERS,
                "counts": program,
                "correct": bool(right[number]),
                "rank": int(right[number]),
            }
            for number, example in enumerate(self.examples)
            for program, right in self.right.items()
        ]
        self.rows = pd.DataFrame(rows)

    @property
    def searched(self):
        return SearchedRun(run=Path("run"), rows=self.rows, examples=self.examples, task="made")

    def verdicts(self, run, examples, programs):
        self.judged += len(examples) * len(programs)
        numbers = [int(example.id[1:]) for example in examples]
        return np.array([[self.right[program.counts][number] for program in programs] for number in numbers])

    def summaries(self, rows, *, num_windows):
        assert all(row.counts == WHOLE for row in rows), "predictions are made from the base model's hidden states"
        kinds = np.array([self.easy[int(row.example_id[1:])] for row in rows], dtype=float)
        return np.column_stack([kinds, np.random.default_rng(3).normal(size=(len(rows), 5))])


def test_a_label_is_what_should_be_expected_and_not_what_was_lucky():
    """Catches labels that are right on their own question by luck, and questions without a right program left out."""
    world = World()
    found = expected_labels(world.searched, world, num_windows=8)
    assert [row.example_id for row in found.rows] == [example.id for example in world.examples]
    assert found.candidates[0] == LayerProgram.identity(NUM_LAYERS)
    labels = np.array([row.counts == SHORT for row in found.rows])
    assert (labels == world.easy).mean() > 0.97
    assert np.mean([row.counts == LUCKY for row in found.rows]) < 0.03
    assert found.right > found.base_right + 0.05
    assert found.layers == pytest.approx(np.mean([sum(row.counts) for row in found.rows]))
    assert found.rows[3].prompt == "prompt of q3"


def test_outcomes_on_held_out_examples_decide_no_label():
    """Catches a label, or a candidate, that the outcomes decide on which the router is judged."""
    world, other = World(), World()
    held_out = frozenset(f"prompt of q{number}" for number in range(0, 600, 5))
    for right in other.right.values():
        right[::5] ^= True
    other.rows["correct"] ^= other.rows.prompt.isin(held_out)
    other.rows["rank"] = other.rows.correct.astype(int)
    first, second = (
        expected_labels(one.searched, one, num_windows=8, layer_price=0.01, held_out=held_out) for one in (world, other)
    )
    assert first.candidates == second.candidates
    assert [row.counts for row in first.rows] == [row.counts for row in second.rows]
    labels = np.array([row.counts == SHORT for row in first.rows])
    assert (labels == world.easy)[::5].mean() > 0.97


def test_a_price_makes_labels_shorter():
    """Catches a price of the wrong sign, and one in other units than right answers."""
    world = World()

    def labels(price):
        found = expected_labels(world.searched, world, num_windows=8, layer_price=price)
        return [sum(row.counts) for row in found.rows]

    assert np.mean(labels(0.5)) == NUM_LAYERS - 1, "a layer is worth more than the 20 points that it gains hard ones"
    assert np.mean(labels(0.05)) == pytest.approx(np.mean(labels(0.0)), abs=0.1)


def test_a_candidate_set_holds_what_is_right_most_often(monkeypatch):
    """Catches a candidate set of the programs that were found most often, which says little of other examples."""
    monkeypatch.setattr(menu, "NUM_CANDIDATES", 2)
    monkeypatch.setattr(menu, "SCREENING_EXAMPLES", 60)
    world = World()
    # A search that goes on to shorter programs does not come to every one that would be right.
    missed = world.rows.counts.map(SHORT.__eq__) & (world.rows.index % 9 > 1)
    world.rows.loc[missed, "correct"], world.rows.loc[missed, "rank"] = False, 0
    found = expected_labels(world.searched, world, num_windows=8)
    assert [program.counts for program in found.candidates] == [WHOLE, SHORT]
    assert world.judged == 60 * 3 + 600 * 2


def store(folder, **changed):
    usual = {"revision": "sha256:0", "dtype": "float32", "task": "made", "max_new_tokens": None}
    return VerdictStore(folder, **{**usual, "task_options": TaskOptions(), **changed})


def test_verdicts_are_kept(tmp_path):
    """Catches verdicts of another model, task or question that are taken for this one's, and a file that is lost."""
    examples = World(4).examples
    programs = [LayerProgram.from_counts(counts) for counts in (WHOLE, SHORT)]
    first = store(tmp_path)
    whole, short = programs
    assert first.absent(examples[0], programs) == programs
    first.add([(examples[0], programs), (examples[2], [short])], [[True, False], [True]])
    again = store(tmp_path)
    assert again.absent(examples[0], programs) == [] and again.absent(examples[2], programs) == [whole]
    assert again.read(examples[:1], programs[::-1]).tolist() == [[False, True]]
    again.add([(examples[2], programs)], [[False, False]])
    assert again.read([examples[2], examples[0]], programs).tolist() == [[False, True], [True, False]], (
        "a verdict stays"
    )
    for changed in (
        *({"revision": "sha256:1"}, {"dtype": "bfloat16"}, {"task": "other"}, {"max_new_tokens": 3}),
        {"task_options": TaskOptions(match="contains")},
    ):
        assert store(tmp_path, **changed).absent(examples[0], programs) == programs
    other = Example(id="q0", task="made", question="another question of that name", answer="")
    assert again.absent(other, programs) == programs
    for file in again.folder.glob("*.parquet"):
        file.write_bytes(b"damaged")
    assert store(tmp_path).absent(examples[0], programs) == programs
    (tmp_path / "a-file").touch()
    with pytest.raises(UserError, match="verdicts cannot be kept"):
        store(tmp_path / "a-file")
