"""The check of a model: the engine against stock transformers, on one short text.

This catches an architecture whose parts have the contract's names but are put together in another way (a scaled
residual, say), or whose attention does something of its own with a part of a text. A text is read whole, for its last
position alone, and token by token; and a program with a skip and a repeat is compared with its stock model.

Shapes: T tokens, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch

from pipeline.engine.decoder_stack import DecoderStack, refusal
from pipeline.engine.greedy_decoding import GreedyDecoding
from pipeline.engine.materialize import materialize
from pipeline.engine.prefill import Prefill
from pipeline.engine.prefix_cache import PrefixCache
from pipeline.errors import UserError
from pipeline.program import LayerProgram

#: Largest difference from the stock model's logits, relative to the largest logit.
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 1e-1, torch.float16: 2e-2}
#: Tokens of the text that are given, and those that are decoded.
_GIVEN, _DECODED = 9, 3


class NotFiniteError(UserError):
    """A model's own logits are not finite numbers in its precision."""


@torch.inference_mode()
def check_against_stock(stack: DecoderStack) -> None:
    """Refuse a model that the engine does not run as stock transformers does.

    It takes two passes of stock models and four of the engine, over a dozen tokens.

    Args:
        stack: The parts of the model.

    Raises:
        NotFiniteError: The stock model's logits are not finite numbers.
        UserError: The logits, or the decoded tokens, differ.
    """
    hf_model, tolerance = stack.hf_model, TOLERANCE.get(stack.hf_model.dtype, 1e-3)
    prefill = Prefill(stack, PrefixCache(0))
    identity, edited = LayerProgram.identity(stack.num_layers), edited_program(stack.num_layers)
    given = [(7 * step + 3) % hf_model.config.vocab_size for step in range(_given(stack.rope_switch))]
    decoded = GreedyDecoding(
        prefill,
        [given, given],
        [identity, edited],
        max_new_tokens=_DECODED,
        ends=frozenset(),  # an end token ends no check
        stop=None,
        begun=[(), ()],
    ).run()
    texts = [given + row.tokens for row in decoded]
    last = len(texts[0]) - 1
    states = prefill.run(texts, [identity, edited], [0, 0])
    # The text behind the opening that it shares with a shorter one: what it needs alone is a branch's last position.
    states += prefill.run([texts[0][:-1], texts[0]], [identity, identity], [last - 1, last])[1:]
    whole, of_edited, at_last = (stack.head(state).float() for state in states)

    stock = logits_of(hf_model, texts[0])
    require_finite(stock, hf_model)
    off = difference(whole, stock)
    if not off <= tolerance:
        raise refusal(hf_model, f"run layer by layer it gives other logits (off by {off:.1e} of the largest)")
    off = difference(at_last, stock[last:], of=stock)
    if not off <= tolerance:
        raise refusal(hf_model, f"its last position alone gives other logits (off by {off:.1e} of the largest)")
    # A gap is the distance of two logits.
    off = abs(decoded[0].gap - _least_gap(stock[len(given) - 1 : -1], decoded[0].tokens)) / _largest(stock)
    if not off <= 2 * tolerance:
        raise refusal(hf_model, f"token by token it gives other logits (off by {off:.1e} of the largest)")
    off = difference(of_edited, logits_of(materialize(hf_model, edited), texts[1]))
    if not off <= tolerance:
        raise refusal(
            hf_model,
            f"program {edited} gives other logits than a stock model of its layers (off by {off:.1e} of the largest)",
        )


def edited_program(num_layers: int) -> LayerProgram:
    """A program that skips a layer and repeats a later one; of a single layer, one that repeats it."""
    if num_layers == 1:
        return LayerProgram((0, 0), 1)
    return LayerProgram.identity(num_layers).repeat(2 * num_layers // 3).skip(num_layers // 3)


def logits_of(hf_model: Any, text: list[int]) -> torch.Tensor:
    """Logits ``[T, V]`` of a stock model, in float32."""
    ids = torch.tensor([text], device=hf_model.device)
    logits: torch.Tensor = hf_model(ids, use_cache=False).logits[0].float()
    return logits


def difference(logits: torch.Tensor, expected: torch.Tensor, *, of: torch.Tensor | None = None) -> float:
    """The largest difference of two logits, relative to the largest one of ``of`` (``expected``); NaN if one is NaN.

    Equal logits differ by nothing, also where both are infinite: some models rule tokens out.
    """
    off = (logits - expected).masked_fill(logits == expected, 0.0)
    return float(off.abs().max()) / _largest(expected if of is None else of)


def are_finite(logits: torch.Tensor) -> bool:
    """Whether logits are numbers. Some models rule tokens out by a logit of minus infinity."""
    return bool(torch.isfinite(logits.max()))


def require_finite(logits: torch.Tensor, hf_model: Any) -> None:
    """Refuse logits of the base model that are not numbers.

    Raises:
        NotFiniteError: They are not.
    """
    if not are_finite(logits):
        raise not_finite(hf_model)


def not_finite(hf_model: Any) -> NotFiniteError:
    """The error of a base model whose logits are not finite numbers."""
    precision = str(hf_model.dtype).removeprefix("torch.")
    cure = (
        "its weights are damaged, or it needs another release of transformers"
        if hf_model.dtype == torch.float32
        else "its states are too large for it; use --dtype "
        + ("float32" if hf_model.dtype == torch.bfloat16 else "bfloat16 or float32")
        + " (a run that has rows keeps its precision: then with a new --out)"
    )
    name = hf_model.config.name_or_path or type(hf_model).__name__
    return NotFiniteError(f"the logits of the base model {name!r} are not finite numbers in {precision}: {cure}")


def _given(switch: int | None) -> int:
    """Tokens that are given. A rotary embedding that switches with the length does not while the text is decoded."""
    return _GIVEN if switch is None or not _GIVEN <= switch < _GIVEN + _DECODED else switch + 1


def _largest(logits: torch.Tensor) -> float:
    return max(float(logits.masked_fill(logits.isinf(), 0.0).abs().max()), 1e-6)


def _least_gap(logits: torch.Tensor, tokens: list[int]) -> float:
    """The smallest distance of the tokens' logits from the best other's, over ``[positions, V]``."""
    chosen = torch.tensor(tokens, device=logits.device)[:, None]
    own = logits.gather(1, chosen)[:, 0]
    return float((own - logits.scatter(1, chosen, -torch.inf).max(dim=1).values).min())
