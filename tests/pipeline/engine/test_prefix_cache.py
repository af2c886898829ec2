"""The prefix cache: programs that share a prefix run it once, and with and without it the logits are the same."""

from __future__ import annotations

import functools
import gc
import random
import weakref
from itertools import product

import pytest
import torch
from architectures import ARCHITECTURE_PARAMETERS, ARCHITECTURES, NUM_LAYERS, build

from pipeline.engine import FrozenModel, materialize
from pipeline.engine.prefix_cache import PrefixCache
from pipeline.program import LayerProgram
from pipeline.search.actions import cola

TOLERANCE = 1e-4


def edited_programs(count: int, seed: int = 0) -> list[LayerProgram]:
    """Programs as a search proposes them: each an edit of an earlier one."""
    rng = random.Random(seed)
    programs = [LayerProgram.identity(NUM_LAYERS)]
    while len(programs) < count:
        edits = cola(rng.choice(programs), 2 * NUM_LAYERS)
        programs.append(rng.choice(edits).program)
    return programs


def steps_of_a_search(texts: list[list[int]], seed: int = 0) -> list[tuple[list[list[int]], list[LayerProgram]]]:
    """Rows as parallel trees ask for them: several programs of each text a step, some of them equal."""
    programs = edited_programs(24, seed)
    return [
        ([text for text in texts for _ in range(4)], [*programs[start : start + 4]] * len(texts))
        for start in range(0, 24, 4)
    ]


TEXTS = [[5, 6, 7, 8, 9, 10, 11], [5, 6, 7], [20, 21, 22, 23, 24]]
# Everything fits, some of it, one state at most, nothing.
CACHES = [20_000, *(pytest.param(size, marks=pytest.mark.exhaustive) for size in (1 << 24, 1_000, 0))]


#: `make check` decodes with two families: full attention, and a mix of it with windows.
DECODING_PARAMETERS = [
    name if name in ("llama", "gemma3") else pytest.param(name, marks=pytest.mark.exhaustive) for name in ARCHITECTURES
]


@functools.cache
def logits_alone(name: str) -> list[list[torch.Tensor]]:
    """For each step, every row's logits ``[tokens, vocab]`` from a call of its own: the same whatever a cache holds."""
    plain = FrozenModel(build(name))
    return [
        [plain.logits([text], [program])[0] for text, program in zip(texts, programs)]
        for texts, programs in steps_of_a_search(TEXTS)
    ]


@functools.cache
def tokens_alone(name: str) -> list[list[list[int]]]:
    """For each step, what every row's decoding writes in a call of its own."""
    plain = FrozenModel(build(name))
    return [
        [plain.generate([text], [program], max_new_tokens=5)[0] for text, program in zip(texts, programs)]
        for texts, programs in steps_of_a_search(TEXTS, seed=1)[:3]
    ]


@pytest.mark.parametrize("max_bytes", CACHES)
@pytest.mark.parametrize("name", ARCHITECTURE_PARAMETERS)
def test_shared_equals_run_anew(name, max_bytes):
    """Catches a state kept under the wrong layers or text, overwritten, cut short, or dropped half-way."""
    sharing = FrozenModel(build(name), cache_bytes=max_bytes)
    for number, (texts, programs) in enumerate(steps_of_a_search(TEXTS)):
        # The scored positions differ from step to step: a state that was cut to them must not be kept.
        starts = [number % len(text) for text in texts]
        for alone, start, shared in zip(
            logits_alone(name)[number], starts, sharing.logits(texts, programs, starts=starts), strict=True
        ):
            torch.testing.assert_close(shared, alone[start:], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("max_bytes", CACHES)
@pytest.mark.parametrize("name", DECODING_PARAMETERS)
def test_decoding_from_shared_prefixes_equals_decoding_alone(name, max_bytes):
    """Catches keys and values made again from the wrong state, or put into another row's or run's slot."""
    sharing = FrozenModel(build(name), cache_bytes=max_bytes)
    for number, (texts, programs) in enumerate(steps_of_a_search(TEXTS, seed=1)[:3]):
        # A reading of the text with an answer behind it leaves states that its decoding starts from.
        sharing.logits([[*text, 30, 31] for text in texts], programs)
        assert sharing.generate(texts, programs, max_new_tokens=5) == tokens_alone(name)[number]


@pytest.mark.parametrize("name", DECODING_PARAMETERS)
def test_a_text_that_is_known_is_not_written_again(name):
    """Catches keys and values that are missing behind a known beginning, and passes that write it once more."""
    hf_model = build(name)
    texts, programs = steps_of_a_search(TEXTS, seed=2)[1]
    plain = FrozenModel(hf_model).decode(texts, programs, max_new_tokens=9)
    rng = random.Random(0)
    for cache_bytes in (0, 1 << 24):
        engine = FrozenModel(hf_model, cache_bytes=cache_bytes)
        for known in [[rng.randrange(10) for _ in texts] for _ in range(3)]:
            begun = [row.tokens[:count] for row, count in zip(plain, known)]
            decoded = engine.decode(texts, programs, max_new_tokens=9, begun=begun)
            assert [row.tokens for row in decoded] == [row.tokens for row in plain]
            assert [row.passes for row in decoded] == [row.passes for row in plain]
    begun = [row.tokens[:-1] for row in plain]
    readings = [[*text, *tokens[:-1]] for text, tokens in zip(texts, begun)]
    engine.logits(readings, programs)
    # Where one reading begins another, the states of either may stand for it, and those may be of another program.
    rows = [row for row, one in enumerate(readings) if sum(other[: len(one)] == one for other in readings) == 1]
    texts, programs, begun = [texts[row] for row in rows], [programs[row] for row in rows], [begun[row] for row in rows]
    before = engine.layers_run
    engine.decode(texts, programs, max_new_tokens=9, begun=begun)
    if engine.stack.rope_switch is None:
        # The last layer of the reading, which is never kept, and one pass for the token that is missing.
        assert 0 < engine.layers_run - before <= len(texts) + sum(map(len, programs))


def test_each_layer_runs_once_for_all_that_share_it(monkeypatch):
    """Catches sharing that is lost: between steps, between programs of one step, and for a repeated layer."""
    engine = FrozenModel(build("llama"), cache_bytes=1 << 24)
    identity = LayerProgram.identity(NUM_LAYERS)

    def run(text, *programs):
        before = engine.layers_run
        engine.logits([text] * len(programs), list(programs), starts=[len(text) - 1] * len(programs))
        return engine.layers_run - before

    assert run([5, 6, 7], identity) == 4
    assert run([5, 6, 7], identity.repeat(2)) == 2, "layers 0 to 2 are known"
    assert run([5, 6, 8], identity.skip(0)) == 3, "another text shares nothing"
    assert run([5, 6, 9], identity, identity, identity.skip(3), identity.skip(2)) == 5, "0-2, 3, and 3 after 1"
    engine.prefixes.clear()
    assert run([5, 6, 7], identity) == 4


def test_the_last_layer_runs_on_the_scored_positions_alone():
    """Catches an MLP that runs on the whole prompt where only the answer's place is asked for."""
    engine = FrozenModel(build("llama"))
    tokens = {}
    for index, layer in enumerate(engine.stack.layers):
        layer.mlp.register_forward_hook(lambda _, inputs, __, index=index: tokens.update({index: inputs[0].shape[1]}))
    engine.logits([[5, 6, 7, 8, 9]], [LayerProgram.identity(NUM_LAYERS)], starts=[3])
    assert tokens == {0: 5, 1: 5, 2: 5, 3: 2}


def test_the_bytes_are_bounded_and_the_oldest_go_first():
    """Catches a cache that grows with the number of questions, or drops what is in use."""
    state = torch.zeros(4, 8)
    cache = PrefixCache(max_bytes=3 * state.nbytes)
    for layer in range(3):
        cache.keep([1, 2], [layer], state + layer)
    assert len(cache.longest([1, 2], [0, 9])) == 1
    cache.keep([1, 2], [3], state)
    assert len(cache) == 3
    assert len(cache.longest([1, 2], [0])) == 1, "used a moment ago"
    assert cache.longest([1, 2], [1]) == [], "the least recently used one goes"
    cache.keep([1, 2], [7], torch.zeros(100, 100))
    assert cache.longest([1, 2], [7]) == [], "larger than the whole cache"


def test_what_is_forgotten_is_freed_at_once():
    """Catches an actor that holds the states of many work groups: gigabytes that Python frees in its own time."""
    cache, text = PrefixCache(1 << 20), (1, 2, 3)
    gc.collect()
    gc.disable()
    try:
        for depth in range(1, 5):
            cache.keep(text, range(depth), torch.zeros(3, 8))
        kept = [weakref.ref(node.state) for node in cache._nodes]
        assert len(kept) == 4 and all(state() is not None for state in kept)
        cache.clear()
        assert [state() for state in kept] == [None] * 4
    finally:
        gc.enable()


def test_what_leads_to_a_kept_state_is_kept_too():
    """Catches a state that is dropped before those that were made from it, which nothing finds any more."""
    state = torch.zeros(4, 8)
    cache = PrefixCache(max_bytes=4 * state.nbytes)
    rng = random.Random(0)
    for _ in range(300):
        layers = [rng.randrange(3) for _ in range(rng.randrange(1, 5))]
        for depth in range(1, len(layers) + 1):
            cache.keep([1], layers[:depth], state)
        cache.longest([1], [rng.randrange(3) for _ in range(4)])
        found = {tuple(way[:depth]) for way in product(range(3), repeat=4) for depth in range(1, 5)}
        reachable = sum(len(cache.longest([1], way)) == len(way) for way in sorted(found))
        assert reachable == len(cache) <= 4


def test_a_longer_text_serves_its_beginning():
    """Catches states of a text with its answer that are cut at the wrong place for the prompt alone."""
    cache = PrefixCache(max_bytes=1 << 20)
    cache.keep([1, 2, 3], [0], torch.arange(6.0).reshape(3, 2))
    torch.testing.assert_close(cache.longest([1, 2], [0, 1]), [torch.tensor([[0.0, 1.0], [2.0, 3.0]])])
    assert cache.longest([1, 3], [0]) == []
    assert cache.longest([1, 2], [0], in_longer_texts=False) == []


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.exhaustive) for part in range(1, 8))])
def test_verdicts_of_2000_random_programs_equal_the_oracle(stock_logits, part):
    """Catches an arg-max that sharing, packing or trimming turns, on the scale of a search."""
    hf_model = build("llama")
    engine = FrozenModel(hf_model, cache_bytes=1 << 16)
    programs = edited_programs(250 * (part + 1), seed=3)
    for start in range(250 * part, 250 * (part + 1), 50):
        batch = programs[start : start + 50]
        text = [3 + (7 * start + 11 * place) % 100 for place in range(12)]
        ours = engine.logits([text] * len(batch), batch, starts=[len(text) - 1] * len(batch))
        for program, logits in zip(batch, ours):
            expected = stock_logits(materialize(hf_model, program), text)[-1]
            torch.testing.assert_close(logits[0], expected, atol=TOLERANCE, rtol=0)
            assert logits[0].argmax() == expected.argmax()
