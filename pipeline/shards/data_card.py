"""The data set card: what a run folder holds, how it was made and how to load it."""

from __future__ import annotations

from typing import Any

from pipeline.shards.calibration import num_calibrating
from pipeline.shards.progress import Progress
from pipeline.shards.run_config import RunConfig
from pipeline.shards.schema import columns_of

#: The front matter of the card, which the hub reads.
_HEADER = """---
configs:
- config_name: default
  data_files: paths/*.parquet
tags:
- layer-programs
- drllm-pipeline
---

"""


def data_set_card(config: RunConfig, progress: Progress) -> str:
    """The run's README.md, in the form that the hub reads."""
    calibrating = num_calibrating(config, progress.num_examples)
    guide = (
        "Every example is in the calibration set, and was searched without a prior."
        if calibrating and calibrating == progress.num_examples
        else f"The first {calibrating} examples were searched without a prior, and their programs save less; a prior\n"
        "fitted to them guided the search of the others (`calibration/`, `prior.safetensors`)."
        if calibrating
        else "A prior that was fitted to other examples guided every search (`prior.safetensors`)."
        if config.prior_sha256
        else "Every example was searched without a prior."
    )
    state = "complete" if progress.complete else "incomplete: run the same command again to finish it"
    return f"""{_HEADER}# Layer programs of {config.model.name} on {config.task}

For each example, the layers of the frozen model to skip, run or repeat so that its answer is right
with as few layers as a search found. Made by `drllm-pipeline search` (Dr.LLM, arXiv 2510.12773; CoLa,
arXiv 2507.07996). {guide} This data set is {state}.

| | examples |
| --- | ---: |
| searched | {progress.done} |
| the base model is right | {progress.baseline_correct} |
| and a strictly shorter program too | {progress.shorter} |
| only another program is right | {progress.corrected} |
{_reasons(progress)}
## Load it

```python
import pandas as pd
rows = pd.read_parquet("paths")
best = rows[rows.is_best]

from datasets import load_dataset
rows = load_dataset("parquet", data_files="paths/*.parquet", split="train")
```

Every example has one row for the identity program (`length == num_layers`, the base model), right
or wrong, and {_kept(config.keep)}. An example without a row where `is_best` is true has
no right program within the budget.{_renderings(config.permutations)}

{_tables(config.settings())}"""


def _reasons(progress: Progress) -> str:
    """The lines of the table that say why answers of the base model are wrong."""
    reasons = [(reason, number) for reason, number in progress.base_reasons.most_common() if reason != "ended"]
    return "".join(f"| the base model is wrong: {reason} | {number} |\n" for reason, number in reasons)


def _renderings(number: int) -> str:
    if number == 1:
        return ""
    return (
        f"\n\nEach example has {number} renderings: its options rotated (fewer where it has fewer options), or other\n"
        "words. A program is right if its answers to all of them are; `correct_as_asked` is the result of the first\n"
        "rendering."
    )


def _kept(keep: int | str) -> str:
    if keep == "all":
        return "a row for every program that was tried, right or wrong"
    if keep == "pareto":
        return (
            "a row for every program of its Pareto set over length and result, where right\n"
            "is better than wrong, and then a larger margin than a smaller one"
        )
    return f"up to {keep} rows of right programs"


def imported_card(settings: dict[str, Any], examples: int) -> str:
    """The README.md of a run that another format was converted to."""
    return f"""{_HEADER}# Layer programs of {settings["model.name"]} on {settings["task"]}

{examples} examples with the layer programs that were tried on them, right or wrong. Not searched here: converted
from the format `{settings["imported.format"]}` by `drllm-pipeline convert`. A margin (`score`) that the source does not
hold is NaN; `simulations`, `evaluations` and `layer_executions` count the programs that it holds.

{_tables(settings)}"""


def _tables(settings: dict[str, Any]) -> str:
    """The tables of the columns and of the settings, in Markdown."""
    columns = "\n".join(f"| `{column.name}` | {column.type} | {column.meaning} |" for column in columns_of(settings))
    said = "\n".join(f"| `{key}` | `{value}` |" for key, value in settings.items())
    return f"""## Columns

| column | type | meaning |
| --- | --- | --- |
{columns}

## Settings

| setting | value |
| --- | --- |
{said}
"""
