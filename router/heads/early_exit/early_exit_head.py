"""One classifier behind an early exit, which predicts the depth that a prompt needs (2601.13288 and 2510.12773).

The first layers run on every prompt. A probe of their states then predicts whether a short program suffices, whether
the base model is needed, or whether a correction is; each class has one program, which agrees with the identity
program up to the exit.

Mistakes differ: a short program where the full depth is needed costs an answer, the full depth where a short one
suffices costs some layers. So the program that runs is not the likeliest class's, but the one of the highest expected
value, by the mean value of each program on the training examples of each class.

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
from router.features.hidden_states import pool_states, stack_states
from router.heads.early_exit.early_exit_request import EarlyExitRequest
from router.heads.per_layer.budget import price_where
from router.probes.network import ProbeConfig, ProbeNetwork
from router.probes.probe_requests import ProbeKind

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class EarlyExitHead:
    """A probe on the first layers' states, and a program for each of its classes.

    Attributes:
        network: The probe; its depth is that of the exit.
        programs: The program of each class, in the order of the probe's classes.
        worth: The mean value of each program on the examples of each class, ``[C, C]``: the share of right answers,
            plus the price of the layers that the program saves.

    Raises:
        ValueError: A program changes a layer before the exit or is not in the layers' order, classes are missing, or a
            value is not a finite number.
    """

    network: ProbeNetwork
    programs: dict[str, LayerProgram]
    worth: Array
    name: ClassVar[str] = EarlyExitRequest.name

    def __post_init__(self) -> None:
        if len(self.programs) != self.network.config.num_classes:
            raise ValueError(f"{len(self.programs)} programs for {self.network.config.num_classes} classes")
        if self.worth.shape != (len(self.programs),) * 2 or not np.isfinite(self.worth).all():
            raise ValueError(
                f"the programs' worth is not a table of {len(self.programs)} by {len(self.programs)} numbers"
            )
        for name, program in self.programs.items():
            if not keeps_first_layers(program, self.early):
                raise ValueError(f"the program of {name!r} changes what lies before layer {self.early}: {program}")

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> EarlyExitHead:
        """A head of the given sizes, with weights that are yet to be loaded.

        Raises:
            KeyError, TypeError, ValueError: The settings are not valid.
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
        """Number of layers K before the exit."""
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

    def steering(self, sample: Array, *, limit: int | None = None, average: float | None = None) -> EarlyExitSteering:
        lengths = np.array([len(program) for program in self.programs.values()])
        most = lengths.max() if limit is None else limit

        def steering(price: float) -> EarlyExitSteering:
            return EarlyExitSteering(self, np.where(lengths > most, np.inf, price * lengths))

        if average is None:
            return steering(0.0)
        wanted = average * self.num_layers + 1e-9
        # A negative price would lengthen programs where the likeliest ones are already short enough.
        price = price_where(
            lambda price: price >= 0 and float(lengths[steering(price).choose(sample)].mean()) <= wanted
        )
        return steering(price)


_KIND_FIELDS = frozenset(ProbeKind.__dataclass_fields__)


@dataclass(frozen=True)
class EarlyExitSteering:
    """An early exit under a budget.

    Attributes:
        head: The probe and its programs.
        cost: Subtracted from each program's expected value, ``[C]``; infinite for programs above the limit.
    """

    head: EarlyExitHead
    cost: Array

    def choose(self, log_probs: Array) -> Array:
        """Indices of the programs that run, ``[N]``, from the classes' log-probabilities ``[N, C]``."""
        return np.asarray((np.exp(log_probs) @ self.head.worth - self.cost).argmax(1))

    @property
    def num_layers(self) -> int:
        return self.head.num_layers

    def begin(self, mask: torch.Tensor) -> EarlyExitDecisions:
        return EarlyExitDecisions(self, mask)


class EarlyExitDecisions:
    """One batch of prompts: the states up to the exit are kept, and the probe reads them at the exit and decides.

    Args:
        steering: The early exit under its budget.
        mask: 0 at padding, ``[B, T]``.
    """

    known: ClassVar[dict[int, int]] = {}

    def __init__(self, steering: EarlyExitSteering, mask: torch.Tensor) -> None:
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
        """The probe's log-probabilities, ``[B, C]``; row by row, so that padding changes no decision."""
        network = self._steering.head.network
        selection = network.config.state_selection
        logits = []
        for row, inside in enumerate(self._inside):
            states = torch.stack([pool_states(state[row][inside], selection) for state in self._states])
            read = stack_states(states, selection).transpose(0, 1)[None].float()
            logits.append(network(read, inside.new_ones(1, read.shape[2])))
        found: Array = torch.cat(logits).float().log_softmax(-1).numpy(force=True)
        return found


def keeps_first_layers(program: LayerProgram, early: int) -> bool:
    """Whether a program runs each of the first ``early`` layers once, and keeps the layers' order."""
    counts = program.counts
    return counts is not None and counts[:early] == (1,) * early


def early_exit_card(config: Mapping[str, Any]) -> str:
    """The model card's description of an early exit, from ``config.json``."""
    programs = "\n".join(f"| {name} | `{program}` |" for name, program in config["programs"].items())
    return f"""# An early exit for {config["base_model"]["name"]}

A small classifier that reads the hidden states of a prompt after the frozen model's first {config["early"]} layers, and
chooses which of these programs of its {config["num_layers"]} layers runs, for the whole answer. Made by
`drllm-pipeline train --head early-exit` (arXiv 2601.13288 and 2510.12773).

| class | layers |
| --- | --- |
{programs}
"""
