"""``python -m benchmarks.label_rows FILE … --out OUT``: texts with labels as questions with fixed options.

Each row of ``text`` and ``label`` becomes a question in ARC's schema, of which all labels are the options, so that
``--task arc-likelihood`` asks for the likeliest label word.
"""

from __future__ import annotations

import json
from pathlib import Path
from string import ascii_uppercase

import click


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="File of the questions, as JSON lines.")
@click.option("--question", default="{text}", show_default=True, help="Wording; {text} is the text.")
@click.option("--limit", type=int, help="Only the first N rows of each file.")
def main(files: tuple[Path, ...], out: Path, question: str, limit: int | None) -> None:
    """Write the questions."""
    rows = [
        (f"{file.stem}-{number}", json.loads(line))
        for file in files
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines()[:limit])
    ]
    labels = sorted({row["label"] for _, row in rows})
    letters = list(ascii_uppercase[: len(labels)])
    with out.open("w", encoding="utf-8") as lines:
        for name, row in rows:
            asked = {
                "id": name,
                "question": question.replace("{text}", row["text"]),
                "choices": {"text": labels, "label": letters},
                "answerKey": letters[labels.index(row["label"])],
            }
            lines.write(json.dumps(asked, ensure_ascii=False) + "\n")
    click.echo(f"{len(rows)} questions with the options {', '.join(labels)}: {out}")


if __name__ == "__main__":
    main()
