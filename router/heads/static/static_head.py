"""A static head: one program for every prompt. It is what is left where nothing that is trained is better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from pipeline.program import LayerProgram

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class StaticHead:
    """A program that runs for every prompt.

    Attributes:
        program: The program.
        hidden_size: Width of the residual stream.
        network: No weights: nothing is read.
    """

    program: LayerProgram
    hidden_size: int
    network: nn.Module = field(default_factory=nn.Identity, repr=False)
    name: ClassVar[str] = "static"

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> StaticHead:
        """The head of its settings.

        Raises:
            KeyError, TypeError, ValueError: The settings are not valid.
        """
        return cls(LayerProgram.parse(settings["program"], int(settings["num_layers"])), int(settings["hidden_size"]))

    @property
    def num_layers(self) -> int:
        return self.program.num_layers

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return ()

    @property
    def least_layers(self) -> int:
        return len(self.program)

    def settings(self) -> dict[str, Any]:
        return {"num_layers": self.num_layers, "hidden_size": self.hidden_size, "program": str(self.program)}

    def on(self, device: torch.device) -> StaticHead:  # nothing is on a device
        return self

    def steering(self, sample: Array, *, limit: int | None = None, average: float | None = None) -> StaticSteering:
        """The program, whatever the budget: one below its length is refused before."""
        return StaticSteering(self.program)


@dataclass(frozen=True)
class StaticSteering:
    """The program of every batch of prompts."""

    program: LayerProgram

    @property
    def num_layers(self) -> int:
        return self.program.num_layers

    def begin(self, mask: torch.Tensor) -> StaticDecisions:
        return StaticDecisions(self.program)


@dataclass(frozen=True)
class StaticDecisions:
    """The decisions for one batch: the program, before anything is read."""

    program: LayerProgram
    known: ClassVar[dict[int, int]] = {}

    def decide(self, layer: int, hidden: torch.Tensor) -> list[LayerProgram]:
        return [self.program] * len(hidden)


def static_card(config: Mapping[str, Any]) -> str:
    """The model card's description of a static router, from ``config.json``."""
    return f"""# One program for {config["base_model"]["name"]}

The frozen model runs its layers as `{config["program"]}` for every prompt. {config["made"].get("reason", "")}
"""
