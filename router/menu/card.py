"""The card of a menu: what it holds, and how to read it."""

from __future__ import annotations

from router.menu.menu import Menu, MenuProgram


def menu_card(menu: Menu) -> str:
    """The card, as Markdown with the header that the hub reads."""
    settings, notes = menu.settings, menu.notes
    shared = notes["tokens_run"] / max(1, notes["tokens_of_separate_runs"])
    rows = "\n".join(f"| {' | '.join(table_row(one))} |" for one in menu.programs)
    others = "\n".join(f"| `{name}` | `{value}` |" for name, value in settings.others.items())
    return f"""---
tags: [layer-programs, layer-skipping, frozen-llm]
configs:
- config_name: default
  data_files: [{{split: train, path: matrix/*.parquet}}]
---
# Menu of layer programs

{len(menu.programs)} layer programs of {settings.base.name} ({settings.num_layers} layers), and their outcomes on
{settings.num_examples} examples of the task `{settings.task}`. The figures are measured on {settings.num_held_out}
held-out examples, on which no program was chosen.

| {" | ".join(TABLE_COLUMNS)} |
|{"---|" * len(TABLE_COLUMNS)}
{rows}

p-values are McNemar's, against the base model, corrected for the number of programs (Holm). *Front*: right on more
examples than every shorter program, among the examples that programs were chosen on.

{notes["evaluations"]} outcomes were computed, {notes["race_evaluations"]} of them in the races. What programs and
prompts begin with alike ran once: {shared:.2f} of the layers and tokens that separate runs take.

```python
import pandas
matrix = pandas.read_parquet("matrix")  # example_id, program, length, right, margin
```

| Setting | Value |
|---|---|
{others}
"""


#: The columns of a table of a menu's programs.
TABLE_COLUMNS = ("program", "layers", "right", "95 % CI", "won/lost", "p", "front")


def table_row(one: MenuProgram) -> list[str]:
    """A program with its figures, as the cells of a table."""
    is_base = one.program.is_identity
    return [
        "identity (the base model)" if is_base else str(one.program),
        str(len(one.program)),
        f"{100 * one.right:.1f} %",
        f"{100 * one.low:.1f}–{100 * one.high:.1f}",
        "" if is_base else f"+{one.won}/−{one.lost}",
        "" if is_base else f"{one.p_value:.2g}",
        "yes" if one.on_front else "",
    ]
