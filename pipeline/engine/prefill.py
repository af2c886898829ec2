"""Reading texts under layer programs, from what is kept of their beginnings."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from pipeline.engine.decoder_stack import DecoderStack, Rotary
from pipeline.engine.executor import Executor, OnLayer, Strand, Text
from pipeline.engine.kv_cache import KVPool, KVSlots
from pipeline.engine.prefix_cache import PrefixCache
from pipeline.program import LayerProgram

TokenIds = Sequence[int]
#: Told of each row's residual stream ``[T, D]`` on its way: rows that share it, layers behind it, and itself.
OnState = Callable[[Sequence[int], int, torch.Tensor], None]
#: A beginning of a program on a text: the text's number in the call, and the layers.
_Beginning = tuple[int, tuple[int, ...]]


class Reader:
    """Runs whole texts to the ends of their programs, each from its longest kept prefix.

    Args:
        stack: The frozen model's parts.
        prefixes: What is kept; new states are added.
    """

    def __init__(self, stack: DecoderStack, prefixes: PrefixCache) -> None:
        self.stack = stack
        self.prefixes = prefixes
        self.executor = Executor(stack)
        self.pool = KVPool()

    def tensor(self, tokens: Sequence[int]) -> torch.Tensor:
        """Token ids on the model's device."""
        return torch.tensor(tokens, device=self.stack.hf_model.device)

    def read(
        self,
        token_ids: Sequence[TokenIds],
        programs: Sequence[LayerProgram],
        wanted: Sequence[int],
        *,
        store: KVSlots | None = None,
        store_rows: Sequence[int] = (),
        on_state: OnState | None = None,
    ) -> list[torch.Tensor]:
        """Whole texts' residual streams before the final norm, ``[T - wanted, D]`` a row.

        Each row starts from the longest beginning of its program that was kept. With a store, the keys
        and values of every layer are put into the rows' slots. ``on_state`` is told of what lies between
        the layers; the last state is whole where everything is wanted.
        """
        texts = self._texts(token_ids, wanted)
        embedded = self.stack.embed(self.tensor([token for text in texts for token in text.tokens]))
        embeddings = torch.split(embedded, [len(text.tokens) for text in texts])
        exact = self.stack.rope_switch is not None
        strands: dict[_Beginning, Strand] = {}
        paths: dict[_Beginning, list[torch.Tensor]] = {}
        for number, text in enumerate(texts):
            for row in text.rows:
                layers = programs[row].layers
                # The last layer always runs: its kept state would be of no use to another program.
                kept = self.prefixes.longest(text.tokens, layers[:-1], in_longer_texts=not exact)
                key = (number, layers[: len(kept)])
                paths[key] = [embeddings[number], *kept]
                strands.setdefault(key, Strand(number, paths[key][-1], len(kept), [])).rows.append(row)

        def fill(strand: Strand, keys: torch.Tensor, values: torch.Tensor) -> None:
            if store is not None:
                for row in strand.rows:
                    stored = store_rows[row]
                    store.fill(store.slots[stored][strand.depth - 1], stored, keys, values)

        def on_layer(strand: Strand, keys: torch.Tensor, values: torch.Tensor) -> None:
            fill(strand, keys, values)
            if on_state is not None:
                on_state(strand.rows, strand.depth, strand.hidden)
            tokens = texts[strand.text].tokens
            if len(strand.hidden) == len(tokens):
                self.prefixes.keep(tokens, programs[strand.rows[0]].layers[: strand.depth], strand.hidden)

        if on_state is not None:
            for key, strand in strands.items():
                for depth, state in enumerate(paths[key]):
                    on_state(strand.rows, depth, state)
        if store is not None:
            self._restore_keys(texts, strands, paths, fill)
        results = self.executor.run_texts(texts, list(strands.values()), programs, on_layer=on_layer)
        return [results[row] for row in range(len(token_ids))]

    def _restore_keys(
        self,
        texts: Sequence[Text],
        strands: dict[_Beginning, Strand],
        paths: dict[_Beginning, list[torch.Tensor]],
        fill: OnLayer,
    ) -> None:
        """Make the keys and values of shared prefixes from the states that entered their layers."""
        shared: dict[int, dict[_Beginning, Strand]] = {}
        for (number, layers), strand in strands.items():
            states = paths[number, layers]
            for depth, layer in enumerate(layers):
                node = shared.setdefault(layer, {}).setdefault(
                    (number, layers[: depth + 1]), Strand(number, states[depth], depth + 1, [])
                )
                node.rows.extend(strand.rows)
        for layer, nodes in shared.items():
            group = list(nodes.values())
            made = self.executor.take_keys(layer, [texts[s.text] for s in group], [s.hidden for s in group])
            for strand, (keys, values) in zip(group, made):
                fill(strand, keys, values)

    def _texts(self, token_ids: Sequence[TokenIds], wanted: Sequence[int]) -> list[Text]:
        """The different texts of a call, with the rows that read them."""
        rows_of: dict[tuple[tuple[int, ...], int], list[int]] = {}
        for row, (ids, start) in enumerate(zip(token_ids, wanted)):
            rows_of.setdefault((tuple(map(int, ids)), start), []).append(row)
        rotary = self.rotary_tables([len(ids) for ids in token_ids])
        return [
            Text(tokens=ids, rotary=rotary(range(len(ids)), len(ids)), wanted=start, rows=rows)
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
