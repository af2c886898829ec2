"""``python -m benchmarks.solutions RUN``: do the solutions that count as right state a final answer, and end?

Read from the rows alone: a text with a closed box states an answer; one without a box must state it in a sentence, and
be shorter than the limit on its tokens, so that the model ended it. It also reads runs that were made before rows had
reasons.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import click

from pipeline.engine.loading import load_description
from pipeline.model_source import resolve_model
from pipeline.shards.reader import read_json, read_paths, read_settings
from pipeline.storage import locate, where_it_is
from pipeline.tasks.scoring.final_answer import final_answer


@click.command()
@click.argument("run")
@click.option("--show", default=0, help="Right solutions whose ends are printed.")
def main(run: str, show: int) -> None:
    """Count the right rows of a run by what their solutions end with."""
    folder = locate(run)
    rows, settings = read_paths(folder), read_settings(folder)
    limit = settings.get("max_new_tokens")
    if limit is None:
        raise click.UsageError("give a run that was searched with --max-new-tokens")
    notes = read_json(folder / "run.json")
    model = resolve_model(where_it_is(settings["model.name"], notes.get("model_path")))
    _, tokenizer = load_description(model)
    right = rows[rows.correct]
    is_identity = right.program.map(list) == right.num_layers.map(lambda depth: list(range(depth)))
    for name, part in (("base model", right[is_identity]), ("other programs", right[~is_identity])):
        ends = Counter(_end_of(response, tokenizer, limit) for response in part.response)
        counted = ", ".join(f"{number} {end}" for end, number in ends.most_common()) or "none"
        print(f"{name}: {len(part)} right rows: {counted}")
    print(f"{rows.example_id.nunique()} examples, {right.example_id.nunique()} with a right program")
    if "reason" in rows and rows.reason.notna().any():
        print("reasons:", ", ".join(f"{number} {reason}" for reason, number in rows.reason.value_counts().items()))
    for _, row in right.sample(min(show, len(right)), random_state=0).iterrows():
        print(f"\n--- {row.example_id}, reference {row.answer}, layers {row.length}\n…{row.response[-200:]}")


def _end_of(response: str, tokenizer: Any, limit: int) -> str:
    if final_answer(response, ended=False) is not None:
        return "with a closed box"
    # The limit counts the end token too, which a response does not hold.
    if len(tokenizer(response, add_special_tokens=False).input_ids) >= limit - 1:
        return "cut at the limit"
    return "with a sentence" if final_answer(response, ended=True) is not None else "without a final answer"


if __name__ == "__main__":
    main()
