"""A routed model against the oracle: each row of a batch must equal stock ``generate`` on its own program."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURE_PARAMETERS, NUM_LAYERS, build
from transformers import GPT2Config, GPT2LMHeadModel

from pipeline.engine import FrozenModel, materialize
from pipeline.errors import UserError
from pipeline.program import LayerProgram
from router.features.window_features import entering
from router.features.windows import pool_windows, window_weights
from router.heads.per_layer import per_layer_head
from router.heads.per_layer.budget import BudgetPlanner
from router.heads.per_layer.per_layer_head import PerLayerHead
from router.heads.per_layer.routers import LayerRouters, RouterConfig
from router.routed.layers import RoutedCache, steered

NEW = 7
WINDOWS = 3
ROWS = [[5, 6, 7, 8, 9, 10, 11, 12, 13], [20, 21, 22], [33, 34, 35, 36, 37, 38], [60, 61, 62, 63, 64, 65, 66], [71]]
POLICY = BudgetPlanner(np.zeros((2, NUM_LAYERS, 3)))


def opinionated(hf_model, seed=1):
    """Untrained routers that decide differently from prompt to prompt."""
    size = RouterConfig(num_layers=NUM_LAYERS, hidden_size=hf_model.config.hidden_size, num_windows=WINDOWS, width=8)
    routers = LayerRouters(size, seed=seed)
    routers.weight_out.data *= 6
    return routers.requires_grad_(False)


def steering(routers, limit=None):
    return PerLayerHead(routers).steering(np.full((2, NUM_LAYERS, 3), -1.1), limit=limit)


def padded(rows):
    longest = max(map(len, rows))
    return {
        "input_ids": torch.tensor([[0] * (longest - len(row)) + row for row in rows]),
        "attention_mask": torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows]),
    }


def options(**others):
    return {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": None, "pad_token_id": 0, **others}


@pytest.fixture(params=ARCHITECTURE_PARAMETERS)
def hf_model(request):
    return build(request.param)


@torch.inference_mode()
def test_a_batch_of_programs_equals_each_program_alone(hf_model):
    """Catches a cache slot that two runs share, a row that reads another's keys, and padding that is attended to."""
    routed = steered(hf_model)
    cache = RoutedCache(steering(opinionated(hf_model)))
    output = routed.generate(**padded(ROWS), past_key_values=cache, **options())
    programs = cache.programs
    assert len(set(programs)) > 1 and {0, 2} <= {count for p in programs for count in p.counts}
    for row, program, tokens in zip(ROWS, programs, output):
        stock = materialize(hf_model, program)
        alone = torch.tensor([row])
        expected = stock.generate(alone, attention_mask=torch.ones_like(alone), **options())
        assert tokens[-NEW:].tolist() == expected[0, len(row) :].tolist()


#: Programs of any order: a block that runs again and one that runs thrice, a run that goes back, layers exchanged, an
#: early end, and the same layer again at two places.
ANY_ORDER = [
    LayerProgram(layers, NUM_LAYERS)
    for layers in [(0, 1, 2, 1, 2, 3), (0, 1, 1, 1, 2, 3, 0), (1, 0, 3, 2), (0, 1), (0, 1, 2, 3, 1, 2, 3)]
]


class Planned:
    """Steers each row of a batch to a program; the first ones are repeated where a batch has more rows."""

    num_layers = NUM_LAYERS
    known: ClassVar[dict[int, int]] = {}

    def __init__(self, programs):
        self.programs = programs

    def begin(self, mask):
        return self

    def decide(self, layer, hidden):
        assert layer == 0
        return [program for program in self.programs for _ in range(len(hidden) // len(self.programs))]


@pytest.mark.parametrize("beams", [1, 3])
@torch.inference_mode()
def test_programs_of_any_order_equal_each_alone(hf_model, beams):
    """Catches keys of a run that reach another run of the layer, a mask of another layer, and rows out of order."""
    routed = steered(hf_model)
    cache = RoutedCache(Planned(ANY_ORDER))
    output = routed.generate(**padded(ROWS), past_key_values=cache, **options(num_beams=beams))
    assert cache.programs[::beams] == ANY_ORDER
    for row, program, tokens in zip(ROWS, ANY_ORDER, output):
        stock, alone = materialize(hf_model, program), torch.tensor([row])
        expected = stock.generate(alone, attention_mask=torch.ones_like(alone), **options(num_beams=beams))
        assert tokens[-NEW:].tolist() == expected[0, len(row) :].tolist()


@torch.inference_mode()
def test_decisions_depend_on_the_prompt_alone(hf_model):
    """Catches windows that hold padding, decisions that a neighbour changes, and other features than training saw."""
    routers = opinionated(hf_model)
    routed = steered(hf_model)
    together, alone = RoutedCache(steering(routers)), []
    routed.model(**padded(ROWS), past_key_values=together)
    for row in ROWS:
        cache = RoutedCache(steering(routers))
        routed.model(input_ids=torch.tensor([row]), past_key_values=cache)
        alone += cache.programs
    assert together.programs == alone

    def pooled(state):
        weights = window_weights(np.array([len(state)]), np.array([0]), len(state), WINDOWS)
        return pool_windows(state[None], torch.from_numpy(weights))[0]

    states = FrozenModel(hf_model).hidden_states(ROWS, alone, pooled)
    features = torch.stack([torch.from_numpy(entering(p.counts, state.numpy())) for p, state in zip(alone, states)])
    decided = POLICY.decide_all(routers(features).numpy())
    assert [LayerProgram.from_counts(counts) for counts in decided.tolist()] == alone


@pytest.mark.parametrize("limit", [None, 5])
@torch.inference_mode()
def test_a_settled_router_answers_without_reading(monkeypatch, limit):
    """Catches a settled layer that reads the prompt all the same, or that a budget cannot move."""
    hf_model = build("llama")
    routers, read = opinionated(hf_model), []
    routers.make_constant(torch.arange(NUM_LAYERS) % 2 == 0, torch.tensor([[0.0, 1.0, 9.0]] * NUM_LAYERS))
    monkeypatch.setattr(per_layer_head, "pool_windows", lambda *args: read.append(1) or pool_windows(*args))
    routed = steered(hf_model)
    cache = RoutedCache(steering(routers, limit))
    routed.model(**padded(ROWS), past_key_values=cache)
    assert len(read) == NUM_LAYERS // 2
    if limit is None:
        assert all(set(program.counts[::2]) == {2} for program in cache.programs if program.counts)
    else:
        assert all(len(program) <= limit for program in cache.programs)


@torch.inference_mode()
def test_beams_of_mixed_programs_equal_each_program_alone():
    """Catches a beam that goes on from another beam's keys, which only shows where rows have different slots."""
    hf_model = build("llama")
    routed = steered(hf_model)
    cache = RoutedCache(steering(opinionated(hf_model)))
    output = routed.generate(**padded(ROWS), past_key_values=cache, **options(num_beams=3))
    programs = cache.programs[::3]
    assert len(set(programs)) > 1
    for row, program, tokens in zip(ROWS, programs, output):
        alone = torch.tensor([row])
        stock = materialize(hf_model, program)
        expected = stock.generate(alone, attention_mask=torch.ones_like(alone), **options(num_beams=3))
        assert tokens[-NEW:].tolist() == expected[0, len(row) :].tolist()


@torch.inference_mode()
def test_a_cache_goes_on_with_its_programs():
    """Catches a second turn of a conversation whose program is chosen anew, over keys of another one."""
    hf_model = build("llama")
    routed = steered(hf_model)
    cache = RoutedCache(steering(opinionated(hf_model)))
    row = ROWS[0]
    first = routed.generate(torch.tensor([row]), past_key_values=cache, **options())
    [program] = cache.programs
    whole = torch.cat([first, torch.tensor([[40, 41, 42]])], dim=1)
    second = routed.generate(whole, past_key_values=cache, **options())
    assert cache.programs == [program]
    stock = materialize(hf_model, program)
    assert second.tolist() == stock.generate(whole, attention_mask=torch.ones_like(whole), **options()).tolist()


@torch.inference_mode()
def test_the_base_model_is_left_as_it_was():
    """Catches hooks or wrapped layers that reach the shared base."""
    hf_model = build("llama")
    ids = torch.tensor([ROWS[0]])
    before = hf_model(ids).logits
    routed = steered(hf_model, steering(opinionated(hf_model)))
    assert not torch.equal(routed(ids).logits, before)
    assert torch.equal(hf_model(ids).logits, before)
    shared = {tensor.data_ptr() for tensor in hf_model.parameters()}
    assert all(tensor.data_ptr() in shared for tensor in routed.parameters())


@torch.inference_mode()
def test_what_a_routed_model_cannot_do_is_said():
    """Catches decisions over a stock cache that holds another program's keys, and models outside the contract."""
    hf_model = build("llama")
    routed = steered(hf_model, steering(opinionated(hf_model)))
    stock_cache = hf_model(torch.tensor([ROWS[0]]), use_cache=True).past_key_values
    with pytest.raises(ValueError, match="its own cache"):
        routed(torch.tensor([[7]]), past_key_values=stock_cache)
    with pytest.raises(UserError, match="contract"):
        steered(GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=8, n_head=2, vocab_size=20)))
