"""The request of a conversion. The module imports no framework, so that ``convert --help`` waits for none."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pipeline.errors import UserError
from pipeline.errors.fields import check_fields, option
from pipeline.storage import AnyPath


@dataclass(frozen=True, kw_only=True)
class ConvertRequest:
    """The request of ``drllm-pipeline convert``.

    Raises:
        UserError: A format is unknown, or an option does not go with the source's format.
    """

    source: AnyPath
    """File or run folder to read."""
    target: AnyPath
    """File or run folder to write."""
    source_format: Literal["run", "polar", "drllm"] = field(metadata=option("--from"))
    """Format of SRC."""
    target_format: Literal["run", "polar"] = field(metadata=option("--to"))
    """Format of DST."""
    model: str | None = None
    """The model that was searched: hub id, folder, .gguf file or 'smollm2'. Needed where SRC does not say."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """The precision in which it was searched, where SRC does not say."""
    num_layers: int | None = field(default=None, metadata=option(unset="the deepest layer in SRC"))
    """Depth of the model, where SRC does not say."""
    task: str | None = None
    """The examples' task, where SRC does not say."""
    questions: AnyPath | None = field(default=None, metadata=option(unset="the questions in SRC"))
    """The questions by their query_id, where SRC gives ids alone: a jsonl, csv or parquet file."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.source_format == "run" and (self.num_layers is not None or self.task is not None):
            raise UserError("a run holds its own depth and tasks: leave out --num-layers and --task")
        if self.source_format != "polar" and self.questions is not None:
            raise UserError("--questions is for --from polar alone: other sources hold their questions")
