"""What a run's labels are replayed with: stock transformers models of the programs' layers, a text at a time.

``StockRunner`` answers the questions that scoring asks of a ``FrozenModel`` by ``materialize``, stock forward
passes and stock ``generate``. It shares no prefixes, batches nothing and knows nothing of what was computed before.
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
from pipeline.program import LayerProgram

TokenIds = Sequence[int]
#: Stock models that are kept, for whoever comes back to a program.
_MODELS = 8


class StockRunner:
    """Runs programs as stock models.

    Args:
        model: The frozen model, whose weights and tokenizer are used, and nothing else.
    """

    def __init__(self, model: FrozenModel) -> None:
        self._model = model
        self.tokenizer = model.tokenizer
        self._stock = lru_cache(maxsize=_MODELS)(self._materialize)

    def _materialize(self, program: LayerProgram) -> Any:
        stock = materialize(self._model.hf_model, program).eval()
        # What a checkpoint recommends for chatting (penalties, sampling) is filled in wherever nothing is said.
        stock.generation_config = GenerationConfig()
        return stock

    @property
    def end_tokens(self) -> frozenset[int]:
        """Tokens that end a generated text."""
        return self._model.end_tokens

    def reads_alike(self, length: int, longer: int) -> bool:
        """As ``FrozenModel.reads_alike``, which is a fact of the model."""
        return self._model.reads_alike(length, longer)

    @torch.inference_mode()
    def logits(
        self, token_ids: Sequence[TokenIds], programs: Sequence[LayerProgram], *, starts: Sequence[int] | None = None
    ) -> list[torch.Tensor]:
        """As ``FrozenModel.logits``: ``[T_i - start_i, vocab]`` for each row."""
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
        """As ``FrozenModel.decode``; what is said to be known already (``begun``) is written all the same."""
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
    """Ends a text where whoever reads it has read enough."""

    def __init__(self, stop: Stop, row: int, prompt: int) -> None:
        self._stop, self._row, self._prompt = stop, row, prompt

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        ended = self._stop(self._row, input_ids[0, self._prompt :].tolist())
        return torch.tensor([ended], device=input_ids.device)
