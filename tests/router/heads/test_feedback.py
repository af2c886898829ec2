"""Outcomes after deployment: they are read, change the chances of the program that ran, and pay where it explores."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.program import LayerProgram
from router.heads.selector.chances import fit_chances
from router.heads.selector.feedback import Feedback, append_feedback, read_feedback
from router.heads.selector.fit import SeenOutcomes, fit_selector
from router.menu.ridge import principal_components

MENU = [LayerProgram.parse(text, 6) for text in ("0-5", "0-3,5", "0-4,4-5")]
#: Weights of three inputs, and a constant, by which each program's chance follows from an example.
TRUTH = np.array([[0.0, 0.3, -0.3], [0.0, -0.2, 0.2], [0.05, 0.0, 0.0], [0.5, 0.45, 0.45]])


def examples(number, seed):
    """Inputs ``[N, 3]``, chances and outcomes ``[N, 3]``."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(number, 3))
    chances = np.clip(np.column_stack([inputs, np.ones(number)]) @ TRUTH, 0.02, 0.98)
    return inputs, chances, (rng.random(chances.shape) < chances).astype(float)


def beliefs_of(inputs, outcomes):
    return fit_chances(principal_components(inputs), outcomes, num_landmarks=50).beliefs


def test_beliefs_predict_others_as_left_out_examples():
    """Catches components, or similarities, that are computed otherwise in use than in the fit."""
    inputs, _, outcomes = examples(400, seed=0)
    more, chances, _ = examples(400, seed=1)
    fitted = fit_chances(principal_components(inputs), outcomes, num_landmarks=50)
    _, of_inputs, _ = examples(400, seed=0)
    off_left_out = np.abs(fitted.left_out - of_inputs).mean()
    assert np.abs(fitted.beliefs.chances(more) - chances).mean() == pytest.approx(off_left_out, rel=0.15)
    assert off_left_out < 0.5 * np.abs(outcomes.mean(0) - of_inputs).mean()


def test_outcomes_count_as_further_examples_of_the_linear_part():
    """Catches an update that counts an outcome twice, forgets what the matrix said, or changes another program."""
    inputs, _, outcomes = examples(60, seed=0)
    beliefs = beliefs_of(inputs, outcomes)
    more, _, seen = examples(40, seed=1)
    updated = beliefs.updated(more, np.full(40, 2), seen[:, 2])
    np.testing.assert_allclose(updated.weights[:, :2], beliefs.weights[:, :2])
    # The same by least squares: what the matrix said are rows, by the root of its precision.
    both, root = beliefs.components(more), np.linalg.cholesky(beliefs.precision[0]).T
    without = beliefs.chances(more)[:, 2] - both @ beliefs.weights[:, 2]
    rows = np.concatenate([both, root])
    targets = np.concatenate([seen[:, 2] - without, root @ beliefs.weights[:, 2]])
    np.testing.assert_allclose(updated.weights[:, 2], np.linalg.lstsq(rows, targets, rcond=None)[0], atol=1e-8)
    halves = beliefs.updated(more[:15], np.full(15, 2), seen[:15, 2]).updated(more[15:], np.full(25, 2), seen[15:, 2])
    np.testing.assert_allclose(halves.weights, updated.weights, atol=1e-9)
    assert np.trace(updated.covariance()[2]) < np.trace(updated.covariance()[1])


def test_a_selector_learns_from_outcomes_of_its_use():
    """Catches outcomes that reach another program than the one that ran."""
    inputs, _, right = examples(40, seed=0)
    programs = [MENU[0], LayerProgram.parse("1-5", 6), *MENU[1:]]
    right = np.column_stack([right[:, :1], right[:, :1], right[:, 1:]])
    more, chances, outcomes = examples(3000, seed=1)
    places = np.random.default_rng(2).choice([0, 2, 3], size=3000)
    of_menu = np.array([0, -1, 1, 2])[places]
    seen = SeenOutcomes(inputs={1: more}, places=places, outcomes=outcomes[np.arange(3000), of_menu])
    before = fit_selector(inputs, right, programs, at=1, layer_price=0.0)
    after = fit_selector(inputs, right, programs, at=1, layer_price=0.0, seen=seen)
    asked, chances, _ = examples(500, seed=3)

    def off(fitted):
        return np.abs(fitted.beliefs.chances(asked) - chances).mean()

    assert off(after) < 0.5 * off(before) and after.places.tolist() == [0, 2, 3]


def test_exploring_has_less_regret_than_the_best_static_program():
    """Catches a bandit that never learns, or that tries programs at random for ever: the regret is counted on a stream.

    All begin with 30 examples on which every program ran; then each sees the outcome of the program that it ran alone.
    """
    inputs, _, outcomes = examples(30, seed=0)
    beliefs = beliefs_of(inputs, outcomes)
    static = outcomes.mean(0).argmax()
    rng = np.random.default_rng(1)
    regret = {"static": 0.0, "greedy": 0.0, "thompson": 0.0}
    learnt = {"greedy": beliefs, "thompson": beliefs}
    for step in range(60):
        batch, chances, outcomes = examples(50, seed=10 + step)
        chosen = {"static": np.full(50, static)}
        for name, known in learnt.items():
            components = known.components(batch)
            spread = np.einsum("bi,pij,bj->bp", components, known.covariance(), components)
            drawn = rng.normal(size=chances.shape) * np.sqrt(spread * known.noise) * (name == "thompson")
            chosen[name] = (known.chances(batch) + drawn).argmax(1)
            learnt[name] = known.updated(batch, chosen[name], outcomes[np.arange(50), chosen[name]])
        for name, places in chosen.items():
            regret[name] += float((chances.max(1) - chances[np.arange(50), places]).sum())
    assert regret["thompson"] < 0.3 * regret["static"], regret


def test_outcomes_are_read_as_they_were_written(tmp_path):
    """Catches a score that becomes right or wrong, and texts that lose characters, or are cut at some."""
    written = [
        Feedback(prompt="7 + 5 =\n", program=MENU[0], score=1.0),
        Feedback(prompt="größer?", program=MENU[1], score=0.0),
        Feedback(prompt="x", program=MENU[2], score=0.25),
        Feedback(prompt="two\u2028lines\x85of one\rprompt", program=MENU[2], score=1.0),
    ]
    file = tmp_path / "outcomes.jsonl"
    append_feedback(file, written[:1])
    append_feedback(file, written[1:])
    assert read_feedback(file, num_layers=6) == written
    assert '"right": true' in file.read_text()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: no JSON"),
        ("[]", "line 2: 'prompt' must be a text"),
        ('{"prompt": "a", "program": "0-5"}', "line 2: give either 'right'"),
        ('{"prompt": "a", "program": "0-5", "right": true, "score": 1}', "line 2: give either 'right'"),
        ('{"prompt": "a", "program": "0-5", "score": 3}', "line 2: 'score' must be a number from 0 to 1, found 3"),
        ('{"prompt": "a", "program": "0-5", "right": 0.5}', "line 2: 'right' must be true or false, found 0.5"),
        ('{"prompt": "\\ud800", "program": "0-5", "right": true}', "line 2: 'prompt' must be a text"),
        ('{"prompt": "a", "program": "0-5", "right": "yes"}', "line 2: 'right' must be"),
        ('{"prompt": "a", "program": "0-9", "right": true}', "line 2: 'program': "),
        ('{"prompt": "a", "right": true}', "line 2: 'program': "),
    ],
)
def test_a_line_that_is_no_outcome_is_named(tmp_path, line, message):
    """Catches a traceback, or a line that is silently left out."""
    file = tmp_path / "outcomes.jsonl"
    file.write_text('{"prompt": "a", "program": "0-5", "right": true}\n' + line + "\n")
    with pytest.raises(UserError, match=message):
        read_feedback(file, num_layers=6)
    with pytest.raises(UserError, match="cannot be read"):
        read_feedback(tmp_path / "nowhere", num_layers=6)
