"""The engine against its oracle: whatever it computes equals the stock forward and ``generate`` of ``materialize``."""

from __future__ import annotations

import functools

import pytest
import torch
from transformers import DynamicCache

from pipeline.engine import FrozenModel, materialize
from pipeline.program import LayerProgram

TOLERANCE = 1e-4
# Both exceed the models' window; with NEW tokens more, neither crosses the long-RoPE switch at 16.
SHORT, LONG = 9, 20
NEW = 6


def assert_close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Equal within the tolerance that the design promises for float32."""
    torch.testing.assert_close(ours, theirs, atol=TOLERANCE, rtol=0)


# -- against the oracle --------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, SHORT, LONG])
def test_logits_equal_the_materialized_model(engine, program, prompt, stock_logits, length):
    """Would catch a wrong order of layers, mask, position, layer type or RoPE in the pass without a cache."""
    ids = prompt(length)
    assert_close(engine.logits([ids], [program])[0], stock_logits(materialize(engine.hf_model, program), ids))


def test_identity_equals_the_base_model(engine, prompt, stock_logits):
    """Would catch an engine and an oracle that agree with each other and both differ from the real model."""
    ids = prompt(LONG)
    identity = LayerProgram.identity(engine.num_layers)
    assert_close(engine.logits([ids], [identity])[0], stock_logits(engine.hf_model, ids))


def test_programs_differ_by_far_more_than_the_tolerance(engine, programs, prompt):
    """Would catch test models whose layers do so little that running the wrong ones passes every test here."""
    results = engine.logits([prompt(LONG)] * len(programs), list(programs.values()))
    for position, one in enumerate(results):
        for other in results[:position]:
            assert (one - other).abs().max() > 1000 * TOLERANCE


@pytest.mark.parametrize("name", ["qwen2", "mistral-window", "gemma2", "gemma3", "phi3"])
def test_prompts_are_longer_than_the_window(build_model, prompt, stock_logits, name):
    """Would catch test prompts so short that a forgotten sliding window changes nothing."""
    ids = prompt(SHORT)
    narrow, wide = build_model(name), build_model(name, sliding_window=64)
    assert (stock_logits(narrow, ids) - stock_logits(wide, ids)).abs().max() > 1000 * TOLERANCE


@pytest.mark.parametrize("length", [SHORT, LONG])
def test_generate_equals_stock_generate(engine, program, prompt, stock_tokens, length):
    """Would catch keys that are read from another position's slot, or rotated or masked for the wrong place."""
    ids = prompt(length)
    expected = stock_tokens(materialize(engine.hf_model, program), ids, NEW)
    assert engine.generate([ids], [program], max_new_tokens=NEW) == [expected]


@pytest.mark.parametrize("length", [SHORT, LONG])
def test_cached_decoding_equals_the_pass_without_a_cache(engine, program, prompt, length):
    """Would catch a cache that disagrees with the pass without one where stock has the same fault."""
    ids = prompt(length)
    [tokens] = engine.generate([ids], [program], max_new_tokens=NEW)
    [logits] = engine.logits([ids + tokens[:-1]], [program], starts=[len(ids) - 1])
    assert logits.argmax(-1).tolist() == tokens


@pytest.mark.parametrize("name", ["llama", "mistral-window", "gemma2", "gemma3"])
def test_eager_attention_equals_stock(build_model, programs, prompt, stock_logits, stock_tokens, name):
    """Would catch a mask in SDPA's form given to eager attention, which adds it to the scores."""
    model = build_model(name, attn_implementation="eager")
    engine = FrozenModel(model)
    rows, wanted = [prompt(SHORT), prompt(LONG)], [programs["back-and-forth"], programs["repeat"]]
    oracles = [materialize(model, program) for program in wanted]
    for ours, oracle, ids in zip(engine.logits(rows, wanted), oracles, rows):
        assert_close(ours, stock_logits(oracle, ids))
    expected = [stock_tokens(oracle, ids, NEW) for oracle, ids in zip(oracles, rows)]
    assert engine.generate(rows, wanted, max_new_tokens=NEW) == expected


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_rows_end_at_different_times_as_stock_ends_them(build_model, programs, prompt, stock_tokens, name):
    """Would catch a row that runs past its end, or that shifts the other rows' cache when it leaves the batch."""
    model = build_model(name, eos_token_id=None)
    engine = FrozenModel(model)
    rows = [prompt(length, seed=7) for length in (5, 14, 8, 11, 3)]
    wanted = list(programs.values())
    endless = engine.generate(rows, wanted, max_new_tokens=12)
    # Row 2 ends at once and some row a few steps in; which others end is for the oracle to say.
    later = [row[step] for row in endless for step in range(2, 8) if row[step] not in row[:step] + endless[2]]
    model.generation_config.eos_token_id = [later[0], endless[2][0]]
    expected = [stock_tokens(materialize(model, program), ids, 12) for ids, program in zip(rows, wanted)]
    assert engine.generate(rows, wanted, max_new_tokens=12) == expected
    lengths = [len(tokens) for tokens in expected]
    assert len(expected[2]) == 1
    assert len(set(lengths)) >= 3


# -- batches -------------------------------------------------------------------------------


# Ten rows: each program twice, lengths on both sides of the window, none sorted.
BATCH_LENGTHS = (9, 1, 20, 6, 3, 2, 7, 17, 5, 10)


@pytest.fixture(scope="module")
def alone(prompt):
    """Each row of the batch in a call of its own: logits ``[tokens, vocab]`` and new tokens, made once an engine."""

    @functools.cache
    def run(engine: FrozenModel, programs: tuple[LayerProgram, ...]) -> list[tuple[torch.Tensor, list[int]]]:
        rows = [prompt(length, seed=3) for length in BATCH_LENGTHS]
        return [
            (engine.logits([ids], [program])[0], engine.generate([ids], [program], max_new_tokens=NEW)[0])
            for ids, program in zip(rows, programs, strict=True)
        ]

    return run


@pytest.mark.parametrize("max_batch_tokens", [4096, 64, pytest.param(1, marks=pytest.mark.exhaustive)])
def test_a_row_does_not_depend_on_its_batch(engine, programs, prompt, alone, max_batch_tokens):
    """Would catch padding that is attended to, rows or slots that are mixed up, and results in the wrong order."""
    batched = FrozenModel(engine.hf_model, max_batch_tokens=max_batch_tokens)
    rows = [prompt(length, seed=3) for length in BATCH_LENGTHS]
    wanted = list(programs.values()) * 2
    expected = alone(engine, tuple(wanted))
    for (logits, _), ours in zip(expected, batched.logits(rows, wanted), strict=True):
        assert_close(ours, logits)
    assert batched.generate(rows, wanted, max_new_tokens=NEW) == [tokens for _, tokens in expected]


def test_no_pass_exceeds_the_batch_limit(llama, programs, prompt, monkeypatch):
    """Would catch a limit that counts tokens without the padding, so that one long row multiplies memory."""
    passes = []
    embed = llama.stack.embed
    monkeypatch.setattr(llama.stack, "embed", lambda ids: passes.append(ids.numel()) or embed(ids))
    monkeypatch.setattr(llama, "max_batch_tokens", 50)
    rows = [prompt(length) for length in (20, 2, 12, 10, 8, 30, 5)]
    llama.logits(rows, [programs["repeat"]] * len(rows))
    assert max(passes) <= 50
    assert 1 < len(passes) < len(rows)


def test_a_pass_that_finds_no_room_is_halved(llama, programs, prompt, monkeypatch):
    """Would catch rows lost or mixed up where memory ran out, and a limit that stays small after `forget`."""
    rows = [prompt(length, seed=3) for length in (9, 1, 20, 6, 3, 2, 7, 17, 5, 10)]
    wanted = list(programs.values()) * 2
    expected = llama.logits(rows, wanted)
    model = FrozenModel(llama.hf_model)
    embed, limit = model.stack.embed, model.max_batch_tokens

    def short_of_memory(ids: torch.Tensor) -> torch.Tensor:
        if len(ids) > 25:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")
        return embed(ids)

    monkeypatch.setattr(model.stack, "embed", short_of_memory)
    for one, other in zip(model.logits(rows, wanted), expected, strict=True):
        assert_close(one, other)
    assert model.generate(rows, wanted, max_new_tokens=NEW) == llama.generate(rows, wanted, max_new_tokens=NEW)
    assert model.max_batch_tokens < limit
    model.forget()
    assert model.max_batch_tokens == limit
    with pytest.raises(RuntimeError, match="can't allocate"):
        model.logits([prompt(26)], [programs["identity"]])


def test_no_rows_give_no_results(llama):
    """Would catch a crash on the empty batch that the end of a search leaves."""
    assert llama.logits([], []) == []
    assert llama.generate([], [], max_new_tokens=3) == []


# -- what the evaluator reads besides tokens -----------------------------------------------


def test_starts_cut_the_logits_and_nothing_else(llama, programs, prompt):
    """Would catch logits that are shifted by one, or cut from another row's text."""
    rows = [prompt(9), prompt(4), prompt(12)]
    wanted = [programs["repeat"], programs["skips"], programs["back-and-forth"]]
    whole = llama.logits(rows, wanted)
    for part, full, start in zip(llama.logits(rows, wanted, starts=[5, 0, 11]), whole, [5, 0, 11]):
        assert_close(part, full[start:])


def test_decode_reports_gap_and_passes_and_obeys_stop(llama, programs, prompt):
    """Would catch a gap of the last token alone, a wrong cost, and a stop rule that ends its neighbours too."""
    rows, wanted = [prompt(9), prompt(5)], [programs["repeat"], programs["block-repeat"]]
    free = llama.generate(rows, wanted, max_new_tokens=NEW)
    marker = free[0][1]
    results = llama.decode(rows, wanted, max_new_tokens=NEW, stop=lambda row, tokens: tokens[-1] == marker)
    for ids, program, result, tokens in zip(rows, wanted, results, free):
        end = tokens.index(marker) + 1 if marker in tokens else len(tokens)
        assert result.tokens == tokens[:end]
        assert result.passes == end
        steps = llama.logits([ids + tokens[:end]], [program], starts=[len(ids) - 1])[0][:end]
        top = steps.topk(2, dim=-1).values
        assert result.gap == pytest.approx(float((top[:, 0] - top[:, 1]).min()), abs=TOLERANCE)


# -- what would go wrong otherwise ---------------------------------------------------------


@torch.inference_mode()
def test_a_cache_by_layer_number_gives_wrong_logits(llama, programs, prompt):
    """Would catch a return to the known fault: a repeated layer that keeps its own ``layer_idx`` in a stock cache."""
    program, ids = programs["repeat"], prompt(LONG)
    model = llama.hf_model

    def naive(tokens: list[int], past: int, cache: DynamicCache) -> torch.Tensor:
        positions = torch.arange(past, past + len(tokens))[None]
        hidden = model.model.embed_tokens(torch.tensor([tokens]))
        rotary = model.model.rotary_emb(hidden, positions)
        for layer in program:
            hidden = model.model.layers[layer](
                hidden,
                position_ids=positions,
                position_embeddings=rotary,
                **{llama.stack.cache_argument: cache},
            )
        return model.lm_head(model.model.norm(hidden))[0]

    cache = DynamicCache()
    naive(ids[:-1], 0, cache)
    assert cache.get_seq_length(1) == 2 * (len(ids) - 1)  # both runs' keys, in one slot
    ours = llama.logits([ids], [program])[0][-1]
    assert (naive(ids[-1:], len(ids) - 1, cache)[-1] - ours).abs().max() > 1000 * TOLERANCE


def test_generate_crosses_the_switch_of_long_rope(build_model, programs, prompt, stock_tokens):
    """Would catch a cache whose keys were rotated with the short factors, read by queries with the long ones."""
    model = build_model("phi3-longrope")
    rows = [prompt(12, seed=seed) for seed in range(5)]
    wanted = list(programs.values())
    expected = [stock_tokens(materialize(model, program), ids, 10) for ids, program in zip(rows, wanted)]
    assert FrozenModel(model).generate(rows, wanted, max_new_tokens=10) == expected
