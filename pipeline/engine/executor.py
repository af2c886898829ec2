"""Layer-synchronous execution: everything that needs the same layer next runs it in one call.

What runs is a *sequence state*: the tokens of one text after some layers, for the rows whose programs agree so far.
States wait at the layer that their programs name next. The lowest such layer goes first, so that programs which loop
back catch up with those that wait, and programs which skip ahead are rejoined. A state whose programs diverge is
split. So weights are read once a layer for all that need it, and no layers run twice on the same text.

A tensor's name ends with its shape, one letter a dimension:

- ``B``: rows, one new token each
- ``T``: tokens of one text
- ``N``: tokens of several texts, packed one behind the other
- ``D``: hidden size
- ``G``: key and value heads
- ``K``: head size
"""

# ruff: noqa: N803, N806, N815  # capital letters at the end of a name are the tensor's shape

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from pipeline.engine.decoder_stack import DecoderStack, Rotary
from pipeline.engine.kv_cache import SlotView
from pipeline.engine.packed_attention import KeysOnly, KeysTaken, NewestTokens, Tails, WholeTexts
from pipeline.program import LayerProgram

#: A layer call is not faster with more tokens than this, and slower where they exceed the processor's caches.
CPU_CALL_TOKENS = 1024
#: Matrices of fewer rows are multiplied by other kernels (MKL's, on some processors), which round sums differently.
#: Programs that go back and forth amplify the difference: a text so short runs alone, as a stock model runs it.
FEW_TOKENS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """A text to run.

    Attributes:
        tokens: Token ids of the text, T of them.
        rotary: Cosines and sines of its positions, ``[T, head_dim]``.
        logits_from: The first position whose final state is needed.
        rows: The rows of the call that read this text, each with its program.
    """

    tokens: Sequence[int]
    rotary: Rotary
    logits_from: int
    rows: list[int]

    @property
    def num_tokens(self) -> int:
        """Number of tokens T of the text."""
        return len(self.tokens)

    @property
    def num_logits(self) -> int:
        """Positions whose final state is needed."""
        return len(self.tokens) - self.logits_from


@dataclass(frozen=True, kw_only=True, slots=True)
class SequenceState:
    """A text's residual stream after some layers, for the rows whose programs agree so far.

    States are values: a layer makes a new one of them, and so does a split.

    Attributes:
        text: Index of the text.
        hidden_TD: The residual stream; after a final layer it may hold the positions from ``logits_from`` on alone.
        depth: Layers that ran.
        rows: The rows, by their index in the call.
    """

    text: int
    hidden_TD: torch.Tensor
    depth: int
    rows: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerOutput:
    """The result of one layer on one sequence state.

    Attributes:
        state: The state after the layer.
        keys_GTK: The layer's keys of the whole text.
        values_GTK: The layer's values of the whole text.
    """

    state: SequenceState
    keys_GTK: torch.Tensor
    values_GTK: torch.Tensor


class Executor:
    """Runs layer programs on a stack and counts what it runs.

    Attributes:
        layers_run: Layers run so far, one for each sequence state, or new token, in each call.
    """

    def __init__(self, stack: DecoderStack) -> None:
        self.stack = stack
        self.layers_run = 0

    def run_texts(
        self, texts: Sequence[Text], states: Sequence[SequenceState], programs: Sequence[LayerProgram]
    ) -> Iterator[LayerOutput]:
        """Run whole texts to the ends of their programs.

        Args:
            texts: The texts.
            states: The states from which the rows start; every row is in one of them.
            programs: One a row.

        Yields:
            Every layer's output, in the order in which the layers run. A row is done when as many layers ran as its
            program has.
        """
        waiting = list(states)
        while waiting:
            layer = min(programs[row].layers[state.depth] for state in waiting for row in state.rows)
            joining, waiting = _diverge(waiting, layer, programs)
            whole: list[SequenceState] = []
            final: list[SequenceState] = []
            for state in joining:
                ends = all(len(programs[row]) == state.depth + 1 for row in state.rows)
                (final if ends and texts[state.text].logits_from > 0 else whole).append(state)
            self.layers_run += len(joining)
            for run, states_of_kind in ((self._run_whole, whole), (self._run_final, final)):
                for group in self._calls(states_of_kind, texts):
                    for output in run(layer, group, texts):
                        yield output
                        state = output.state
                        unfinished = tuple(row for row in state.rows if len(programs[row]) > state.depth)
                        if unfinished:
                            waiting.append(replace(state, rows=unfinished))

    def take_keys(
        self, layer: int, texts: Sequence[Text], hidden_TD: Sequence[torch.Tensor]
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Keys and values ``[G, T, K]`` that a layer makes of states ``[T, D]``; the rest of the layer does not run."""
        made = self._keys_only(layer, texts, hidden_TD)
        lengths = [text.num_tokens for text in texts]
        return list(zip(torch.split(made.keys_1GNK[0], lengths, dim=1), torch.split(made.values_1GNK[0], lengths, 1)))

    def run_newest(
        self,
        hidden_BD: torch.Tensor,
        positions: Sequence[int],
        rotary: Rotary,
        programs: Sequence[LayerProgram],
        *,
        slots: SlotView,
    ) -> torch.Tensor:
        """Run one new token of each row over what the row's slots hold of its text so far.

        Args:
            hidden_BD: Embeddings of the rows' new tokens; overwritten.
            positions: Each one's position in its row's text.
            rotary: Cosines and sines of the positions, ``[B, head_dim]``.
            programs: One a row.
            slots: Keys and values of everything before; the new ones are added.

        Returns:
            Each row's residual stream before the final norm, ``[B, D]``.
        """
        depths = [0] * len(programs)
        positions_B = torch.tensor(positions, device=hidden_BD.device)
        rows: list[int] = []
        while waiting := [row for row, program in enumerate(programs) if depths[row] < len(program)]:
            layer = min(programs[row].layers[depths[row]] for row in waiting)
            before, rows = rows, [row for row in waiting if programs[row].layers[depths[row]] == layer]
            if rows != before:
                index = torch.tensor(rows, device=hidden_BD.device)
                here = {kind: (cos[index], sin[index]) for kind, (cos, sin) in rotary.items()}
            hidden_BD[index] = self.stack.run_layer(
                layer,
                hidden_BD[index],
                positions=positions_B[index],
                rotary=self.stack.of_kind(here, layer),
                attention=NewestTokens(
                    slots.store,
                    slots=[slots.slot(row, depths[row]) for row in rows],
                    rows=[slots.rows[row] for row in rows],
                    positions=[positions[row] for row in rows],
                    mask_of=self.stack.mask_of(layer),
                    kernel_name=self.stack.attention,
                ),
            )
            self.layers_run += len(rows)
            for row in rows:
                depths[row] += 1
        return hidden_BD

    # -- inside ----------------------------------------------------------------------------

    def _calls(self, states: list[SequenceState], texts: Sequence[Text]) -> Iterator[list[SequenceState]]:
        """States in calls whose activations stay in the processor's caches; on a GPU, in one."""
        on_cpu = self.stack.hf_model.device.type == "cpu"
        most = CPU_CALL_TOKENS if on_cpu else math.inf
        call: list[SequenceState] = []
        tokens = 0
        for state in states:
            size = texts[state.text].num_tokens
            if on_cpu and size < FEW_TOKENS:
                yield [state]
                continue
            if call and tokens + size > most:
                yield call
                call, tokens = [], 0
            call.append(state)
            tokens += size
        if call:
            yield call

    def _run_whole(self, layer: int, group: list[SequenceState], texts: Sequence[Text]) -> Iterator[LayerOutput]:
        """Run a layer on all tokens of each state's text."""
        read = [texts[state.text] for state in group]
        lengths = [text.num_tokens for text in read]
        attention = WholeTexts(lengths, self.stack.mask_of(layer), self.stack.attention)
        hidden_ND = self.stack.run_layer(
            layer,
            torch.cat([state.hidden_TD for state in group]),
            positions=self._positions([0] * len(read), lengths),
            rotary=self.stack.of_kind(packed_rotary([text.rotary for text in read]), layer),
            attention=attention,
        )
        return _outputs(group, torch.split(hidden_ND, lengths), lengths, attention)

    def _run_final(self, layer: int, group: list[SequenceState], texts: Sequence[Text]) -> Iterator[LayerOutput]:
        """Run the final layer of some programs: keys and values of all tokens, the rest from ``logits_from`` on."""
        read = [texts[state.text] for state in group]
        lengths = [text.num_tokens for text in read]
        tails = [text.num_logits for text in read]
        starts = [text.logits_from for text in read]
        made = self._keys_only(layer, read, [state.hidden_TD for state in group])
        hidden_ND = self.stack.run_layer(
            layer,
            torch.cat([state.hidden_TD[start:] for state, start in zip(group, starts)]),
            positions=self._positions(starts, lengths),
            rotary=self.stack.of_kind(packed_rotary([text.rotary for text in read], starts), layer),
            attention=Tails(made, lengths, tails, self.stack.mask_of(layer)),
        )
        return _outputs(group, torch.split(hidden_ND, tails), lengths, made)

    def _keys_only(self, layer: int, texts: Sequence[Text], hidden_TD: Sequence[torch.Tensor]) -> KeysOnly:
        made = KeysOnly(self.stack.attention)
        try:
            self.stack.run_layer(
                layer,
                torch.cat(list(hidden_TD)),
                positions=self._positions([0] * len(texts), [text.num_tokens for text in texts]),
                rotary=self.stack.of_kind(packed_rotary([text.rotary for text in texts]), layer),
                attention=made,
            )
        except KeysTaken:
            return made
        raise AssertionError("a layer gave an output without asking for attention")

    def _positions(self, starts: list[int], ends: list[int]) -> torch.Tensor:
        """Positions of packed tokens, ``[N]``."""
        device = self.stack.hf_model.device
        return torch.cat([torch.arange(start, end, device=device) for start, end in zip(starts, ends)])


def _diverge(
    states: Sequence[SequenceState], layer: int, programs: Sequence[LayerProgram]
) -> tuple[list[SequenceState], list[SequenceState]]:
    """Split states by whether their rows run a layer next: those that do, and those that go on waiting."""
    joining, waiting = [], []
    for state in states:
        here = tuple(row for row in state.rows if programs[row].layers[state.depth] == layer)
        diverging = tuple(row for row in state.rows if row not in here)
        if here:
            joining.append(replace(state, rows=here))
        if diverging:
            waiting.append(replace(state, rows=diverging))
    return joining, waiting


def _outputs(
    group: list[SequenceState], hidden_TD: Sequence[torch.Tensor], lengths: list[int], made: WholeTexts | KeysOnly
) -> Iterator[LayerOutput]:
    """Cut a call's packed output at the borders of its texts."""
    keys_GTK = torch.split(made.keys_1GNK[0], lengths, dim=1)
    values_GTK = torch.split(made.values_1GNK[0], lengths, dim=1)
    for state, hidden, keys, values in zip(group, hidden_TD, keys_GTK, values_GTK):
        after = replace(state, hidden_TD=hidden, depth=state.depth + 1)
        yield LayerOutput(state=after, keys_GTK=keys, values_GTK=values)


def packed_rotary(parts: Sequence[Rotary], starts: Sequence[int] | None = None) -> Rotary:
    """The rotary embeddings of several texts one behind the other, each from its start on."""
    starts = starts or [0] * len(parts)

    def packed(kind: str | None, which: int) -> torch.Tensor:
        return torch.cat([part[kind][which][start:] for part, start in zip(parts, starts)])

    return {kind: (packed(kind, 0), packed(kind, 1)) for kind in parts[0]}
