"""Greedy decoding of a batch of rows, each under its own program, from its prompt or from new tokens that are known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from pipeline.engine.kv_cache import KVSlots, SlotView
from pipeline.engine.prefill import Prefill
from pipeline.engine.row_checks import TokenIds
from pipeline.engine.state_hooks import OnState, of_rows
from pipeline.engine.text_tree import packed_rotary
from pipeline.program import LayerProgram

#: From a row and its new tokens so far to whether it ends there.
Stop = Callable[[int, list[int]], bool]


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoded:
    """The result of greedy decoding for one row.

    Attributes:
        tokens: The new token ids, the end-of-sequence token included where it came.
        gap: The smallest distance between the logit of a token chosen here and the runner-up's: how far
            the logits are from another answer. NaN where a logit is NaN.
        passes: Forward passes of plain decoding: one for the prompt and one for each further token.
    """

    tokens: list[int]
    gap: float
    passes: int


@dataclass(kw_only=True, slots=True)
class _Row:
    """A row while it is decoded; its tokens and gap grow.

    Attributes:
        prompt: Tokens of the prompt.
        tokens: New tokens so far.
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
        prefill: Runs the prompts.
        prompts: One a row.
        programs: One a row.
        max_new_tokens: Most new tokens a row.
        ends: Tokens that end a row.
        stop: Ends a row early.
        begun: The new tokens of each row that are known already; empty where none are.
        on_state: Called with every state of the prompts without known tokens (see ``OnState``).
        every_token: Whether the last of these states must hold every token, not the prompt's last one alone.
    """

    def __init__(
        self,
        prefill: Prefill,
        prompts: Sequence[TokenIds],
        programs: Sequence[LayerProgram],
        *,
        max_new_tokens: int,
        ends: frozenset[int],
        stop: Stop | None,
        begun: Sequence[TokenIds],
        on_state: OnState | None = None,
        every_token: bool = False,
    ) -> None:
        self._prefill = prefill
        self._programs = programs
        self._max_new_tokens = max_new_tokens
        self._ends = ends
        self._stop = stop
        self._on_state, self._every_token = on_state, every_token
        self._switch = prefill.stack.rope_switch
        self._rows = [_Row(prompt=list(prompt), tokens=list(tokens)) for prompt, tokens in zip(prompts, begun)]
        longest = max(map(len, prompts)) + max_new_tokens
        self._store = KVSlots(programs, max_tokens=longest, pool=prefill.pool)

    def run(self) -> list[Decoded]:
        """Decode every row to its end."""
        # 1. Read the prompts; of rows with known tokens everything but the newest one, for its keys and values alone.
        fresh = [row for row, state in enumerate(self._rows) if not state.tokens]
        begun = [row for row, state in enumerate(self._rows) if state.tokens and not self._ended(row)]
        self._read(begun, without_newest=True)
        states = self._read_prompts(fresh) | self._step(begun)
        # 2. Choose a token for each row and read it, until every row has ended.
        while states:
            states = self._step(self._choose(states))
        return [Decoded(tokens=row.tokens, gap=row.gap, passes=len(row.tokens)) for row in self._rows]

    def _step(self, rows: list[int]) -> dict[int, torch.Tensor]:
        """The residual stream of each row's newest token, ``[1, D]``."""
        # A text that outgrows the rotary embedding of its prompt is read anew from its beginning.
        outgrown = [row for row in rows if len(self._rows[row].text) - 1 == self._switch]
        return self._read(outgrown) | self._read_newest([row for row in rows if row not in outgrown])

    def _read_prompts(self, rows: list[int]) -> dict[int, torch.Tensor]:
        """Read prompts for the first time, with the hook."""
        on_state = None if self._on_state is None else of_rows(self._on_state, rows)
        return self._read(rows, on_state=on_state, every_token=self._every_token)

    def _read(
        self,
        rows: list[int],
        *,
        without_newest: bool = False,
        on_state: OnState | None = None,
        every_token: bool = False,
    ) -> dict[int, torch.Tensor]:
        """Run the rows' texts so far and fill their slots: the residual stream of each one's end, ``[1, D]``."""
        if not rows:
            return {}
        texts = [self._rows[row].text[:-1] if without_newest else self._rows[row].text for row in rows]
        states = self._prefill.run(
            texts,
            [self._programs[row] for row in rows],
            [0 if every_token else len(text) - 1 for text in texts],
            slots=SlotView(store=self._store, rows=rows),
            on_state=on_state,
        )
        return dict(zip(rows, (state[-1:] for state in states)))

    def _read_newest(self, rows: list[int]) -> dict[int, torch.Tensor]:
        """Run each row's newest token over its slots: residual streams ``[1, D]``."""
        if not rows:
            return {}
        texts = [self._rows[row].text for row in rows]
        rotary = self._prefill.rotary_tables([len(text) for text in texts])
        states = self._prefill.executor.run_newest(
            self._prefill.stack.embed(self._prefill.tensor([text[-1] for text in texts])),
            [len(text) - 1 for text in texts],
            packed_rotary([rotary(range(len(text) - 1, len(text)), len(text)) for text in texts], [0] * len(texts)),
            [self._programs[row] for row in rows],
            slots=SlotView(store=self._store, rows=rows),
        )
        return dict(zip(rows, torch.split(states, 1)))

    def _choose(self, states: dict[int, torch.Tensor]) -> list[int]:
        """Append the likeliest tokens; returns the rows that have not ended."""
        logits = self._prefill.stack.head(torch.cat(list(states.values()))).float()
        top = logits.topk(2, dim=-1).values
        # Among equal logits the first, as in stock decoding; ``topk`` does not promise an order.
        chosen = logits.argmax(dim=-1)
        for row, token, gap in zip(states, chosen.tolist(), (top[:, 0] - top[:, 1]).tolist()):
            self._rows[row].tokens.append(token)
            # A NaN gap stays NaN: logits that are not numbers decide nothing.
            if gap < self._rows[row].gap or math.isnan(gap):
                self._rows[row].gap = gap
        return [row for row in states if not self._ended(row)]

    def _ended(self, row: int) -> bool:
        tokens = self._rows[row].tokens
        full = tokens[-1] in self._ends or len(tokens) == self._max_new_tokens
        return full or (self._stop is not None and self._stop(row, tokens))
