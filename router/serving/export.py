"""One program as a stock transformers checkpoint, for use with other software.

The checkpoint has as many layers as the program and needs none of our code: ``AutoModelForCausalLM`` loads it, and so
do other readers of such checkpoints (vLLM, llama.cpp's converter). A repeated layer is written twice, because a
checkpoint of stock classes cannot say that two layers share their weights.
"""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path
from typing import Any

import torch

from pipeline.engine import FrozenModel, materialize
from pipeline.engine.loading import load_description, load_weights
from pipeline.engine.stock_check import TOLERANCE, difference, logits_of
from pipeline.errors import UserError
from pipeline.model_source import DTYPES, resolve_model
from pipeline.program import LayerProgram
from pipeline.shards.reader import read_json
from pipeline.storage import AnyPath, entries, is_folder, is_there, uploaded
from router.artifact.base_model import find_base
from router.evaluation.evaluation_results import RESULTS_FILE, SINGLE
from router.routed.causal_lm import RoutedCausalLM
from router.routed.checkpoint import Router

NOTE_FILE = "layer_program.json"
#: Tokens that the written checkpoint and the program are compared on.
_TEXT = [5, 6, 7, 8, 9, 10, 11, 12]


def parse_program(text: str, num_layers: int) -> LayerProgram:
    """A program as ``LayerProgram`` writes it (``0-5,5-9,12-29``).

    Raises:
        UserError: The text is not a program of that depth.
    """
    try:
        return LayerProgram.parse(text, num_layers)
    except ValueError as error:
        raise UserError(f"--program: {error}") from None


def best_single(router: AnyPath) -> LayerProgram:
    """The program that an evaluation of a router chose on its training examples.

    Raises:
        UserError: The router was not evaluated, or no single program could be chosen.
    """
    file = router / RESULTS_FILE
    if not is_there(file):
        raise UserError(f"{router} was not evaluated yet, and `drllm-pipeline evaluate` chooses the program of --best")
    found = read_json(file)
    try:
        [chosen] = [result for result in found["results"] if result["contender"] == SINGLE]
        [text] = {program for program, _ in chosen["answers"].values()}
        return LayerProgram.parse(text, int(found["num_layers"]))
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{file} names no best single program: the training runs could not be read") from None


def export_program(
    *,
    model: str | None,
    program: str | None,
    best: bool,
    router: AnyPath | None,
    prompt: str | None,
    budget: float | None,
    dtype: str,
    out: AnyPath,
) -> LayerProgram:
    """Find the requested program, and write it; see ``drllm-pipeline export --help``.

    Raises:
        UserError: No program or several programs were named, or an argument is wrong.
    """
    if (program is not None) + best + (prompt is not None) != 1:
        raise UserError("name the program by one of --program, --best (with --router), --prompt (with --router)")
    loaded = None if router is None else Router.load(router)
    if router is None and (best or prompt is not None):
        raise UserError("--best and --prompt need --router, which chooses the program")
    check_new(out)
    name = model or (loaded.base.name if loaded else None)
    if name is None:
        raise UserError("--model is needed: the model whose layers the program runs")
    chosen = best_single(router) if best and router is not None else None
    source = find_base(loaded.base, model, kind="router") if loaded else resolve_model(name)
    # As the checkpoint has it, and not as this machine would run it.
    if dtype == "auto":
        stored = str(load_description(source)[0].dtype).removeprefix("torch.")
        dtype = stored if stored in DTYPES else "float32"
    frozen = FrozenModel.load(source.location, dtype=dtype, revision=source.hub_revision)
    if program is not None:
        chosen = parse_program(program, frozen.num_layers)
    elif prompt is not None:
        assert loaded is not None
        [chosen] = RoutedCausalLM(frozen.hf_model, frozen.tokenizer, loaded, budget=budget).route([prompt])
    assert chosen is not None
    if chosen.num_layers != frozen.num_layers:
        raise UserError(f"the program is for {chosen.num_layers} layers, {name} has {frozen.num_layers}")
    export(frozen, chosen, out)
    return chosen


def check_new(out: AnyPath) -> None:
    """Refuse a folder that is not empty.

    Raises:
        UserError: The folder is not empty.
    """
    if is_there(out) and (not is_folder(out) or entries(out)):
        raise UserError(f"{out} has something in it; give a new folder to --out")


def export(model: FrozenModel, program: LayerProgram, out: AnyPath) -> None:
    """Write a checkpoint of one program, its tokenizer and a description.

    The checkpoint is loaded again before it gets its name, so that a folder of that name holds the program.

    Raises:
        UserError: The folder is not empty or cannot be written, or a checkpoint of the model's class cannot say the
            program.
    """
    check_new(out)
    stock = materialize(model.hf_model, program)
    note = {"program": list(program.layers), "num_layers_of_the_base": program.num_layers, "text": str(program)}
    try:
        with uploaded(out) as folder:
            staged = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
            try:
                _write(staged, stock, program)
                model.tokenizer.save_pretrained(staged)
                (staged / NOTE_FILE).write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
                staged.replace(folder)
            finally:
                shutil.rmtree(staged, ignore_errors=True)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror or error}") from None


def _write(folder: Path, stock: Any, program: LayerProgram) -> None:
    """Write the model, and load it again.

    Raises:
        OSError: The folder cannot be written.
        UserError: The checkpoint cannot be loaded, or is another model than the one that was to be written.
    """
    try:
        stock.save_pretrained(folder)
        again = load_weights(str(folder), device=stock.device, dtype=stock.dtype, revision=None)
        reason = _other(again, stock)
    except OSError:
        raise
    except Exception as error:  # transformers has many errors for a configuration that goes by layer
        reason = " ".join(str(error).replace(f"model {str(folder)!r}", "it").split())
    if reason is not None:
        raise UserError(
            f"program {program} cannot be exported: a checkpoint of {type(stock).__name__} (model type "
            f"{stock.config.model_type!r}) with these layers was written and loaded again, and is another model "
            f"({reason}). Its configuration cannot say which layer is of which kind in this order; "
            "pipeline.materialize runs the program without a checkpoint"
        )


@torch.inference_mode()
def _other(again: Any, stock: Any) -> str | None:
    """What distinguishes a model from another one of the same weights; None for nothing."""
    off = difference(logits_of(again, _TEXT), logits_of(stock, _TEXT))
    if not off <= TOLERANCE[stock.dtype]:
        return f"its logits are off by {off:.1e} of the largest"
    # A window is longer than the text: compare what the layers hold of the configuration, too.
    for position, (ours, theirs) in enumerate(zip(again.model.layers, stock.model.layers, strict=True)):
        if _settings(ours) != _settings(theirs):
            return f"layer {position} has other settings"
    return None


def _settings(layer: torch.nn.Module) -> dict[str, Any]:
    """The numbers and words that a layer's modules were built with."""
    return {
        f"{name}.{attribute}": value
        for name, module in layer.named_modules()
        for attribute, value in vars(module).items()
        if isinstance(value, str | int | float) and not attribute.startswith("_") and attribute != "training"
    }
