"""The settings of a search, and the presets: our defaults and the papers' constants for each action space."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from dataclasses import fields as dataclass_fields
from typing import get_args

from pipeline.errors import UserError
from pipeline.errors.fields import check_fields, option, type_hints
from pipeline.program import whole_layers
from pipeline.search.action_spaces import ACTION_SPACES, get_action_space
from pipeline.search.plug_in import did_you_mean


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """The configuration of the search of one example.

    The defaults find more than the published constants (``PUBLISHED``) at an equal number of evaluations on the default
    task; see ``benchmarks/quality.py``. Fields marked "UCB" have no effect where a prior guides the search.

    Raises:
        ValueError: A field is out of its range.
    """

    action_space: str = "drllm"
    """Which edits lead from a program to the next: a name in ``ACTION_SPACES``, or ``my_package.my_module:SPACE``."""
    simulations: int = field(default=50, metadata=option(at_least=1))
    """Programs evaluated per example, beside the identity program."""
    budget: float = field(default=1.0, metadata=option(above=0, note="1.0 allows the model's own depth"))
    """Longest program that counts as right, as a fraction of the model's depth."""
    max_length: float = field(default=2.0, metadata=option(at_least=1, advanced=True))
    """Longest program evaluated at all, as a fraction of the model's depth."""
    exploration: float = 0.05
    """UCB: c, the weight of seldom visited children."""
    length_penalty: float = 1.0
    """UCB: λ, the price of a program as long as the model."""
    right_first: bool = True
    """UCB: length has no price until a right program of any length is known: first right, then short."""
    random_child: float = 0.1
    """UCB: probability of descending to a random child instead of the best one (Dr.LLM's rule)."""
    unexplored_child: float = 0.0
    """UCB: probability of making a random new child of a node on the path, however many it has (CoLa's rule)."""
    recall: float = 0.5
    """UCB: reuse probability: how often a new child is the edit that has gained most elsewhere in the tree, instead of
    a random one. Most edits have a similar effect in every program."""
    backup: str = "max"
    """UCB: a node's value, ``mean`` of the rewards below it (the papers' Q/v), or ``max``, the best of them, which
    suits an evaluation without randomness."""
    caution: float = 0.0
    """With a prior: the depth penalty, the logits by which the predicted chance of a right answer falls with every
    layer that a program skips or repeats. The more edits a program has, the less their effects add up."""
    margin_scale: float | None = 1.0
    """None: a wrong program has reward 0. Otherwise a near miss has a higher reward than a far one: a logistic
    function, below one half, of the margin divided by this."""
    widening: float = 2.0
    """UCB: a node of v visits has up to ``widening * v ** widening_power`` children."""
    widening_power: float = 0.5
    """UCB: exponent of the visits in ``widening``."""
    stop_when_found: bool = False
    """Stop at the first right and strictly shorter program, or the first right one where the
    identity is wrong (the papers' rule), instead of using every simulation."""

    def max_layers(self, num_layers: int) -> int:
        """Longest program evaluated, in layers, for a model of depth ``num_layers``."""
        return max(1, whole_layers(self.max_length, num_layers))

    def __post_init__(self) -> None:
        get_action_space(self.action_space)  # refuses an unknown one
        check_fields(self)
        if self.budget > self.max_length:
            raise UserError(
                f"--budget must be at most {self.max_length} (the longest program tried), got {self.budget:g}"
            )
        if self.backup not in ("mean", "max"):
            raise ValueError(f"backup must be 'mean' or 'max', got {self.backup!r}")
        if self.margin_scale is not None and self.margin_scale <= 0:
            raise ValueError(f"margin_scale must be above 0, got {self.margin_scale}")
        for name in ("random_child", "unexplored_child", "recall"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability, got {getattr(self, name)}")
        if not 0 <= self.caution < math.inf:
            raise ValueError(f"caution must be finite and not below 0, got {self.caution}")
        if self.widening <= 0 or not 0 <= self.widening_power <= 1:
            raise ValueError("widening must be above 0 and widening_power in [0, 1]")


def search_preset(preset: str, action_space: str) -> SearchConfig:
    """The settings of a preset in an action space.

    Args:
        preset: One of ``PRESET_NAMES``: what a search uses by default, or a paper's constants.
        action_space: Name of the space, or ``my_package.my_module:SPACE``.

    Raises:
        UserError: There is no such preset or space, the space has no published constants, or it sets an unknown field
            or a value of the wrong type.
    """
    if preset not in PRESET_NAMES:
        raise UserError(f"--preset {preset!r} is unknown; choose one of: {', '.join(PRESET_NAMES)}")
    space = get_action_space(action_space)
    fields = space.defaults if preset == "default" else space.published
    if fields is None:
        raise UserError(f"--preset {preset!r} has no constants for action space {action_space!r}; use 'default'")
    known = {spec.name for spec in dataclass_fields(SearchConfig)} - {"action_space"}
    for name, value in fields.items():
        where = f"--action-space {action_space!r} sets {name}={value!r}"
        if name not in known:
            raise UserError(f"{where}, a field that SearchConfig does not have{did_you_mean(name, known)}")
        hint = type_hints(SearchConfig)[name]
        types = get_args(hint) or (hint,)
        # Python counts True as a number, and a whole number is good enough for a float.
        fits = type(value) in types or (float in types and type(value) is int)
        if not fits:
            names = " or ".join("None" if kind is type(None) else kind.__name__ for kind in types)
            raise UserError(f"{where}, of type {type(value).__name__}; it must be {names}")
    return SearchConfig(action_space=action_space, **fields)


#: Why no prior guides a search in a space that reorders layers.
NO_PRIOR = "action space {space!r} moves layers, and a prior predicts from how often each layer runs, in any order"
PRESET_NAMES = ("default", "published")
#: The configuration of a search by default, by action space.
DEFAULTS: dict[str, SearchConfig] = {name: search_preset("default", name) for name in ACTION_SPACES}
#: The papers' constants, by action space.
PUBLISHED: dict[str, SearchConfig] = {
    name: search_preset("published", name) for name, space in ACTION_SPACES.items() if space.published is not None
}
PRESETS = {"default": DEFAULTS, "published": PUBLISHED}
