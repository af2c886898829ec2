"""Routers and probes that an earlier release saved: they load, and decide as they did.

The folders under ``tests/router/golden`` were written, and their outputs computed, by the commit that each
``outputs.json`` X
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import NUM_LAYERS, save_tiny_model

from pipeline.engine import FrozenModel
from router import Probe, RoutedCausalLM
from router.heads.early_exit.early_exit_head import EarlyExitHead
from router.heads.per_layer.per_layer_head import PerLayerHead
from router.routed.checkpoint import Router

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
HIDDEN_SIZE = 32
#: The inputs of the networks: of per-layer routers ``[rows, L, windows, D]``, of an early exit its states
#: ``[rows, S, T, D]`` and the mask of their tokens.
INPUTS = {
    "per_layer": lambda: (waves(3, NUM_LAYERS, 4, HIDDEN_SIZE),),
    "early_exit": lambda: (waves(3, 3, 5, HIDDEN_SIZE), torch.ones(3, 5, dtype=torch.bool)),
}
KINDS = {"per_layer": PerLayerHead, "early_exit": EarlyExitHead}


def waves(*shape: int) -> torch.Tensor:
    """Numbers that need no file and no generator of random numbers."""
    return torch.from_numpy(np.sin(np.arange(np.prod(shape)) * 0.7).reshape(shape).astype(np.float32))


def outputs(name: str) -> dict[str, Any]:
    """The outputs of the code that wrote a folder."""
    return json.loads((GOLDEN / name / "outputs.json").read_text())


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return FrozenModel.load(str(save_tiny_model(tmp_path_factory.mktemp("tiny"))), device="cpu")


@pytest.mark.parametrize("name", KINDS)
def test_a_router_has_its_weights_and_notes(name):
    """Catches a name or a key of an earlier release that is not known any more, and weights that are transposed."""
    router = Router.load(GOLDEN / name)
    assert type(router.head) is KINDS[name]
    assert router.base.name == "tiny" and router.trained_on == {3, -5} and set(router.made) == {"labels"}
    assert router.add_special_tokens is (name == "early_exit") and len(router.held_out) == 20
    with torch.inference_mode():
        logits = router.head.network(*INPUTS[name]())
    np.testing.assert_allclose(logits.numpy(), np.array(outputs(name)["logits"]), atol=1e-4)


@pytest.mark.parametrize("name", KINDS)
def test_a_router_decides_as_it_did(model, name):
    """Catches a budget that is planned otherwise, or a prompt that is read otherwise, than when the router was made."""
    lm, before = RoutedCausalLM(model.hf_model, model.tokenizer, Router.load(GOLDEN / name)), outputs(name)
    for decided in before["decisions"]:
        programs = [str(program) for program in lm.route(before["prompts"], **decided["options"])]
        assert programs == decided["programs"], decided["options"]
    assert len({program for decided in before["decisions"] for program in decided["programs"]}) > 2, "too easy"


def test_a_router_without_a_kind_is_per_layer(tmp_path):
    """Catches the first routers of all, whose configuration named no kind, that are refused."""
    config = json.loads((GOLDEN / "per_layer" / "config.json").read_text())
    del config["head"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((GOLDEN / "per_layer" / "model.safetensors").read_bytes())
    assert type(Router.load(tmp_path).head) is PerLayerHead


def test_a_router_is_saved_as_it_was(tmp_path):
    """Catches a key of the configuration that is renamed, dropped or new."""
    for name in KINDS:
        Router.load(GOLDEN / name).save(tmp_path / name)
        before, now = (json.loads((folder / name / "config.json").read_text()) for folder in (GOLDEN, tmp_path))
        assert now == {**before, "head": now["head"]}


def test_a_probe_labels_as_it_did():
    """Catches a key of the probe's configuration, a weight or a threshold that is read otherwise."""
    probe = Probe.from_pretrained(GOLDEN / "probe")
    assert (probe.labels, probe.threshold, probe.weights_fingerprint) == (("no", "yes"), 0.4, "sha256:0")
    for states, before in zip(waves(4, NUM_LAYERS + 1, 5, HIDDEN_SIZE), outputs("probe")["labels"], strict=True):
        now = probe.label(states)
        assert now.label == before["label"] and now.scores == pytest.approx(before["scores"], abs=1e-4)
