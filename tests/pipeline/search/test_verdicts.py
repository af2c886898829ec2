"""Pareto sets: no program of one is beaten, every other one is; and what a run keeps of a search."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.distributed.kept_rows import rows_to_keep
from pipeline.model_source import ModelSource
from pipeline.search.config import SearchConfig
from pipeline.search.group_search import search_group
from pipeline.search.tree import SearchTree
from pipeline.search.verdicts import pareto_set
from pipeline.shards.run_config import RunConfig
from pipeline.tasks import Example, Outcome, PreparedExample

NUM_LAYERS = 6


@given(st.lists(st.tuples(st.integers(1, 6), st.tuples(st.booleans(), st.integers(-3, 3)))))
def test_the_set_is_what_nothing_beats(items):
    """Catches a set that misses a program, holds one that another beats, or holds two that are alike."""
    front = pareto_set(items, length=lambda item: item[0], worth=lambda item: item[1])

    def beaten(item):
        return any(o[0] <= item[0] and o[1] >= item[1] and o != item for o in items)

    assert front == sorted({item for item in items if not beaten(item)})


def verdict_of(program):
    """A made-up model: right without layers 2 and 3 but with three others, and the surer the longer."""
    right = len(program) > 2 and not {2, 3} & set(program.layers)
    return right, float(len(program)) if len(program) > 1 else math.nan


def searched(keep, **settings):
    """A question's search and the rows that a run keeps of it."""
    config = RunConfig(
        model=ModelSource(name="none", location="none", revision="none"),
        task="none",
        data_sha256="",
        search=SearchConfig(simulations=30, **settings),
        keep=keep,
        device="cpu",
        dtype="float32",
    )

    def score(examples, programs, *, need_response):
        verdicts = map(verdict_of, programs)
        return [
            Outcome(
                correct=right,
                reason="ended" if right else "unequal",
                margin=margin,
                response="",
                layer_executions=1,
            )
            for right, margin in verdicts
        ]

    question = PreparedExample(
        example=Example(id="q", task="none", question="", answer=""), prompt="", prompt_ids=[], answers=[]
    )
    [item] = search_group([question], num_layers=NUM_LAYERS, config=config, score=score)
    return item, rows_to_keep(item, config)


def test_all_keeps_every_program_that_was_tried():
    """Catches verdicts that are lost on the way to a shard, wrong ones above all."""
    item, rows = searched("all")
    tree = item.tree
    assert len(rows) == len(tree.verdicts) == 31
    assert {tuple(row["program"]): row["correct"] for row in rows} == {
        verdict.program.layers: verdict.correct for verdict in tree.verdicts.values()
    }
    ranks = [row["rank"] for row in rows if row["correct"]]
    assert ranks == list(range(1, len(ranks) + 1)) and not any(row["rank"] for row in rows if not row["correct"])
    assert sum(row["is_best"] for row in rows) == 1


def test_pareto_keeps_the_set_and_the_identity():
    """Catches a set of right programs alone, and one beyond the budget."""
    item, rows = searched("pareto", budget=0.9)
    tree = item.tree
    kept = {tuple(row["program"]) for row in rows}
    assert kept == {v.program.layers for v in tree.pareto()} | {tuple(range(NUM_LAYERS))}
    assert all(v.program.within(0.9) for v in tree.pareto())
    assert {v.correct for v in tree.pareto()} == {False, True}
    lengths = [len(v.program) for v in tree.pareto()]
    assert lengths == sorted(set(lengths))


def test_a_number_keeps_so_many_right_ones():
    """Catches a keep that counts wrong programs, and one that drops the identity's row."""
    _, rows = searched(2)
    assert [row["rank"] for row in rows] == [1, 2, 0]
    assert tuple(rows[-1]["program"]) == tuple(range(NUM_LAYERS)) and not rows[-1]["correct"]


@pytest.mark.parametrize("budget", [0.5, 1.0, 2.0])
def test_improvements_say_when_the_best_program_became_how_short(budget):
    """Catches an order that is not that of the tries, a step that is none, and programs beyond the budget."""
    item, rows = searched("all", budget=budget)
    steps = item.improvements()
    tried = list(item.tree.verdicts.values())
    for number in range(len(tried)):
        right = [len(v.program) for v in tried[: number + 1] if v.correct and v.program.within(budget)]
        assert min(right, default=None) == next((length for at, length in reversed(steps) if at <= number), None)
    assert [length for _, length in steps] == sorted({length for _, length in steps}, reverse=True)
    assert steps[-1][1] == next(row["length"] for row in rows if row["is_best"])


@pytest.mark.parametrize("keep", [0, -1, "some"])
def test_what_cannot_be_kept_is_refused(keep):
    """Catches a run that keeps nothing, and a word that is taken for a number."""
    with pytest.raises(ValueError, match="keep must be at least 1, or one of pareto, all"):
        searched(keep)


def test_a_tree_without_verdicts_has_no_set():
    """Catches an error where a search was stopped before its first verdict."""
    assert SearchTree(num_layers=2, config=SearchConfig(), seed=0).pareto() == []
