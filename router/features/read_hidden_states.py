"""Texts' hidden states: from the store, and missing ones from Ray actors, which start for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.distributed.cluster import Resources, joined_cluster
from pipeline.errors import UserError
from pipeline.model_source import ModelSource
from router.features.hidden_states import StateStore
from router.features.prompt_template import PromptTemplate


@dataclass(frozen=True, kw_only=True)
class StateRequest:
    """A request for hidden states: the model, the prompt, and the states to keep.

    Attributes:
        source: The frozen model.
        prompt_template: The prompt of each text.
        state_selection: Which states are kept; see ``router.features.hidden_states``.
        features: Folder of all states.
        resources: Resources of the actors.
        most_gib: Most that new states may take on the disk.
    """

    source: ModelSource
    prompt_template: PromptTemplate
    state_selection: str
    features: Path
    resources: Resources
    most_gib: float


def read_states(
    wanted: StateRequest,
    texts: Sequence[str],
    *,
    announce: Callable[[str], None],
    show: Callable[[str, int, int], None],
) -> tuple[StateStore, str]:
    """The hidden states of texts; those that are not kept are computed.

    Args:
        wanted: The request.
        texts: The texts.
        announce: Receives a line for the user.
        show: Receives what is being done, how much of it is done, of how much.

    Returns:
        A store with the states, and the precision of the model that computed them.

    Raises:
        UserError: The model cannot be loaded, its states are not finite, or there is no room for them.
    """
    dtype = wanted.resources.dtype
    if dtype == "auto":
        # Which one that is, the cluster decides; where there is none yet, what this machine would take.
        dtype = "bfloat16" if _has_gpu(wanted.resources) else "float32"
    store = StateStore(
        wanted.features,
        revision=wanted.source.revision,
        dtype=dtype,
        prompt_template=wanted.prompt_template,
        state_selection=wanted.state_selection,
    )
    absent = store.absent(texts)
    if not absent:
        announce(f"All states are in {store.folder} already.")
        return store, dtype
    with joined_cluster(wanted.resources, wanted.source) as placement:
        if placement.dtype != dtype:
            raise UserError(f"the cluster runs {placement.dtype}; say --dtype {placement.dtype}")
        known = len(set(texts)) - len(absent)
        announce(f"Reading {len(absent)} texts, {known} known already; {placement.describe()}.")
        cut = store.fill(
            absent,
            model=wanted.source,
            device=placement.device,
            dtype=dtype,
            pool=placement.pool,
            most_gib=wanted.most_gib,
            show=lambda done: show("texts read", done, len(absent)),
        )
    if cut:
        most = "the model's context" if wanted.prompt_template.max_tokens is None else "--max-tokens"
        announce(f"warning: {cut} of {len(absent)} texts were longer than {most}, and their ends were cut off.")
    return store, dtype


def _has_gpu(resources: Resources) -> bool:
    import torch

    return resources.device == "cuda" or (resources.device == "auto" and torch.cuda.is_available())
