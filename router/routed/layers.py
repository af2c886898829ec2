"""A stock model whose layers run as a router decides, under transformers' own forward, masks and ``generate``.

``steered`` gives a model that shares every weight with the base and has each layer wrapped. When a text is read for
the first time the wrapper passes its layer's input to the decisions (``router.heads.steering``). The decisions are
stored in the cache, and so hold for every token that is generated.

transformers calls the layers in their order. A program is cut into parts, one for each wrapper: a run belongs to the
highest layer that ran so far. So 0, 1, 2, 1, 2, 3 runs 0 at the first wrapper, 1 at the second, and 2, 1, 2 at the
third, which calls the earlier layer with the arguments that its own wrapper received in the same pass. Each run has a
slot for its keys and values, for the rows that have that run.

Shapes: B rows, T tokens, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from transformers.cache_utils import Cache, DynamicLayer

from pipeline.engine.decoder_stack import DecoderStack
from pipeline.engine.weight_sharing import share_weights
from pipeline.program import LayerProgram
from router.heads.steering import Decisions, Steering

#: Receives states ``[B, T, D]`` while prompts are read.
OnState = Callable[[torch.Tensor], None]
Array = np.ndarray[Any, Any]


class Run(NamedTuple):
    """A run of a layer at a wrapper.

    Attributes:
        wrapper: Index of the wrapper.
        number: Runs at the same wrapper before it.
        layer: Index of the layer.
    """

    wrapper: int
    number: int
    layer: int


class LayerCall(NamedTuple):
    """A layer with the arguments of its wrapper's call, but for the hidden states and the cache."""

    layer: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def runs_of(program: LayerProgram) -> list[Run]:
    """The runs of a program: each belongs to the wrapper of the highest layer that ran so far."""
    runs: list[Run] = []
    for layer in program:
        same = bool(runs) and layer <= runs[-1].wrapper
        wrapper = runs[-1].wrapper if same else layer
        runs.append(Run(wrapper, runs[-1].number + 1 if same else 0, layer))
    return runs


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
        self._num_rows = 0
        self._tokens = 0
        #: By the run the rows that have it, ``[B]``; complete once the prompts are read.
        self._has: dict[Run, Array] = {}
        self._slots: dict[Run, _Slot] = {}
        #: By the wrapper its runs in order, each with the rows; None for all rows.
        self._runs: dict[int, list[tuple[Run, torch.Tensor | None]]] = {}
        #: The layers that were called in this pass.
        self._calls: dict[int, LayerCall] = {}
        #: The decisions, while the prompts are read.
        self._decisions: Decisions | None = None

    @property
    def num_rows(self) -> int:
        """Number of rows B; each beam counts as a row."""
        return self._num_rows

    @property
    def programs(self) -> list[LayerProgram]:
        """The program of each row, once the prompts are read."""
        layers: list[list[int]] = [[] for _ in range(self._num_rows)]
        for run in sorted(self._has):
            for row in self._has[run].nonzero()[0]:
                layers[row].append(run.layer)
        return [LayerProgram(of_row, self.steering.num_layers) for of_row in layers]

    # -- reading ---------------------------------------------------------------------------

    def begin(self, mask: torch.Tensor) -> None:
        """Begin a call; the first call brings the prompts.

        Args:
            mask: 0 at padding, ``[B, T]``.
        """
        if self._tokens:
            return
        self._decisions = self.steering.begin(mask)
        self._num_rows = len(mask)
        self._has, self._runs = {}, {}
        for layer, count in self._decisions.known.items():
            self._decide(layer, np.full(len(mask), count))

    def end(self, num_tokens: int) -> None:
        """End a call that read ``num_tokens`` tokens."""
        self._tokens += num_tokens
        self._calls.clear()
        self._decisions = None  # the prompt alone decides

    def enter(self, layer: int, call: LayerCall) -> None:
        """Note a layer's call, for runs of it at later wrappers."""
        self._calls[layer] = call

    def call_of(self, layer: int) -> LayerCall:
        """The call of a layer in this pass."""
        return self._calls[layer]

    def runs(self, wrapper: int, hidden: torch.Tensor) -> list[tuple[Run, torch.Tensor | None]]:
        """The runs at a wrapper in their order, each with its rows; None for all rows.

        Args:
            wrapper: Index of the wrapper.
            hidden: The wrapper's input, ``[B, T, D]``; where its runs are not decided yet, it decides them.
        """
        is_decided = wrapper in self._runs or any(run.wrapper == wrapper for run in self._has)
        if self._decisions is not None and not is_decided:
            self._decide(wrapper, self._decisions.decide(wrapper, hidden))
        found = self._runs.get(wrapper)
        if found is None:
            found = self._runs[wrapper] = [
                (run, None if has.all() else torch.from_numpy(has.nonzero()[0]).to(hidden.device))
                for run, has in sorted(self._has.items())
                if run.wrapper == wrapper and has.any()
            ]
        return found

    def saw(self, hidden: torch.Tensor) -> None:
        """Note a state ``[B, T, D]`` before the next layer, or behind the last."""
        if self._on_state is not None and self._decisions is not None:
            self._on_state(hidden)

    def slot(self, run: Run) -> _Slot:
        """The keys and values of a run."""
        slot = self._slots.get(run)
        if slot is None:
            slot = self._slots[run] = _Slot()
        return slot

    def _decide(self, wrapper: int, decided: Array | Sequence[LayerProgram]) -> None:
        """Note the counts of a wrapper's layer, or the programs that decide it and all further ones."""
        if isinstance(decided, np.ndarray):
            for number in range(int(decided.max(initial=0))):
                self._has[Run(wrapper, number, wrapper)] = decided > number
            if not decided.any():
                self._runs[wrapper] = []
            return
        rows_of: dict[LayerProgram, list[int]] = {}
        for row, program in enumerate(decided):
            rows_of.setdefault(program, []).append(row)
        for program, rows in rows_of.items():
            for run in runs_of(program):
                if run.wrapper >= wrapper:
                    self._has.setdefault(run, np.zeros(self._num_rows, dtype=bool))[rows] = True
        for later in range(wrapper, self.steering.num_layers):
            if not any(run.wrapper == later for run in self._has):
                self._runs[later] = []

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
        before, self._has = self._has, {run: has[chosen] for run, has in self._has.items()}
        self._num_rows = len(chosen)
        self._runs = {wrapper: runs for wrapper, runs in self._runs.items() if not runs}
        for run, slot in self._slots.items():
            row_in_slot = before[run].cumsum() - 1
            rows = row_in_slot[chosen[self._has[run]]]
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
    """The wrapper of a decoder layer, which runs what the decisions say.

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
        cache.enter(self.index, LayerCall(self.layer, args, kwargs))
        batch = len(hidden_states)
        for run, rows in cache.runs(self.index, hidden_states):
            call = cache.call_of(run.layer)
            slot = {self.cache_argument: cache.slot(run)}
            if rows is None:
                hidden_states = _state(call.layer(hidden_states, *call.args, **call.kwargs, **slot))
                continue
            chosen = {name: _of_rows(value, rows, batch) for name, value in call.kwargs.items()}
            others = [_of_rows(value, rows, batch) for value in call.args]
            output = _state(call.layer(hidden_states[rows], *others, **chosen, **slot))
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
