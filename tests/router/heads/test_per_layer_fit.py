"""Fitting: what can be learnt is learnt, the same way each time, and what cannot is said."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from router.heads.per_layer.fit import fit
from router.heads.per_layer.per_layer_request import FitConfig
from router.heads.per_layer.routers import RouterConfig

SIZE = RouterConfig(num_layers=4, hidden_size=10, num_windows=2, width=16)
QUICK = FitConfig(epochs=12, learning_rate=5e-3, seed=1)


@dataclass
class Planted:
    """Rows whose labels are a known function of their features."""

    inputs: np.ndarray[Any, Any]
    counts: np.ndarray[Any, Any]

    def __len__(self):
        return len(self.inputs)

    @property
    def shares(self):
        return np.eye(3)[self.counts]

    def features(self, indices):
        return self.inputs[indices]


def planted(number, seed):
    """Prompts of six kinds; the kind decides every layer's count, and units have very different scales."""
    rng, rule = np.random.default_rng(seed), np.random.default_rng(99)
    table, centers = rule.choice(3, p=[0.2, 0.65, 0.15], size=(6, 4)), rule.normal(size=(6, 4, 1, 10))
    kinds = rng.integers(6, size=number)
    inputs = centers[kinds] + 0.7 * rng.normal(size=(number, 4, 2, 10))
    scales = np.array([1, 50, 1e-2, 1, 1, 300, 1, 1, 1, 1])
    return Planted((inputs * scales + 7 * scales).astype(np.float16), table[kinds].astype(np.int64))


def test_a_planted_rule_is_found():
    """Catches labels of another layer or row, a rare class that is given up, and inputs whose scales drown the rule."""
    fitted = fit(planted(3000, 0), planted(500, 1), SIZE, QUICK)
    assert fitted.best["macro_f1"] > 0.95
    assert fitted.confusion.sum() == 500 * 4
    assert fitted.held_out.shape == (500, 4, 3)


def test_a_layer_whose_labels_are_all_alike_gets_a_constant_router():
    """Catches a router that is asked, or that changes its mind, where nothing was to be learnt."""
    train, held_out = planted(400, 0), planted(100, 1)
    train.counts[:, 2] = 1
    fitted = fit(train, held_out, SIZE, replace(QUICK, epochs=3))
    assert (fitted.held_out[:, 2] == fitted.held_out[:1, 2]).all() and (fitted.held_out[:, 2].argmax(1) == 1).all()
    assert torch.isfinite(fitted.held_out).all()
    unstacked = fitted.routers.unstacked()
    constant = unstacked.constant.tolist()
    assert constant == (train.counts == train.counts[:1]).all(0).tolist() and constant[2] and not all(constant)
    torch.testing.assert_close(
        torch.from_numpy(unstacked.constant_logits[2:3]).log_softmax(-1), fitted.held_out[:1, 2], atol=1e-5, rtol=0
    )


def test_what_is_saved_decides_as_what_was_trained():
    """Catches standardization that is lost, or taken in twice, when the routers are handed out."""
    held_out = planted(200, 1)
    fitted = fit(planted(400, 0), held_out, SIZE, replace(QUICK, epochs=3))
    told = fitted.routers(torch.from_numpy(held_out.features(np.arange(200))).float()).log_softmax(-1)
    torch.testing.assert_close(told, fitted.held_out, atol=1e-3, rtol=1e-3)


def test_the_same_seed_gives_the_same_bits():
    """Catches an order of rows, or a start, that depends on anything but the seed."""
    first, again, other = (
        fit(planted(300, 0), planted(50, 1), SIZE, replace(QUICK, epochs=2, seed=seed)) for seed in (1, 1, 2)
    )
    for one, two, three in zip(*(fitted.routers.parameters() for fitted in (first, again, other))):
        assert torch.equal(one, two) and not torch.equal(one, three)
    timeless = [[{**record, "seconds": 0} for record in fitted.history] for fitted in (first, again)]
    assert json.dumps(timeless[0]) == json.dumps(timeless[1])


def test_training_stops_where_it_gains_nothing_and_keeps_the_best():
    """Catches the last epoch's routers in place of the best one's."""
    rng = np.random.default_rng(0)
    noise = planted(60, 0)
    noise.counts = rng.integers(0, 3, size=noise.counts.shape)
    unlike = planted(60, 3)
    unlike.counts = rng.integers(0, 3, size=unlike.counts.shape)
    fitted = fit(noise, unlike, SIZE, replace(QUICK, epochs=40, patience=3))
    assert len(fitted.history) == fitted.best["epoch"] + 3 < 40
    assert fitted.best["macro_f1"] == max(record["macro_f1"] for record in fitted.history)
    decided = fitted.held_out.argmax(-1).numpy()
    assert (decided == unlike.counts).mean() == pytest.approx(fitted.best["accuracy"])


def test_labels_of_one_class_teach_nothing():
    """Catches a router that is trained to say 'execute', and takes that for success."""
    rows = planted(20, 0)
    rows.counts[:] = 1
    with pytest.raises(ValueError, match="every label is 'execute'"):
        fit(rows, rows, SIZE, QUICK)
    with pytest.raises(ValueError, match="rows"):
        fit(Planted(rows.inputs[:0], rows.counts[:0]), rows, SIZE, QUICK)


@pytest.mark.parametrize(
    ("field", "value", "option"),
    [
        ("epochs", 0, "--epochs"),
        ("batch_size", 0, "--batch-size"),
        ("learning_rate", 0.0, "--lr"),
        ("beta", 1.0, "--beta"),
        ("gamma", -1.0, "--gamma"),
    ],
)
def test_a_setting_out_of_range_is_refused(field, value, option):
    """Catches a mistake that would only show as bad routers."""
    with pytest.raises(ValueError, match=option):
        FitConfig(**{field: value})
