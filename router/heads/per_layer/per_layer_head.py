"""Per-layer routers: each reads its layer's input, and decides how often the layer runs (Dr.LLM, section 3.2)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from router.features.windows import pool_windows, window_weights
from router.heads.per_layer.budget import BudgetPlanner, planner_for_average
from router.heads.per_layer.per_layer_request import PerLayerRequest
from router.heads.per_layer.routers import LayerRouters, RouterConfig, UnstackedRouters
from router.labels.labelled import NUM_CLASSES

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class PerLayerHead:
    """A router for every layer.

    Attributes:
        network: The routers of all layers.
    """

    network: LayerRouters
    name: ClassVar[str] = PerLayerRequest.name

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> PerLayerHead:
        """Routers of the given sizes, with weights that are yet to be loaded.

        Raises:
            KeyError, TypeError, ValueError: The settings are not valid.
        """
        fields = RouterConfig.__dataclass_fields__
        return cls(LayerRouters(RouterConfig(**{name: settings[name] for name in fields})))

    @property
    def num_layers(self) -> int:
        return self.network.config.num_layers

    @property
    def hidden_size(self) -> int:
        return self.network.config.hidden_size

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return self.num_layers, NUM_CLASSES

    @property
    def least_layers(self) -> int:
        return 1

    def settings(self) -> dict[str, Any]:
        return asdict(self.network.config)

    def on(self, device: torch.device) -> PerLayerHead:
        return PerLayerHead(copy.deepcopy(self.network).to(device))

    def steering(self, sample: Array, *, limit: int | None = None, average: float | None = None) -> PerLayerSteering:
        if average is None:
            planner = BudgetPlanner(sample, limit=limit)
        else:
            planner = planner_for_average(sample, average, limit=limit)
        return PerLayerSteering(self.network.unstacked(), planner)


@dataclass(frozen=True)
class PerLayerSteering:
    """Routers under a budget.

    Attributes:
        routers: The routers, by layer.
        planner: Decides by their logits.
    """

    routers: UnstackedRouters
    planner: BudgetPlanner

    @property
    def num_layers(self) -> int:
        return self.planner.num_layers

    def begin(self, mask: torch.Tensor) -> PerLayerDecisions:
        return PerLayerDecisions(self.routers, self.planner, mask)


class PerLayerDecisions:
    """One batch of prompts: each layer's router reads the layer's input.

    Args:
        routers: The routers, by layer.
        planner: Decides by their logits.
        mask: 0 at padding, ``[B, T]``.
    """

    def __init__(self, routers: UnstackedRouters, planner: BudgetPlanner, mask: torch.Tensor) -> None:
        self._routers, self._planner = routers, planner
        filled = mask.numpy(force=True)
        windows = window_weights(filled.sum(1), filled.argmax(1), filled.shape[1], routers.num_windows)
        self._windows = torch.from_numpy(windows).to(mask.device)
        self.known: dict[int, int] = {}
        if not planner.bounded:
            # Constant routers decide before anything is read. The last layer cannot: it ensures that one layer runs.
            constant = routers.constant[:-1].nonzero()[0]
            counts = planner.likeliest(routers.constant_logits[constant])
            self.known = dict(zip(constant.tolist(), counts.tolist()))
        self._spent = np.full(len(filled), sum(self.known.values()))

    def decide(self, layer: int, hidden: torch.Tensor) -> Array:
        if self._routers.constant[layer]:
            logits = self._routers.constant_logits[None, layer].repeat(len(hidden), axis=0)
        else:
            logits = self._routers.routers[layer](pool_windows(hidden, self._windows)).numpy(force=True)
        counts = self._planner.decide(layer, logits, self._spent)
        self._spent = self._spent + counts
        return counts


def per_layer_card(config: Mapping[str, Any]) -> str:
    """The model card's description of per-layer routers, from ``config.json``."""
    return f"""# Per-layer routers for {config["base_model"]["name"]}

Small networks that read a prompt as it passes through the frozen model and decide for each of its
{config["num_layers"]} layers whether it is skipped, run, or run twice, for the whole answer. Made by
`drllm-pipeline train` (Dr.LLM, arXiv 2510.12773).
"""
