"""Programs that begin alike share their beginning: with and without it, the logits are the same."""

from __future__ import annotations

import random

import pytest
import torch
from conftest import NUM_LAYERS, build

from pipeline.actions import ACTION_SPACES
from pipeline.engine import FrozenModel
from pipeline.engine.prefixes import PrefixCache
from pipeline.program import LayerProgram

TOLERANCE = 1e-4


def edited_programs(count: int) -> list[LayerProgram]:
    """Programs as a search proposes them: each an edit of an earlier one."""
    rng = random.Random(0)
    programs = [LayerProgram.identity(NUM_LAYERS)]
    while len(programs) < count:
        edits = ACTION_SPACES["cola"](rng.choice(programs), 2 * NUM_LAYERS)
        programs.append(rng.choice(edits).program)
    return programs


@pytest.mark.parametrize("max_bytes", [1 << 24, 20_000, 3_000])
@pytest.mark.parametrize("name", ["llama", "gemma3", "qwen2-moe"])
def test_shared_equals_run_anew(name, max_bytes):
    """Catches a state kept under the wrong layers or text, padded, overwritten, or dropped half-way."""
    hf_model = build(name)
    plain, sharing = FrozenModel(hf_model), FrozenModel(hf_model, prefix_cache_bytes=max_bytes)
    texts = [[5, 6, 7, 8, 9, 10, 11], [5, 6, 7], [20, 21, 22, 23, 24]]
    programs = edited_programs(24)
    for start in range(0, 24, 4):
        rows = [(text, program) for program in programs[start : start + 4] for text in texts]
        asked = [text for text, _ in rows], [program for _, program in rows]
        for expected, got in zip(plain.logits(*asked), sharing.logits(*asked), strict=True):
            torch.testing.assert_close(got, expected, atol=TOLERANCE, rtol=0)


def test_a_child_runs_only_what_follows_its_edit():
    """Catches sharing that is lost: an edit at layer 2 must run no layer before it again."""
    model = FrozenModel(build("llama"), prefix_cache_bytes=1 << 24)
    calls = []
    for index, layer in enumerate(model.stack.layers):
        layer.register_forward_hook(lambda *_, index=index: calls.append(index))
    identity = LayerProgram.identity(NUM_LAYERS)
    model.logits([[5, 6, 7]], [identity])
    calls.clear()
    model.logits([[5, 6, 7]], [identity.repeat(2)])
    assert calls == [2, 3]
    calls.clear()
    model.logits([[5, 6, 8]], [identity.skip(0)])
    assert calls == [1, 2, 3], "another text shares nothing"
    model.prefixes.clear()
    calls.clear()
    model.logits([[5, 6, 7]], [identity])
    assert calls == [0, 1, 2, 3]


def test_the_bytes_are_bounded_and_the_oldest_go_first():
    """Catches a cache that grows with the number of questions, or drops what is in use."""
    state = torch.zeros(4, 8)
    cache = PrefixCache(max_bytes=3 * state.nbytes)
    for layer in range(3):
        cache.keep([1, 2], [layer], state + layer)
    assert cache.longest([1, 2], [0, 9])[0] == 1
    cache.keep([1, 2], [3], state)
    assert len(cache) == 3
    assert cache.longest([1, 2], [0])[0] == 1, "used a moment ago"
    assert cache.longest([1, 2], [1]) == (0, None), "the least recently used one goes"
    cache.keep([1, 2], [7], torch.zeros(100, 100))
    assert cache.longest([1, 2], [7]) == (0, None), "larger than the whole cache"
