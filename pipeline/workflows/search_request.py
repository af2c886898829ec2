"""The request of a search. The module imports no framework, so that ``search --help`` waits for none."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.distributed.cluster import Resources
from pipeline.errors import UserError
from pipeline.errors.fields import check_fields, option
from pipeline.search.action_spaces import get_action_space
from pipeline.search.config import NO_PRIOR, SearchConfig
from pipeline.shards.run_config import DEFAULT_CACHE_GIB, DEFAULT_STALL_SECONDS, check_keep
from pipeline.storage import AnyPath
from pipeline.tasks.task_options import TaskOptions


@dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """The request of ``drllm-pipeline search``, before the data, the model or the cluster are known.

    Raises:
        UserError: A field is out of its range, or excludes another one.
    """

    model: str
    """Hub id, local folder, .gguf file, or 'smollm2' (embedded)."""
    task: str = field(metadata=option(metavar="NAME"))
    """One of the tasks above."""
    out: AnyPath
    """Run folder, or its URL; resumed if it exists."""
    data: str | None = None
    """jsonl, csv or parquet file or folder, its URL, or a hub data set (owner/name[:config])."""
    split: str = "train"
    """Split of a hub data set, of a folder whose files' names show splits, or of 'arithmetic'."""
    limit: int | None = None
    """Only the first N examples."""
    max_new_tokens: int | None = field(default=None, metadata=option(unset="the task's own"))
    """Most tokens of a generated answer."""
    task_options: TaskOptions = field(default_factory=TaskOptions)
    """Columns, prompt and comparison of the rows of the task jsonl."""
    search: SearchConfig
    """Configuration of each example's search."""
    thinking: bool = False
    """Let the model think before its solution, where its chat template knows how. Thinking is never graded; it takes
    tokens of --max-new-tokens."""
    seed: int = 0
    """Seed of the examples that a task makes, and of every search."""
    keep: int | str = field(default=4, metadata=option(metavar="K|pareto|all"))
    """Kept per example beside the identity program: K right programs; or the Pareto set over (length, correctness,
    margin); or all that were evaluated."""
    reverify: bool = False
    """Keep only programs whose results stock models confirm. Use it in bfloat16, where rounding can flip results with
    small margins."""
    permutations: int = field(default=1, metadata=option(metavar="K", at_least=1))
    """Renderings of each example, its options rotated or in other words: a program is right only if it is right in all
    of them. A random guess among four options passes K = 4 once in 256 times."""
    group_size: int = field(default=8, metadata=option(at_least=1, advanced=True))
    """Examples batched, handed out and committed together."""
    leaves: int | None = field(default=None, metadata=option(at_least=1, unset="the task's own", advanced=True))
    """Programs of an example evaluated at once: more fill batches, fewer use results sooner."""
    calibration: int | None = field(
        default=None, metadata=option(metavar="N", at_least=0, note="0 learns nothing", unset="32; published: 0")
    )
    """The first N examples are searched without a prior, and the prior for all others is fitted to them; 0 for none."""
    prior: AnyPath | None = field(default=None, metadata=option(metavar="RUN|FILE"))
    """The prior of another run of the same model, instead of a calibration."""
    cache_gib: float = field(
        default=DEFAULT_CACHE_GIB, metadata=option(at_least=0, note="0 shares nothing", advanced=True)
    )
    """Memory of an actor's prefix cache, beside the model's: layers that programs share run once."""
    stall_seconds: float = field(default=DEFAULT_STALL_SECONDS, metadata=option(above=0, infinite=True, advanced=True))
    """An actor that runs no program for so long counts as stalled, and is replaced."""
    resources: Resources = field(default_factory=Resources)
    """Resources of the actors."""

    def __post_init__(self) -> None:
        check_fields(self)
        space = self.search.action_space
        if (self.prior is not None or self.calibration) and not get_action_space(space).keeps_order:
            option_given = "--prior" if self.prior is not None else "--calibration"
            raise UserError(f"{NO_PRIOR.format(space=space)}; leave {option_given} out")
        try:
            check_keep(self.keep)
        except ValueError as error:
            raise UserError(f"--{error}") from None
        if self.calibration and self.prior is not None:
            raise UserError("--prior replaces the prior that --calibration would fit; leave one of them out")
