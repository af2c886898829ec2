"""Prefill: run whole texts under layer programs, each row from the longest prefix that is cached.

A *prefix* is the first layers of a program on a text. Programs of one text that share a prefix run it once, in one
call or over many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from pipeline.engine.decoder_stack import DecoderStack, Rotary
from pipeline.engine.executor import Executor, SequenceState, Text
from pipeline.engine.kv_cache import KVPool, SlotView
from pipeline.engine.prefix_cache import PrefixCache
from pipeline.engine.row_checks import TokenIds
from pipeline.engine.state_hooks import OnState
from pipeline.program import LayerProgram


@dataclass(frozen=True, kw_only=True, slots=True)
class CachedPrefix:
    """The cached prefix from which some rows start.

    Attributes:
        text: Index of their text in the plan.
        layers: The layers whose result is cached; empty where nothing is.
        states: The residual streams ``[T, D]`` before the first of the layers, the second, …, and after the last.
        rows: The rows whose longest cached prefix this is.
    """

    text: int
    layers: tuple[int, ...]
    states: list[torch.Tensor]
    rows: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class PrefillPlan:
    """The states that a call computes, and those that it takes from the cache.

    Attributes:
        programs: One a row.
        texts: The different texts of the call.
        prefixes: The starts of all rows; a row is in one of them.
    """

    programs: Sequence[LayerProgram]
    texts: list[Text]
    prefixes: list[CachedPrefix]


class Prefill:
    """Runs whole texts to the ends of their programs.

    Args:
        stack: The frozen model's parts.
        cache: Cached prefixes; new ones are added.
    """

    def __init__(self, stack: DecoderStack, cache: PrefixCache) -> None:
        self.stack = stack
        self.cache = cache
        self.executor = Executor(stack)
        self.pool = KVPool()

    def tensor(self, tokens: Sequence[int]) -> torch.Tensor:
        """Token ids on the model's device."""
        return torch.tensor(tokens, device=self.stack.hf_model.device)

    def run(
        self,
        token_ids: Sequence[TokenIds],
        programs: Sequence[LayerProgram],
        logits_from: Sequence[int],
        *,
        slots: SlotView | None = None,
        on_state: OnState | None = None,
    ) -> list[torch.Tensor]:
        """Run whole texts.

        Args:
            token_ids: One text a row.
            programs: One program a row.
            logits_from: First position of each row whose final state is needed.
            slots: Receives the keys and values of every position of the programs; None where nothing is decoded.
            on_state: Called with every state on the way. The last one holds all tokens where ``logits_from`` is 0,
                else it may hold the needed positions alone.

        Returns:
            Each row's residual stream before the final norm, ``[T - logits_from, D]``.
        """
        plan = self._plan(token_ids, programs, logits_from)
        if slots is not None:
            self._restore_keys(plan, slots)
        return self._run(plan, slots, on_state)

    # -- the three steps -------------------------------------------------------------------

    def _plan(
        self, token_ids: Sequence[TokenIds], programs: Sequence[LayerProgram], logits_from: Sequence[int]
    ) -> PrefillPlan:
        """Find the different texts, and each row's longest cached prefix. No layer runs."""
        texts = self._texts(token_ids, logits_from)
        embedded = self.stack.embed(self.tensor([token for text in texts for token in text.tokens]))
        embeddings = torch.split(embedded, [text.num_tokens for text in texts])
        states: dict[tuple[int, tuple[int, ...]], list[torch.Tensor]] = {}
        rows: dict[tuple[int, tuple[int, ...]], list[int]] = {}
        for index, text in enumerate(texts):
            for row in text.rows:
                layers = programs[row].layers
                # The final layer always runs: no other program could use its cached state.
                cached = self.cache.longest(text.tokens, layers[:-1], in_longer_texts=self.stack.rope_switch is None)
                prefix = (index, layers[: len(cached)])
                states[prefix] = [embeddings[index], *cached]
                rows.setdefault(prefix, []).append(row)
        prefixes = [
            CachedPrefix(text=index, layers=layers, states=states[index, layers], rows=tuple(of_prefix))
            for (index, layers), of_prefix in rows.items()
        ]
        return PrefillPlan(programs=programs, texts=texts, prefixes=prefixes)

    def _restore_keys(self, plan: PrefillPlan, slots: SlotView) -> None:
        """Make the keys and values of cached prefixes from the states that entered their layers."""
        entering: dict[int, dict[tuple[int, tuple[int, ...]], SequenceState]] = {}
        for prefix in plan.prefixes:
            for depth, layer in enumerate(prefix.layers):
                states = entering.setdefault(layer, {})
                key = (prefix.text, prefix.layers[: depth + 1])
                rows = prefix.rows if key not in states else states[key].rows + prefix.rows
                states[key] = SequenceState(text=prefix.text, hidden_TD=prefix.states[depth], depth=depth, rows=rows)
        for layer, of_layer in entering.items():
            group = list(of_layer.values())
            made = self.executor.take_keys(
                layer, [plan.texts[state.text] for state in group], [state.hidden_TD for state in group]
            )
            for state, (keys, values) in zip(group, made):
                for row in state.rows:
                    slots.fill(row, state.depth, keys, values)

    def _run(self, plan: PrefillPlan, slots: SlotView | None, on_state: OnState | None) -> list[torch.Tensor]:
        """Run the layers behind the prefixes; fill the slots and the cache on the way."""
        if on_state is not None:
            for prefix in plan.prefixes:
                for depth, hidden in enumerate(prefix.states):
                    on_state(prefix.rows, depth, hidden)
        starts = [
            SequenceState(text=prefix.text, hidden_TD=prefix.states[-1], depth=len(prefix.layers), rows=prefix.rows)
            for prefix in plan.prefixes
        ]
        results: dict[int, torch.Tensor] = {}
        for output in self.executor.run_texts(plan.texts, starts, plan.programs):
            state, text = output.state, plan.texts[output.state.text]
            if slots is not None:
                for row in state.rows:
                    slots.fill(row, state.depth - 1, output.keys_GTK, output.values_GTK)
            if on_state is not None:
                on_state(state.rows, state.depth, state.hidden_TD)
            if len(state.hidden_TD) == text.num_tokens:
                layers = plan.programs[state.rows[0]].layers[: state.depth]
                self.cache.keep(text.tokens, layers, state.hidden_TD)
            for row in state.rows:
                if len(plan.programs[row]) == state.depth:
                    results[row] = state.hidden_TD[-text.num_logits :]
        return [results[row] for row in range(len(plan.programs))]

    # -- texts -----------------------------------------------------------------------------

    def _texts(self, token_ids: Sequence[TokenIds], logits_from: Sequence[int]) -> list[Text]:
        """The different texts of a call, with the rows that read them."""
        rows_of: dict[tuple[tuple[int, ...], int], list[int]] = {}
        for row, (ids, start) in enumerate(zip(token_ids, logits_from)):
            rows_of.setdefault((tuple(map(int, ids)), start), []).append(row)
        rotary = self.rotary_tables([len(ids) for ids in token_ids])
        return [
            Text(tokens=ids, rotary=rotary(range(len(ids)), len(ids)), logits_from=start, rows=rows)
            for (ids, start), rows in rows_of.items()
        ]

    def rotary_tables(self, lengths: Sequence[int]) -> Callable[[range, int], Rotary]:
        """From some positions of a text, and its length, to their rotary embeddings."""
        switch = self.stack.rope_switch
        tables: dict[bool, Rotary] = {}

        def embed(positions: range, length: int) -> Rotary:
            beyond = switch is not None and length > switch
            if beyond not in tables:
                longest = max(lengths) if beyond or switch is None else min(max(lengths), switch)
                tables[beyond] = self.stack.rotary(longest)
            part = slice(positions.start, positions.stop)
            return {kind: (cos[part], sin[part]) for kind, (cos, sin) in tables[beyond].items()}

        return embed
