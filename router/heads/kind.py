"""The parts of a kind of router: its request, the steps of its training, its picture and its card.

A training has four steps with data between them: label → extract → fit → write. A kind brings the first three and the
parts of the fourth that only it has; ``router.training.train`` runs them, ``router.heads.registry`` lists the kinds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch

from router.features.hidden_states import StateStore
from router.features.prompt_template import PromptTemplate
from router.features.window_features import FeatureStore
from router.fitting import EpochRecord
from router.heads.head import Head
from router.heads.head_request import HeadRequest
from router.labels.from_runs import RunData
from router.labels.label_request import LabelRequest
from router.labels.labelled import Labelled, TrainingLabels
from router.menu.candidates import LabelService


class ModelService(LabelService, Protocol):
    """The results of the base model that a training needs. An implementation keeps them, and computes missing ones."""

    @property
    def announce(self) -> Callable[[str], None]:
        """Receives a line for the user."""
        ...

    def features(self, rows: Sequence[Labelled], *, num_windows: int) -> FeatureStore:
        """A store that has the window features of the rows' prompts along their programs."""
        ...

    def states(
        self, rows: Sequence[Labelled], *, prompt_template: PromptTemplate, state_selection: str, early: int
    ) -> StateStore:
        """A store that has the hidden states of the rows' prompts up to layer ``early``."""
        ...


@dataclass(frozen=True, kw_only=True)
class TrainedHead:
    """The outcome of a fit.

    Attributes:
        head: The head.
        sample: The head's log-probabilities on held-out prompts, ``[N, *sample_shape]``.
        best: The record of the epoch that was kept, with ``epoch``, ``macro_f1`` and ``accuracy``.
        f1: F1 on the held-out examples, by class.
        made: Settings and metrics of this kind, for the card and ``config.json``.
    """

    head: Head
    sample: torch.Tensor
    best: EpochRecord
    f1: dict[str, float]
    made: dict[str, Any]


RequestT = TypeVar("RequestT", bound=HeadRequest)
LabelsT = TypeVar("LabelsT", bound=TrainingLabels)
FeaturesT = TypeVar("FeaturesT")
TrainedT = TypeVar("TrainedT", bound=TrainedHead)


@dataclass(frozen=True, kw_only=True)
class SavedKind:
    """One kind of router as it is saved and loaded.

    Attributes:
        head: Class of the head, which is built from its settings.
        card: Describes the head in the model card, from ``config.json``.
    """

    head: type[Head]
    card: Callable[[Mapping[str, Any]], str]

    @property
    def name(self) -> str:
        """Name of the kind, in ``config.json``."""
        return self.head.name


@dataclass(frozen=True, kw_only=True)
class HeadKind(SavedKind, Generic[RequestT, LabelsT, FeaturesT, TrainedT]):
    """One kind of router that is trained on runs.

    Attributes:
        request: The class of its configuration.
        label: Step 1: a label for each example.
        extract: Step 2: the base model's states on the labelled prompts.
        fit: Step 3: the head; calls back with every epoch's record.
        draw: Draws the training into a PNG file.
    """

    request: type[RequestT]
    label: Callable[[RunData, LabelRequest, RequestT, ModelService], LabelsT]
    extract: Callable[[LabelsT, RequestT, ModelService], FeaturesT]
    fit: Callable[[LabelsT, FeaturesT, RequestT, Callable[[EpochRecord], None]], TrainedT]
    draw: Callable[[TrainedT, Path], None]
