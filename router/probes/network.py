"""Probes: small classifiers on a frozen model's hidden states, which the forward pass already computes (2601.13288).

A probe aggregates the hidden states of all tokens and layers in two stages, both by the same mechanism: the tokens of
a layer become one vector, then the layers' vectors become one, and a linear head predicts the label.

Three mechanisms, with the paper's numbers of parameters for L layers and hidden size d:

    pooling    the mean or the largest value; no parameters
    gate       a sum weighted by a softmax of tanh(w·x); one w for each state, one for the layers: (L + 2)·d
    mha        self-attention in d' = d / downcast dimensions with H heads, then pooling; (L + 2)·4·d·d'

The paper leaves some details open. Here every state is divided by its root mean square first (see
``router.features.hidden_states``), because states grow from layer to layer; a gate's weights start at zero, as a mean;
projections have no biases; there is no dropout.

Shapes: B texts, S = L + 1 states (the first layer's input and each layer's output), T tokens, D hidden size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from router.probes.probe_requests import ProbeKind


@dataclass(frozen=True, kw_only=True)
class ProbeConfig(ProbeKind):
    """The shape of a probe: its kind on a model's sizes.

    Raises:
        ValueError: A field is out of its range, or two fields exclude each other.
    """

    num_layers: int
    """Depth L of the model."""
    hidden_size: int
    """Width D of its residual stream."""
    num_classes: int
    """Number of classes C."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_layers", "hidden_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {self.num_classes}")
        if self.aggregator == "mha":
            if self.hidden_size % self.downcast:
                raise ValueError(f"downcast {self.downcast} does not divide the hidden size {self.hidden_size}")
            if self.inner_size % self.num_heads:
                raise ValueError(
                    f"num_heads {self.num_heads} does not divide hidden size / downcast, which is {self.inner_size}"
                )

    @property
    def inner_size(self) -> int:
        """Number of dimensions in which ``mha`` attends."""
        return self.hidden_size // self.downcast


class Pooling(nn.Module):
    """The mean or the largest value of the valid states.

    Args:
        how: ``mean`` or ``max``.
    """

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, states: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Pool states ``[B, G, N, D]`` of G groups to ``[B, G, D]``; ``valid`` is a mask over N, ``[B, N]``."""
        outside = ~valid[:, None, :, None]
        if self.how == "max":
            return states.masked_fill(outside, -math.inf).amax(2)
        return states.masked_fill(outside, 0.0).sum(2) / valid.sum(1)[:, None, None]

    def weights(self, states: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Weight of each state, ``[B, G, N]``; for ``max``, the share of dimensions in which it is the largest."""
        if self.how == "max":
            largest = states.masked_fill(~valid[:, None, :, None], -math.inf).argmax(2)
            return nn.functional.one_hot(largest, states.shape[2]).float().mean(2)
        return (valid / valid.sum(1, keepdim=True))[:, None].expand(-1, states.shape[1], -1)


class Gate(nn.Module):
    """A weighted sum; each state predicts its own weight.

    Args:
        groups: Groups G, each with weights of its own.
        size: Hidden size D.
    """

    def __init__(self, groups: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(groups, size))

    def weights(self, states: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Weight of each state, ``[B, G, N]``; the weights of a group sum to one."""
        scores = torch.tanh(torch.einsum("bgnd,gd->bgn", states, self.weight))
        return scores.masked_fill(~valid[:, None], -math.inf).softmax(-1)

    def forward(self, states: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Pool states as ``Pooling.forward`` does."""
        return torch.einsum(
            "bgn,bgnd->bgd", self.weights(states, valid), states.masked_fill(~valid[:, None, :, None], 0.0)
        )


class Attention(nn.Module):
    """Self-attention in few dimensions, then pooling.

    Args:
        groups: Groups G, each with projections of its own.
        config: Shape of the probe.
        generator: Random generator of the Xavier-uniform projections.
    """

    def __init__(self, groups: int, config: ProbeConfig, generator: torch.Generator) -> None:
        super().__init__()
        size, inner = config.hidden_size, config.inner_size
        self.num_heads = config.num_heads
        self.inward = nn.Parameter(torch.empty(groups, 3, size, inner))
        self.outward = nn.Parameter(torch.empty(groups, inner, size))
        for weight in (*self.inward.data.flatten(0, 1), *self.outward.data):
            nn.init.xavier_uniform_(weight, generator=generator)
        self.pooling = Pooling(config.pooling)

    def weights(self, states: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Attention to each state, ``[B, G, N]``: the mean over heads and queries."""
        query, key, _ = self._project(states, valid)
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        attention = scores.masked_fill(~valid[:, None, None, None], -math.inf).softmax(-1).mean(2)
        queries = valid[:, None, :, None]
        attended: torch.Tensor = (attention * queries).sum(2) / queries.sum(2)
        return attended

    def _project(self, states: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Queries, keys and values, ``[3, B, G, H, N, d'/H]``."""
        # Invalid states may hold any value, NaN included, and must not matter.
        states = states.masked_fill(~valid[:, None, :, None], 0.0)
        projected = torch.einsum("bgnd,gkdi->kbgni", states, self.inward)
        heads = projected.view(*projected.shape[:-1], self.num_heads, -1)
        return heads.transpose(3, 4)

    def forward(self, states: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Pool states as ``Pooling.forward`` does."""
        batch, groups, number, _ = states.shape
        query, key, value = self._project(states, valid)
        attended = nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=valid[:, None, None, None, :].expand(batch, groups, 1, 1, number)
        )
        joined = attended.transpose(2, 3).reshape(batch, groups, number, -1)
        pooled: torch.Tensor = self.pooling(torch.einsum("bgni,gid->bgnd", joined, self.outward), valid)
        return pooled


class ProbeNetwork(nn.Module):
    """Two stages of aggregation and a linear head.

    Args:
        config: Shape of the probe.
        seed: Seed of the initial weights.
    """

    def __init__(self, config: ProbeConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        generator = torch.Generator().manual_seed(seed)

        def stage(groups: int) -> Pooling | Gate | Attention:
            if config.aggregator == "pooling":
                return Pooling(config.pooling)
            if config.aggregator == "gate":
                return Gate(groups, config.hidden_size)
            return Attention(groups, config, generator)

        states = config.num_layers + 1
        #: Aggregates the tokens of each layer.
        self.tokens = stage(states if config.scope == "all" else 1) if config.scope in ("all", "tokens") else None
        #: Aggregates the layers.
        self.layers = stage(1) if config.scope in ("all", "layers") else None
        self.head = nn.Linear(config.hidden_size, config.num_classes)
        bound = 1 / math.sqrt(config.hidden_size)
        with torch.no_grad():
            self.head.weight.uniform_(-bound, bound, generator=generator)
            self.head.bias.zero_()

    def forward(self, states: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Logits of the labels.

        Args:
            states: The first layer's input and each layer's output, ``[B, S, T, D]``. T may be 1 where the tokens are
                pooled already or the probe reads the last token only; S may be 1 where it reads the last state only.
            valid: Mask of the tokens without padding, bool ``[B, T]``; at least one token of each text.

        Returns:
            ``[B, classes]``.
        """
        vectors = self._vectors(states, valid)
        summed = vectors[:, -1]
        if self.layers is not None:
            summed = self.layers(vectors[:, None], valid.new_ones(vectors.shape[:2]))[:, 0]
        logits: torch.Tensor = self.head(summed)
        return logits

    def layer_weights(self, states: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Weight of each state in each text, ``[B, S]``; 1 for the last state where the probe reads no other."""
        vectors = self._vectors(states, valid)
        if self.layers is None:
            return vectors.new_tensor([0.0] * self.config.num_layers + [1.0]).expand(len(states), -1)
        weights: torch.Tensor = self.layers.weights(vectors[:, None], valid.new_ones(vectors.shape[:2]))[:, 0]
        return weights

    def _vectors(self, states: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """One vector for each state that the probe reads, ``[B, S or 1, D]``."""
        if self.config.scope in ("tokens", "last"):
            states = states[:, -1:]
        if self.config.scope in ("layers", "last"):
            positions = torch.arange(valid.shape[1], device=valid.device)
            last = (positions * valid).argmax(1)
            states = states[torch.arange(len(states), device=states.device), :, last][:, :, None]
            valid = valid.new_ones(len(states), 1)
        vectors: torch.Tensor = states[:, :, 0] if self.tokens is None else self.tokens(states, valid)
        return vectors
