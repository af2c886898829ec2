"""``drllm-pipeline convert``: path data sets from and to the formats of the field."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.errors import UserError
from pipeline.formats.convert_request import ConvertRequest
from pipeline.formats.drllm import read_drllm
from pipeline.formats.path_data import PathData
from pipeline.formats.polar import read_polar, write_polar
from pipeline.formats.questions import read_questions
from pipeline.formats.run_rows import read_run, write_run
from pipeline.model_source import ModelSource, resolve_model
from pipeline.storage import without_secrets


@dataclass(frozen=True, kw_only=True)
class Converted:
    """The outcome of a conversion.

    Attributes:
        examples: Number of examples that were taken over.
        programs: Number of verdicts that were taken over, over all examples.
        num_layers: Depth of the model.
        left_out: Number of programs and examples that could not be taken over, by the reason.
    """

    examples: int
    programs: int
    num_layers: int
    left_out: Counter[str]


def convert(request: ConvertRequest, *, announce: Callable[[str], None] = lambda line: None) -> Converted:
    """Read one format and write another.

    Args:
        request: The conversion's request.
        announce: Called with a line of advice for the user.

    Raises:
        UserError: The source cannot be read, the target exists or cannot be written, or nothing could be taken over.
    """
    if request.target_format == "polar" and request.target.exists():
        raise UserError(f"{request.target} exists already; give another file, or remove it")
    model = None if request.model is None else resolve_model(request.model)
    data = _read(request, None if model is None else _depth(model))
    if model is not None:
        data.model, data.revision = model.name, model.revision
    data.dtype = request.dtype or data.dtype
    if not data.examples:
        reasons = "".join(f"\n  {reason}: {number}" for reason, number in data.left_out.items())
        raise UserError(f"nothing in {without_secrets(request.source)} could be taken over{reasons and ':'}{reasons}")
    if request.target_format == "polar":
        write_polar(data, request.target)
    else:
        write_run(data, request.target, origin=_origin(request))
        if data.revision is None or data.dtype is None:
            announce(
                "The source names neither the searched weights nor their precision; to train on the run, "
                "name them with --model and --dtype, in a new folder."
            )
    return Converted(
        examples=len(data.examples),
        programs=sum(len(example.tried) for example in data.examples),
        num_layers=data.num_layers,
        left_out=data.left_out,
    )


def _read(request: ConvertRequest, depth: int | None) -> PathData:
    if request.num_layers is not None and depth not in (None, request.num_layers):
        raise UserError(f"--num-layers {request.num_layers}, but {request.model!r} has {depth}")
    depth = request.num_layers if depth is None else depth
    if request.source_format == "polar":
        questions = None if request.questions is None else read_questions(request.questions)
        return read_polar(request.source, num_layers=depth, task=request.task, questions=questions)
    if request.source_format == "drllm":
        return read_drllm(request.source, num_layers=depth, task=request.task)
    data = read_run(request.source)
    if depth not in (None, data.num_layers):
        raise UserError(
            f"{request.source} is of a model of {data.num_layers} layers, but {request.model!r} has {depth}"
        )
    return data


def _depth(model: ModelSource) -> int:
    from pipeline.engine.loading import load_description

    depth: int = load_description(model)[0].num_hidden_layers
    return depth


def _origin(request: ConvertRequest) -> dict[str, str]:
    """The source of a converted run, as its ``run.json`` notes it."""
    return {"format": request.source_format, "file": without_secrets(request.source)}
