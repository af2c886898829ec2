"""The search's settings, and the published constants beside ours."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from pipeline.errors import UserError
from pipeline.errors.fields import check_fields, option
from pipeline.search.actions import ACTION_SPACES


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """What a search may do and how it weighs.

    The defaults find more than the published constants at equal evaluations on the default task:
    see ``benchmarks/quality.py`` and the README. Those constants are ``PUBLISHED``.

    Raises:
        ValueError: A field is out of its range.
    """

    action_space: str = "drllm"
    """Which edits lead from a program to the next: ``drllm`` or ``cola``."""
    simulations: int = field(default=50, metadata=option(at_least=1))
    """Programs evaluated per example, beside the identity program."""
    budget: float = field(default=1.0, metadata=option(above=0, note="1.0 allows the model's own depth"))
    """Longest program that counts as right, as a fraction of the model's depth."""
    max_length: float = field(default=2.0, metadata=option(at_least=1, advanced=True))
    """Longest program evaluated at all, as a fraction of the model's depth."""
    exploration: float = 0.05
    """c of the UCB: the weight of seldom visited children."""
    length_penalty: float = 1.0
    """λ of the UCB: the price of a program as long as the model."""
    right_first: bool = True
    """Length has no price until a right program of any length is known: first right, then short."""
    random_child: float = 0.1
    """Probability of descending to a random child instead of the UCB's (Dr.LLM's rule)."""
    unexplored_child: float = 0.0
    """Probability of making a random new child of a node on the way, however many it has (CoLa's rule)."""
    recall: float = 0.5
    """Probability that a new child is the edit that has gained most elsewhere in the tree, instead of
    any edit: most edits do alike wherever they are made."""
    backup: str = "max"
    """What a node is worth: ``mean`` of the rewards below it (the papers' Q/v), or ``max``, the best
    of them, which suits an evaluation without chance."""
    caution: float = 0.0
    """Where a prior guides: logits that the chance of a right answer loses with every layer that a program skips or
    repeats. What many edits do together is less and less their sum."""
    margin_scale: float | None = 1.0
    """None: a wrong program is worth 0. Otherwise a near miss is worth more than a far one: a logistic
    function, below one half, of the margin divided by this."""
    widening: float = 2.0
    """A node of v visits has up to ``widening * v ** widening_power`` children."""
    widening_power: float = 0.5
    stop_when_found: bool = False
    """Stop at the first right and strictly shorter program, or the first right one where the
    identity is wrong (the papers' rule), instead of using every simulation."""

    def __post_init__(self) -> None:
        if self.action_space not in ACTION_SPACES:
            known = ", ".join(sorted(ACTION_SPACES))
            raise ValueError(f"unknown action space {self.action_space!r}; choose one of: {known}")
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
            raise ValueError(f"caution must not be below 0, got {self.caution}")
        if self.widening <= 0 or not 0 <= self.widening_power <= 1:
            raise ValueError("widening must be above 0 and widening_power in [0, 1]")


_PUBLISHED = SearchConfig(
    exploration=1.8,
    length_penalty=3.0,
    random_child=0.1,
    recall=0.0,
    right_first=False,
    backup="mean",
    margin_scale=None,
    widening=1.0,
    stop_when_found=True,
)
#: The constants as published, on a tree that branches (how wide it grows is not in the papers).
PUBLISHED: dict[str, SearchConfig] = {
    "drllm": _PUBLISHED,
    "cola": replace(
        _PUBLISHED,
        action_space="cola",
        simulations=200,
        length_penalty=5.0,
        random_child=0.0,
        unexplored_child=0.1,
        stop_when_found=False,
    ),
}
#: What a search uses unless told otherwise: CoLa's larger space gets its larger number of simulations. Its edits change
#: up to sixteen runs at once, so that every far program is an edit away, and caution keeps a search near.
DEFAULTS: dict[str, SearchConfig] = {
    "drllm": SearchConfig(),
    "cola": SearchConfig(action_space="cola", simulations=200, caution=0.2),
}
PRESETS = {"default": DEFAULTS, "published": PUBLISHED}
