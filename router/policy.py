"""From the routers' logits to how often each layer runs: the likeliest way, or the likeliest within a budget.

A sequence's layers are decided one after the other while its prompt is read, so a bound on their number must
be kept without knowing what later routers will say. It is kept by planning: with r layers left to spend at layer l,
a choice c is worth its own log-probability and what the rest is worth with r − c layers left,

    V_l(r) = E[ max_c  log p_l(c) − price·c + V_{l+1}(r − c) ],    V_L(r) = 0,   never below r = 0,

where the mean is over what the routers said of held-out prompts, layer by layer. The bound holds for every sequence,
whatever the routers say; nothing is promised by a mixture of probabilities.

An average over sequences is kept by a price for every layer that runs, found on the same prompts.

Shapes: B rows, L layers, N held-out prompts.
"""

from __future__ import annotations

import math

import torch

from router.model import NUM_CLASSES

#: Prices tried, in nats a layer: beyond these every layer is skipped, or repeated.
_MOST_EXTREME_PRICE = 32.0
_BISECTIONS = 24


class Policy:
    """Decides how often layers run.

    Args:
        sample: Log-probabilities that the routers gave on held-out prompts, ``[N, L, 3]``.
        limit: Most layers that a sequence may run; None for no bound.
        price: Nats that a layer costs.

    Raises:
        ValueError: The limit is below 1.
    """

    def __init__(self, sample: torch.Tensor, *, limit: int | None = None, price: float = 0.0) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"a program has at least one layer, got a limit of {limit}")
        self.num_layers = sample.shape[1]
        self.limit = limit
        self.price = price
        most = self.num_layers * (NUM_CLASSES - 1)
        # Without a bound, one that nothing can reach: then the rest is worth the same whatever is left.
        self._allowance = most if limit is None else min(limit, most)
        self._cost = price * torch.arange(NUM_CLASSES, device=sample.device, dtype=sample.dtype)
        self._rest = None if limit is None or limit >= most else self._plan(sample)

    def decide(self, layer: int, logits: torch.Tensor, spent: torch.Tensor) -> torch.Tensor:
        """How often one layer runs in each row.

        Args:
            layer: Its index.
            logits: Its router's, ``[B, 3]``.
            spent: Layers that each row's program has so far, ``[B]``.

        Returns:
            Counts ``[B]``, 0 to 2.
        """
        worth = logits.float().log_softmax(-1) - self._cost
        if self._rest is not None:
            worth = worth + _after(self._rest[layer + 1], self._allowance - spent)
        if layer == self.num_layers - 1:
            # Somebody must run: no program is empty.
            worth[:, 0] = worth[:, 0].masked_fill(spent == 0, -math.inf)
        return worth.argmax(-1)

    def decide_all(self, logits: torch.Tensor) -> torch.Tensor:
        """Counts ``[B, L]`` from the logits of all layers ``[B, L, 3]``, as if no decision changed a later logit."""
        spent = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
        counts = torch.empty(logits.shape[:2], dtype=torch.long, device=logits.device)
        for layer in range(self.num_layers):
            counts[:, layer] = self.decide(layer, logits[:, layer], spent)
            spent += counts[:, layer]
        return counts

    def _plan(self, sample: torch.Tensor) -> torch.Tensor:
        """What the layers from l on are worth with r left to spend, ``[L + 1, allowance + 1]``."""
        left = torch.arange(self._allowance + 1, device=sample.device)
        rest = sample.new_zeros(self.num_layers + 1, self._allowance + 1)
        for layer in reversed(range(self.num_layers)):
            # [N, 1, 3] and [r, 3]
            worth = (sample[:, layer] - self._cost)[:, None] + _after(rest[layer + 1], left)
            rest[layer] = worth.amax(-1).mean(0)
        return rest


def _after(rest: torch.Tensor, left: torch.Tensor) -> torch.Tensor:
    """What is left is worth after each choice: ``[R]`` by allowance and allowances ``[B]`` to ``[B, 3]``."""
    choice = torch.arange(NUM_CLASSES, device=left.device)
    after = left[:, None] - choice
    return rest[after.clamp(min=0)].masked_fill(after < 0, -math.inf)


def price_of_average(sample: torch.Tensor, average: float, *, limit: int | None = None) -> float:
    """The price at which held-out prompts run a given number of layers on average.

    Args:
        sample: Log-probabilities on those prompts, ``[N, L, 3]``.
        average: Layers wanted, as a fraction of L.
        limit: A bound that is kept too; see ``Policy``.

    Returns:
        Nats a layer; the mean is at most what is wanted, as near as prices come to it. 0 where the bound keeps it.
    """
    wanted = average * sample.shape[1] + 1e-9
    if limit is not None and limit <= wanted:
        return 0.0  # the bound sees to it, and whoever wants less than it may
    low, high = -_MOST_EXTREME_PRICE, _MOST_EXTREME_PRICE
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        counts = Policy(sample, limit=limit, price=middle).decide_all(sample)
        if float(counts.sum(1).float().mean()) > wanted:
            low = middle
        else:
            high = middle
    return high
