"""PoLar's supervision files (arXiv 2606.06574) and RE-PoLar's variant (2609.31360), read and written.

A file holds samples: an object with a ``samples`` list, a list, or an object of samples. Each sample has a prompt, a
reference answer, the paths that were right (``final_valid_transitions``) and, mostly, the paths that were wrong.
RE-PoLar's files are compressed, call the base model's score ``initial_transition_metric``, and keep the prompt in
``sample_info``; those that were published have only its ``query_id`` there.
"""

from __future__ import annotations

import gzip
import json
import math
import sys
import zlib
from collections.abc import Mapping
from typing import Any

from pipeline.errors import UserError
from pipeline.formats.path_data import PathData, SearchedExample, TriedProgram, budget_of, depth_of, list_of, text_of
from pipeline.formats.questions import Question
from pipeline.storage import AnyPath, content, without_secrets, write_whole

_GZIP = b"\x1f\x8b"
_VALID, _INVALID = "final_valid_transitions", "final_invalid_transitions"


#: Reasons for which a sample without its question is left out.
_NO_QUESTION = "example without its text or its answer, but with a query_id: --questions FILE joins them by it"
_UNKNOWN_QUESTION = "example whose query_id is not in --questions"


def read_polar(
    file: AnyPath,
    *,
    num_layers: int | None = None,
    task: str | None = None,
    questions: Mapping[str, Question] | None = None,
) -> PathData:
    """Read a file in PoLar's or RE-PoLar's format.

    Args:
        file: The file, compressed or not.
        num_layers: Depth of the model; None for the depth that the file states, or else the one that its deepest layer
            shows.
        task: Name of the task; None for the name that a sample states, or else ``polar``.
        questions: The questions by their ids, for samples that lack them; None where there are none.

    Raises:
        UserError: The file cannot be read, holds no samples, or is for a model of another depth.
    """
    value = read_json_value(file)
    header = value if isinstance(value, dict) else {}
    samples = header.get("samples", value)
    if isinstance(samples, dict):
        samples = list(samples.values())
    samples = [sample for sample in samples if isinstance(sample, dict)] if isinstance(samples, list) else []
    if not any(_VALID in sample for sample in samples):
        raise UserError(f"{without_secrets(file)} holds no samples of PoLar's: none has {_VALID!r}")
    stated = header.get("num_layers")
    if type(stated) is int and num_layers not in (None, stated):
        raise UserError(f"{without_secrets(file)} states that its model has {stated} layers, not {num_layers}")
    paths = [path for sample in samples for name in (_VALID, _INVALID) for path in list_of(sample, name)]
    data = PathData(
        num_layers=depth_of(paths, stated if num_layers is None and type(stated) is int else num_layers, file),
        model=text_of(header, "model"),
        revision=text_of(header, "revision"),
        dtype=text_of(header, "dtype"),
        budget=budget_of(header.get("budget"), file),
        add_special_tokens=header.get("add_special_tokens")
        if isinstance(header.get("add_special_tokens"), bool)
        else None,
    )
    for number, sample in enumerate(samples):
        prompt = text_of(sample, "question", "sample_info.question")
        answer = text_of(sample, "gt_ans", "ground_truth", "answer", "sample_info.ground_truth", "sample_info.answer")
        query_id = text_of(sample, "sample_info.query_id", "query_id", "question_id")
        if (prompt is None or answer is None) and query_id is not None and questions is not None:
            if query_id not in questions:
                data.left_out[_UNKNOWN_QUESTION] += 1
                continue
            prompt, answer = questions[query_id].prompt, questions[query_id].answer
        if prompt is None or answer is None:
            data.left_out["example without its text or its answer" if query_id is None else _NO_QUESTION] += 1
            continue
        data.add(
            example_id=query_id or f"polar-{number:06d}",
            task=task or text_of(sample, "sample_info.task") or "polar",
            prompt=prompt,
            answer=answer,
            baseline_correct=_baseline(sample),
            verdicts=[
                (path, correct, score)
                for name, correct, scores in ((_VALID, True, "valid_scores"), (_INVALID, False, "invalid_scores"))
                for path, score in zip(list_of(sample, name), _scores(sample, name, scores))
            ],
        )
    return data


def write_polar(data: PathData, file: AnyPath) -> None:
    """Write a file that PoLar's and RE-PoLar's loaders read. Values that their formats lack are in additional fields.

    Raises:
        UserError: The file cannot be written.
    """
    value = {
        "num_layers": data.num_layers,
        "model": data.model,
        "revision": data.revision,
        "dtype": data.dtype,
        "budget": data.budget,
        "add_special_tokens": data.add_special_tokens,
        "samples": [_sample(example) for example in data.examples],
    }
    text = json.dumps(value, allow_nan=False) + "\n"
    try:
        write_whole(file, gzip.compress(text.encode(), mtime=0) if file.suffix == ".gz" else text.encode())
    except OSError as error:
        raise UserError(f"{without_secrets(file)} cannot be written: {error.strerror or error}") from None


def read_json_value(file: AnyPath) -> Any:
    """The value of a JSON file, compressed or not.

    Raises:
        UserError: The file cannot be read, or is not JSON.
    """
    try:
        stored = content(file)
        return json.loads(gzip.decompress(stored) if stored.startswith(_GZIP) else stored)
    except FileNotFoundError:
        raise UserError(f"there is no file {without_secrets(file)}") from None
    except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
        raise UserError(f"{without_secrets(file)} cannot be read as JSON: {error}") from None


def _baseline(sample: dict[str, Any]) -> bool | None:
    for name in ("initial_score", "initial_transition_metric"):
        value = sample.get(name)
        if isinstance(value, (int, float)):
            return value > 0.5
    return None


def _scores(sample: dict[str, Any], paths: str, scores: str) -> list[float]:
    number = len(list_of(sample, paths))
    stated = list_of(sample, scores)
    if len(stated) != number:
        return [math.nan] * number
    # An integer in JSON may be larger than any float.
    known = [type(score) in (int, float) and abs(score) <= sys.float_info.max for score in stated]
    return [float(score) if is_known else math.nan for score, is_known in zip(stated, known)]


def _sample(example: SearchedExample) -> dict[str, Any]:
    right = [tried for tried in example.tried if tried.correct]
    wrong = [tried for tried in example.tried if not tried.correct]
    baseline = next(tried for tried in example.tried if tried.program.is_identity)
    return {
        "question": example.prompt,
        "gt_ans": example.answer,
        "initial_score": float(baseline.correct),
        _VALID: [list(tried.program) for tried in right],
        _INVALID: [list(tried.program) for tried in wrong],
        "valid_scores": list(map(_score, right)),
        "invalid_scores": list(map(_score, wrong)),
        "sample_info": {
            "query_id": example.example_id,
            "question": example.prompt,
            "ground_truth": example.answer,
            "task": example.task,
        },
    }


def _score(tried: TriedProgram) -> float | None:
    return tried.score if math.isfinite(tried.score) else None
