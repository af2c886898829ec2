"""A selector as a kind of router: the first layers run, their states choose one of a menu's programs, the rest runs.

Shapes: B rows, T tokens, D hidden size, K programs, F inputs.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from pipeline.program import LayerProgram
from router.features.hidden_states import pool_states
from router.heads.per_layer.budget import price_where
from router.heads.selector.beliefs import Beliefs
from router.heads.selector.choice import MenuChoice
from router.heads.selector.fit import places_behind

Array = np.ndarray[Any, Any]

#: The states of a depth that a selector reads: that of the last token, and the mean over all.
SELECTIONS = ("last", "mean")
#: Depths in front of the exit that a selector reads.
_NUM_DEPTHS = 4


class SelectorNetwork(nn.Module):
    """The map from inputs to chances, and how sure it is; see ``beliefs``.

    Args:
        inputs: Number of inputs F.
        programs: Number of programs K.
        components: Number of components C of the inputs.
        landmarks: Number of landmarks J.
        covariances: 1 where all programs share a covariance, else K.
    """

    projection: torch.Tensor
    offset: torch.Tensor
    weights: torch.Tensor
    scale: torch.Tensor
    landmarks: torch.Tensor
    of_landmarks: torch.Tensor
    covariance: torch.Tensor
    noise: torch.Tensor

    def __init__(self, inputs: int, programs: int, *, components: int, landmarks: int, covariances: int) -> None:
        super().__init__()
        if covariances not in (1, programs) or min(components, landmarks) < 1:
            raise ValueError(
                f"a selector of {programs} programs has no {covariances} covariances of {components} components, or no "
                f"{landmarks} landmarks"
            )
        shapes = {
            "projection": (inputs, components),
            "offset": (components,),
            "weights": (components + 1, programs),
            "scale": (components,),
            "landmarks": (landmarks, components),
            "of_landmarks": (landmarks, programs),
            "covariance": (covariances, components + 1, components + 1),
            "noise": (programs,),
        }
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))

    @classmethod
    def of(cls, beliefs: Beliefs) -> SelectorNetwork:
        """The network that says what beliefs say."""
        inputs, components = beliefs.projection.shape
        landmarks, programs = beliefs.of_landmarks.shape
        made = cls(inputs, programs, components=components, landmarks=landmarks, covariances=len(beliefs.precision))
        values = {
            "projection": beliefs.projection,
            "offset": beliefs.offset,
            "weights": beliefs.weights,
            "scale": beliefs.landmarks.scale,
            "landmarks": beliefs.landmarks.points,
            "of_landmarks": beliefs.of_landmarks,
            "covariance": beliefs.covariance(),
            "noise": beliefs.noise,
        }
        made.load_state_dict({name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in values.items()})
        return made.eval().requires_grad_(False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Mean chance of each program, ``[B, F]`` to ``[B, K]``."""
        components = self._components(inputs)
        # Not by the products of the points, whose differences lose small distances to rounding.
        apart = torch.cdist(
            components[:, :-1] * self.scale, self.landmarks, compute_mode="donot_use_mm_for_euclid_dist"
        )
        return components @ self.weights + torch.exp(-apart.square()) @ self.of_landmarks

    def deviations(self, inputs: torch.Tensor) -> torch.Tensor:
        """Standard deviation of each program's chance, ``[B, F]`` to ``[B, K]``."""
        components = self._components(inputs)
        spread = torch.einsum("bi,pij,bj->bp", components, self.covariance, components)
        return (spread.clamp(min=0) * self.noise).sqrt()

    def _components(self, inputs: torch.Tensor) -> torch.Tensor:
        """The components of inputs, and the constant 1, ``[B, F]`` to ``[B, C + 1]``."""
        return torch.cat([inputs @ self.projection + self.offset, inputs.new_ones(len(inputs), 1)], 1)


@dataclass(frozen=True)
class SelectorHead:
    """A map from the first layers' states to chances of being right, and the choice among them.

    Attributes:
        network: The map.
        programs: The programs, the identity program first.
        exit: Layers that run before the choice.
        hidden_size: Width D of the residual stream.
        choice: The rule of the choice.

    Raises:
        ValueError: A program changes a layer before the exit, or the sizes do not match.
    """

    network: SelectorNetwork
    programs: tuple[LayerProgram, ...]
    exit: int
    hidden_size: int
    choice: MenuChoice
    name: ClassVar[str] = "selector"

    def __post_init__(self) -> None:
        if not self.programs or not self.programs[0].is_identity:
            raise ValueError("the first program of a selector is the identity program")
        if not 1 <= self.exit < self.num_layers:
            raise ValueError(f"an exit of {self.exit} is not among the {self.num_layers} layers")
        if places_behind(self.programs, self.exit) != list(range(len(self.programs))):
            raise ValueError(f"a program changes what lies before layer {self.exit}")
        wanted = num_inputs(self.exit, self.hidden_size), len(self.programs)
        found = len(self.network.projection), self.network.weights.shape[1]
        if found != wanted or self.choice.static.shape != wanted[1:]:
            raise ValueError(f"the network of a selector has the shape {found}, not {wanted}")
        if not np.isfinite([*self.choice.static, self.choice.caution, self.choice.layer_price]).all():
            raise ValueError("a selector's shares, caution and price are finite numbers")

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> SelectorHead:
        """A head of the given sizes, with weights that are yet to be loaded.

        Raises:
            KeyError, TypeError, ValueError: The settings are not valid.
        """
        depth, hidden_size, at = (int(settings[name]) for name in ("num_layers", "hidden_size", "exit"))
        programs = tuple(LayerProgram.parse(text, depth) for text in settings["programs"])
        choice = MenuChoice(
            lengths=np.array([len(program) for program in programs]),
            static=np.array(settings["static"], dtype=np.float64),
            caution=float(settings["caution"]),
            layer_price=float(settings["layer_price"]),
        )
        network = SelectorNetwork(
            num_inputs(at, hidden_size),
            len(programs),
            components=int(settings["components"]),
            landmarks=int(settings["landmarks"]),
            covariances=int(settings["covariances"]),
        )
        return cls(network, programs, at, hidden_size, choice)

    @property
    def num_layers(self) -> int:
        return self.programs[0].num_layers

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return (len(self.programs),)

    @property
    def least_layers(self) -> int:
        return min(map(len, self.programs))

    def settings(self) -> dict[str, Any]:
        return {
            "num_layers": self.num_layers,
            "hidden_size": self.hidden_size,
            "components": len(self.network.offset),
            "landmarks": len(self.network.landmarks),
            "covariances": len(self.network.covariance),
            "exit": self.exit,
            "programs": list(map(str, self.programs)),
            "static": self.choice.static.tolist(),
            "caution": self.choice.caution,
            "layer_price": self.choice.layer_price,
        }

    def on(self, device: torch.device) -> SelectorHead:
        return replace(self, network=copy.deepcopy(self.network).to(device))

    def steering(self, sample: Array, *, limit: int | None = None, average: float | None = None) -> SelectorSteering:
        bounded = replace(self.choice, limit=limit)
        if average is None:
            return SelectorSteering(self, bounded)
        wanted = average * self.num_layers + 1e-9

        def short_enough(price: float) -> bool:
            rule = replace(bounded, layer_price=price)
            return price >= self.choice.layer_price and float(rule.lengths[rule.choose(sample)].mean()) <= wanted

        return SelectorSteering(self, replace(bounded, layer_price=price_where(short_enough)))


@dataclass(frozen=True)
class SelectorSteering:
    """A selector under a budget.

    Attributes:
        head: The selector.
        choice: The rule of the choice under the budget.
        explore: Standard deviations by which chances are drawn around their means: 0 for the best choice that is known,
            1 for Thompson sampling.
        generator: Draws them.
    """

    head: SelectorHead
    choice: MenuChoice
    explore: float = 0.0
    generator: torch.Generator | None = None

    @property
    def num_layers(self) -> int:
        return self.head.num_layers

    def begin(self, mask: torch.Tensor) -> SelectorDecisions:
        return SelectorDecisions(self, mask)

    def exploring(self, explore: float, *, seed: int) -> SelectorSteering:
        """A steering that tries programs of which little is known, without caution."""
        generator = torch.Generator().manual_seed(seed)
        return replace(self, choice=replace(self.choice, caution=0.0), explore=explore, generator=generator)

    def choose(self, inputs: torch.Tensor) -> Array:
        """Places of the programs that run, ``[B, F]`` to ``[B]``."""
        network = self.head.network
        chances = network(inputs)
        if self.explore:
            drawn = torch.randn(chances.shape, generator=self.generator).to(chances)
            chances = chances + self.explore * drawn * network.deviations(inputs)
        return self.choice.choose(chances.double().numpy(force=True))


class SelectorDecisions:
    """One batch of prompts: the states in front of the exit are read, and the programs chosen there.

    Args:
        steering: The selector under its budget.
        mask: 0 at padding, ``[B, T]``.
    """

    known: ClassVar[dict[int, int]] = {}

    def __init__(self, steering: SelectorSteering, mask: torch.Tensor) -> None:
        self._steering = steering
        self._inside = mask.bool()
        self._depths = frozenset(depths_of(steering.head.exit))
        self._read: list[list[torch.Tensor]] = [[] for _ in mask]

    def decide(self, layer: int, hidden: torch.Tensor) -> Array | list[LayerProgram]:
        head = self._steering.head
        if layer in self._depths:
            # Row by row, so that padding changes no decision.
            for state, inside, read in zip(hidden, self._inside, self._read):
                read.append(inputs_of(state[inside]))
        if layer < head.exit:
            return np.ones(len(hidden), dtype=np.int64)
        chosen = self._steering.choose(torch.stack([torch.cat(read) for read in self._read]))
        self._read.clear()
        return [head.programs[place] for place in chosen]


def depths_of(at: int) -> list[int]:
    """The depths that a selector with an exit reads, ascending; the last one is the exit."""
    return sorted({max(1, at * part // _NUM_DEPTHS) for part in range(1, _NUM_DEPTHS + 1)})


def num_inputs(at: int, hidden_size: int) -> int:
    """Inputs F of a selector with an exit."""
    return len(depths_of(at)) * len(SELECTIONS) * hidden_size


def inputs_of(state: torch.Tensor) -> torch.Tensor:
    """What a selector reads of one depth's states, ``[T, D]`` to ``[2·D]`` in float32."""
    return torch.cat([pool_states(state, selection)[0].float() for selection in SELECTIONS])


def selector_card(config: Mapping[str, Any]) -> str:
    """The model card's description of a selector, from ``config.json``."""
    shares: Sequence[float] = config["static"]
    programs = "\n".join(
        f"| `{program}` | {100 * share:.1f} % |" for program, share in zip(config["programs"], shares, strict=True)
    )
    return f"""# A selector for {config["base_model"]["name"]}

It reads the hidden states of a prompt after the frozen model's first {config["exit"]} layers, and compares them with
those of {config["landmarks"]} training examples. So it predicts for each of these programs of the model's
{config["num_layers"]} layers the chance of a right answer, and chooses the best one where the predicted gain over the
best static program is above {config["caution"]:g}. Made by `drllm-pipeline train --menu`.

| layers | right on training examples |
| --- | --- |
{programs}
"""
