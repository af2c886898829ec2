"""Layer-synchronous execution: everything that needs the same layer next runs it in one call.

What runs is a *strand*: some tokens of one text and the programs that have agreed so far. Strands wait
at the layer that their programs name next; the lowest such layer goes first, so that programs which loop
back catch up with those that wait, and programs which skip ahead are rejoined. A strand whose programs
part ways splits. So weights are read once a layer for all that need it, and no two programs run
the same layers on the same text twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from pipeline.engine.decoder_stack import DecoderStack, Rotary
from pipeline.engine.kv_cache import KVSlots
from pipeline.engine.packed_attention import KeysOnly, KeysTaken, NewestTokens, Tails, WholeTexts
from pipeline.program import LayerProgram

#: A layer gains nothing from more tokens than this in a call, and loses where they leave the caches.
CPU_CALL_TOKENS = 1024
#: Matrices of fewer rows are multiplied by other kernels (MKL's, on some processors), whose sums are rounded otherwise.
#: Programs that go back and forth make much of that; a text so short runs alone, as a stock model would run it.
FEW_TOKENS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """A text to run.

    Attributes:
        tokens: Its token ids, T of them.
        rotary: Cosines and sines of its positions, ``[T, head_dim]``.
        wanted: The first position whose final state is wanted.
        rows: The rows of the call that read it, a program each.
    """

    tokens: Sequence[int]
    rotary: Rotary
    wanted: int
    rows: list[int]


@dataclass(slots=True)
class Strand:
    """Tokens of one text after some layers, with the rows whose programs agree so far.

    Attributes:
        text: Which text.
        hidden: Residual stream ``[T, D]``.
        depth: Layers behind it.
        rows: The rows.
    """

    text: int
    hidden: torch.Tensor
    depth: int
    rows: list[int]


#: Told of each run of a layer on a whole text: the strand after it (its state may be cut to the wanted
#: positions at a program's end), and the layer's keys and values ``[heads, T, head_dim]``.
OnLayer = Callable[[Strand, torch.Tensor, torch.Tensor], None]


class Executor:
    """Runs layer programs on a stack and counts what it runs.

    Attributes:
        layers_run: Layers run so far, one for each strand, or new token, in each call.
    """

    def __init__(self, stack: DecoderStack) -> None:
        self.stack = stack
        self.layers_run = 0

    def run_texts(
        self,
        texts: Sequence[Text],
        strands: Sequence[Strand],
        programs: Sequence[LayerProgram],
        *,
        on_layer: OnLayer,
    ) -> dict[int, torch.Tensor]:
        """Run whole texts to the ends of their programs.

        Args:
            texts: The texts.
            strands: Where to start from; every row is in one of them.
            programs: One a row.
            on_layer: Told of every layer that has run.

        Returns:
            For each row the residual stream before the final norm at its text's wanted positions,
            ``[T - wanted, D]``.
        """
        waiting = list(strands)
        results: dict[int, torch.Tensor] = {}
        while waiting:
            layer = min(programs[row].layers[strand.depth] for strand in waiting for row in strand.rows)
            whole: list[Strand] = []
            ending: list[Strand] = []
            others: list[Strand] = []
            for strand in waiting:
                here = [row for row in strand.rows if programs[row].layers[strand.depth] == layer]
                if len(here) < len(strand.rows):
                    apart = [row for row in strand.rows if row not in here]
                    others.append(Strand(strand.text, strand.hidden, strand.depth, apart))
                if here:
                    ends = all(len(programs[row]) == strand.depth + 1 for row in here)
                    goal = ending if ends and texts[strand.text].wanted > 0 else whole
                    goal.append(Strand(strand.text, strand.hidden, strand.depth, here))
            self.layers_run += len(whole) + len(ending)
            for group in self._calls(whole, texts):
                self._run_whole(layer, group, texts, on_layer)
            for group in self._calls(ending, texts):
                self._run_ending(layer, group, texts, on_layer)
            waiting = others
            for strand in whole + ending:
                done = [row for row in strand.rows if len(programs[row]) == strand.depth]
                wanted = strand.hidden[-(len(texts[strand.text].tokens) - texts[strand.text].wanted) :]
                results.update((row, wanted) for row in done)
                if len(done) < len(strand.rows):
                    strand.rows = [row for row in strand.rows if row not in done]
                    waiting.append(strand)
        return results

    def take_keys(
        self, layer: int, texts: Sequence[Text], hidden: Sequence[torch.Tensor]
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Keys and values ``[heads, T, head_dim]`` that a layer makes of states ``[T, D]``, and no more."""
        made = KeysOnly(self.stack.attention)
        self._keys_only(layer, texts, hidden, made)
        lengths = [len(text.tokens) for text in texts]
        return list(zip(torch.split(made.keys[0], lengths, dim=1), torch.split(made.values[0], lengths, dim=1)))

    def run_newest(
        self,
        hidden: torch.Tensor,
        positions: Sequence[int],
        rotary: Rotary,
        programs: Sequence[LayerProgram],
        *,
        store: KVSlots,
        store_rows: Sequence[int],
    ) -> torch.Tensor:
        """Run one new token of each row over what the row's slots hold of its text so far.

        Args:
            hidden: Embeddings of the rows' new tokens, ``[b, D]``; overwritten.
            positions: Each one's position in its row's text.
            rotary: Their cosines and sines, ``[b, head_dim]``.
            programs: One a row.
            store: Keys and values of everything before; the new ones are added.
            store_rows: Each row's index in the store.

        Returns:
            Each row's residual stream before the final norm, ``[b, D]``.
        """
        slots = [store.slots[row] for row in store_rows]
        depths = [0] * len(programs)
        where = torch.tensor(positions, device=hidden.device)
        rows: list[int] = []
        while waiting := [row for row, program in enumerate(programs) if depths[row] < len(program)]:
            layer = min(programs[row].layers[depths[row]] for row in waiting)
            before, rows = rows, [row for row in waiting if programs[row].layers[depths[row]] == layer]
            if rows != before:
                index = torch.tensor(rows, device=hidden.device)
                here = {kind: (cos[index], sin[index]) for kind, (cos, sin) in rotary.items()}
            hidden[index] = self.stack.run_layer(
                layer,
                hidden[index],
                positions=where[index],
                rotary=self.stack.of_kind(here, layer),
                attention=NewestTokens(
                    store,
                    slots=[slots[row][depths[row]] for row in rows],
                    rows=[store_rows[row] for row in rows],
                    positions=[positions[row] for row in rows],
                    mask_of=self.stack.mask_of(layer),
                    kernel_name=self.stack.attention,
                ),
            )
            self.layers_run += len(rows)
            for row in rows:
                depths[row] += 1
        return hidden

    # -- inside ----------------------------------------------------------------------------

    def _calls(self, group: list[Strand], texts: Sequence[Text]) -> Iterator[list[Strand]]:
        """A group in calls whose activations stay in the processor's caches; on a GPU, in one."""
        on_cpu = self.stack.hf_model.device.type == "cpu"
        most = CPU_CALL_TOKENS if on_cpu else math.inf
        call: list[Strand] = []
        tokens = 0
        for strand in group:
            size = len(texts[strand.text].tokens)
            if on_cpu and size < FEW_TOKENS:
                yield [strand]
                continue
            if call and tokens + size > most:
                yield call
                call, tokens = [], 0
            call.append(strand)
            tokens += size
        if call:
            yield call

    def _run_whole(self, layer: int, group: list[Strand], texts: Sequence[Text], on_layer: OnLayer) -> None:
        """Run a layer on all tokens of each strand's text."""
        read = [texts[strand.text] for strand in group]
        lengths = [len(text.tokens) for text in read]
        attention = WholeTexts(lengths, self.stack.mask_of(layer), self.stack.attention)
        output = self.stack.run_layer(
            layer,
            torch.cat([strand.hidden for strand in group]),
            positions=self._positions([0] * len(read), lengths),
            rotary=self.stack.of_kind(packed_rotary([text.rotary for text in read]), layer),
            attention=attention,
        )
        self._advance(group, torch.split(output, lengths), lengths, attention, on_layer)

    def _run_ending(self, layer: int, group: list[Strand], texts: Sequence[Text], on_layer: OnLayer) -> None:
        """Run the last layer of some programs: keys and values of all tokens, the rest of the wanted ones."""
        read = [texts[strand.text] for strand in group]
        lengths = [len(text.tokens) for text in read]
        tails = [len(text.tokens) - text.wanted for text in read]
        made = KeysOnly(self.stack.attention)
        self._keys_only(layer, read, [strand.hidden for strand in group], made)
        output = self.stack.run_layer(
            layer,
            torch.cat([strand.hidden[text.wanted :] for strand, text in zip(group, read)]),
            positions=self._positions([text.wanted for text in read], lengths),
            rotary=self.stack.of_kind(packed_rotary([text.rotary for text in read], [t.wanted for t in read]), layer),
            attention=Tails(made, lengths, tails, self.stack.mask_of(layer)),
        )
        self._advance(group, torch.split(output, tails), lengths, made, on_layer)

    def _keys_only(self, layer: int, texts: Sequence[Text], hidden: Sequence[torch.Tensor], made: KeysOnly) -> None:
        try:
            self.stack.run_layer(
                layer,
                torch.cat(list(hidden)),
                positions=self._positions([0] * len(texts), [len(text.tokens) for text in texts]),
                rotary=self.stack.of_kind(packed_rotary([text.rotary for text in texts]), layer),
                attention=made,
            )
        except KeysTaken:
            return
        raise AssertionError("a layer gave an output without asking for attention")

    def _advance(
        self,
        group: list[Strand],
        states: Sequence[torch.Tensor],
        lengths: list[int],
        made: WholeTexts | KeysOnly,
        on_layer: OnLayer,
    ) -> None:
        keys, values = torch.split(made.keys[0], lengths, dim=1), torch.split(made.values[0], lengths, dim=1)
        for strand, state, text_keys, text_values in zip(group, states, keys, values):
            strand.hidden = state
            strand.depth += 1
            on_layer(strand, text_keys, text_values)

    def _positions(self, starts: list[int], ends: list[int]) -> torch.Tensor:
        device = self.stack.hf_model.device
        return torch.cat([torch.arange(start, end, device=device) for start, end in zip(starts, ends)])


def packed_rotary(parts: Sequence[Rotary], starts: Sequence[int] | None = None) -> Rotary:
    """The rotary embeddings of several texts one behind the other, each from its start on."""
    starts = starts or [0] * len(parts)

    def packed(kind: str | None, which: int) -> torch.Tensor:
        return torch.cat([part[kind][which][start:] for part, start in zip(parts, starts)])

    return {kind: (packed(kind, 0), packed(kind, 1)) for kind in parts[0]}
