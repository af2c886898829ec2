"""Replay a run's rows with the oracle: ``materialize`` and stock ``generate``, one row at a time.

python tests/helpers/replay.py RUN
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import torch

from pipeline import FrozenModel, LayerProgram, materialize, read_paths


@torch.inference_mode()
def stock_answer(model: FrozenModel, program: LayerProgram, prompt: str, max_new_tokens: int) -> tuple[str, bool]:
    """The first line of what a stock transformers model of the program's layers writes, and whether it ends."""
    stock = model.hf_model if program.is_identity else materialize(model.hf_model, program)
    ids = model.tokenizer(prompt, return_tensors="pt")
    written = stock.generate(**ids, max_new_tokens=max_new_tokens, do_sample=False)[0, ids.input_ids.shape[1] :]
    line, end, _ = model.tokenizer.decode(written, skip_special_tokens=True).lstrip(" ").partition("\n")
    return line.strip(), bool(end) or int(written[-1]) in model.end_tokens


def differing_rows(rows: pd.DataFrame, model: FrozenModel, max_new_tokens: int = 8) -> list[str]:
    """The rows of an exact-match task whose verdict or response the oracle does not confirm."""
    differing = []
    for row in rows.itertuples():
        program = LayerProgram(row.program, row.num_layers)
        said, ended = stock_answer(model, program, row.prompt, max_new_tokens)
        if (said == row.answer and ended) != row.correct or said != row.response:
            differing.append(f"{row.example_id} {program}: {row.response!r} in the row, {said!r} replayed")
    return differing


def main(run: Path) -> None:
    rows = read_paths(run)
    differing = differing_rows(rows, FrozenModel.load("smollm2", device="cpu", dtype="float32"))
    for line in differing:
        print(line)
    right = int(rows.correct.sum())
    print(f"{len(rows)} rows replayed ({right} right, {len(rows) - right} wrong), {len(differing)} differ")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
