"""Some examples of each of the four groups: the question, the expected answer, and what the programs answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.program import LayerProgram
from pipeline.report.analysis import GROUPS, PathStudy
from pipeline.report.charts import Section, Table
from pipeline.report.shortened import beginning_of, both_ends_of, ends_of

if TYPE_CHECKING:
    import pandas as pd

#: Examples of each group on a page.
NUM_ON_PAGE = 3
_UNKNOWN = "–"


@dataclass(frozen=True, kw_only=True)
class ShownExample:
    """An example with the answers of the base model and of its best program.

    Attributes:
        example_id: Id of the example.
        prompt: The prompt's end, on one line, without what all shown prompts end with.
        expected: The reference answer.
        base_response: The base model's answer.
        program: The best program, as text; None where there is none, or where it is the identity program.
        response: The best program's answer.
    """

    example_id: str
    prompt: str
    expected: str
    base_response: str
    program: str | None
    response: str


def shown_examples(study: PathStudy, number: int) -> dict[str, list[ShownExample]]:
    """The first examples of each group, in the order of the rows.

    Args:
        study: The run's rows.
        number: Most examples of a group.
    """
    identity = study.rows[study.rows.kind == ""].drop_duplicates("example_id").set_index("example_id")
    best = study.rows[study.rows.is_best].drop_duplicates("example_id").set_index("example_id")
    first = study.rows.drop_duplicates("example_id").set_index("example_id")
    ids = {group: list(study.examples.index[study.examples.group == group][:number]) for group in GROUPS}
    every = [example for some in ids.values() for example in some]
    prompts = dict(zip(every, ends_of([str(first.loc[example].prompt) for example in every]), strict=True))
    return {
        group: [
            _shown(str(example), prompts[example], first.loc[example], _row(identity, example), _row(best, example))
            for example in some
        ]
        for group, some in ids.items()
    }


def examples(study: PathStudy) -> Section:
    """The section of a page that shows some examples of each group."""
    tables = []
    for group, shown in shown_examples(study, NUM_ON_PAGE).items():
        rows = tuple(
            (one.prompt, one.expected, one.base_response, one.program or _UNKNOWN, one.response) for one in shown
        )
        if rows:
            tables.append(
                Table(columns=(group, "expected", "base model", "best program", "its answer"), rows=rows, texts=True)
            )
    return Section(
        title="Some examples",
        text=(
            "The first examples of each group: the end of the prompt, the reference answer, and the answers of the "
            "base model and of the best program. Do you agree with what counts as right?",
        ),
        tables=tuple(tables),
    )


def _shown(
    example_id: str,
    prompt: str,
    first: pd.Series[Any],
    identity: pd.Series[Any] | None,
    best: pd.Series[Any] | None,
) -> ShownExample:
    differs = best is not None and best.kind != ""
    return ShownExample(
        example_id=example_id,
        prompt=prompt,
        expected=beginning_of(str(first.answer)),
        base_response=_response(identity),
        program=str(LayerProgram(map(int, best.program), int(best.num_layers)))
        if differs and best is not None
        else None,
        response=_response(best) if differs else _UNKNOWN,
    )


def _row(rows: pd.DataFrame, example: Any) -> pd.Series[Any] | None:
    return rows.loc[example] if example in rows.index else None


def _response(row: pd.Series[Any] | None) -> str:
    """A row's answer; a dash where it was not read."""
    return both_ends_of(row.response) if row is not None and isinstance(row.response, str) else _UNKNOWN
