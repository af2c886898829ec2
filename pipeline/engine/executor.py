"""Layer-synchronous execution: everything that needs the same layer next runs it in one call.

What runs is a *sequence state*: the tokens of a text tree after some layers, for the rows whose programs agree so far.
States wait at the layer that their programs name next. The lowest such layer goes first, so that programs which loop
back catch up with those that wait, and programs which skip ahead are rejoined. A state whose programs diverge is
split. So weights are read once a layer for all that need it, and no layers run twice on the same text. A text that
shares no tokens with another one is a tree of one.

A tensor's name ends with its shape, one letter a dimension:

- ``B``: rows, one new token each
- ``T``: tokens of one text
- ``N``: tokens of a tree, or of several, packed one behind the other
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
from pipeline.engine.text_tree import FEW_TOKENS, TextTree, packed_rotary
from pipeline.program import LayerProgram

#: A layer call is not faster with more tokens than this, and slower where they exceed the processor's caches.
CPU_CALL_TOKENS = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class SequenceState:
    """A text tree's residual stream after some layers, for the rows whose programs agree so far.

    States are values: a layer makes a new one of them, and so does a split.

    Attributes:
        tree: Index of the tree.
        hidden_ND: The residual stream; after a final layer it may hold the texts' tails alone, one behind the other.
        depth: Layers that ran.
        rows: The rows, by their index in the call.
    """

    tree: int
    hidden_ND: torch.Tensor
    depth: int
    rows: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerOutput:
    """The result of one layer on one sequence state.

    Attributes:
        state: The state after the layer.
        keys_GNK: The layer's keys of all the tree's tokens.
        values_GNK: The layer's values of all the tree's tokens.
    """

    state: SequenceState
    keys_GNK: torch.Tensor
    values_GNK: torch.Tensor


class Executor:
    """Runs layer programs on a stack and counts what it runs.

    Attributes:
        layers_run: Layers run so far, one for each text of a sequence state, or new token, in each call.
        tokens_run: Tokens of these layers; those that texts share count once.
    """

    def __init__(self, stack: DecoderStack) -> None:
        self.stack = stack
        self.layers_run = 0
        self.tokens_run = 0

    def run_trees(
        self, trees: Sequence[TextTree], states: Sequence[SequenceState], programs: Sequence[LayerProgram]
    ) -> Iterator[LayerOutput]:
        """Run whole texts to the ends of their programs.

        Args:
            trees: The texts.
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
                (final if ends and not trees[state.tree].needs_whole else whole).append(state)
                self.layers_run += len(trees[state.tree].texts)
                self.tokens_run += trees[state.tree].num_tokens
            for run, states_of_kind in ((self._run_whole, whole), (self._run_final, final)):
                for group in self._calls(states_of_kind, trees):
                    for output in run(layer, group, trees):
                        yield output
                        state = output.state
                        unfinished = tuple(row for row in state.rows if len(programs[row]) > state.depth)
                        if unfinished:
                            waiting.append(replace(state, rows=unfinished))

    def take_keys(self, layer: int, states: Sequence[SequenceState], trees: Sequence[TextTree]) -> list[LayerOutput]:
        """The keys and values that a layer makes of states; the rest of the layer does not run."""
        made = self._keys_only(layer, states, trees)
        lengths = [trees[state.tree].num_tokens for state in states]
        return list(_outputs(states, [state.hidden_ND for state in states], lengths, made))

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
            self.tokens_run += len(rows)
            for row in rows:
                depths[row] += 1
        return hidden_BD

    # -- inside ----------------------------------------------------------------------------

    def _calls(self, states: list[SequenceState], trees: Sequence[TextTree]) -> Iterator[list[SequenceState]]:
        """States in calls whose activations stay in the processor's caches; on a GPU, in one."""
        on_cpu = self.stack.hf_model.device.type == "cpu"
        most = CPU_CALL_TOKENS if on_cpu else math.inf
        call: list[SequenceState] = []
        tokens = 0
        for state in states:
            size = trees[state.tree].num_tokens
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

    def _run_whole(self, layer: int, group: list[SequenceState], trees: Sequence[TextTree]) -> Iterator[LayerOutput]:
        """Run a layer on all tokens of each state's tree."""
        read = [trees[state.tree] for state in group]
        sizes = [tree.num_tokens for tree in read]
        attention = WholeTexts([tree.shape for tree in read], self.stack.mask_of(layer), self.stack.attention)
        hidden_ND = self.stack.run_layer(
            layer,
            torch.cat([state.hidden_ND for state in group]),
            positions=self._positions(read),
            rotary=self.stack.of_kind(_rotary_of(read), layer),
            attention=attention,
        )
        return _outputs(group, torch.split(hidden_ND, sizes), sizes, attention)

    def _run_final(self, layer: int, group: list[SequenceState], trees: Sequence[TextTree]) -> Iterator[LayerOutput]:
        """Run the final layer of some programs: keys and values of all tokens, the rest for the texts' tails."""
        read = [trees[state.tree] for state in group]
        texts = [text for tree in read for text in tree.texts]
        starts = [text.logits_from for text in texts]
        tails = [tree.tails for tree in read]
        made = self._keys_only(layer, group, trees)
        hidden_ND = self.stack.run_layer(
            layer,
            torch.cat([tail for state, tree in zip(group, read) for tail in tree.tails_of(state.hidden_ND)]),
            positions=self._ranges(starts, [text.num_tokens for text in texts]),
            rotary=self.stack.of_kind(packed_rotary([text.rotary for text in texts], starts), layer),
            attention=Tails(made, [tree.shape for tree in read], tails, self.stack.mask_of(layer)),
        )
        sizes = [tree.num_tokens for tree in read]
        return _outputs(group, torch.split(hidden_ND, [sum(of_tree) for of_tree in tails]), sizes, made)

    def _keys_only(self, layer: int, states: Sequence[SequenceState], trees: Sequence[TextTree]) -> KeysOnly:
        read = [trees[state.tree] for state in states]
        made = KeysOnly(self.stack.attention)
        try:
            self.stack.run_layer(
                layer,
                torch.cat([state.hidden_ND for state in states]),
                positions=self._positions(read),
                rotary=self.stack.of_kind(_rotary_of(read), layer),
                attention=made,
            )
        except KeysTaken:
            return made
        raise AssertionError("a layer gave an output without asking for attention")

    def _positions(self, trees: Sequence[TextTree]) -> torch.Tensor:
        """Positions of packed tokens, ``[N]``."""
        shapes = [tree.shape for tree in trees]
        return self._ranges(
            [start for shape in shapes for start in shape.starts], [end for shape in shapes for end in shape.lengths]
        )

    def _ranges(self, starts: list[int], ends: list[int]) -> torch.Tensor:
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
    states: Sequence[SequenceState],
    hidden_ND: Sequence[torch.Tensor],
    sizes: list[int],
    made: WholeTexts | KeysOnly,
) -> Iterator[LayerOutput]:
    """Cut a call's packed output at the borders of its trees."""
    keys_GNK = torch.split(made.keys_1GNK[0], sizes, dim=1)
    values_GNK = torch.split(made.values_1GNK[0], sizes, dim=1)
    for state, hidden, keys, values in zip(states, hidden_ND, keys_GNK, values_GNK):
        after = replace(state, hidden_ND=hidden, depth=state.depth + 1)
        yield LayerOutput(state=after, keys_GNK=keys, values_GNK=values)


def _rotary_of(trees: Sequence[TextTree]) -> Rotary:
    return packed_rotary([tree.rotary for tree in trees], [0] * len(trees))
