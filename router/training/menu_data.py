"""The data of a menu that a training reads: its examples, the outcomes of its programs, and its prompts' states."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from pipeline.engine.loading import cache_folder
from pipeline.errors import UserError
from pipeline.program import LayerProgram
from pipeline.storage import AnyPath
from pipeline.tasks.prompting import is_day
from router.artifact.base_model import BaseModelRef, lasting_name, text_fingerprint
from router.features.prompt_template import PromptTemplate
from router.heads.head import Head
from router.heads.selector.selector_head import SELECTIONS, depths_of
from router.heads.selector.selector_request import SelectorRequest
from router.labels.labelled import Labelled
from router.menu.example_table import read_menu_examples
from router.menu.matrix import read_matrix
from router.menu.menu import Menu, read_menu
from router.routed.checkpoint import Router
from router.training.menu_train_request import MenuTrainRequest
from router.training.model_service import FrozenModelService

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class MenuData:
    """A menu with the outcomes of its programs; N examples, M programs.

    Attributes:
        menu: The menu.
        rows: Its examples, in the order of the race.
        programs: Its programs, the identity program first.
        right: Right answers, ``[N, M]``.
        judged: Whether figures are of an example, bool ``[N]``: those that the menu held out.
    """

    menu: Menu
    rows: pd.DataFrame
    programs: list[LayerProgram]
    right: Array
    judged: Array

    def router(
        self,
        head: Head,
        sample: torch.Tensor,
        *,
        base: str | None,
        made: Mapping[str, Any],
        further_prompts: Iterable[str] = (),
    ) -> Router:
        """A router that was trained on the menu.

        Args:
            head: The head.
            sample: The head's predictions on held-out prompts, ``[N, *sample_shape]``.
            base: The base model, if it lies elsewhere now than the menu says.
            made: Settings and metrics of the training.
            further_prompts: Prompts that are no examples of the menu, and were trained on too.
        """
        settings, rows = self.menu.settings, self.rows
        known = {text_fingerprint(str(prompt)) for prompt in (*rows.prompt, *further_prompts)}
        known |= {
            text_fingerprint(str(task), str(example)) for task, example in zip(rows.task, rows.example_id, strict=True)
        }
        day = settings.others.get("day")
        return Router(
            base=BaseModelRef(name=lasting_name(base or settings.base.name), revision=settings.base.revision),
            head=head,
            held_out=sample,
            trained_on=frozenset(known),
            add_special_tokens=settings.add_special_tokens,
            made={"data": [], "days": [day] if is_day(day) else [], **made},
        )


def read_menu_data(folder: AnyPath) -> MenuData:
    """Read a menu.

    Raises:
        UserError: There is none, it is damaged, or an outcome is missing.
    """
    menu, rows = read_menu(folder), read_menu_examples(folder)
    programs = [one.program for one in menu.programs]
    return MenuData(
        menu=menu,
        rows=rows,
        programs=programs,
        right=_right_answers(folder, programs, len(rows)),
        judged=np.arange(len(rows)) >= len(rows) - menu.settings.num_held_out,
    )


def service_of_menu(
    menu: Menu,
    request: SelectorRequest | MenuTrainRequest,
    *,
    announce: Callable[[str], None],
    show: Callable[[str, int, int], None],
) -> FrozenModelService:
    """The base model of a menu at work.

    Args:
        menu: The menu.
        request: The training, which says where the model and all kept results lie, and what the actors may use.
        announce: Receives a line for the user.
        show: Receives the name of a step, how much of the step is done, and of how much.
    """
    return FrozenModelService(
        base=menu.settings.base,
        location=request.base,
        dtype=menu.settings.dtype,
        add_special_tokens=menu.settings.add_special_tokens,
        resources=request.resources,
        folder=request.features or cache_folder() / "features",
        announce=announce,
        show=show,
    )


def prompt_inputs(
    service: FrozenModelService, menu: Menu, prompts: Sequence[str], exits: Sequence[int]
) -> dict[int, Array]:
    """By the exit, what a selector there reads of each prompt, ``[N, F]``.

    Args:
        service: The menu's base model.
        menu: The menu.
        prompts: The prompts.
        exits: The exits, ascending.

    Raises:
        UserError: The model is not there, its states are not finite, or there is no room for them.
    """
    template = PromptTemplate(add_special_tokens=menu.settings.add_special_tokens)
    labelled = [
        Labelled(example_id=prompt, task=menu.settings.task, prompt=prompt, counts=(1,) * menu.settings.num_layers)
        for prompt in prompts
    ]
    stores = [
        service.states(labelled, prompt_template=template, state_selection=selection, early=exits[-1])
        for selection in SELECTIONS
    ]
    # [N, S, selections, D]
    states = np.stack([np.stack([store.read(prompt)[0] for prompt in prompts]) for store in stores], axis=2)
    return {at: states[:, depths_of(at)].reshape(len(prompts), -1).astype(np.float32) for at in exits}


def _right_answers(menu: AnyPath, programs: Sequence[LayerProgram], num_examples: int) -> Array:
    """Right answers of a menu's programs on its examples, ``[N, M]``.

    Raises:
        UserError: An outcome is missing.
    """
    frame = read_matrix(menu)
    names = list(map(str, programs))
    # An outcome that two shards hold is the same in both.
    frame = frame[frame.program.isin(names)].drop_duplicates(["place", "program"])
    table = frame.pivot(index="place", columns="program", values="right")
    right = table.reindex(index=range(num_examples), columns=names).to_numpy(dtype=np.float64)
    missing = int(np.isnan(right).sum())
    if missing:
        raise UserError(f"{missing} outcomes are missing in {menu}; run the menu command again, which fills them")
    return right
