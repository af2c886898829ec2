"""The results of Dr.LLM's data generation (arXiv 2510.12773), read.

A file holds one object with lists side by side: the prompt of each example, its reference answer (``best_response``),
whether the base model was right, and the paths that were right. The paths that were wrong are not in the file.
"""

from __future__ import annotations

import math
from typing import Any

from pipeline.errors import UserError
from pipeline.formats.path_data import PathData, depth_of, list_of, text_of
from pipeline.formats.polar import read_json_value
from pipeline.storage import AnyPath, without_secrets
from pipeline.tasks.rows import as_text

_SIDE_BY_SIDE = ("questions", "best_response", "original_correct", "good_paths")


def read_drllm(file: AnyPath, *, num_layers: int | None = None, task: str | None = None) -> PathData:
    """Read a results file in Dr.LLM's format.

    Args:
        file: The file.
        num_layers: Depth of the model; None for the depth that the deepest layer in the file shows.
        task: Name of the task; None for the file's ``dataset``, or else ``drllm``.

    Raises:
        UserError: The file cannot be read, or is not in this format.
    """
    content = read_json_value(file)
    results: dict[str, Any] = content if isinstance(content, dict) else {}
    lengths = {name: len(list_of(results, name)) for name in _SIDE_BY_SIDE}
    if len(set(lengths.values())) != 1 or not results.get("questions"):
        said = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise UserError(
            f"{without_secrets(file)} is no results file of Dr.LLM's: it must have lists of equal length ({said})"
        )
    task = task or text_of(results, "dataset") or "drllm"
    paths = [path for good in results["good_paths"] if isinstance(good, list) for path in good]
    data = PathData(num_layers=depth_of(paths, num_layers, file), model=text_of(results, "model_name"))
    columns = zip(*(results[name] for name in _SIDE_BY_SIDE))
    for number, (prompt, response, original, good) in enumerate(columns):
        answer = as_text(response)
        if not isinstance(prompt, str) or answer is None or not isinstance(good, list) or original not in (0, 1):
            data.left_out["example whose fields are of other kinds"] += 1
            continue
        data.add(
            example_id=f"{task}-{number:06d}",
            task=task,
            prompt=prompt,
            answer=answer,
            baseline_correct=bool(original),
            verdicts=[(path, True, math.nan) for path in good],
        )
    return data
