"""From a menu to per-layer routers: label → extract → fit, in rounds → judge → write.

Labels are what a menu's matrix makes of each example; see ``router.training.menu_labels``. Routers that are
trained along labels read states that they do not meet where they decide otherwise. So in each further round the
routers' own programs are found, and routers are trained on the states along those too, with the same labels (dataset
aggregation, 1011.0686).

The folder is that of ``router.training.train``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from pipeline.distributed.cluster import check_output
from pipeline.errors import UserError
from pipeline.program import LayerProgram
from pipeline.storage import uploaded
from pipeline.tasks import Example, TaskOptions
from pipeline.tasks.prompting import Prompting, is_day
from router.artifact.folder import PICTURE_FILE, check_output_folder, make_early, remove_training_records
from router.fitting import EpochRecord
from router.heads.head import Head
from router.heads.per_layer.train import TrainedPerLayer, fit_per_layer
from router.heads.registry import kind_of
from router.heads.selector.choice import MenuChoice
from router.labels.labelled import Labelled, TrainingLabels, held_out_prompts, split
from router.menu.candidates import counts_of
from router.menu.example_table import examples_of_menu
from router.menu.expected_labels import relabelled
from router.menu.menu import MenuSettings
from router.routed.checkpoint import Router
from router.training.epoch_writer import EpochWriter
from router.training.held_out_judgement import MOST_JUDGED, ROUTER, asking_of, judge
from router.training.menu_data import MenuData, prompt_inputs, read_menu_data, service_of_menu
from router.training.menu_labels import MenuLabels, menu_labels
from router.training.menu_train_request import MenuTrainRequest
from router.training.model_service import FrozenModelService
from router.training.train import TrainedRouter, check_wandb, draw, judged, static_head

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class MenuTask:
    """The task of a menu's examples.

    Attributes:
        task: Its name.
        max_new_tokens: Most tokens of a generated answer; None for the task's default.
        task_options: The task's options.
        prompting: The settings of the prompts.
    """

    task: str
    max_new_tokens: int | None
    task_options: TaskOptions
    prompting: Prompting

    @classmethod
    def of(cls, settings: MenuSettings) -> MenuTask:
        """The task of a menu with these settings.

        Raises:
            UserError: The settings hold an option that the task does not have.
        """
        others = settings.others
        day = others.get("day")
        return cls(
            task=settings.task,
            max_new_tokens=others.get("max_new_tokens"),
            task_options=TaskOptions.from_settings({"task": settings.task, **others}),
            prompting=Prompting(thinking=bool(others.get("thinking")), day=str(day) if is_day(day) else None),
        )


def train_on_menu(
    request: MenuTrainRequest,
    *,
    announce: Callable[[str], None] = lambda line: None,
    show: Callable[[str, int, int], None] = lambda what, done, total: None,
    on_epoch: Callable[[EpochRecord], None] = lambda record: None,
) -> TrainedRouter:
    """Train per-layer routers on a menu, judge them on its held-out examples, and write them.

    Args:
        request: The training.
        announce: Receives a line for the user.
        show: Receives the name of a step, how much of the step is done, and of how much.
        on_epoch: Receives every epoch's record.

    Raises:
        UserError: Something in the request, or in the menu, is wrong.
        KeyboardInterrupt: The training was interrupted; features that were computed are kept.
    """
    check_output(request.out)
    check_output_folder(request.out, "router", overwrite=request.overwrite)
    check_wandb(request.wandb)
    data = read_menu_data(request.menu)
    examples, task = examples_of_menu(data.rows), MenuTask.of(data.menu.settings)
    unlabelled = _unlabelled(data)
    # Before any outcome is looked at: what is judged on must decide no label.
    split(unlabelled, request.held_out, seed=request.head.seed)
    prompts = held_out_prompts(unlabelled, request.held_out, seed=request.head.seed)
    known = ~data.rows.prompt.isin(prompts).to_numpy()
    if known.sum() < 2:
        raise UserError(f"{len(known)} examples are too few: {known.sum()} to train on; hold out fewer (--held-out)")
    with service_of_menu(data.menu, request, announce=announce, show=show) as service:
        at = max(1, data.menu.settings.num_layers // 2)
        inputs = prompt_inputs(service, data.menu, list(data.rows.prompt), [at])[at]
        made = menu_labels(inputs, data.right, data.programs, known=known, layer_price=request.layer_price)
        labels = _training_labels(request, data, unlabelled, made)
        announce(_described(data, made, known))
        make_early(request.out, "router")
        remove_training_records(request.out)
        trained, router = None, None
        if labels.nothing_to_learn is None:
            trained = _fitted(request, data, labels, examples, task, service, announce, show, on_epoch)
            router = _router(request, data, labels, trained.head, trained.sample, trained.made)
        else:
            announce(f"There is nothing to learn: {labels.nothing_to_learn}.")
        judgement = judge(
            router,
            [(task, _judged_examples(data, known, examples))],
            _best_static(request, data, known),
            service,
            layer_price=request.layer_price,
            show=show,
        )
    if router is None:
        head = static_head(judgement.best_program, request.base or data.menu.settings.base.name)
        reason = {"reason": f"there was nothing to learn: {labels.nothing_to_learn}"}
        router = _router(request, data, labels, head, torch.ones(1), reason)
    router = judged(router, judgement)
    router.save(request.out)
    return TrainedRouter(router=router, head=trained, judgement=judgement)


def _fitted(
    request: MenuTrainRequest,
    data: MenuData,
    labels: TrainingLabels,
    examples: Sequence[Example],
    task: MenuTask,
    service: FrozenModelService,
    announce: Callable[[str], None],
    show: Callable[[str, int, int], None],
    on_epoch: Callable[[EpochRecord], None],
) -> TrainedPerLayer:
    """The routers of the last round.

    Raises:
        UserError: The routers cannot be trained on these labels, or the folder does not take a file.
    """
    kind = kind_of(request.head)
    by_id = {example.id: example for example in examples}
    asked = [by_id[row.example_id] for row in labels.train]
    others: list[tuple[Labelled, Labelled]] = []
    try:
        with uploaded(request.out) as folder:
            folder.mkdir(parents=True, exist_ok=True)
            with EpochWriter(request.head, folder, on_epoch, wandb_project=request.wandb) as writer:
                for number in range(request.rounds + 1):
                    paths = [path for _, path in others]
                    store = service.features([*labels.rows, *paths], num_windows=request.head.num_windows)
                    announce(
                        f"Round {number + 1} of {request.rounds + 1}: training {labels.description} on "
                        f"{len(labels.train) + len(others)} rows, {len(labels.held_out)} held out."
                    )
                    trained = fit_per_layer(
                        labels, store, request.head, partial(_write, writer, number + 1), others=others
                    )
                    if number == request.rounds:
                        break
                    router = _router(request, data, labels, trained.head, trained.sample, trained.made)
                    with asking_of([router], task, asked, service, show) as asking:
                        own = [answer.program for answer in asking.answers(ROUTER, asked)]
                    others += [
                        (row, relabelled(row, program))
                        for row, program in zip(labels.train, own, strict=True)
                        if counts_of(program) != row.counts
                    ]
            draw(kind, trained, folder / PICTURE_FILE, announce)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"no router can be trained on {request.menu}: {error}") from None
    except OSError as error:
        raise UserError(f"router folder {request.out} cannot be written: {error.strerror or error}") from None
    return trained


def _write(writer: EpochWriter, number: int, record: EpochRecord) -> None:
    """Write an epoch's record with the number of its round; epochs count from 1 in each."""
    writer.write({**record, "round": number})


def _unlabelled(data: MenuData) -> list[Labelled]:
    """A menu's examples, each with the identity program as its label."""
    counts = counts_of(data.programs[0])
    return [
        Labelled(example_id=str(row.example_id), task=str(row.task), prompt=str(row.prompt), counts=counts)
        for row in data.rows.itertuples()
    ]


def _training_labels(
    request: MenuTrainRequest, data: MenuData, unlabelled: Sequence[Labelled], made: MenuLabels
) -> TrainingLabels:
    """The labels of a menu's examples."""
    rows = [
        replace(relabelled(row, made.programs[place]), shares=tuple(map(tuple, shares)))
        for row, place, shares in zip(unlabelled, made.chosen, made.shares.tolist(), strict=True)
    ]
    train, held_out = split(rows, request.held_out, seed=request.head.seed)
    different = {row.program for row in train}
    return TrainingLabels(
        rows=rows,
        train=train,
        held_out=held_out,
        description=f"{data.menu.settings.num_layers} routers",
        nothing_to_learn=None
        if len(different) > 1
        else f"every label is the program {different.pop()}; make a menu of more examples, or change --layer-price",
    )


def _described(data: MenuData, made: MenuLabels, known: Array) -> str:
    """What the labels of the examples that are trained on are, in a line for the user."""
    right, chosen = data.right[known][:, made.places], made.chosen[known]
    lengths = np.array([len(program) for program in made.programs])
    return (
        f"The labels of {len(right)} examples, from {len(made.programs)} of {len(data.programs)} programs that counts "
        f"express, are right on {100 * right[np.arange(len(right)), chosen].mean():.1f} % with "
        f"{lengths[chosen].mean():.2f} layers, the base model on {100 * right[:, 0].mean():.1f} %."
    )


def _best_static(request: MenuTrainRequest, data: MenuData, known: Array) -> LayerProgram:
    """The program of the menu that is worth most on the examples that are trained on."""
    choice = MenuChoice.of(data.programs, data.right[known], caution=0.0, layer_price=request.layer_price)
    return data.programs[choice.best_static]


def _judged_examples(data: MenuData, known: Array, examples: Sequence[Example]) -> list[Example]:
    """The held-out examples; of them those alone that the menu held out too, if there are any."""
    held_out = ~known
    places = np.flatnonzero(held_out & data.judged) if (held_out & data.judged).any() else np.flatnonzero(held_out)
    return [examples[place] for place in places[:MOST_JUDGED].tolist()]


def _router(
    request: MenuTrainRequest,
    data: MenuData,
    labels: TrainingLabels,
    head: Head,
    sample: torch.Tensor,
    made: Mapping[str, Any],
) -> Router:
    of_training = {
        "menu": str(request.menu),
        "layer_price": request.layer_price,
        "questions": len(labels.train),
        "held_out_questions": len(labels.held_out),
        "rounds": request.rounds,
    }
    return data.router(head, sample, base=request.base, made={**of_training, **made})
