"""Texts that begin alike run what they share once, and get the logits that they get alone."""

from __future__ import annotations

import random

import pytest
import torch
from architectures import ARCHITECTURE_PARAMETERS, NUM_LAYERS, VOCAB, build

from pipeline.engine import FrozenModel
from pipeline.engine.text_tree import Text, trees_of
from pipeline.program import LayerProgram

TOLERANCE = 1e-4
IDENTITY = LayerProgram.identity(NUM_LAYERS)
PROGRAMS = [IDENTITY, *(LayerProgram(layers, NUM_LAYERS) for layers in [(0, 2, 3), (0, 1, 1, 2, 3), (1, 0, 3)])]


def tokens(count: int, seed: int) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(5, VOCAB) for _ in range(count)]


#: Worked examples with questions of two lengths behind them, others, and a text that is the opening of another one.
OPENING, OTHER = tokens(12, 1), tokens(9, 2)
TEXTS = [
    *(OPENING + tokens(count, 10 + count) for count in (3, 5)),
    OPENING + tokens(3, 20),
    *(OTHER + tokens(4, seed) for seed in (30, 31)),
    OTHER,
    tokens(2, 40),
    tokens(2, 40)[:1],
]


def each_with_each(texts: list[list[int]]) -> tuple[list[list[int]], list[LayerProgram]]:
    """Every program on every text."""
    return [text for text in texts for _ in PROGRAMS], PROGRAMS * len(texts)


@pytest.mark.parametrize("cache_bytes", [0, 1 << 24])
@pytest.mark.parametrize("name", ARCHITECTURE_PARAMETERS)
def test_logits_are_those_of_a_text_alone(name, cache_bytes):
    """Catches a branch that sees another branch, misses the opening, stands at a wrong position or in a wrong window.

    With a cache the second call, of other programs, starts in the middle of them.
    """
    model, alone = FrozenModel(build(name), cache_bytes=cache_bytes), FrozenModel(build(name))
    texts, programs = each_with_each(TEXTS)
    for shift in (0, 1):
        for starts in ([0] * len(texts), [len(text) - 1 for text in texts]):
            together = model.logits(texts, programs, starts=starts)
            for row, logits in enumerate(together):
                (expected,) = alone.logits([texts[row]], [programs[row]], starts=[starts[row]])
                torch.testing.assert_close(logits, expected, atol=TOLERANCE, rtol=0)
        programs = [LayerProgram((*program.layers, shift), NUM_LAYERS) for program in programs]
        assert model.tokens_run < alone.tokens_run


@pytest.mark.parametrize("name", ARCHITECTURE_PARAMETERS)
def test_decoding_goes_on_from_a_tree(name):
    """Catches keys of an opening that do not reach the slots of every row behind it."""
    model, alone = FrozenModel(build(name)), FrozenModel(build(name))
    texts, programs = each_with_each(TEXTS)
    together = model.decode(texts, programs, max_new_tokens=4)
    for row, decoded in enumerate(together):
        (expected,) = alone.decode([texts[row]], [programs[row]], max_new_tokens=4)
        assert decoded.tokens == expected.tokens


def test_hidden_states_are_of_whole_texts(llama):
    """Catches a hook that receives a branch without its opening, or another text's."""
    together = llama.hidden_states(TEXTS, [IDENTITY] * len(TEXTS))
    for text, states in zip(TEXTS, together):
        assert states.shape[1] == len(text)
        (expected,) = llama.hidden_states([text], [IDENTITY])
        torch.testing.assert_close(states, expected, atol=TOLERANCE, rtol=0)


def test_an_opening_runs_once():
    """Catches trees that are never formed, and layers of the texts in a tree that are not counted."""
    model = FrozenModel(build("llama"))
    layers, run = model.layers_run, model.tokens_run
    model.logits(TEXTS[:3], [IDENTITY] * 3)
    assert model.layers_run - layers == 3 * NUM_LAYERS
    assert model.tokens_run - run == NUM_LAYERS * (len(OPENING) + 3 + 5 + 3)


def test_asked_tokens_are_those_of_each_row_alone():
    """Catches a cost of separate runs that leaves out what was shared, or counts a known token again."""
    model, short = FrozenModel(build("llama")), LayerProgram((0, 2), NUM_LAYERS)
    model.logits(TEXTS[:2], [IDENTITY, short])
    asked = len(TEXTS[0]) * NUM_LAYERS + len(TEXTS[1]) * 2
    assert model.tokens_asked == asked
    [row] = model.decode(TEXTS[:1], [short], max_new_tokens=3)
    # The first new token comes with the prompt.
    asked += (len(TEXTS[0]) + len(row.tokens) - 1) * 2
    assert model.tokens_asked == asked
    model.decode(TEXTS[:1], [short], max_new_tokens=3, begun=[row.tokens[:1]])
    assert model.tokens_asked == asked + (len(row.tokens) - 1) * 2


def text(ids: list[int], rows: list[int], *, logits_from: int = 0) -> Text:
    return Text(tokens=ids, rotary={}, logits_from=logits_from, rows=rows)


def test_which_texts_form_a_tree():
    """Catches trees of texts with other programs, of texts too short, of too little, or with needed tokens shared."""

    def openings(*texts: Text, programs: list[LayerProgram] | None = None) -> list[tuple[int, int]]:
        rows = max(row for one in texts for row in one.rows) + 1
        return [(len(tree.texts), tree.opening) for tree in trees_of(texts, programs or [IDENTITY] * rows)]

    begin = list(range(10))
    assert openings(text([*begin, 50], [0]), text([*begin, 51, 52], [1])) == [(2, 10)]
    # Two programs on each, in another order.
    orders = [PROGRAMS[0], PROGRAMS[1], PROGRAMS[1], PROGRAMS[0]]
    assert openings(text([*begin, 50], [0, 1]), text([*begin, 51], [2, 3]), programs=orders) == [(2, 10)]
    # Another program, or one program more.
    assert openings(text([*begin, 50], [0]), text([*begin, 51], [1]), programs=PROGRAMS) == [(1, 0), (1, 0)]
    assert openings(text([*begin, 50], [0]), text([*begin, 51], [1, 2])) == [(1, 0), (1, 0)]
    # A text of which the states of the last tokens are needed runs those by itself.
    assert openings(text(begin, [0], logits_from=6), text([*begin, 51], [1], logits_from=8)) == [(2, 6)]
    # Too little in common, too short.
    assert openings(text([1, *begin[2:], 9, 9], [0]), text([1, *begin[3:], 8], [1])) == [(1, 0), (1, 0)]
    assert openings(text([1, 2, 3], [0]), text([1, 2, 4], [1])) == [(1, 0), (1, 0)]
    # A text alike in little does not shorten what many share.
    many = [text([*range(30), 60 + one], [one]) for one in range(4)]
    assert openings(*many, text([*range(8), 70, 71], [4])) == [(4, 30), (1, 0)]
