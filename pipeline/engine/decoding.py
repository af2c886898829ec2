"""Greedy decoding of a batch of rows, each under its own program, with guesses at what comes next.

A guess is read in one pass behind the newest token and kept as far as greedy decoding would have
written it: the keys and values of what was wrong are overwritten before anything sees them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from pipeline.engine.kv import KVSlots
from pipeline.engine.reading import Reader, TokenIds
from pipeline.program import LayerProgram

#: From a row and its new tokens so far to whether it ends there.
Stop = Callable[[int, list[int]], bool]
#: From a row and its new tokens so far to a guess at the tokens that follow; it may be empty.
Propose = Callable[[int, list[int]], Sequence[int]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoded:
    """What greedy decoding gave for one row.

    Attributes:
        tokens: The new token ids, the end-of-sequence token included where it came.
        gap: The smallest distance between a chosen token's logit and the runner-up's on the way: how
            far the logits are from another answer.
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
        guess: What was read behind the newest token, as a guess at what follows.
    """

    prompt: list[int]
    tokens: list[int] = field(default_factory=list)
    gap: float = float("inf")
    guess: list[int] = field(default_factory=list)

    @property
    def text(self) -> list[int]:
        return self.prompt + self.tokens

    def take(self, token: int, gap: float) -> bool:
        """Add a token; returns whether the guess foresaw it, so that what was read behind it holds."""
        self.tokens.append(token)
        self.gap = min(self.gap, gap)
        return bool(self.guess) and self.guess.pop(0) == token


class GreedyDecoding:
    """One batch from its prompts to its last tokens.

    Args:
        reader: Reads the prompts.
        prompts: One a row.
        programs: One a row.
        max_new_tokens: Most new tokens a row.
        ends: Tokens that end a row.
        stop: Ends a row early.
        propose: Guesses how a row goes on.
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
        propose: Propose | None,
    ) -> None:
        self._reader = reader
        self._programs = programs
        self._max_new_tokens = max_new_tokens
        self._ends = ends
        self._stop = stop
        # The rotary embedding may change under a guess where it depends on the text's length.
        self._switch = reader.stack.rope_switch
        self._propose = propose if self._switch is None else None
        self._rows = [_Row(prompt=list(prompt)) for prompt in prompts]
        longest = max(map(len, prompts)) + max_new_tokens
        self._store = KVSlots(programs, max_tokens=longest, pool=reader.pool)

    def run(self) -> list[Decoded]:
        """Decode every row to its end."""
        states = self._read(list(range(len(self._rows))))
        while states:
            going = self._choose(states)
            # A text that outgrows the rotary embedding of its prompt is read anew from its beginning.
            outgrown = [row for row in going if len(self._rows[row].text) - 1 == self._switch]
            states = self._read(outgrown) | self._continue([row for row in going if row not in outgrown])
        return [Decoded(tokens=row.tokens, gap=row.gap, passes=len(row.tokens)) for row in self._rows]

    def _read(self, rows: list[int]) -> dict[int, torch.Tensor]:
        """Read the rows' texts so far; the residual stream of each one's last token, ``[1, D]``."""
        if not rows:
            return {}
        texts = [self._rows[row].text for row in rows]
        states = self._reader.read(
            texts,
            [self._programs[row] for row in rows],
            [len(text) - 1 for text in texts],
            store=self._store,
            store_rows=rows,
        )
        return dict(zip(rows, states))

    def _continue(self, rows: list[int]) -> dict[int, torch.Tensor]:
        """Read each row's newest token and a guess: residual streams ``[1 + guessed, D]``."""
        if not rows:
            return {}
        decoding = [self._rows[row] for row in rows]
        for place, row in zip(rows, decoding):
            room = self._max_new_tokens - len(row.tokens) - 1
            row.guess = list(self._propose(place, row.tokens) if self._propose else ())[:room]
        new = [[row.tokens[-1], *row.guess] for row in decoding]
        spans = [range(len(row.text) - 1, len(row.text) + len(row.guess)) for row in decoding]
        rotary = self._reader.rotary_tables([span.stop for span in spans])
        embedded = self._reader.stack.embed(self._reader.tensor([token for tokens in new for token in tokens]))
        states = self._reader.executor.run_newest(
            torch.split(embedded, [len(tokens) for tokens in new]),
            spans,
            [rotary(span, span.stop) for span in spans],
            [self._programs[row] for row in rows],
            store=self._store,
            store_rows=rows,
        )
        return dict(zip(rows, states))

    def _choose(self, states: dict[int, torch.Tensor]) -> list[int]:
        """Take the likeliest tokens, as far as the guesses hold; returns the rows that go on."""
        top = self._reader.stack.head(torch.cat(list(states.values()))).float().topk(2, dim=-1)
        gaps = top.values[:, 0] - top.values[:, 1]
        sizes = [len(state) for state in states.values()]
        going = []
        for row, tokens, row_gaps in zip(states, torch.split(top.indices[:, 0], sizes), torch.split(gaps, sizes)):
            for token, gap in zip(tokens.tolist(), row_gaps.tolist()):
                foreseen = self._rows[row].take(token, gap)
                ended = self._ended(row)
                if ended or not foreseen:
                    break
            if not ended:
                going.append(row)
        return going

    def _ended(self, row: int) -> bool:
        tokens = self._rows[row].tokens
        full = tokens[-1] in self._ends or len(tokens) == self._max_new_tokens
        return full or (self._stop is not None and self._stop(row, tokens))
