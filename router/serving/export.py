"""One program as a stock transformers checkpoint, for use with other software.

The checkpoint has as many layers as the program and needs none of our code: ``AutoModelForCausalLM`` loads it, and so
do other readers of such checkpoints (vLLM, llama.cpp's converter). A repeated layer is written twice, because a
checkpoint of stock classes cannot say that two layers share their weights.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from pipeline.engine import FrozenModel, materialize
from pipeline.engine.batch_limit import out_of_memory
from pipeline.engine.loading import load_description, load_weights
from pipeline.engine.stock_check import TOLERANCE, difference, logits_of
from pipeline.errors import UserError
from pipeline.model_source import DTYPES, ModelSource, resolve_model
from pipeline.program import LayerProgram
from pipeline.shards.reader import read_json, read_settings
from pipeline.storage import AnyPath, entries, is_folder, is_there, uploaded, where_it_is
from router.artifact.base_model import find_base, pinned, require_revision
from router.artifact.folder import EVALUATION_FILE, WEIGHTS_FILE, weights_sha256
from router.evaluation.evaluation_results import SINGLE
from router.labels.kept_programs import KeptPrograms, base_of_runs
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


def best_single(router: AnyPath, announce: Callable[[str], None]) -> LayerProgram:
    """The program that an evaluation of a router chose on its training examples.

    Args:
        router: The router folder.
        announce: Receives a line for the user.

    Raises:
        UserError: The router was not evaluated with its present weights, or no single program could be chosen.
    """
    file = router / EVALUATION_FILE
    if not is_there(file):
        raise UserError(f"{router} was not evaluated yet, and `drllm-pipeline evaluate` chooses the program of --best")
    found = read_json(file)
    judged = found.get("weights_sha256")
    if judged is None:
        announce(f"{file} does not say which weights it judged: it was written by an earlier release.")
    elif judged != weights_sha256(router, "router"):
        raise UserError(
            f"{file} judged other weights than {router / WEIGHTS_FILE} has now; run `drllm-pipeline evaluate` again"
        )
    try:
        [chosen] = [result for result in found["results"] if result["contender"] == SINGLE]
        [text] = {program for program, _ in chosen["answers"].values()}
        return LayerProgram.parse(text, int(found["num_layers"]))
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{file} names no best single program: the training runs could not be read") from None


def best_of_runs(runs: Sequence[AnyPath], budget: float | None, announce: Callable[[str], None]) -> LayerProgram:
    """The program within the budget that is right on most examples of runs, by the rows that they keep.

    Args:
        runs: Run folders of one model.
        budget: Most layers of the program, as a fraction of the depth; None for the smallest budget of the runs.
        announce: Receives a line for the user.

    Raises:
        UserError: A folder is no run, no right program within the budget is in the rows, or the base model is best.
    """
    if budget is None:
        said = [read_settings(run).get("search.budget") for run in runs]
        budget = min((float(one) for one in said if isinstance(one, int | float)), default=None)
    elif not budget > 0:
        raise UserError(f"--budget must be above 0, got {budget:g}")
    kept = KeptPrograms.read(runs)
    within = [program for program in kept.ranked if budget is None or program.within(budget)]
    if not within:
        raise UserError(
            f"no row of {', '.join(map(str, runs))} has a right program"
            + ("" if budget is None else f" within the budget of {budget:g}")
        )
    best = within[0]
    base = kept.right.get(LayerProgram.identity(best.num_layers), 0)
    if best.is_identity:
        other = next((program for program in within if not program.is_identity), None)
        raise UserError(
            f"the base model itself is right on most: {base} of {kept.num_examples} examples; a copy of it is no use. "
            + (
                "No other program is right on any."
                if other is None
                else f"Of other programs, {other} is right on most: {kept.right[other]}, by the rows that are kept. "
                "Give --budget 0.9, for example, which leaves the base model out."
            )
        )
    announce(
        f"{best} is right on {kept.right[best]} of {kept.num_examples} examples, by the rows that are kept; the base "
        f"model on {base}."
    )
    if kept.right[best] < base:
        announce("Warning: it is right on fewer examples than the base model. `search --keep all` keeps more programs.")
    return best


def export_program(
    *,
    model: str | None,
    program: str | None,
    best: bool,
    router: AnyPath | None,
    runs: Sequence[AnyPath] = (),
    prompt: str | None,
    budget: float | None,
    dtype: str,
    out: AnyPath,
    announce: Callable[[str], None] = lambda line: None,
) -> LayerProgram:
    """Find the requested program, and write it; see ``drllm-pipeline export --help``.

    Raises:
        UserError: No program or several programs were named, or an argument is wrong.
    """
    if (program is not None) + best + (prompt is not None) != 1:
        raise UserError(
            "name the program by one of --program, --best (with --router or --runs), --prompt (with --router)"
        )
    if runs and (router is not None or not best):
        raise UserError("--runs goes with --best, and instead of --router")
    loaded = None if router is None else Router.load(router)
    if router is None and not runs and (best or prompt is not None):
        raise UserError("--best and --prompt need --router, which chooses the program; --best can take --runs instead")
    check_new(out)
    source = _source(model, loaded, runs)
    chosen = None
    if best:
        chosen = best_of_runs(runs, budget, announce) if router is None else best_single(router, announce)
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
        raise UserError(f"the program is for {chosen.num_layers} layers, {source.name} has {frozen.num_layers}")
    export(frozen, chosen, out)
    return chosen


def _source(model: str | None, router: Router | None, runs: Sequence[AnyPath]) -> ModelSource:
    """The model whose layers the program runs: the named one, or that of the router or of the runs.

    Raises:
        UserError: No model is named, it cannot be found, or it is not that of the router or of the runs.
    """
    if router is not None:
        return find_base(router.base, model, kind="router")
    if runs:
        base = base_of_runs(runs)
        name = model or where_it_is(base.name, read_json(runs[0] / "run.json").get("model_path"))
        source = pinned(resolve_model(name), base)
        require_revision(source, base, what="the model that was searched", hint="give its path to --model")
        return source
    if model is None:
        raise UserError("--model is needed: the model whose layers the program runs")
    return resolve_model(model)


def check_new(out: AnyPath) -> None:
    """Refuse a folder that is not empty.

    Raises:
        UserError: The folder is not empty.
    """
    if is_there(out) and (not is_folder(out) or entries(out)):
        raise UserError(f"{out} has something in it; give a new folder to --out")


def export(model: FrozenModel, program: LayerProgram, out: AnyPath) -> None:
    """Write a checkpoint of one program, its tokenizer and a description.

    It is written to a hidden folder in the given one, which may be a mount point, and loaded again before its files
    get their places: a folder with a ``config.json`` holds the program.

    Raises:
        UserError: The folder is not empty or cannot be written, a checkpoint of the model's class cannot say the
            program, or memory does not suffice to load it again.
    """
    check_new(out)
    stock = materialize(model.hf_model, program)
    note = {"program": list(program.layers), "num_layers_of_the_base": program.num_layers, "text": str(program)}
    try:
        with uploaded(out) as folder, _staged(folder) as staged:
            _write(staged, stock, program)
            model.tokenizer.save_pretrained(staged)
            (staged / NOTE_FILE).write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror or error}") from None


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """A hidden folder in a folder, whose files move up at the end; an exception leaves nothing of them.

    Raises:
        OSError: The folder cannot be written.
    """
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    staged = folder / f".staged-{uuid.uuid4().hex}"
    try:
        staged.mkdir()
        yield staged
        # The configuration last: without it no reader takes the folder for a checkpoint.
        for file in sorted(staged.iterdir(), key=lambda file: file.name == "config.json"):
            file.replace(folder / file.name)
        staged.rmdir()
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        if is_new:
            with suppress(OSError):  # it holds something
                folder.rmdir()
        raise


def _write(folder: Path, stock: Any, program: LayerProgram) -> None:
    """Write the model, and load it again: on the CPU, since a GPU that holds the model may hold no second one.

    Raises:
        OSError: The folder cannot be written.
        UserError: The checkpoint cannot be loaded, is another model than the one that was to be written, or memory
            does not suffice to find out.
    """
    try:
        stock.save_pretrained(folder)
        again = load_weights(str(folder), device=torch.device("cpu"), dtype=stock.dtype, revision=None)
        reason = _other(again, stock)
    except OSError:
        raise
    except Exception as error:  # transformers has many errors for a configuration that goes by layer
        if any(isinstance(one, MemoryError) or out_of_memory(one) for one in (error, error.__cause__) if one):
            raise UserError(
                f"program {program} was not exported: there is not enough memory to load the written checkpoint and "
                "compare it with the model; use a machine with more memory, or a smaller --dtype"
            ) from error
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
    off = difference(logits_of(again, _TEXT), logits_of(stock, _TEXT).cpu())
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
