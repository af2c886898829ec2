"""The per-layer routers: small networks that read a layer's input and predict how often the layer should run.

All L routers are one batched module. Each one splits the prompt's tokens into W contiguous windows, averages
each, and sends the means through Linear(D → width), GELU, Linear(width → 3); its W outputs are averaged
(Dr.LLM, arXiv 2510.12773, section 3.2).

Shapes: B rows, T tokens, W windows, L layers, D hidden size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from router.labels.labelled import NUM_CLASSES


@dataclass(frozen=True, kw_only=True)
class RouterConfig:
    """The size of the routers.

    Raises:
        ValueError: A size is below 1.
    """

    num_layers: int
    """Depth L of the base model: one router each."""
    hidden_size: int
    """Width D of its residual stream."""
    num_windows: int = 8
    """Windows W that a prompt is cut into."""
    width: int = 128
    """Number of hidden units of a router."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")


class LayerRouters(nn.Module):
    """L routers in one module.

    Args:
        config: Sizes of the routers.
        seed: Seed of the Xavier-uniform weights; biases start at zero.
    """

    def __init__(self, config: RouterConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        generator = torch.Generator().manual_seed(seed)
        layers, hidden, width = config.num_layers, config.hidden_size, config.width
        self.weight_in = nn.Parameter(torch.empty(layers, hidden, width))
        self.bias_in = nn.Parameter(torch.zeros(layers, width))
        self.weight_out = nn.Parameter(torch.empty(layers, width, NUM_CLASSES))
        self.bias_out = nn.Parameter(torch.zeros(layers, NUM_CLASSES))
        for weight in (self.weight_in, self.weight_out):
            for layer in range(layers):
                nn.init.xavier_uniform_(weight.data[layer], generator=generator)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """Windows of every layer's input, ``[B, L, W, D]``, to logits ``[B, L, 3]``."""
        rows, layers, windows, hidden = pooled.shape
        by_layer = pooled.permute(1, 0, 2, 3).reshape(layers, rows * windows, hidden)
        inner = nn.functional.gelu(torch.baddbmm(self.bias_in[:, None], by_layer, self.weight_in))
        logits = torch.baddbmm(self.bias_out[:, None], inner, self.weight_out)
        return logits.view(layers, rows, windows, NUM_CLASSES).mean(2).transpose(0, 1)

    @torch.no_grad()
    def make_constant(self, layers: torch.Tensor, logits: torch.Tensor) -> None:
        """Give some routers constant logits; training then changes nothing but their last bias.

        Args:
            layers: Layers whose routers become constant, bool ``[L]``.
            logits: Logits of the constant layers, ``[L, 3]``; rows of other layers are not used.
        """
        self.weight_in[layers] = 0
        self.weight_out[layers] = 0
        self.bias_out[layers] = logits[layers].to(self.bias_out)

    def unstacked(self) -> UnstackedRouters:
        """A separate router for each layer, for a model that runs layer by layer."""
        windows = self.config.num_windows
        # The half of GELU, and the division that makes a mean of the sum over windows.
        weight_out = self.weight_out.detach() * (0.5 / windows)
        weight_in, bias_in, bias_out = (part.detach() for part in (self.weight_in, self.bias_in, self.bias_out))
        return UnstackedRouters(
            routers=[LayerRouter(*weights) for weights in zip(weight_in, bias_in, weight_out, bias_out)],
            constant=~weight_out.flatten(1).any(1).numpy(force=True),
            constant_logits=bias_out.numpy(force=True),
            num_windows=windows,
        )


class UnstackedRouters(NamedTuple):
    """A separate router for each layer.

    Attributes:
        routers: The routers, by layer.
        constant: Whether a router's logits are the same for every prompt, bool ``[L]``.
        constant_logits: Logits of the constant routers, ``[L, 3]``.
        num_windows: Windows W of every router.
    """

    routers: list[LayerRouter]
    constant: np.ndarray[Any, Any]
    constant_logits: np.ndarray[Any, Any]
    num_windows: int


class LayerRouter(NamedTuple):
    """The router of one layer, in few operations, each of which delays a prompt.

    Attributes:
        weight_in: Weights of the hidden units, ``[D, width]``.
        bias_in: Biases of the hidden units, ``[width]``.
        weight_out: ``[width, 3]``, halved and divided by the number of windows.
        bias_out: Biases of the three classes, ``[3]``.
    """

    weight_in: torch.Tensor
    bias_in: torch.Tensor
    weight_out: torch.Tensor
    bias_out: torch.Tensor

    def __call__(self, pooled: torch.Tensor) -> torch.Tensor:
        """Windows of the layer's input, ``[B, W, D]``, to logits ``[B, 3]``."""
        inner = torch.addmm(self.bias_in, pooled.flatten(0, 1), self.weight_in)
        # Twice GELU, by its definition: the library's own wakes a second thread, whatever the size.
        active = torch.erf(inner * math.sqrt(0.5)).add_(1).mul_(inner)
        return torch.addmm(self.bias_out, active.view(len(pooled), -1, inner.shape[1]).sum(1), self.weight_out)
