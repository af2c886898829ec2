"""The routers' loss: focal, with class weights by the effective number of examples.

Nearly every layer of nearly every program is simply run, so plain cross-entropy learns to say so and no more.

Shapes: B rows, L layers.
"""

from __future__ import annotations

import torch


def effective_number_weights(counts: torch.Tensor, *, beta: float = 0.999) -> torch.Tensor:
    """Class weights (1 − β) / (1 − βⁿ) for n examples of a class, scaled to a mean of one (Cui et al., 1901.05555).

    Args:
        counts: Examples of each class, ``[C]``; a class without any gets weight 0 and takes no part.
        beta: Between 0 (no weighting) and 1 (inverse frequency).

    Returns:
        ``[C]``, in float32.

    Raises:
        ValueError: β is out of range, or there is no example at all.
    """
    if not 0 <= beta < 1:
        raise ValueError(f"beta must be at least 0 and below 1, got {beta}")
    present = counts > 0
    if not bool(present.any()):
        raise ValueError("there are no examples to weigh")
    # In float64: β to the power of a million is 0, but 1 − β^n of a few is not exact in float32.
    weights = (1 - beta) / (1 - beta ** counts.double().clamp(min=1))
    weights = weights * present
    return (weights / weights.sum() * present.sum()).float()


def focal_loss(
    logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, *, gamma: float = 2.0
) -> torch.Tensor:
    """Mean of −t w (1 − p)^γ log p over the targets and classes, weighted (Lin et al., 1708.02002).

    Args:
        logits: Logits of the C classes, ``[…, C]``.
        targets: Share t of each class, ``[…, C]``: 1 for a label, 0 for the others, or what is expected of each.
        weights: Of the classes, ``[C]``; γ = 0 and labels give ``cross_entropy(…, weight=weights)``.
        gamma: Exponent of the focusing factor: the larger, the less well-classified examples count.

    Returns:
        A scalar.
    """
    log_p = logits.log_softmax(-1)
    weight = targets * weights
    losses = -weight * (1 - log_p.exp()) ** gamma * log_p
    return losses.sum() / weight.sum().clamp(min=1e-12)
