"""Building a menu: all candidates race, the menu is chosen among those that finish, and runs on all examples.

examples --stages--> finalists --choice--> programs --figures--> menu.json

Everything that is run goes into the menu's matrix first, so that an interrupted race goes on where it stopped: the same
outcomes lead it the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pipeline.distributed.actor_pool import ActorPool
from pipeline.distributed.cluster import Placement, check_output, joined_cluster
from pipeline.engine.loading import cache_folder
from pipeline.errors import UserError
from pipeline.program import LayerProgram
from pipeline.storage import AnyPath, Writer, is_there, write_whole
from pipeline.tasks import Example, Task, get_task
from pipeline.tasks.prompting import is_day, today
from router.labels.labelled import Labelled, describe_left_out
from router.menu.card import menu_card
from router.menu.choice import SelectorComplements, cover, front
from router.menu.example_table import FILE as EXAMPLES_FILE
from router.menu.example_table import encoded_examples
from router.menu.figures import menu_programs
from router.menu.front_plot import draw_front
from router.menu.label_scores import (
    CHUNK,
    LabelScoresActor,
    content_free,
    encoded_scores,
    fixed_labels,
    without_content,
)
from router.menu.label_scores import FILE as LABEL_SCORES_FILE
from router.menu.matrix import Matrix
from router.menu.matrix_actor import MatrixActor, MatrixWork
from router.menu.menu import CARD_FILE, MENU_FILE, Menu, MenuSettings, read_settings_of_menu
from router.menu.menu_folder import check_folder, opened_menu
from router.menu.menu_request import MenuRequest
from router.menu.race_plan import RacePlan
from router.menu.racing import Round
from router.menu.ray_runs import RayRuns
from router.menu.ridge import leave_one_out
from router.menu.stages import finalists
from router.training.menu_examples import MenuExamples, menu_examples
from router.training.model_service import FrozenModelService

Array = np.ndarray[Any, Any]
#: Windows of a prompt that its summary is made of.
_NUM_WINDOWS = 8


def build_menu(
    request: MenuRequest,
    *,
    announce: Callable[[str], None] = lambda line: None,
    show: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Menu:
    """Build a menu, or go on with one that was interrupted.

    Args:
        request: The menu.
        announce: Receives a line for the user.
        show: Receives the name of a step, how much of the step is done, and of how much.

    Raises:
        UserError: Something in the request is wrong, or the folder holds something else.
        StorageError: The folder does not take a file.
        KeyboardInterrupt: The race was interrupted; outcomes that were computed are kept.
    """
    check_output(request.out)
    stored = read_settings_of_menu(request.out)
    noted = None if stored is None else stored.others.get("day")
    given = menu_examples(request, day=str(noted) if is_day(noted) else today())
    plan = RacePlan.of(
        request, num_layers=given.num_layers, num_racing=given.num_racing, num_held_out=given.num_held_out
    )
    with joined_cluster(request.resources, given.source) as placement:
        given = _in_precision(given, request, placement)
        placement = replace(placement, dtype=given.dtype)
        settings = _settings(request, given)
        check_folder(request.out, settings)
        with opened_menu(request.out, settings, announce) as writer:
            if not is_there(request.out / EXAMPLES_FILE):
                writer.write(EXAMPLES_FILE, encoded_examples(given.examples))
            matrix = Matrix(request.out, [example.id for example in given.examples], num_layers=given.num_layers)
            announce(
                f"{given.num_racing} examples of {given.task} to choose programs on, {given.num_held_out} held out"
                f"{describe_left_out(given.left_out)}; {plan.describe()}, {matrix.evaluations} "
                f"known already; {placement.describe()}."
            )
            rounds: list[dict[str, Any]] = []

            def on_round(stage: str, one: Round) -> None:
                rounds.append(_round_note(stage, one))
                announce(_described_round(stage, one))

            # Before the actors of the race, which hold all resources.
            with _service(request, given, placement, announce, show) as service:
                summaries = service.summaries(_identity_rows(given, plan.final[-1]), num_windows=_NUM_WINDOWS)
            actors = _actors(given, placement)
            run = RayRuns(
                examples=given.examples,
                matrix=matrix,
                writer=writer,
                actors=actors,
                show=lambda done, total: show("programs run", done, total),
            )
            with actors:
                finished = finalists(
                    plan,
                    run,
                    num_layers=given.num_layers,
                    found=given.found,
                    compare_margins=_task(given).scoring.margins_compare,
                    complements=SelectorComplements(summaries=summaries, layer_price=request.layer_price),
                    on_round=on_round,
                )
                raced = matrix.evaluations
                right = run(finished, range(plan.final[-1])).right
                chosen = choose(request, finished, right, summaries)
                on_all = run(chosen, range(len(given.examples))).right
            _write_label_scores(request.out, given, placement, writer, show)
            menu = Menu(
                settings=settings,
                programs=menu_programs(chosen, on_all, num_held_out=given.num_held_out),
                notes={
                    "rounds": rounds,
                    "race_evaluations": raced,
                    "evaluations": matrix.evaluations,
                    "tokens_run": matrix.cost.run,
                    "tokens_of_separate_runs": matrix.cost.separately,
                },
            )
            writer.write(MENU_FILE, menu.to_bytes())
            try:
                write_whole(request.out / CARD_FILE, menu_card(menu).encode())
                draw_front(menu, request.out)
            except OSError as error:  # the menu is there without them
                announce(f"The card or the picture cannot be written: {error.strerror or error}")
            return menu


def _write_label_scores(
    folder: AnyPath, given: MenuExamples, placement: Placement, writer: Writer, show: Callable[[str, int, int], None]
) -> None:
    """Keep the base model's scores of the labels, where all examples have the same ones."""
    labels = fixed_labels(_task(given), given.examples)
    if labels is None or is_there(folder / LABEL_SCORES_FILE):
        return
    asked = [*given.examples, *without_content(given.examples[0])]
    chunks = [asked[start : start + CHUNK] for start in range(0, len(asked), CHUNK)]
    actors: ActorPool[Sequence[Example]] = ActorPool(
        LabelScoresActor, _actor_arguments(given, placement), placement.pool
    )
    found: dict[int, list[list[float]]] = {}
    with actors:
        for chunk, scores in actors.map(chunks):
            found[id(chunk)] = scores
            show("labels scored", min(len(asked), CHUNK * len(found)), len(asked))
    every = [row for chunk in chunks for row in found[id(chunk)]]
    number = len(given.examples)
    writer.write(
        LABEL_SCORES_FILE, encoded_scores(given.examples, labels, every[:number], content_free(every[number:]))
    )


def choose(request: MenuRequest, finished: list[LayerProgram], right: Array, summaries: Array) -> list[LayerProgram]:
    """The menu's programs: the identity program, the front, and those that others gain from.

    Args:
        request: The menu.
        finished: The programs that finished the races.
        right: Their right answers, ``[N, M]``.
        summaries: Summaries of the base model's hidden states on the prompts, ``[N, …]``.
    """
    identity = next(place for place, program in enumerate(finished) if program.is_identity)
    # The best programs are at the end of the front: a small menu has those.
    ways = [place for place in reversed(front(right, finished)) if place != identity]
    given = [identity, *ways[: request.size - 1]]
    predicted = leave_one_out(summaries, right - right[:, [identity]])
    places = cover(right, predicted, finished, given=given, size=request.size, layer_price=request.layer_price)
    return [finished[place] for place in places]


def _in_precision(given: MenuExamples, request: MenuRequest, placement: Placement) -> MenuExamples:
    """The examples with the precision of the run, or with that of the actors.

    Raises:
        UserError: The request asks for another precision than the run has.
    """
    if given.dtype == "auto":
        return replace(given, dtype=placement.dtype)
    if request.resources.dtype not in ("auto", given.dtype):
        raise UserError(f"--dtype {request.resources.dtype}, but the run was searched in {given.dtype}; leave it out")
    return given


def _settings(request: MenuRequest, given: MenuExamples) -> MenuSettings:
    return MenuSettings(
        base=given.base,
        dtype=given.dtype,
        num_layers=given.num_layers,
        add_special_tokens=given.add_special_tokens,
        task=given.task,
        data_sha256=given.data_sha256,
        num_examples=len(given.examples),
        num_held_out=given.num_held_out,
        others={
            "max_new_tokens": given.max_new_tokens,
            "thinking": given.prompting.thinking,
            "day": given.prompting.day,
            "size": request.size,
            "budget": request.budget,
            "min_budget": request.min_budget,
            "layer_price": request.layer_price,
            "evaluations": request.evaluations,
            "seed": request.seed,
            "found": [str(program) for program in given.found],
            **given.task_options.to_settings(),
        },
    )


def _actors(given: MenuExamples, placement: Placement) -> ActorPool[MatrixWork]:
    return ActorPool(MatrixActor, _actor_arguments(given, placement), placement.pool)


def _actor_arguments(given: MenuExamples, placement: Placement) -> tuple[Any, ...]:
    return (
        given.source,
        placement.device,
        given.dtype,
        placement.pool.cpus_per_actor,
        given.task,
        given.max_new_tokens,
        given.task_options,
        given.prompting,
    )


def _service(
    request: MenuRequest,
    given: MenuExamples,
    placement: Placement,
    announce: Callable[[str], None],
    show: Callable[[str, int, int], None],
) -> FrozenModelService:
    """Reads the prompts, on the cluster that the race is on."""
    return FrozenModelService(
        base=given.base,
        location=given.source.location,
        dtype=given.dtype,
        add_special_tokens=given.add_special_tokens,
        resources=request.resources,
        folder=request.features or cache_folder() / "features",
        announce=announce,
        show=show,
        started=(given.source, placement),
    )


def _identity_rows(given: MenuExamples, number: int) -> list[Labelled]:
    """The first examples, each with the identity program as its label."""
    return [
        Labelled(example_id=example.id, task=example.task, prompt=str(example.prompt), counts=(1,) * given.num_layers)
        for example in given.examples[:number]
    ]


def _task(given: MenuExamples) -> Task:
    return get_task(given.task, max_new_tokens=given.max_new_tokens, options=given.task_options)


def _round_note(stage: str, one: Round) -> dict[str, Any]:
    best = [{"program": str(program), "right": right} for program, right in zip(one.programs[:3], one.right)]
    return {"race": stage, "examples": one.examples, "programs": len(one.programs), "best": best}


def _described_round(stage: str, one: Round) -> str:
    return (
        f"{stage}: {len(one.programs)} programs on {one.examples} examples; best so far {one.programs[0]} "
        f"({len(one.programs[0])} layers), right on {100 * one.right[0]:.1f} %"
    )
