"""A stock model whose layers run as often as a router decides, under transformers' own forward, masks and ``generate``.

``steered`` gives a model that shares every weight with the base and has each layer wrapped. When a text is read for
the first time the wrapper passes its layer's input to the decisions (``router.heads.steering``), and runs the layer
once or twice on the rows for which that is decided. The decisions are stored in the cache, and so hold for every token
that is generated; each run of a layer has a slot of its own there, for the rows that have that run.

Shapes: B rows, T tokens, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers.cache_utils import Cache, DynamicLayer

from pipeline.engine.decoder_stack import DecoderStack
from pipeline.engine.weight_sharing import share_weights
from router.heads.steering import Decisions, Steering

#: Receives states ``[B, T, D]`` while prompts are read.
OnState = Callable[[torch.Tensor], None]


class RoutedCache(Cache):  # type: ignore[misc]
    """The cache of one batch: the routers' decisions, and keys and values by layer, run and row.

    Args:
        steering: Decides how often layers run.
        on_state: Receives each layer's input and the last layer's output, ``[B, T, D]``, while the prompts are read.
    """

    def __init__(self, steering: Steering, *, on_state: OnState | None = None) -> None:
        super().__init__(layers=[])
        self.steering = steering
        self._on_state = on_state
        #: How often each layer runs in each row, ``[B, L]``; complete once the prompts are read.
        self.counts = np.zeros((0, steering.num_layers), dtype=np.int64)
        self._tokens = 0
        self._slots: dict[tuple[int, int], _Slot] = {}
        self._rows: dict[int, list[torch.Tensor | None]] = {}
        #: The decisions, while the prompts are read.
        self._decisions: Decisions | None = None

    @property
    def num_rows(self) -> int:
        """Number of rows B; each beam counts as a row."""
        return len(self.counts)

    # -- reading ---------------------------------------------------------------------------

    def begin(self, mask: torch.Tensor) -> None:
        """Begin a call; the first call brings the prompts.

        Args:
            mask: 0 at padding, ``[B, T]``.
        """
        if self._tokens:
            return
        self._decisions = self.steering.begin(mask)
        self.counts = np.zeros((len(mask), self.steering.num_layers), dtype=np.int64)
        self._rows = {}
        for layer, count in self._decisions.known.items():
            self.counts[:, layer] = count
            self._rows[layer] = [None] * count

    def end(self, num_tokens: int) -> None:
        """End a call that read ``num_tokens`` tokens."""
        self._tokens += num_tokens
        self._decisions = None  # the prompt alone decides

    def runs(self, layer: int, hidden: torch.Tensor) -> list[torch.Tensor | None]:
        """The rows of each run of a layer; None for all rows.

        Args:
            layer: Index of the layer.
            hidden: The layer's input, ``[B, T, D]``; where the layer's runs are not decided yet, it decides them.
        """
        rows = self._rows.get(layer)
        if rows is None:
            if self._decisions is not None:
                self.counts[:, layer] = self._decisions.decide(layer, hidden)
            counts = self.counts[:, layer]
            listed = counts.tolist()  # min and max of a short list are faster than numpy's
            every, any_row = min(listed), max(listed)
            some = [torch.from_numpy((counts > run).nonzero()[0]) for run in range(every, any_row)]
            rows = self._rows[layer] = [None] * every + [part.to(hidden.device) for part in some]
        return rows

    def saw(self, hidden: torch.Tensor) -> None:
        """Note a state ``[B, T, D]`` before the next layer, or behind the last."""
        if self._on_state is not None and self._decisions is not None:
            self._on_state(hidden)

    def slot(self, layer: int, run: int) -> _Slot:
        """The keys and values of one run of a layer."""
        slot = self._slots.get((layer, run))
        if slot is None:
            slot = self._slots[layer, run] = _Slot()
        return slot

    # -- transformers' cache protocol ------------------------------------------------------

    def update(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        raise AssertionError("keys and values go to the slot of a run")

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._tokens

    def get_query_offset(self, layer_idx: int = 0) -> int:
        return self._tokens

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        return self._tokens + query_length, 0

    def get_max_length(self, layer_idx: int | None = None) -> int:
        return -1

    @property
    def is_compileable(self) -> bool:
        return False

    @property
    def is_sliding(self) -> list[bool]:
        return [False]

    @property
    def is_croppable(self) -> bool:
        return False

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Make row b a copy of row ``indices[b]``."""
        chosen = indices.numpy(force=True)
        before, self.counts = self.counts, self.counts[chosen]
        self._rows.clear()
        for (layer, run), slot in self._slots.items():
            slot_row = (before[:, layer] > run).cumsum() - 1
            rows = slot_row[chosen[self.counts[:, layer] > run]]
            slot.kept.batch_select_indices(torch.from_numpy(rows).to(indices.device))

    def batch_repeat_interleave(self, repeats: int) -> None:
        self.batch_select_indices(torch.arange(self.num_rows).repeat_interleave(repeats))

    def crop(self, tokens_to_remove: int) -> None:
        # Only assisted decoding takes tokens back, and it reads prompts in chunks, for which no program can be decided.
        raise ValueError("a routed model does not take back tokens: leave out assisted decoding and prompt lookup")


class _Slot:
    """One run's keys and values; the layer index that attention passes is ignored."""

    def __init__(self) -> None:
        self.kept = DynamicLayer()

    def update(self, keys: torch.Tensor, values: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Add a call's keys and values; returns all of them, ``[rows, heads, tokens, head_dim]`` each."""
        keys, values = self.kept.update(keys, values)
        return keys, values


class RoutedLayer(nn.Module):
    """A decoder layer that runs as often as the decisions say.

    Args:
        layer: The base model's layer, whose weights are shared.
        index: Index of the layer.
        is_last: Whether the layer is the last one.
        cache_argument: The name under which the layer takes its cache.
    """

    def __init__(self, layer: nn.Module, index: int, *, is_last: bool, cache_argument: str) -> None:
        super().__init__()
        self.layer = layer
        self.index = index
        self.is_last = is_last
        self.cache_argument = cache_argument

    def __getattr__(self, name: str) -> Any:
        # A model may read attributes of its layers (Gemma 3: ``attention_type``).
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("layer"), name)

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """``[B, T, D]`` to ``[B, T, D]``; the arguments are those of the layer."""
        cache: RoutedCache = kwargs.pop(self.cache_argument)
        cache.saw(hidden_states)
        for run, rows in enumerate(cache.runs(self.index, hidden_states)):
            slot = {self.cache_argument: cache.slot(self.index, run)}
            if rows is None:
                hidden_states = _state(self.layer(hidden_states, *args, **kwargs, **slot))
                continue
            batch = len(hidden_states)
            chosen = {name: _of_rows(value, rows, batch) for name, value in kwargs.items()}
            others = [_of_rows(value, rows, batch) for value in args]
            output = _state(self.layer(hidden_states[rows], *others, **chosen, **slot))
            hidden_states = hidden_states.index_copy(0, rows, output)
        if self.is_last:
            cache.saw(hidden_states)
        return hidden_states


def _state(output: Any) -> torch.Tensor:
    state: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return state


def _of_rows(value: Any, rows: torch.Tensor, batch: int) -> Any:
    """Some rows of a layer's argument; the whole argument where its first dimension is not the batch."""
    if isinstance(value, torch.Tensor):
        return value[rows] if value.ndim > 1 and len(value) == batch else value
    if isinstance(value, tuple):
        return tuple(_of_rows(part, rows, batch) for part in value)
    return value


def steered(hf_model: Any, default_steering: Steering | None = None) -> Any:
    """A model of the same class that shares every weight with ``hf_model``, and whose layers run as decided.

    A call without a cache, or with an empty one, reads prompts and decides.

    Args:
        hf_model: A transformers causal language model inside the contract.
        default_steering: Decides in calls that bring no ``RoutedCache`` as ``past_key_values``; None where every call
            brings one.

    Raises:
        UserError: The model is outside the contract.
    """
    cache_argument = DecoderStack(hf_model).cache_argument  # a model outside the contract is refused here
    model = share_weights(hf_model)
    last = len(model.model.layers) - 1
    layers = [
        RoutedLayer(layer, index, is_last=index == last, cache_argument=cache_argument)
        for index, layer in enumerate(model.model.layers)
    ]
    model.model.layers = nn.ModuleList(layers)

    def begin(body: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        cache = kwargs.get("past_key_values")
        if not isinstance(cache, RoutedCache):
            if cache is not None and cache.get_seq_length() > 0:
                raise ValueError("a routed model goes on from its own cache (RoutedCache) alone, not from a stock one")
            if default_steering is None:
                raise ValueError("give a RoutedCache as past_key_values: the model has no default steering")
            cache = kwargs["past_key_values"] = RoutedCache(default_steering)
        tokens, mask = _inputs(args, kwargs)[:2], kwargs.get("attention_mask")
        if mask is None:
            mask = torch.ones(tokens, dtype=torch.long, device=model.device)
        cache.begin(mask.long())
        return args, kwargs

    def end(body: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        kwargs["past_key_values"].end(_inputs(args, kwargs)[1])

    model.model.register_forward_pre_hook(begin, with_kwargs=True)
    model.model.register_forward_hook(end, with_kwargs=True)
    return model


def _inputs(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Size:
    """The shape ``[B, T, …]`` of a call's inputs."""
    given = args[0] if args else kwargs.get("input_ids")
    shape: torch.Size = (kwargs["inputs_embeds"] if given is None else given).shape
    return shape
