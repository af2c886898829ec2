"""``python -m benchmarks.label_rows FILE … --out OUT``: texts with labels as questions.

Each row of ``text`` and ``label`` becomes a question in ARC's schema, of which all labels are the options, so that
``--task arc-likelihood`` asks for the likeliest label word. With ``--written`` it becomes a question and an answer for
``--task jsonl``, so that the model writes the label: the first row of each label is shown solved in every question,
and is not asked.
"""

from __future__ import annotations

import json
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import click

#: Leads from a question to its label, where the label is written.
_LEAD = " Answer:"


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="File of the questions, as JSON lines.")
@click.option("--question", default="{text}", show_default=True, help="Wording; {text} is the text.")
@click.option("--limit", type=int, help="Only the first N rows of each file.")
@click.option("--written", is_flag=True, help="Questions whose label the model writes, behind one solved row of each.")
def main(files: tuple[Path, ...], out: Path, question: str, limit: int | None, written: bool) -> None:
    """Write the questions."""
    rows = [
        (f"{file.stem}-{number}", question.replace("{text}", row["text"]), row["label"])
        for file in files
        for number, row in enumerate(map(json.loads, file.read_text(encoding="utf-8").splitlines()[:limit]))
    ]
    labels = sorted({label for _, _, label in rows})
    asked = _written(rows, labels) if written else [_with_options(*row, labels) for row in rows]
    out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in asked), encoding="utf-8")
    click.echo(f"{len(asked)} questions with the labels {', '.join(labels)}: {out}")


def _with_options(name: str, question: str, label: str, labels: list[str]) -> dict[str, Any]:
    letters = list(ascii_uppercase[: len(labels)])
    return {
        "id": name,
        "question": question,
        "choices": {"text": labels, "label": letters},
        "answerKey": letters[labels.index(label)],
    }


def _written(rows: list[tuple[str, str, str]], labels: list[str]) -> list[dict[str, Any]]:
    shown = {label: next(row for row in rows if row[2] == label) for label in labels}
    head = "".join(f"{question}{_LEAD} {label}\n" for _, question, label in shown.values())
    return [
        {"id": name, "prompt": f"{head}{question}{_LEAD}", "answer": label}
        for name, question, label in rows
        if question not in {of_shown for _, of_shown, _ in shown.values()}
    ]


if __name__ == "__main__":
    main()
