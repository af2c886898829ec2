"""Runs programs on stock transformers models, one text at a time: the reference that labels are verified against.

``StockRunner`` gives scoring what a ``FrozenModel`` gives it, by ``materialize``, stock forward passes and stock
``generate``. It shares no prefixes, batches nothing and depends on no earlier call.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from pipeline.engine.frozen_model import FrozenModel
from pipeline.engine.greedy_decoding import Decoded, Stop
from pipeline.engine.materialize import materialize
from pipeline.engine.row_checks import TokenIds, check_new_tokens, check_rows
from pipeline.program import LayerProgram

#: Stock models that are kept for later calls with the same program.
_MODELS = 8


class StockRunner:
    """Runs programs as stock models.

    Args:
        model: The frozen model; its weights and its tokenizer are used, its engine is not.
    """

    def __init__(self, model: FrozenModel) -> None:
        self._model = model
        self.tokenizer = model.tokenizer
        self._stock = lru_cache(maxsize=_MODELS)(self._materialize)

    def _materialize(self, program: LayerProgram) -> Any:
        stock = materialize(self._model.hf_model, program).eval()
        # A checkpoint's defaults for chatting (penalties, sampling) would fill in every option that is not given.
        stock.generation_config = GenerationConfig()
        return stock

    @property
    def end_tokens(self) -> frozenset[int]:
        """Tokens that end a generated text."""
        return self._model.end_tokens

    def reads_alike(self, length: int, longer: int) -> bool:
        """As ``FrozenModel.reads_alike``, which depends on the model alone."""
        return self._model.reads_alike(length, longer)

    @torch.inference_mode()
    def logits(
        self, token_ids: Sequence[TokenIds], programs: Sequence[LayerProgram], *, starts: Sequence[int] | None = None
    ) -> list[torch.Tensor]:
        """As ``FrozenModel.logits``: ``[T_i - start_i, vocab]`` for each row."""
        check_rows(token_ids, programs, num_layers=self._model.num_layers)
        starts = [0] * len(token_ids) if starts is None else starts
        return [
            self._stock(program)(self._tensor(tokens), use_cache=False).logits[0, start:].float()
            for tokens, program, start in zip(token_ids, programs, starts, strict=True)
        ]

    @torch.inference_mode()
    def decode(
        self,
        token_ids: Sequence[TokenIds],
        programs: Sequence[LayerProgram],
        *,
        max_new_tokens: int,
        stop: Stop | None = None,
        begun: Sequence[TokenIds] | None = None,
    ) -> list[Decoded]:
        """As ``FrozenModel.decode``; known tokens (``begun``) are generated again all the same."""
        check_rows(token_ids, programs, num_layers=self._model.num_layers)
        check_new_tokens(max_new_tokens)
        return [
            self._decode(row, list(tokens), program, max_new_tokens, stop)
            for row, (tokens, program) in enumerate(zip(token_ids, programs, strict=True))
        ]

    def _decode(
        self, row: int, prompt: list[int], program: LayerProgram, max_new_tokens: int, stop: Stop | None
    ) -> Decoded:
        ids = self._tensor(prompt)
        config = GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=sorted(self.end_tokens) or None,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_logits=True,
        )
        until = StoppingCriteriaList([] if stop is None else [_Until(stop, row, len(prompt))])
        found = self._stock(program).generate(
            ids, attention_mask=torch.ones_like(ids), generation_config=config, stopping_criteria=until
        )
        tokens = found.sequences[0, len(prompt) :].tolist()
        gaps = [float(top[0] - top[1]) for top in (logits[0].float().topk(2).values for logits in found.logits)]
        gap = math.nan if any(map(math.isnan, gaps)) else min(gaps)
        return Decoded(tokens=tokens, gap=gap, passes=len(tokens))

    def _tensor(self, tokens: TokenIds) -> torch.Tensor:
        return torch.tensor([list(tokens)], device=self._model.device)


class _Until(StoppingCriteria):  # type: ignore[misc]
    """Ends a row where its stop rule says so."""

    def __init__(self, stop: Stop, row: int, prompt: int) -> None:
        self._stop, self._row, self._prompt = stop, row, prompt

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        ended = self._stop(self._row, input_ids[0, self._prompt :].tolist())
        return torch.tensor([ended], device=input_ids.device)
