"""A frozen language model that runs layer programs: ``logits``, ``decode`` and ``generate``.

Any mixture of prompts and programs goes in one call. Results do not depend, beyond rounding, on what
else is in the call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pipeline.engine.contract import DecoderStack, check_against_stock
from pipeline.engine.execute import run_programs
from pipeline.engine.kv import KVSlots
from pipeline.engine.loading import choose_device, choose_dtype, load_transformers
from pipeline.engine.prefixes import PrefixCache
from pipeline.program import LayerProgram

TokenIds = Sequence[int]

#: How far the identity program may be from the stock model, relative to the largest logit.
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 1e-1, torch.float16: 2e-2}


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoded:
    """What greedy decoding gave for one row.

    Attributes:
        tokens: The new token ids, the end-of-sequence token included where it came.
        gap: The smallest distance between a chosen token's logit and the runner-up's on the way: how
            far the logits are from another answer.
        passes: Forward passes made: one for the prompt and one for each further token.
    """

    tokens: list[int]
    gap: float
    passes: int


class FrozenModel:
    """A transformers causal language model whose layers run in any order.

    Args:
        hf_model: The model, inside the decoder-layer contract; it is put in evaluation mode.
        tokenizer: Its tokenizer; may be None where only token ids are used.
        max_batch_tokens: Most tokens, padding included, that one pass holds; longer calls are split,
            so memory does not grow with the number of rows.
        prefix_cache_bytes: Most bytes in which ``logits`` keeps residual streams, so that programs of one
            text that begin alike run their beginning once; 0 keeps nothing. See ``prefixes``.

    Raises:
        UserError: The model is outside the contract.
    """

    def __init__(
        self, hf_model: Any, tokenizer: Any = None, *, max_batch_tokens: int = 8192, prefix_cache_bytes: int = 0
    ) -> None:
        self.hf_model = hf_model.eval()
        self.tokenizer = tokenizer
        self.max_batch_tokens = max_batch_tokens
        #: What ``logits`` has kept; ``prefixes.clear()`` makes it forget.
        self.prefixes = PrefixCache(prefix_cache_bytes)
        self.stack = DecoderStack(hf_model)
        identity = LayerProgram.identity(self.num_layers)
        check_against_stock(
            hf_model,
            lambda probe: self.logits([probe], [identity])[0],
            tolerance=_TOLERANCE.get(hf_model.dtype, 1e-3),
        )

    @classmethod
    def load(
        cls,
        source: str,
        *,
        device: str = "auto",
        dtype: str = "auto",
        revision: str | None = None,
        prefix_cache_bytes: int = 0,
    ) -> FrozenModel:
        """Load a model by hub id, folder, ``.gguf`` file or embedded name (``smollm2``).

        Args:
            source: Which model.
            device: ``auto``, ``cpu`` or ``cuda``.
            dtype: ``auto`` (float32 on the CPU, bfloat16 on CUDA), ``float32``, ``bfloat16``, ``float16``.
            revision: Commit on the hub.
            prefix_cache_bytes: As for the constructor.

        Raises:
            UserError: There is no such model, device or dtype, or the model is outside the contract.
        """
        place = choose_device(device)
        precision = choose_dtype(dtype, place)
        hf_model, tokenizer = load_transformers(source, device=place, dtype=precision, revision=revision)
        return cls(hf_model, tokenizer, prefix_cache_bytes=prefix_cache_bytes)

    @property
    def num_layers(self) -> int:
        """Depth L."""
        return self.stack.num_layers

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.hf_model.device
        return device

    @property
    def context_length(self) -> int:
        """Most tokens of a text that the model was made for."""
        return int(self.hf_model.config.max_position_embeddings)

    @property
    def end_tokens(self) -> frozenset[int]:
        """Tokens that end a generated text."""
        declared = self.hf_model.generation_config.eos_token_id
        if declared is None:
            return frozenset()
        return frozenset([declared] if isinstance(declared, int) else declared)

    # -- running programs ------------------------------------------------------------------

    @torch.inference_mode()
    def logits(
        self,
        token_ids: Sequence[TokenIds],
        programs: Sequence[LayerProgram],
        *,
        starts: Sequence[int] | None = None,
    ) -> list[torch.Tensor]:
        """Logits of each row under its program, in one pass over its whole text.

        Args:
            token_ids: One text a row, of any lengths.
            programs: One program a row.
            starts: First position of each row whose logits are wanted; the head runs on those alone.

        Returns:
            For each row a float tensor ``[T_i - start_i, vocab]``.

        Raises:
            ValueError: Rows and programs do not match, a row is empty, or a program has another depth.
        """
        self._check(token_ids, programs)
        starts = [0] * len(token_ids) if starts is None else starts
        results: list[torch.Tensor | None] = [None] * len(token_ids)
        for rows in self._batches([len(ids) for ids in token_ids]):
            batch = [token_ids[row] for row in rows]
            hidden = self._prefill(batch, [programs[row] for row in rows])
            wanted = torch.cat([hidden[i, starts[row] : len(ids)] for i, (row, ids) in enumerate(zip(rows, batch))])
            sizes = [len(ids) - starts[row] for row, ids in zip(rows, batch)]
            for row, part in zip(rows, torch.split(self.stack.head(wanted).float(), sizes)):
                results[row] = part
        return [result for result in results if result is not None]

    @torch.inference_mode()
    def decode(
        self,
        token_ids: Sequence[TokenIds],
        programs: Sequence[LayerProgram],
        *,
        max_new_tokens: int,
        stop: Callable[[list[int]], bool] | None = None,
    ) -> list[Decoded]:
        """Greedy decoding with a cache slot for each position of each program.

        Args:
            token_ids: One prompt a row.
            programs: One program a row, kept for every generated token.
            max_new_tokens: Most new tokens a row.
            stop: Given a row's new tokens so far, whether to end it; the model's own end-of-sequence
                tokens always do.

        Raises:
            ValueError: As for ``logits``, or ``max_new_tokens`` is below 1.
        """
        self._check(token_ids, programs)
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
        results: list[Decoded | None] = [None] * len(token_ids)
        for rows in self._batches([len(ids) + max_new_tokens for ids in token_ids]):
            decoded = self._decode_batch(
                [token_ids[row] for row in rows], [programs[row] for row in rows], max_new_tokens, stop
            )
            for row, result in zip(rows, decoded):
                results[row] = result
        return [result for result in results if result is not None]

    def generate(
        self, token_ids: Sequence[TokenIds], programs: Sequence[LayerProgram], *, max_new_tokens: int = 16
    ) -> list[list[int]]:
        """The new token ids of greedy decoding, as stock ``generate(do_sample=False)`` gives them.

        Raises:
            ValueError: As for ``decode``.
        """
        return [row.tokens for row in self.decode(token_ids, programs, max_new_tokens=max_new_tokens)]

    # -- inside ----------------------------------------------------------------------------

    def _check(self, token_ids: Sequence[TokenIds], programs: Sequence[LayerProgram]) -> None:
        if len(token_ids) != len(programs):
            raise ValueError(f"{len(token_ids)} rows of tokens but {len(programs)} programs: one program a row")
        for row, (ids, program) in enumerate(zip(token_ids, programs)):
            if len(ids) == 0:
                raise ValueError(f"row {row} has no tokens")
            if program.num_layers != self.num_layers:
                raise ValueError(
                    f"the program of row {row} is for {program.num_layers} layers, the model has {self.num_layers}"
                )

    def _batches(self, lengths: list[int]) -> Iterator[list[int]]:
        """Rows in batches of like length, each at most ``max_batch_tokens`` with its padding."""
        batch: list[int] = []
        for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
            if batch and (len(batch) + 1) * lengths[batch[0]] > self.max_batch_tokens:
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    def _prefill(
        self,
        token_ids: list[TokenIds],
        programs: list[LayerProgram],
        *,
        slots: KVSlots | None = None,
        slot_rows: list[int] | None = None,
    ) -> torch.Tensor:
        """Whole texts' residual streams before the final norm, ``[B, T, D]``, padded at the right.

        Without slots to fill, each row starts from the longest beginning of its program that was kept.
        """
        lengths = [len(ids) for ids in token_ids]
        extent = max(lengths)
        # Padding lies behind the text, where causal attention never looks; any valid id will do.
        padded = [[int(token) for token in ids] + [0] * (extent - len(ids)) for ids in token_ids]
        positions = torch.arange(extent, device=self.device).expand(len(padded), extent)
        hidden = self.stack.embed(torch.tensor(padded, device=self.device))
        sharing = slots is None and self.prefixes.max_bytes > 0
        done = [0] * len(padded)
        if sharing:
            for row, (ids, program) in enumerate(zip(token_ids, programs)):
                done[row], state = self.prefixes.longest(ids, program.layers)
                if state is not None:
                    hidden[row, : len(ids)] = state

        def keep(row: int, layers_run: int, state: torch.Tensor) -> None:
            text = token_ids[row]
            self.prefixes.keep(text, programs[row].layers[:layers_run], state[: len(text)])

        return run_programs(
            self.stack,
            hidden,
            programs,
            positions=positions,
            lengths=lengths,
            extent=extent,
            slots=slots,
            slot_rows=slot_rows,
            done=done,
            on_layer=keep if sharing else None,
        )

    def _run_newest(
        self, texts: list[list[int]], programs: list[LayerProgram], slots: KVSlots, slot_rows: list[int]
    ) -> torch.Tensor:
        """The residual streams of each text's last token, ``[B, D]``; the slots hold all before it."""
        positions = [len(text) - 1 for text in texts]
        return run_programs(
            self.stack,
            self.stack.embed(torch.tensor([[text[-1]] for text in texts], device=self.device)),
            programs,
            positions=torch.tensor([[position] for position in positions], device=self.device),
            lengths=[1] * len(texts),
            extent=max(positions) + 1,
            slots=slots,
            slot_rows=slot_rows,
        )[:, 0]

    def _decode_batch(
        self,
        prompts: list[TokenIds],
        programs: list[LayerProgram],
        max_new_tokens: int,
        stop: Callable[[list[int]], bool] | None,
    ) -> list[Decoded]:
        lengths = [len(ids) for ids in prompts]
        slots = KVSlots(
            num_slots=max(len(program) for program in programs),
            num_rows=len(prompts),
            max_tokens=max(lengths) + max_new_tokens,
        )
        ends = self.end_tokens
        tokens: list[list[int]] = [[] for _ in prompts]
        gaps = [float("inf")] * len(prompts)
        active = list(range(len(prompts)))

        hidden = self._prefill(prompts, programs, slots=slots)
        last = torch.stack([hidden[row, length - 1] for row, length in enumerate(lengths)])
        while True:
            top = self.stack.head(last).float().topk(2, dim=-1)
            chosen = top.indices[:, 0].tolist()
            distance = (top.values[:, 0] - top.values[:, 1]).tolist()
            going = []
            for row, token, gap in zip(active, chosen, distance):
                tokens[row].append(token)
                gaps[row] = min(gaps[row], gap)
                ended = token in ends or len(tokens[row]) == max_new_tokens
                if not ended and not (stop is not None and stop(tokens[row])):
                    going.append(row)
            active = going
            if not active:
                break
            texts = {row: [*prompts[row], *tokens[row]] for row in active}
            # A text that outgrows the rotary embedding of its prompt is read anew from its beginning.
            outgrown = {row for row in active if len(texts[row]) - 1 == self.stack.rope_switch}
            states = {
                row: self._prefill([texts[row]], [programs[row]], slots=slots, slot_rows=[row])[0, -1]
                for row in outgrown
            }
            going = [row for row in active if row not in outgrown]
            if going:
                newest = self._run_newest([texts[row] for row in going], [programs[row] for row in going], slots, going)
                states.update(zip(going, newest))
            last = torch.stack([states[row] for row in active])
        return [Decoded(tokens=row_tokens, gap=gap, passes=len(row_tokens)) for row_tokens, gap in zip(tokens, gaps)]
