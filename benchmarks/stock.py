"""Stock transformers behind the interface that scorings use: the engine is measured against it.

A program becomes an ordinary model by ``materialize``, and its ``forward`` and ``generate`` do the rest:
nothing is shared between programs, and rows of different programs never meet in a pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from pipeline.engine import FrozenModel, materialize
from pipeline.engine.greedy_decoding import Decoded, Stop
from pipeline.engine.row_checks import TokenIds, check_new_tokens, check_rows
from pipeline.program import LayerProgram


class StockModels:
    """The stock model of each program; made at the first request, and kept.

    Args:
        model: The frozen model whose weights they share.
    """

    def __init__(self, model: FrozenModel) -> None:
        self._model = model
        self._made: dict[LayerProgram, Any] = {}

    def of(self, program: LayerProgram) -> Any:
        """The stock transformers model of a program's layers."""
        if program not in self._made:
            self._made[program] = materialize(self._model.hf_model, program)
        return self._made[program]


class StockEngine:
    """Runs programs by stock ``forward`` and ``generate``; stands in for a ``FrozenModel`` in a scoring.

    Args:
        model: The frozen model.
        stocks: The stock models, one for each program.
        batched: Whether the rows of one program share a padded pass; otherwise each row runs alone.
    """

    def __init__(self, model: FrozenModel, stocks: StockModels, *, batched: bool) -> None:
        self.tokenizer = model.tokenizer
        self.end_tokens = model.end_tokens
        self.reads_alike = model.reads_alike
        self._num_layers = model.num_layers
        self._device = model.device
        self._stocks = stocks
        self._batched = batched

    @torch.inference_mode()
    def logits(
        self, token_ids: Sequence[TokenIds], programs: Sequence[LayerProgram], *, starts: Sequence[int]
    ) -> list[torch.Tensor]:
        """As ``FrozenModel.logits``: one forward without a cache, the head on the wanted positions alone."""
        check_rows(token_ids, programs, num_layers=self._num_layers)
        results: dict[int, torch.Tensor] = {}
        for program, rows in self._batches(programs):
            ids, mask = self._padded([token_ids[row] for row in rows], left=False)
            stock = self._stocks.of(program)
            # Behind right padding the wanted positions of two rows differ, which `logits_to_keep` cannot say.
            hidden = stock.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            wanted = [hidden[index, starts[row] : len(token_ids[row])] for index, row in enumerate(rows)]
            logits = stock.get_output_embeddings()(torch.cat(wanted)).float()
            results.update(zip(rows, torch.split(logits, [len(part) for part in wanted])))
        return [results[row] for row in range(len(token_ids))]

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
        """As ``FrozenModel.decode``, by stock ``generate``, which writes every text from its prompt on."""
        check_rows(token_ids, programs, num_layers=self._num_layers)
        check_new_tokens(max_new_tokens)
        results: dict[int, Decoded] = {}
        for program, rows in self._batches(programs):
            ids, mask = self._padded([token_ids[row] for row in rows], left=True)
            ending = _Ending(rows, self.end_tokens, ids.shape[1], stop)
            written = self._stocks.of(program).generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                use_cache=True,
                pad_token_id=min(self.end_tokens, default=0),
                stopping_criteria=StoppingCriteriaList([ending]),
                return_dict_in_generate=True,
                output_logits=True,
            )
            top = torch.stack([logits.topk(2, dim=-1).values for logits in written.logits])
            gaps = top[..., 0] - top[..., 1]
            for index, row in enumerate(rows):
                tokens = written.sequences[index, ids.shape[1] :][: ending.lengths.get(index)].tolist()
                gap = float(gaps[: len(tokens), index].min())
                results[row] = Decoded(tokens=tokens, gap=gap, passes=len(tokens))
        return [results[row] for row in range(len(token_ids))]

    # -- inside ----------------------------------------------------------------------------

    def _batches(self, programs: Sequence[LayerProgram]) -> list[tuple[LayerProgram, list[int]]]:
        """The rows of each pass, with their program."""
        if not self._batched:
            return [(program, [row]) for row, program in enumerate(programs)]
        rows_of: dict[LayerProgram, list[int]] = {}
        for row, program in enumerate(programs):
            rows_of.setdefault(program, []).append(row)
        return list(rows_of.items())

    def _padded(self, rows: Sequence[TokenIds], *, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and their mask, ``[B, T]`` both."""
        longest = max(map(len, rows))
        pads = [[0] * (longest - len(row)) for row in rows]
        ids = [[*pad, *row] if left else [*row, *pad] for pad, row in zip(pads, rows)]
        ones = [[1] * len(row) for row in rows]
        mask = [[*pad, *one] if left else [*one, *pad] for pad, one in zip(pads, ones)]
        return torch.tensor(ids, device=self._device), torch.tensor(mask, device=self._device)


class _Ending(StoppingCriteria):  # type: ignore[misc]
    """Ends each row of ``generate`` where a scoring does, and notes the row's number of tokens.

    Args:
        rows: The call's rows in this batch.
        end_tokens: Tokens that end a row in any case.
        prompt_length: Tokens before the first new one.
        stop: Ends a row early.
    """

    def __init__(self, rows: list[int], end_tokens: frozenset[int], prompt_length: int, stop: Stop | None) -> None:
        self.lengths: dict[int, int] = {}
        self._rows = rows
        self._end_tokens = end_tokens
        self._prompt_length = prompt_length
        self._stop = stop

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        for index, row in enumerate(self._rows):
            if index not in self.lengths:
                tokens = input_ids[index, self._prompt_length :].tolist()
                if tokens[-1] in self._end_tokens or (self._stop is not None and self._stop(row, tokens)):
                    self.lengths[index] = len(tokens)
        return torch.tensor([index in self.lengths for index in range(len(self._rows))], device=input_ids.device)
