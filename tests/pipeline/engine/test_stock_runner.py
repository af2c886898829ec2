"""The oracle that replays runs, against the engine that made them."""

from __future__ import annotations

import pytest
import torch
from architectures import ARCHITECTURE_PARAMETERS, NUM_LAYERS, build

from pipeline.engine import FrozenModel
from pipeline.engine.stock_runner import StockRunner
from pipeline.program import LayerProgram

ROWS = [[5, 6, 7, 8, 9, 10, 11], [20, 21, 22], [33, 34, 35, 36, 37, 38], [71]]
PROGRAMS = [
    LayerProgram.identity(NUM_LAYERS),
    LayerProgram((0, 1, 3, 3), NUM_LAYERS),
    LayerProgram((2, 0, 1), NUM_LAYERS),
    LayerProgram(range(1, NUM_LAYERS), NUM_LAYERS),
]


@pytest.mark.parametrize("name", ARCHITECTURE_PARAMETERS)
def test_the_oracle_answers_what_the_engine_answers(name):
    """Catches a replay of another program, of another text, or by other rules of decoding than the search's."""
    hf_model = build(name)
    # What a checkpoint recommends for chatting is no part of greedy decoding.
    hf_model.generation_config.repetition_penalty = 3.0
    model = FrozenModel(hf_model)
    oracle = StockRunner(model)
    starts = [len(row) - 1 for row in ROWS]
    for mine, theirs in zip(
        model.logits(ROWS, PROGRAMS, starts=starts), oracle.logits(ROWS, PROGRAMS, starts=starts), strict=True
    ):
        torch.testing.assert_close(mine, theirs, atol=2e-4, rtol=1e-3)
    stops = [[], []]

    def stop(number):
        return lambda row, tokens: stops[number].append((row, tuple(tokens))) or len(tokens) == 3 + row

    mine = model.decode(ROWS, PROGRAMS, max_new_tokens=5, stop=stop(0))  # type: ignore[assignment]
    theirs = oracle.decode(ROWS, PROGRAMS, max_new_tokens=5, stop=stop(1))  # type: ignore[assignment]
    for one, other in zip(mine, theirs, strict=True):
        assert (one.tokens, one.passes) == (other.tokens, other.passes)
        assert one.gap == pytest.approx(other.gap, abs=2e-4)
    # Stock decoding also asks behind the last token that there is room for, and is not heard.
    assert set(stops[0]) <= set(stops[1])
    assert len({len(one.tokens) for one in mine}) > 2


@pytest.mark.parametrize("call", ["logits", "decode"])
def test_wrong_rows_are_refused_as_the_engine_refuses_them(call):
    """Catches a replay that drops rows, or runs programs of another model, which the engine would not."""
    oracle = StockRunner(FrozenModel(build("llama")))
    arguments = {"max_new_tokens": 2} if call == "decode" else {}
    for rows, program, message in [
        ([[5, 6], [7]], PROGRAMS[0], "2 rows of tokens but 1 programs"),
        ([[]], PROGRAMS[0], "row 0 has no tokens"),
        ([[5]], LayerProgram.identity(6), "row 0 is for 6 layers, the model has 4"),
    ]:
        with pytest.raises(ValueError, match=message):
            getattr(oracle, call)(rows, [program], **arguments)
    with pytest.raises(ValueError, match="max_new_tokens must be at least 1"):
        oracle.decode([[5]], [PROGRAMS[0]], max_new_tokens=0)
