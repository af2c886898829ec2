"""The settings of a run: everything that decides the content of its rows.

The number of actors and their nodes are not part of the settings: the same settings give the same rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

from pipeline.model_source import ModelSource
from pipeline.search.config import SearchConfig
from pipeline.tasks.prompting import PROMPT_VERSION, Prompting
from pipeline.tasks.task_options import TaskOptions
from pipeline.tasks.types import Example

#: Version of the columns that new runs have; see ``pipeline.shards.schema``. A run keeps the one that it began with.
SCHEMA_VERSION = 2
DEFAULT_CACHE_GIB = 2.0
DEFAULT_CALIBRATION = 32
#: Seconds without a program after which an actor is replaced as stalled.
DEFAULT_STALL_SECONDS = 900.0
#: The action space of the calibration set, whatever the run's own space: edits of single layers show what each layer
#: is worth, and larger edits are modelled as their sums.
CALIBRATION_SPACE = "drllm"
#: Settings that came later, with what they were before they could be set.
_LATER_SETTINGS: dict[str, Any] = {
    "search.unexplored_child": 0.0,
    "search.caution": 0.0,
    "calibration_space": None,
    "reverify": False,
    "permutations": 1,
    "prompt_version": 1,
    "thinking": False,
    "extended_at": [],
}
#: Values of ``keep`` other than a number.
KEEP_WORDS = ("pareto", "all")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The settings that decide the rows of a run.

    Raises:
        ValueError: A field is out of its range.
    """

    schema_version: int = SCHEMA_VERSION
    """Version of the columns: the stored one for a run that is resumed."""
    model: ModelSource
    """The frozen model, its weights pinned."""
    task: str
    """Name of the task."""
    data: str | None = None
    """Source of the examples; None for a task that makes its own."""
    data_sha256: str
    """Fingerprint of the examples themselves; see ``fingerprint``."""
    split: str = "train"
    """Split of a hub data set, of a folder whose files' names show splits, or of a task that makes its own examples."""
    limit: int | None = None
    """Largest number of examples; None for all."""
    extended_at: tuple[int, ...] = ()
    """Numbers of examples that the run had when it was extended, in ascending order; see ``group_ranges``."""
    max_new_tokens: int | None = None
    """Most tokens of a generated answer; None for the task's own default."""
    task_options: TaskOptions = field(default_factory=TaskOptions)
    """Columns, prompt and comparison of your own rows; all at their defaults for other tasks."""
    search: SearchConfig = field(default_factory=SearchConfig)
    """Configuration of each example's search."""
    seed: int = 0
    """Seed of the examples that a task makes, and of every search."""
    keep: int | str = 4
    """Right programs kept for each example, beside the identity program; or ``pareto``: the Pareto set over (length,
    correctness, margin), right or wrong; or ``all`` that were tried."""
    reverify: bool = False
    """Whether only programs are kept whose results stock models confirm; see ``pipeline.engine.stock_runner``."""
    permutations: int = 1
    """Number of renderings of each example; a program is right if its answers to all of them are. See
    ``pipeline.tasks.renderings``."""
    prompt_version: int = PROMPT_VERSION
    """Version of the prompts' wordings; see ``pipeline.tasks.prompting``."""
    thinking: bool = False
    """Whether the model thinks before it answers, where its chat template knows how."""
    day: str | None = None
    """The date that a chat template writes into prompts; None for today. Noted in ``run.json`` beside the settings."""
    group_size: int = 8
    """Examples in a work group: the unit that is batched, handed out, retried and committed."""
    leaves: int = 1
    """Programs that a tree proposes at once."""
    calibration: int = 0
    """Size of the calibration set: the first examples, in whole work groups, are searched without a prior, which is
    then fitted to them for the others; 0 for a run that fits none."""
    prior_sha256: str | None = None
    """Fingerprint of a given prior; None if the run fits its own, or has none."""
    cache_gib: float = DEFAULT_CACHE_GIB
    """Memory of an actor's prefix cache, in GiB. Part of the settings: a prefix that is computed again may round
    differently."""
    device: str
    """``cpu`` or ``cuda``; ``auto`` until the actors are placed."""
    dtype: str
    """The weights' precision; ``auto`` until the actors are placed."""
    cpus_per_actor: int = 1
    """Cores, and so torch threads, of an actor. Part of the settings: sums in another order round differently."""

    def __post_init__(self) -> None:
        check_keep(self.keep)
        if list(self.extended_at) != sorted({number for number in self.extended_at if number >= 1}):
            raise ValueError(f"extended_at must ascend from 1 on, got {self.extended_at}")
        for name in ("group_size", "leaves", "permutations", "cpus_per_actor"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.calibration < 0:
            raise ValueError(f"calibration must not be below 0, got {self.calibration}")
        if self.calibration and self.prior_sha256:
            raise ValueError("a run that is given a prior needs no calibration")
        if self.cache_gib < 0:
            raise ValueError(f"cache_gib must not be below 0, got {self.cache_gib}")

    def settings(self) -> dict[str, Any]:
        """The settings as flat JSON, as ``run.json`` holds them."""
        flat: dict[str, Any] = {}
        for name, value in asdict(self).items():
            if isinstance(value, dict):
                flat.update({f"{name}.{key}": inner for key, inner in value.items()})
            else:
                flat[name] = value
        flat["extended_at"] = list(self.extended_at)
        flat["calibration_space"] = None if self.calibration_search == self.search else CALIBRATION_SPACE
        # Only those that are set: other tasks, and runs from before there were any, have none.
        flat = {name: value for name, value in flat.items() if not name.startswith("task_options.")}
        flat |= self.task_options.to_settings()
        # The same weights and examples may lie elsewhere next time; their fingerprints stay. The date is for the few
        # chat templates that write one.
        del flat["model.location"], flat["data"], flat["day"]
        # Runs that were begun before there was such a setting can be resumed.
        for name, before in _LATER_SETTINGS.items():
            if flat[name] == before:
                del flat[name]
        return flat

    @property
    def prompting(self) -> Prompting:
        """The settings of the prompts."""
        return Prompting(version=self.prompt_version, thinking=self.thinking, day=self.day)

    @property
    def calibration_search(self) -> SearchConfig:
        """The search settings of the calibration set; those of the run if there is none."""
        return replace(self.search, action_space=CALIBRATION_SPACE) if self.calibration else self.search

    @property
    def run_id(self) -> str:
        """Id of the settings: two runs with the same id have the same rows, on one day if prompts have the date."""
        canonical = json.dumps(self.settings(), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


class RunSettings(Protocol):
    """The settings of a run folder, of a search or an import."""

    @property
    def calibration(self) -> int:
        """Size of the calibration set."""
        ...

    @property
    def group_size(self) -> int:
        """Examples in a work group."""
        ...

    @property
    def extended_at(self) -> tuple[int, ...]:
        """Numbers of examples that the run had when it was extended."""
        ...

    @property
    def run_id(self) -> str:
        """Id of the run: the start of a SHA-256 over its settings."""
        ...

    def settings(self) -> dict[str, Any]:
        """The settings as a flat JSON object: a value by dotted name."""
        ...


def check_keep(keep: int | str) -> None:
    """Refuse a ``keep`` that has no meaning.

    Raises:
        ValueError: The value is neither a number from 1 on nor one of ``KEEP_WORDS``.
    """
    if keep not in KEEP_WORDS and (isinstance(keep, str) or keep < 1):
        raise ValueError(f"keep must be at least 1, or one of {', '.join(KEEP_WORDS)}; got {keep}")


def fingerprint(examples: Sequence[Example]) -> str:
    """SHA-256 over the examples in their order: changed data is another run."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(_bytes_of(example))
    return digest.hexdigest()


def fingerprints(examples: Sequence[Example]) -> Iterator[str]:
    """The fingerprint of the first example, of the first two, and so on."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(_bytes_of(example))
        yield digest.hexdigest()


def _bytes_of(example: Example) -> bytes:
    return json.dumps(example.to_json(), sort_keys=True).encode()
