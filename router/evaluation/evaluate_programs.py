"""Pass@1 of single programs, each for all examples, beside the base model's: what a menu's front is worth.

Examples that a menu was made of are left out, so the figures of its front are no maxima of luck. Several programs are
several chances of a small p-value: p-values are corrected for their number (Holm).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pipeline.distributed.actor_pool import ActorPool
from pipeline.distributed.cluster import check_output, joined_cluster
from pipeline.engine.loading import load_description
from pipeline.errors import UserError
from pipeline.model_source import ModelSource, resolve_model
from pipeline.program import LayerProgram
from pipeline.search.config import PRESETS
from pipeline.significance import holm
from pipeline.tasks import get_task
from pipeline.tasks.prompting import Prompting, today
from router.artifact.base_model import find_base, text_fingerprint
from router.evaluation.answering_actor import AnsweringActor, Ask
from router.evaluation.asking import Asking, answering_config
from router.evaluation.evaluate import read_requested, result_of_answers
from router.evaluation.evaluate_request import EvaluateRequest
from router.evaluation.evaluation_results import BASE, EvaluationResults
from router.evaluation.unseen_examples import numbers_left_out, unseen_examples
from router.menu.example_table import read_menu_examples
from router.menu.menu import read_menu


def evaluate_programs(
    request: EvaluateRequest,
    *,
    announce: Callable[[str], None] = lambda line: None,
    show: Callable[[str, int, int], None] = lambda method, done, total: None,
) -> EvaluationResults:
    """Evaluate the programs of a request, or those of its menu's front.

    Args:
        request: The programs and the examples.
        announce: Receives a line for the user.
        show: Receives for each program how many of its examples are done, of how many.

    Raises:
        UserError: Something in the request is wrong.
    """
    if request.out is not None:
        check_output(request.out)
    request = _as_the_menu(request)
    source, programs, trained_on, days = _chosen(request)
    task = get_task(
        request.task,
        max_new_tokens=request.max_new_tokens,
        options=request.task_options,
        prompting=Prompting(thinking=request.thinking, day=today()),
    )
    read, earlier = read_requested(task, request), read_requested(task, request, prompt_version=1)
    examples, left_out = unseen_examples(read, earlier, task, source, trained_on=trained_on, days=days)
    depth = programs[0].num_layers
    with joined_cluster(request.resources, source) as placement:
        config = answering_config(
            request.task,
            source,
            examples,
            task,
            placement,
            max_new_tokens=request.max_new_tokens,
            task_options=request.task_options,
            search=PRESETS["default"]["drllm"],
            seed=request.seed,
        )
        announce(f"{len(examples)} examples of {request.task}{numbers_left_out(left_out)}; {placement.describe()}.")
        actors: ActorPool[Ask] = ActorPool(AnsweringActor, ([], source, config, None), placement.pool)
        with actors:
            asking = Asking(actors, show)
            identity = LayerProgram.identity(depth)
            base = asking.answers(BASE, examples, programs=[identity] * len(examples))
            results = [
                result_of_answers(
                    str(program), asking.answers(str(program), examples, programs=[program] * len(examples)), base
                )
                for program in programs
            ]
    corrected = holm([result.p_value for result in results])
    return EvaluationResults(
        results=[
            result_of_answers(BASE, base, base),
            *(replace(result, p_value=p_value) for result, p_value in zip(results, corrected, strict=True)),
        ],
        curve={},
        questions=len(examples),
        left_out=left_out,
        num_layers=depth,
    )


def _as_the_menu(request: EvaluateRequest) -> EvaluateRequest:
    """The request with the menu's task options and limit on tokens, where it leaves them open and has the same task."""
    if request.menu is None:
        return request
    settings = read_menu(request.menu).settings
    if settings.task != request.task:
        return request
    stored = {**settings.others, "task": settings.task}
    tokens = settings.others.get("max_new_tokens") if request.max_new_tokens is None else request.max_new_tokens
    return replace(
        request,
        task_options=request.task_options.of_run(request.task, stored),
        max_new_tokens=tokens,
        thinking=request.thinking or settings.others.get("thinking") is True,
    )


def _chosen(request: EvaluateRequest) -> tuple[ModelSource, list[LayerProgram], frozenset[int], list[str]]:
    """The base model, the programs, and what those were chosen on: fingerprints, and the dates of the prompts.

    Raises:
        UserError: The model or the menu cannot be found, or a program is not one of the model's.
    """
    if request.menu is not None:
        menu = read_menu(request.menu)
        front = [one.program for one in menu.programs if one.on_front and not one.program.is_identity]
        if not front:
            raise UserError(f"the front of {request.menu} is the base model alone: there is nothing to compare with it")
        rows = read_menu_examples(request.menu)
        known = {text_fingerprint(prompt) for prompt in rows.prompt}
        known |= {text_fingerprint(task, example) for task, example in zip(rows.task, rows.example_id, strict=True)}
        day = menu.settings.others.get("day")
        source = find_base(menu.settings.base, request.base, kind="menu")
        return source, front, frozenset(known), [] if day is None else [str(day)]
    assert request.model is not None
    source = resolve_model(request.model)
    depth = load_description(source)[0].num_hidden_layers
    programs = []
    for text in dict.fromkeys(request.program):
        try:
            programs.append(LayerProgram.parse(text, depth))
        except ValueError as error:
            raise UserError(f"--program: {error}") from None
    return source, programs, frozenset(), []
