"""The engine on tiny random models, and what stock transformers makes of them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from architectures import ARCHITECTURE_PARAMETERS, NUM_LAYERS, PROGRAMS, VOCAB, build, randomize

from pipeline.engine import FrozenModel
from pipeline.program import LayerProgram


@functools.cache
def _engine(name: str) -> FrozenModel:
    return FrozenModel(build(name))


@pytest.fixture(params=ARCHITECTURE_PARAMETERS)
def engine(request: pytest.FixtureRequest) -> FrozenModel:
    """The engine on a tiny model of each architecture; the model is shared and must be left as it was."""
    return _engine(request.param)


@pytest.fixture
def llama() -> FrozenModel:
    """The engine on the tiny Llama, for what does not depend on the architecture."""
    return _engine("llama")


@pytest.fixture(params=PROGRAMS)
def program(request: pytest.FixtureRequest) -> LayerProgram:
    """One program of each kind."""
    return LayerProgram(PROGRAMS[request.param], NUM_LAYERS)


@pytest.fixture
def programs() -> dict[str, LayerProgram]:
    """All programs, by kind."""
    return {kind: LayerProgram(layers, NUM_LAYERS) for kind, layers in PROGRAMS.items()}


@pytest.fixture(scope="session")
def build_model() -> Callable[..., Any]:
    """Makes a fresh tiny model that a test may change."""
    return build


@pytest.fixture(scope="session")
def randomized() -> Callable[..., Any]:
    """Gives any model weights of a trained model's size."""
    return randomize


@pytest.fixture(scope="session")
def prompt() -> Callable[..., list[int]]:
    """Seeded token ids above the special ones."""

    def make(length: int, seed: int = 0, vocab: int = VOCAB) -> list[int]:
        generator = torch.Generator().manual_seed(1000 * seed + length)
        return torch.randint(3, vocab, (length,), generator=generator).tolist()

    return make


@pytest.fixture(scope="session")
def stock_logits() -> Callable[..., torch.Tensor]:
    """A stock forward pass on one text: ``[T, vocab]``."""

    @torch.inference_mode()
    def forward(hf_model: Any, ids: list[int]) -> torch.Tensor:
        return hf_model(torch.tensor([ids], device=hf_model.device)).logits[0].float()

    return forward


@pytest.fixture(scope="session")
def stock_tokens() -> Callable[..., list[int]]:
    """New token ids of the stock greedy ``generate``, with its own cache."""

    def generate(hf_model: Any, ids: list[int], max_new_tokens: int, **arguments: Any) -> list[int]:
        inputs = torch.tensor([ids], device=hf_model.device)
        arguments = {"do_sample": False, "pad_token_id": 0, **arguments}
        output = hf_model.generate(
            inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=max_new_tokens, **arguments
        )
        return output[0, len(ids) :].tolist()

    return generate
