"""What questions teach each other: the prior, and the candidates that goes by it. No model, no torch."""

from __future__ import annotations

import random

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.prior import Evaluation, Prior, features, fit_prior
from pipeline.program import LayerProgram
from pipeline.search.action_spaces import ACTION_SPACES
from pipeline.search.candidate_set import CandidateSet
from pipeline.search.config import SearchConfig
from pipeline.search.program_graph import ROOT_INDEX
from pipeline.search.tree import SearchTree, stable_seed

NUM_LAYERS = 12
#: On every question these may go without harm, and one more that is the question's own.
SPARE = {3, 4, 8, 9}


def planted(program: LayerProgram, own: int) -> tuple[bool, float]:
    missing = len(set(range(NUM_LAYERS)) - set(program.layers) - SPARE - {own})
    return missing == 0, 1.0 - missing


def search(own: int, *, prior: Prior | None = None, leaves: int = 1, **settings) -> SearchTree:
    config = SearchConfig(**{"simulations": 40, **settings})
    tree = SearchTree(num_layers=NUM_LAYERS, config=config, seed=stable_seed(0, f"q{own}"), prior=prior)
    while True:
        asked = [tree.propose()]
        while len(asked) < leaves and tree.verdicts and asked[-1] is not None:
            asked.append(tree.propose())
        asked = [program for program in asked if program is not None]
        if not asked:
            return tree
        for program in asked:
            correct, margin = planted(program, own)
            tree.update(program, correct=correct, margin=margin)


def lessons(*questions: int) -> list[Evaluation]:
    return [
        Evaluation(example_id=f"q{own}", program=verdict.program, correct=verdict.correct, margin=verdict.margin)
        for own in questions
        for verdict in search(own).verdicts.values()
    ]


@pytest.fixture(scope="module")
def prior() -> Prior:
    return fit_prior(lessons(0, 1, 2, 5, 6, 7), compare_margins=True)  # type: ignore[return-value]


def random_program(rng: random.Random, space: str = "drllm") -> LayerProgram:
    program = LayerProgram.identity(NUM_LAYERS)
    for _ in range(rng.randrange(5)):
        program = rng.choice(ACTION_SPACES[space].edits(program, 2 * NUM_LAYERS)).program
    return program


def test_features_say_which_layers_are_skipped_repeated_and_skipped_in_pairs():
    """Catches a column in the wrong place: weights learnt for one layer that are applied to another."""
    [row] = features([LayerProgram((0, 3, 3, 3, 3, 0), 4)])
    assert row.tolist() == [1, 0, 1, 1, 0, 1, 0, 0, 2, 0, 1, 0]


def test_other_questions_make_a_search_faster(prior):
    """Catches a prior that is not used, or that teaches the wrong layers: equal evaluations must find more."""
    for own in (10, 11):
        taught, unaided = search(own, prior=prior, simulations=8), search(own, simulations=8)
        assert len(taught.best().program) < len(unaided.best().program)
    assert len(search(11, prior=prior).best().program) == NUM_LAYERS - len(SPARE) - 1


def test_right_and_wrong_alone_teach_too():
    """Catches a task whose margins cannot be compared and whose prior learns nothing, or fails."""
    prior = fit_prior(lessons(0, 1, 2, 5, 6, 7), compare_margins=False)
    assert prior.margin_scale is None
    taught, unaided = search(11, prior=prior, simulations=12), search(11, simulations=12)
    assert len(taught.best().program) < len(unaided.best().program)


@pytest.mark.parametrize("space", ACTION_SPACES)
@pytest.mark.parametrize("leaves", [1, 4])
def test_a_taught_search_keeps_the_rules_of_the_tree(prior, space, leaves):
    """Catches a program that is run twice, is over the budget, or is no edit of its parent; and chance."""
    tree = search(10, prior=prior, action_space=space, budget=0.9, leaves=leaves)
    assert tree.simulations == 40 and len(tree.verdicts) == 41
    assert all(program.within(0.9) for program in tree.verdicts if not program.is_identity)
    for index, node in enumerate(tree.nodes[1:], start=1):
        edits = ACTION_SPACES[space].edits(tree.nodes[node.parent].program, 2 * NUM_LAYERS)
        assert node.program in [edit.program for edit in edits]
        assert index in tree.nodes[node.parent].children
    assert tree.nodes[ROOT_INDEX].visits == 41
    assert search(10, prior=prior, action_space=space, budget=0.9, leaves=leaves).to_json() == tree.to_json()


@pytest.mark.parametrize("budget", [0.9, 0.8, 0.6])
def test_a_budget_that_no_single_edit_reaches_is_reached(prior, budget):
    """Catches a search that ends at once because everything next to the identity is too long to be an answer."""
    tree = search(11, prior=prior, budget=budget)
    tried = [program for program in tree.verdicts if not program.is_identity]
    assert len(tried) == 40 and all(program.within(budget) for program in tried)
    assert len(tree.best().program) == NUM_LAYERS - len(SPARE) - 1


def test_a_taught_search_ends_where_nothing_is_left_to_gain(prior):
    """Catches a search that goes round for ever once no shorter program is within reach."""
    tree = SearchTree(num_layers=2, config=SearchConfig(), seed=0, prior=fit_prior(
        [Evaluation(example_id="q", program=LayerProgram(layers, 2), correct=True, margin=1.0)
         for layers in ((0, 1), (0,), (1,))], compare_margins=True))  # fmt: skip
    while (program := tree.propose()) is not None:
        tree.update(program, correct=True, margin=1.0)
    assert tree.done and len(tree.best().program) == 1 and len(tree.verdicts) <= 3


@pytest.mark.parametrize("at_once", [1, 3, 7])
def test_what_is_expected_is_the_posterior_of_the_linear_model(prior, at_once):
    """Catches an update that drifts, or that depends on how many verdicts were waited for at a time."""
    rng = random.Random(at_once)
    tried = list(dict.fromkeys(random_program(rng) for _ in range(21)))
    others = ACTION_SPACES["drllm"].edits(LayerProgram.identity(NUM_LAYERS), 2 * NUM_LAYERS)
    others = [edit for edit in others if edit.program not in tried]
    candidates = CandidateSet(prior, longest=NUM_LAYERS)
    candidates.extend(ROOT_INDEX, others[:10])
    for start in range(0, len(tried), at_once):
        batch = tried[start : start + at_once]
        for program in batch:
            candidates.expect(program)
        for program in reversed(batch):
            correct, margin = planted(program, 1)
            candidates.update(program, correct=correct, margin=margin)
    candidates.extend(ROOT_INDEX, others)  # edits that come later use all results from before

    rows, values = features(tried), np.array([prior.value(*planted(program, 1)) for program in tried])
    precision = np.linalg.inv(prior.covariance)
    covariance = np.linalg.inv(precision + rows.T @ rows / prior.noise)
    mean = covariance @ (precision @ prior.mean + rows.T @ values / prior.noise)
    asked = features([edit.program for edit in others])
    assert [candidate.edit for candidate in candidates._candidates] == others
    np.testing.assert_allclose(candidates._value, asked @ mean, atol=1e-7)
    np.testing.assert_allclose(candidates._variance, ((asked @ covariance) * asked).sum(axis=1), atol=1e-7)


def test_caution_prefers_what_changes_less(prior):
    """Catches caution that is lost on the way, that counts runs instead of changes, or that is there unasked."""
    near, far = LayerProgram.from_counts([1] * 11 + [0]), LayerProgram.from_counts([1, 1, 1, 0, 0] + [1] * 7)
    edits = ACTION_SPACES["drllm"].edits(LayerProgram.identity(NUM_LAYERS), NUM_LAYERS)
    edits = [edit for edit in edits if edit.program in (near, far)]

    def chosen(caution: float) -> LayerProgram:
        candidates = CandidateSet(prior, longest=NUM_LAYERS, depth_penalty=caution)
        candidates.extend(ROOT_INDEX, edits)
        return candidates.best(None).edit.program

    # The lessons say that 3 and 4 may go, and that 11 may not.
    assert (chosen(0.0), chosen(20.0)) == (far, near)


def test_a_prior_is_the_same_from_the_same_lessons_and_from_its_file(prior, tmp_path):
    """Catches a fit or a file with chance in it: resumed runs would search otherwise than undisturbed ones."""
    again = fit_prior(lessons(0, 1, 2, 5, 6, 7), compare_margins=True)
    assert again.to_bytes() == prior.to_bytes() and again.fingerprint == prior.fingerprint
    (tmp_path / "prior.safetensors").write_bytes(prior.to_bytes())
    read = Prior.read(tmp_path / "prior.safetensors")
    assert read.to_bytes() == prior.to_bytes() and read.num_examples == 6


def test_an_answer_beyond_all_measure_does_not_break_the_fit():
    """Catches logits that overflowed on one program and with it the weights of every question."""
    worst = Evaluation(example_id="q0", program=LayerProgram((0,), NUM_LAYERS), correct=False, margin=-np.inf)
    prior = fit_prior([*lessons(0, 1), worst], compare_margins=True)
    assert np.isfinite(prior.mean).all() and prior.value(False, -np.inf) == -1


def test_nothing_teaches_nothing():
    """Catches a fit that fails where every calibration question was set aside."""
    assert fit_prior([], compare_margins=True) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-8],
        lambda content: content[: len(content) // 2],
        lambda content: content.replace(b"drllm-pipeline prior 1", b"drllm-pipeline prior 9"),
        lambda content: content.replace(b'num_layers\\": 12', b'num_layers\\": 13'),
        lambda content: content.replace(b"mean", b"neam"),
        lambda content: b"\x80\x04K\x01.",
    ],
)
def test_a_file_that_is_no_prior_is_named(prior, tmp_path, damage):
    """Catches a traceback from inside a library, or a pickle that is opened."""
    file = tmp_path / "prior.safetensors"
    file.write_bytes(damage(prior.to_bytes()))
    with pytest.raises(UserError, match=r"prior\.safetensors holds no prior"):
        Prior.read(file)


def test_a_prior_of_another_model_is_refused(prior):
    """Catches weights of 12 layers that are read as those of 13."""
    with pytest.raises(ValueError, match="12 layers, the model has 13"):
        SearchTree(num_layers=13, config=SearchConfig(), seed=0, prior=prior)
