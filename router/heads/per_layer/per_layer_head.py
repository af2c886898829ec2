"""The head of the paper: a router for every layer, asked when a prompt comes to it (Dr.LLM, section 3.2)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from router.features.windows import pool_windows, window_weights
from router.heads.per_layer.budget import Policy, policy_of_average
from router.heads.per_layer.routers import LayerRouters, RouterConfig, RoutersApart
from router.labels.labelled import NUM_CLASSES

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class PerLayerHead:
    """A router for every layer.

    Attributes:
        network: The routers.
    """

    network: LayerRouters
    name: ClassVar[str] = "per-layer"

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> PerLayerHead:
        """Routers without their weights.

        Raises:
            KeyError, TypeError, ValueError: The settings are none.
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
        policy = Policy(sample, limit=limit) if average is None else policy_of_average(sample, average, limit=limit)
        return PerLayerSteering(self.network.apart(), policy)


@dataclass(frozen=True)
class PerLayerSteering:
    """Routers that are asked under a policy.

    Attributes:
        routers: They.
        policy: Decides by what they say.
    """

    routers: RoutersApart
    policy: Policy

    @property
    def num_layers(self) -> int:
        return self.policy.num_layers

    def begin(self, mask: torch.Tensor) -> PerLayerDecisions:
        return PerLayerDecisions(self.routers, self.policy, mask)


class PerLayerDecisions:
    """One batch of prompts whose layers' routers are asked one after the other.

    Args:
        routers: They.
        policy: Decides by what they say.
        mask: Which tokens are no padding, ``[B, T]``.
    """

    def __init__(self, routers: RoutersApart, policy: Policy, mask: torch.Tensor) -> None:
        self._routers, self._policy = routers, policy
        filled = mask.numpy(force=True)
        windows = window_weights(filled.sum(1), filled.argmax(1), filled.shape[1], routers.num_windows)
        self._windows = torch.from_numpy(windows).to(mask.device)
        self.known: dict[int, int] = {}
        if not policy.bounded:
            # What is settled is known before anything is read; but for the last layer, which makes sure that one runs.
            settled = routers.settled[:-1].nonzero()[0]
            counts = policy.likeliest(routers.answers[settled])
            self.known = dict(zip(settled.tolist(), counts.tolist()))
        self._spent = np.full(len(filled), sum(self.known.values()))

    def decide(self, layer: int, hidden: torch.Tensor) -> Array:
        if self._routers.settled[layer]:
            logits = self._routers.answers[None, layer].repeat(len(hidden), axis=0)
        else:
            logits = self._routers.routers[layer](pool_windows(hidden, self._windows)).numpy(force=True)
        counts = self._policy.decide(layer, logits, self._spent)
        self._spent = self._spent + counts
        return counts
