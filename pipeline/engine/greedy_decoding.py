"""Greedy decoding of a batch of rows, each under its own program, from wherever its text is known to."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from pipeline.engine.executor import packed_rotary
from pipeline.engine.kv_cache import KVSlots
from pipeline.engine.prefill import OnState, Reader, TokenIds
from pipeline.program import LayerProgram

#: From a row and its new tokens so far to whether it ends there.
Stop = Callable[[int, list[int]], bool]


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoded:
    """What greedy decoding gave for one row.

    Attributes:
        tokens: The new token ids, the end-of-sequence token included where it came.
        gap: The smallest distance between the logit of a token chosen here and the runner-up's: how far
            the logits are from another answer.
        passes: Forward passes of plain decoding: one for the prompt and one for each further token.
    """

    tokens: list[int]
    gap: float
    passes: int


@dataclass(kw_only=True, slots=True)
class _Row:
    """A row on its way.

    Attributes:
        prompt: Its prompt.
        tokens: Its new tokens.
        gap: See ``Decoded``.
    """

    prompt: list[int]
    tokens: list[int]
    gap: float = float("inf")

    @property
    def text(self) -> list[int]:
        return self.prompt + self.tokens


class GreedyDecoding:
    """One batch from its prompts to its last tokens.

    Args:
        reader: Reads the prompts.
        prompts: One a row.
        programs: One a row.
        max_new_tokens: Most new tokens a row.
        ends: Tokens that end a row.
        stop: Ends a row early.
        begun: The new tokens of each row that are known already; empty where none are.
        on_state: Told of every state of the prompts that are read for the first time (see ``OnState``); the last one
            is whole if ``whole`` is set, else of the last token.
        whole: See there.
    """

    def __init__(
        self,
        reader: Reader,
        prompts: Sequence[TokenIds],
        programs: Sequence[LayerProgram],
        *,
        max_new_tokens: int,
        ends: frozenset[int],
        stop: Stop | None,
        begun: Sequence[TokenIds],
        on_state: OnState | None = None,
        whole: bool = False,
    ) -> None:
        self._reader = reader
        self._programs = programs
        self._max_new_tokens = max_new_tokens
        self._ends = ends
        self._stop = stop
        self._on_state, self._whole = on_state, whole
        self._switch = reader.stack.rope_switch
        self._rows = [_Row(prompt=list(prompt), tokens=list(tokens)) for prompt, tokens in zip(prompts, begun)]
        longest = max(map(len, prompts)) + max_new_tokens
        self._store = KVSlots(programs, max_tokens=longest, pool=reader.pool)

    def run(self) -> list[Decoded]:
        """Decode every row to its end."""
        fresh = [row for row, state in enumerate(self._rows) if not state.tokens]
        begun = [row for row, state in enumerate(self._rows) if state.tokens and not self._ended(row)]
        self._read(begun, but=1)  # for the keys and values alone
        states = self._read(fresh, watched=True) | self._go_on(begun)
        while states:
            states = self._go_on(self._choose(states))
        return [Decoded(tokens=row.tokens, gap=row.gap, passes=len(row.tokens)) for row in self._rows]

    def _go_on(self, rows: list[int]) -> dict[int, torch.Tensor]:
        """The residual stream of each row's newest token, ``[1, D]``."""
        # A text that outgrows the rotary embedding of its prompt is read anew from its beginning.
        outgrown = [row for row in rows if len(self._rows[row].text) - 1 == self._switch]
        return self._read(outgrown) | self._continue([row for row in rows if row not in outgrown])

    def _read(self, rows: list[int], *, but: int = 0, watched: bool = False) -> dict[int, torch.Tensor]:
        """Read the rows' texts so far, but for some last tokens; the residual stream of each one's end, ``[1, D]``."""
        if not rows:
            return {}
        texts = [self._rows[row].text for row in rows]
        texts = [text[: len(text) - but] for text in texts]
        states = self._reader.read(
            texts,
            [self._programs[row] for row in rows],
            [0 if watched and self._whole else len(text) - 1 for text in texts],
            store=self._store,
            store_rows=rows,
            on_state=partial(self._tell, rows) if watched and self._on_state is not None else None,
        )
        return dict(zip(rows, (state[-1:] for state in states)))

    def _tell(self, rows: list[int], places: Sequence[int], depth: int, state: torch.Tensor) -> None:
        """Tell the onlooker of a state, by the rows' own numbers."""
        assert self._on_state is not None
        self._on_state([rows[place] for place in places], depth, state)

    def _continue(self, rows: list[int]) -> dict[int, torch.Tensor]:
        """Read each row's newest token: residual streams ``[1, D]``."""
        if not rows:
            return {}
        texts = [self._rows[row].text for row in rows]
        rotary = self._reader.rotary_tables([len(text) for text in texts])
        states = self._reader.executor.run_newest(
            self._reader.stack.embed(self._reader.tensor([text[-1] for text in texts])),
            [len(text) - 1 for text in texts],
            packed_rotary([rotary(range(len(text) - 1, len(text)), len(text)) for text in texts]),
            [self._programs[row] for row in rows],
            store=self._store,
            store_rows=rows,
        )
        return dict(zip(rows, torch.split(states, 1)))

    def _choose(self, states: dict[int, torch.Tensor]) -> list[int]:
        """Take the likeliest tokens; returns the rows that go on."""
        logits = self._reader.stack.head(torch.cat(list(states.values()))).float()
        top = logits.topk(2, dim=-1).values
        # The first of equals, as stock decoding has it, which the order of the two largest does not promise.
        chosen = logits.argmax(dim=-1)
        for row, token, gap in zip(states, chosen.tolist(), (top[:, 0] - top[:, 1]).tolist()):
            self._rows[row].tokens.append(token)
            # No gap at all stays none: logits that are not numbers make no verdict.
            if gap < self._rows[row].gap or math.isnan(gap):
                self._rows[row].gap = gap
        return [row for row in states if not self._ended(row)]

    def _ended(self, row: int) -> bool:
        tokens = self._rows[row].tokens
        full = tokens[-1] in self._ends or len(tokens) == self._max_new_tokens
        return full or (self._stop is not None and self._stop(row, tokens))
