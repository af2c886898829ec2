"""Prefill: run whole texts under layer programs, each row from the longest prefix that is cached.

A *prefix* is the first layers of a program on a text. Programs of one text that share a prefix run it once, in one
call or over many. Texts that begin alike, and run the same programs, run what they share once (``text_tree``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from pipeline.engine.decoder_stack import DecoderStack, Rotary
from pipeline.engine.executor import Executor, LayerOutput, SequenceState
from pipeline.engine.kv_cache import KVPool, SlotView
from pipeline.engine.prefix_cache import PrefixCache
from pipeline.engine.row_checks import TokenIds
from pipeline.engine.state_hooks import OnState
from pipeline.engine.text_tree import Text, TextTree, trees_of
from pipeline.program import LayerProgram


@dataclass(frozen=True, kw_only=True, slots=True)
class CachedPrefix:
    """The cached prefix from which some rows start.

    Attributes:
        tree: Index of their texts' tree in the plan.
        layers: The layers whose result is cached for all texts of the tree; empty where nothing is.
        states: For each text its residual streams ``[T, D]`` before the first of the layers, the second, …, and after
            the last.
        rows: The rows whose longest cached prefix this is.
    """

    tree: int
    layers: tuple[int, ...]
    states: list[list[torch.Tensor]]
    rows: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class PrefillPlan:
    """The states that a call computes, and those that it takes from the cache.

    Attributes:
        programs: One a row.
        trees: The different texts of the call.
        prefixes: The starts of all rows; a row is in one of them.
    """

    programs: Sequence[LayerProgram]
    trees: list[TextTree]
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
        trees = self._trees(self._texts(token_ids, logits_from), programs)
        texts = [text for tree in trees for text in tree.texts]
        embedded = self.stack.embed(self.tensor([token for text in texts for token in text.tokens]))
        embeddings = iter(torch.split(embedded, [text.num_tokens for text in texts]))
        prefixes = [
            prefix
            for index, tree in enumerate(trees)
            for prefix in self._prefixes(index, tree, [next(embeddings) for _ in tree.texts], programs)
        ]
        return PrefillPlan(programs=programs, trees=trees, prefixes=prefixes)

    def _prefixes(
        self, index: int, tree: TextTree, embeddings: Sequence[torch.Tensor], programs: Sequence[LayerProgram]
    ) -> list[CachedPrefix]:
        """The longest prefixes that are cached for all texts of a tree, each with its rows."""
        rows_of: dict[tuple[int, ...], list[int]] = {}
        for row in tree.text_of:
            rows_of.setdefault(programs[row].layers, []).append(row)
        states: dict[tuple[int, ...], list[list[torch.Tensor]]] = {}
        rows: dict[tuple[int, ...], list[int]] = {}
        for layers, of_program in rows_of.items():
            # The final layer always runs: no other program could use its cached state.
            cached = [
                self.cache.longest(text.tokens, layers[:-1], in_longer_texts=self.stack.rope_switch is None)
                for text in tree.texts
            ]
            depth = min(map(len, cached))
            states[layers[:depth]] = [[start, *of_text[:depth]] for start, of_text in zip(embeddings, cached)]
            rows.setdefault(layers[:depth], []).extend(of_program)
        return [
            CachedPrefix(tree=index, layers=layers, states=states[layers], rows=tuple(of_prefix))
            for layers, of_prefix in rows.items()
        ]

    def _restore_keys(self, plan: PrefillPlan, slots: SlotView) -> None:
        """Make the keys and values of cached prefixes from the states that entered their layers."""
        entering: dict[int, dict[tuple[int, tuple[int, ...]], SequenceState]] = {}
        for prefix in plan.prefixes:
            tree = plan.trees[prefix.tree]
            for depth, layer in enumerate(prefix.layers):
                states = entering.setdefault(layer, {})
                key = (prefix.tree, prefix.layers[: depth + 1])
                rows = prefix.rows if key not in states else states[key].rows + prefix.rows
                packed = tree.pack([of_text[depth] for of_text in prefix.states])
                states[key] = SequenceState(tree=prefix.tree, hidden_ND=packed, depth=depth, rows=rows)
        for layer, of_layer in entering.items():
            for output in self.executor.take_keys(layer, list(of_layer.values()), plan.trees):
                _fill(slots, output, plan.trees[output.state.tree])

    def _run(self, plan: PrefillPlan, slots: SlotView | None, on_state: OnState | None) -> list[torch.Tensor]:
        """Run the layers behind the prefixes; fill the slots and the cache on the way."""
        if on_state is not None:
            for prefix in plan.prefixes:
                of_text = plan.trees[prefix.tree].text_of
                for index, states in enumerate(prefix.states):
                    rows = tuple(row for row in prefix.rows if of_text[row] == index)
                    for depth, hidden in enumerate(states):
                        on_state(rows, depth, hidden)
        starts = [
            SequenceState(
                tree=prefix.tree,
                hidden_ND=plan.trees[prefix.tree].pack([states[-1] for states in prefix.states]),
                depth=len(prefix.layers),
                rows=prefix.rows,
            )
            for prefix in plan.prefixes
        ]
        results: dict[int, torch.Tensor] = {}
        for output in self.executor.run_trees(plan.trees, starts, plan.programs):
            state, tree = output.state, plan.trees[output.state.tree]
            if slots is not None:
                _fill(slots, output, tree)
            done = any(len(plan.programs[row]) == state.depth for row in state.rows)
            if on_state is None and not self.cache.max_bytes and not done:
                continue
            for index, hidden in enumerate(tree.parts(state.hidden_ND)):
                text = tree.texts[index]
                rows = tuple(row for row in state.rows if tree.text_of[row] == index)
                if on_state is not None:
                    on_state(rows, state.depth, hidden)
                if len(hidden) == text.num_tokens:
                    self.cache.keep(text.tokens, plan.programs[rows[0]].layers[: state.depth], hidden)
                for row in rows:
                    if len(plan.programs[row]) == state.depth:
                        results[row] = hidden[-text.num_logits :]
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

    def _trees(self, texts: Sequence[Text], programs: Sequence[LayerProgram]) -> list[TextTree]:
        """The texts in trees; each alone where the first tokens' states depend on the text's length."""
        if self.stack.rope_switch is not None:
            return [TextTree(texts=[text]) for text in texts]
        return trees_of(texts, programs)

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


def _fill(slots: SlotView, output: LayerOutput, tree: TextTree) -> None:
    """Write a layer's keys and values into the slots of its rows."""
    for index in range(len(tree.texts)):
        keys, values = (tree.shape.whole(made, index, dim=1) for made in (output.keys_GNK, output.values_GNK))
        for row in output.state.rows:
            if tree.text_of[row] == index:
                slots.fill(row, output.state.depth - 1, keys, values)
