"""Features: what enters a layer, kept on disk once and for all."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from architectures import NUM_LAYERS, build

from pipeline.engine import FrozenModel, materialize
from pipeline.errors import UserError
from pipeline.program import LayerProgram
from router.features.window_features import FeatureStore, entering
from router.labels.labelled import Labelled

SHAPE = (3, 2, 4)


def row(name, counts=(1, 0, 1)):
    return Labelled(example_id=name, task="t", prompt=f"prompt {name}", counts=counts)


def store(root, **others):
    settings = {"revision": "sha256:0", "dtype": "float32", "num_windows": 2, "add_special_tokens": True}
    return FeatureStore(root, **{**settings, **others})


def made(number, seed=0):
    return np.random.default_rng(seed).normal(size=(number, *SHAPE)).astype(np.float32)


@pytest.mark.parametrize("counts", [(1, 1, 1, 1), (0, 1, 2, 0), (2, 0, 0, 1), (0, 0, 2, 1), (1, 2, 2, 1)])
@torch.inference_mode()
def test_a_router_reads_what_enters_its_layer(counts):
    """Catches features of the identity program, or of the layer before, where the label skips or repeats."""
    model, ids = build("llama"), [5, 9, 7, 30]
    program = LayerProgram.from_counts(counts)
    [states] = FrozenModel(model).hidden_states([ids], [program])
    found = entering(counts, states.numpy())
    for layer in range(NUM_LAYERS):
        before = [run for run in program if run < layer]
        expected = model.model.embed_tokens(torch.tensor([ids]))
        if before:
            stock = materialize(model, LayerProgram(before, NUM_LAYERS))
            stock.model.norm = torch.nn.Identity()
            expected = stock.model(torch.tensor([ids])).last_hidden_state
        np.testing.assert_allclose(found[layer], expected[0].numpy(), atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_states_of_many_programs_come_from_one_pass():
    """Catches states of rows that share a beginning, or a text, and are handed to the wrong one."""
    model = FrozenModel(build("llama"), cache_bytes=1 << 20)
    alone = FrozenModel(build("llama"))
    texts = [[5, 9, 7, 30], [5, 9, 7, 30], [8, 8], [5, 9, 7, 30]]
    programs = [LayerProgram(layers, NUM_LAYERS) for layers in ((0, 1, 2, 3), (0, 2), (3, 1, 1), (0, 1, 3, 3))]
    for _ in range(2):  # the second time from what was kept
        for text, program, states in zip(texts, programs, model.hidden_states(texts, programs)):
            assert states.shape == (len(program) + 1, len(text), 32)
            torch.testing.assert_close(states, alone.hidden_states([text], [program])[0], atol=1e-4, rtol=1e-4)
        model.logits(texts, programs)


def test_features_are_kept_for_the_next_training(tmp_path):
    """Catches features under a key that forgets the program, the prompt, the model or how it was read."""
    first, features = store(tmp_path), made(2)
    first.add([row("a"), row("b")], features)
    again = store(tmp_path)
    assert row("a") in again and row("b") in again
    np.testing.assert_allclose(again.read([row("b"), row("a"), row("b")]), features[[1, 0, 1]], atol=1e-2)
    assert row("a", (1, 1, 1)) not in again and row("c") not in again
    for other in ({"revision": "sha256:1"}, {"dtype": "bfloat16"}, {"num_windows": 3}, {"add_special_tokens": False}):
        assert row("a") not in store(tmp_path, **other)


def test_what_a_crash_left_is_made_again(tmp_path):
    """Catches a file that was half written and counts as done."""
    before = store(tmp_path)
    before.add([row("a")], made(1))
    before.add([row("b")], made(1, seed=1))
    [one, _] = sorted(before.folder.glob("*.safetensors"))
    content = one.read_bytes()
    one.write_bytes(content[: len(content) // 2])
    (before.folder / "left.part").write_bytes(content[:20])
    after = store(tmp_path)
    absent = [name for name in "ab" if row(name) not in after]
    assert len(absent) == 1
    after.add([row(absent[0])], made(1))
    assert row("a") in store(tmp_path) and row("b") in store(tmp_path)


def test_features_that_are_no_numbers_are_refused_by_name(tmp_path):
    """Catches routers that learn from an overflow; what is merely large is kept as large as it can be."""
    features = made(2)
    features[1, 0, 0, 0] = np.nan
    with pytest.raises(UserError, match="not finite, first those of example 'b'"):
        store(tmp_path).add([row("a"), row("b")], features)
    features[1, 0, 0, 0] = 1e6
    kept = store(tmp_path)
    kept.add([row("a"), row("b")], features)
    assert np.isfinite(kept.read([row("b")])).all()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    """Catches a traceback for a typing mistake in --features."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="features cannot be kept"):
        store(tmp_path / "file")
