"""The other head: one probe behind an early exit, which says how deep a prompt needs to go (2601.13288 and 2510.12773).

The first layers run on every prompt. From what they make of it a probe then tells whether a short program will do,
whether the untouched model should go on, or whether a correction is needed; each class has one program, which agrees
with the untouched model up to the exit.

Mistakes differ: a short program where the full depth is needed costs an answer, the full depth where a short one would
do costs some layers. So what runs is not the likeliest class's program, but the one of the highest expected worth, by
what each program was worth on the training questions of each class.

Shapes: B rows, T tokens, K layers before the exit, C classes, D hidden size.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from pipeline.program import LayerProgram
from router.features.hidden_states import reduced, together
from router.heads.per_layer.budget import price_where
from router.probes.network import ProbeConfig, ProbeNetwork
from router.probes.probe_requests import ProbeKind

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class EarlyExitHead:
    """A probe on the first layers' states, and a program for each of its classes.

    Attributes:
        network: The probe; its depth is that of the exit.
        programs: Each class's, in the order of the probe's classes.
        worth: For each class its questions' mean worth of each program, ``[C, C]``: right answers, and what the layers
            that it saves are worth.

    Raises:
        ValueError: A program changes a layer before the exit or is not in the layers' order, classes are missing, or a
            worth is none.
    """

    network: ProbeNetwork
    programs: dict[str, LayerProgram]
    worth: Array
    name: ClassVar[str] = "probe"

    def __post_init__(self) -> None:
        if len(self.programs) != self.network.config.num_classes:
            raise ValueError(f"{len(self.programs)} programs for {self.network.config.num_classes} classes")
        if self.worth.shape != (len(self.programs),) * 2 or not np.isfinite(self.worth).all():
            raise ValueError(f"the programs' worth is no table of {len(self.programs)} by {len(self.programs)} numbers")
        for name, program in self.programs.items():
            if not untouched_before(program, self.early):
                raise ValueError(f"the program of {name!r} changes what lies before layer {self.early}: {program}")

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> EarlyExitHead:
        """A head without its weights.

        Raises:
            KeyError, TypeError, ValueError: The settings are none.
        """
        depth = int(settings["num_layers"])
        programs = {str(name): LayerProgram.parse(text, depth) for name, text in dict(settings["programs"]).items()}
        shape = ProbeConfig(
            **settings["probe"],
            num_layers=settings["early"],
            hidden_size=settings["hidden_size"],
            num_classes=len(programs),
        )
        return cls(ProbeNetwork(shape), programs, np.array(settings["worth"], dtype=np.float64))

    @property
    def early(self) -> int:
        """The layers K before the exit."""
        return self.network.config.num_layers

    @property
    def num_layers(self) -> int:
        return next(iter(self.programs.values())).num_layers

    @property
    def hidden_size(self) -> int:
        return self.network.config.hidden_size

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return (len(self.programs),)

    @property
    def least_layers(self) -> int:
        return min(map(len, self.programs.values()))

    def settings(self) -> dict[str, Any]:
        kind = {name: value for name, value in asdict(self.network.config).items() if name in _KIND_FIELDS}
        return {
            "num_layers": self.num_layers,
            "hidden_size": self.hidden_size,
            "early": self.early,
            "probe": kind,
            "programs": {name: str(program) for name, program in self.programs.items()},
            "worth": self.worth.tolist(),
        }

    def on(self, device: torch.device) -> EarlyExitHead:
        return EarlyExitHead(copy.deepcopy(self.network).to(device), self.programs, self.worth)

    def steering(self, sample: Array, *, limit: int | None = None, average: float | None = None) -> DepthSteering:
        lengths = np.array([len(program) for program in self.programs.values()])
        most = lengths.max() if limit is None else limit

        def steering(price: float) -> DepthSteering:
            return DepthSteering(self, np.where(lengths > most, np.inf, price * lengths))

        if average is None:
            return steering(0.0)
        wanted = average * self.num_layers + 1e-9
        # Nobody who wants less than the average allows is made to run more.
        price = price_where(
            lambda price: price >= 0 and float(lengths[steering(price).choose(sample)].mean()) <= wanted
        )
        return steering(price)


_KIND_FIELDS = frozenset(ProbeKind.__dataclass_fields__)


@dataclass(frozen=True)
class DepthSteering:
    """A probe that is asked at its exit.

    Attributes:
        head: The probe, and its programs.
        cost: What is taken off each program's worth, ``[C]``; infinite for what may not run.
    """

    head: EarlyExitHead
    cost: Array

    def choose(self, log_probs: Array) -> Array:
        """Numbers of the programs that run, ``[N]``, from the classes' log-probabilities ``[N, C]``."""
        return np.asarray((np.exp(log_probs) @ self.head.worth - self.cost).argmax(1))

    @property
    def num_layers(self) -> int:
        return self.head.num_layers

    def begin(self, mask: torch.Tensor) -> DepthDecisions:
        return DepthDecisions(self, mask)


class DepthDecisions:
    """One batch of prompts: what enters its first layers is kept, and decides at the exit.

    Args:
        steering: Decides.
        mask: Which tokens are no padding, ``[B, T]``.
    """

    known: ClassVar[dict[int, int]] = {}

    def __init__(self, steering: DepthSteering, mask: torch.Tensor) -> None:
        self._steering = steering
        self._inside = mask.bool()
        self._states: list[torch.Tensor] = []
        self._counts = np.zeros(0)

    def decide(self, layer: int, hidden: torch.Tensor) -> Array:
        head = self._steering.head
        if layer <= head.early:
            self._states.append(hidden)
        if layer < head.early:
            return np.ones(len(hidden), dtype=np.int64)
        if layer == head.early:
            chosen = self._steering.choose(self._log_probs())
            self._counts = np.array([program.counts for program in head.programs.values()])[chosen]
            self._states.clear()
        counts: Array = self._counts[:, layer]
        return counts

    def _log_probs(self) -> Array:
        """What the probe says of each row, ``[B, C]``; row by row, so that no neighbour's padding has a say."""
        network = self._steering.head.network
        reading = network.config.reading
        logits = []
        for row, inside in enumerate(self._inside):
            states = torch.stack([reduced(state[row][inside], reading) for state in self._states])
            read = together(states, reading).transpose(0, 1)[None].float()
            logits.append(network(read, inside.new_ones(1, read.shape[2])))
        found: Array = torch.cat(logits).float().log_softmax(-1).numpy(force=True)
        return found


def untouched_before(program: LayerProgram, early: int) -> bool:
    """Whether a program runs each of the first so many layers once, and keeps the layers' order."""
    counts = program.counts
    return counts is not None and counts[:early] == (1,) * early
