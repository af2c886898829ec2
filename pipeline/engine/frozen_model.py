"""A frozen language model that runs layer programs: ``logits``, ``decode`` and ``generate``.

Any mixture of prompts and programs goes in one call. A row's result does not depend, beyond rounding, on the other
rows of the call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, TypeVar, overload

import torch

from pipeline.engine.batch_limit import batch_tokens, out_of_memory
from pipeline.engine.decoder_stack import DecoderStack, refused_by_name
from pipeline.engine.greedy_decoding import Decoded, GreedyDecoding, Stop
from pipeline.engine.loading import choose_device, choose_dtype, load_transformers
from pipeline.engine.prefill import Prefill
from pipeline.engine.prefix_cache import PrefixCache
from pipeline.engine.row_checks import TokenIds, check_new_tokens, check_rows
from pipeline.engine.state_hooks import ProbeHook, StateHook, StateProbe, of_rows
from pipeline.engine.stock_check import check_against_stock, not_finite, require_finite
from pipeline.program import LayerProgram

Result = TypeVar("Result")


class FrozenModel:
    """A transformers causal language model whose layers run in any order.

    Args:
        hf_model: The model, inside the decoder-layer contract; it is put in evaluation mode.
        tokenizer: The model's tokenizer; may be None where only token ids are used.
        max_batch_tokens: Most tokens that one pass holds; longer calls are split, so memory does not grow
            with the number of rows. None: as many as the machine has room for (see ``batch_limit``). Where a
            pass runs out of memory all the same, the limit is halved until ``forget``.
        cache_bytes: Most bytes of the prefix cache, in which programs of one text that share a prefix find its
            residual stream; 0 caches nothing.

    Raises:
        UserError: The model is outside the contract, or its logits are not finite numbers in its precision.
    """

    def __init__(
        self, hf_model: Any, tokenizer: Any = None, *, max_batch_tokens: int | None = None, cache_bytes: int = 0
    ) -> None:
        self.hf_model = hf_model.eval()
        self.tokenizer = tokenizer
        #: The prefix cache.
        self.prefixes = PrefixCache(cache_bytes)
        #: Tokens of the layers that ``logits`` and ``decode`` were asked to run: each row by itself, nothing shared.
        self.tokens_asked = 0
        with refused_by_name(hf_model):
            self._most_tokens = batch_tokens(hf_model) if max_batch_tokens is None else max_batch_tokens
            self.max_batch_tokens = self._most_tokens
            self.stack = DecoderStack(hf_model)
            self._prefill = Prefill(self.stack, self.prefixes)
            check_against_stock(self.stack)

    @classmethod
    def load(
        cls,
        source: str,
        *,
        device: str = "auto",
        dtype: str = "auto",
        revision: str | None = None,
        cache_bytes: int = 0,
    ) -> FrozenModel:
        """Load a model by hub id, folder, ``.gguf`` file or embedded name (``smollm2``).

        Args:
            source: The model.
            device: ``auto``, ``cpu`` or ``cuda``.
            dtype: ``auto`` (float32 on the CPU, bfloat16 on CUDA), ``float32``, ``bfloat16``, ``float16``.
            revision: Commit on the hub.
            cache_bytes: As for the constructor.

        Raises:
            UserError: There is no such model, device or dtype, or the model is outside the contract.
        """
        on = choose_device(device)
        precision = choose_dtype(dtype, on)
        hf_model, tokenizer = load_transformers(source, device=on, dtype=precision, revision=revision)
        return cls(hf_model, tokenizer, cache_bytes=cache_bytes)

    @property
    def num_layers(self) -> int:
        """Depth L of the model."""
        return self.stack.num_layers

    @property
    def layers_run(self) -> int:
        """Layers run so far: one for each text, or new token, and layer call. Shared and cached prefixes count once."""
        return self._prefill.executor.layers_run

    @property
    def tokens_run(self) -> int:
        """Tokens of the layers that ran so far; those that texts share, and cached prefixes, count once."""
        return self._prefill.executor.tokens_run

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        device: torch.device = self.hf_model.device
        return device

    @property
    def context_length(self) -> int:
        """Most tokens of a text for which the model was trained."""
        return int(self.hf_model.config.max_position_embeddings)

    @property
    def end_tokens(self) -> frozenset[int]:
        """Tokens that end a generated text."""
        declared = self.hf_model.generation_config.eos_token_id
        if declared is None:
            return frozenset()
        return frozenset([declared] if isinstance(declared, int) else declared)

    def reads_alike(self, length: int, longer: int) -> bool:
        """Whether the first ``length`` tokens of a text of ``longer`` tokens get the states that they get alone.

        They do not where a rotary embedding changes with the text's length (Phi-3's long contexts) and the change
        lies between the two lengths.
        """
        switch = self.stack.rope_switch
        return switch is None or length > switch or longer <= switch

    def forget(self) -> None:
        """Make later results independent of all earlier calls, rounding included: empty the cache, reset the limit."""
        self.prefixes.clear()
        self.max_batch_tokens = self._most_tokens

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
            starts: First position of each row whose logits are returned; the head runs on those alone.

        Returns:
            For each row a float tensor ``[T_i - start_i, vocab]``.

        Raises:
            ValueError: Rows and programs do not match, a row is empty, or a program has another depth.
            NotFiniteError: The base model's own logits are not finite numbers.
        """
        check_rows(token_ids, programs, num_layers=self.num_layers)
        starts = [0] * len(token_ids) if starts is None else starts
        self.tokens_asked += sum(len(ids) * len(program) for ids, program in zip(token_ids, programs))

        def run(rows: list[int]) -> Sequence[torch.Tensor]:
            states = self._prefill.run(
                [token_ids[row] for row in rows], [programs[row] for row in rows], [starts[row] for row in rows]
            )
            return torch.split(self.stack.head(torch.cat(states)).float(), [len(state) for state in states])

        results = self._in_batches([len(ids) for ids in token_ids], run)
        for logits, program in zip(results, programs):
            if program.is_identity:
                require_finite(logits, self.hf_model)
        return results

    @torch.inference_mode()
    def hidden_states(
        self,
        token_ids: Sequence[TokenIds],
        programs: Sequence[LayerProgram],
        reduce: Callable[[torch.Tensor], torch.Tensor] = lambda state: state,
    ) -> list[torch.Tensor]:
        """The residual stream before and after every layer of each row's program, in one pass over its whole text.

        Args:
            token_ids: One text a row, of any lengths.
            programs: One program a row.
            reduce: From each state ``[T_i, D]`` to the part that is returned; the rest of it is freed.

        Returns:
            For each row the reduced states, ``[K + 1, …]`` for a program of K layers: what enters its first
            layer, its second, …, and what leaves its last.

        Raises:
            ValueError: As for ``logits``.
        """
        check_rows(token_ids, programs, num_layers=self.num_layers)

        def run(rows: list[int]) -> list[torch.Tensor]:
            seen: list[list[torch.Tensor]] = [[] for _ in rows]

            def on_state(indices: Sequence[int], depth: int, state: torch.Tensor) -> None:
                reduced = reduce(state)
                for index in indices:
                    assert len(seen[index]) == depth
                    seen[index].append(reduced)

            self._prefill.run(
                [token_ids[row] for row in rows], [programs[row] for row in rows], [0] * len(rows), on_state=on_state
            )
            return [torch.stack(states) for states in seen]

        return self._in_batches([len(ids) for ids in token_ids], run)

    @torch.inference_mode()
    def decode(
        self,
        token_ids: Sequence[TokenIds],
        programs: Sequence[LayerProgram],
        *,
        max_new_tokens: int,
        stop: Stop | None = None,
        begun: Sequence[TokenIds] | None = None,
        hook: StateHook | None = None,
    ) -> list[Decoded]:
        """Greedy decoding with a cache slot for each position of each program.

        New tokens that are known already, from the logits of a whole text, need not be generated again: decoding
        starts behind them, from the prefixes that are cached.

        Args:
            token_ids: One prompt a row.
            programs: One program a row, kept for every generated token.
            max_new_tokens: Most new tokens a row, those that are known included.
            stop: Ends a row early; the model's own end-of-sequence tokens always end it.
            begun: The first new tokens of each row, where they are known to be those of greedy decoding; the result
                holds them too.
            hook: Called with every state of the prompts while they are read, but for rows with known tokens.

        Raises:
            ValueError: As for ``logits``, or ``max_new_tokens`` is below 1.
            NotFiniteError: As for ``logits``.
        """
        check_rows(token_ids, programs, num_layers=self.num_layers)
        check_new_tokens(max_new_tokens)
        known: Sequence[TokenIds] = [()] * len(token_ids) if begun is None else begun

        def run(rows: list[int]) -> list[Decoded]:
            decoding = GreedyDecoding(
                self._prefill,
                [token_ids[row] for row in rows],
                [programs[row] for row in rows],
                max_new_tokens=max_new_tokens,
                ends=self.end_tokens,
                stop=None if stop is None else _stop_of_rows(stop, rows),
                begun=[known[row] for row in rows],
                on_state=None if hook is None else of_rows(hook.on_state, rows),
                every_token=hook is not None and hook.every_token,
            )
            return decoding.run()

        results = self._in_batches([len(ids) + max_new_tokens for ids in token_ids], run)
        if any(program.is_identity and math.isnan(row.gap) for program, row in zip(programs, results)):
            raise not_finite(self.hf_model)
        for ids, program, tokens, row in zip(token_ids, programs, known, results):
            # The first new token comes with the prompt; known ones were asked for when they became known.
            read = len(row.tokens) - len(tokens) if tokens else len(ids) + len(row.tokens) - 1
            self.tokens_asked += read * len(program)
        return results

    @overload
    def generate(
        self, token_ids: Sequence[TokenIds], programs: Sequence[LayerProgram], *, max_new_tokens: int = 16
    ) -> list[list[int]]: ...

    @overload
    def generate(
        self,
        token_ids: Sequence[TokenIds],
        programs: Sequence[LayerProgram],
        *,
        max_new_tokens: int = 16,
        probes: Sequence[StateProbe],
    ) -> tuple[list[list[int]], list[list[Any]]]: ...

    def generate(
        self,
        token_ids: Sequence[TokenIds],
        programs: Sequence[LayerProgram],
        *,
        max_new_tokens: int = 16,
        probes: Sequence[StateProbe] | None = None,
    ) -> list[list[int]] | tuple[list[list[int]], list[list[Any]]]:
        """The new token ids of greedy decoding, as stock ``generate(do_sample=False)`` gives them.

        Args:
            token_ids: One prompt a row.
            programs: One program a row, kept for every generated token.
            max_new_tokens: Most new tokens a row.
            probes: Probes (``router.Probe``) that label the prompts while they are read; that costs no second pass.
                The prompts should have the form of the probes' training texts (``Probe.prompt``).

        Returns:
            The new tokens; with probes, also each probe's label of each row.

        Raises:
            ValueError: As for ``decode``, or a program does not keep the layers' order and there are probes.
            UserError: A probe was made for another model.
        """
        if not probes:
            tokens = [row.tokens for row in self.decode(token_ids, programs, max_new_tokens=max_new_tokens)]
            return tokens if probes is None else (tokens, [[] for _ in tokens])
        for probe in probes:
            probe.check_model(self.hf_model)
        hook = ProbeHook(probes, programs)
        decoded = self.decode(token_ids, programs, max_new_tokens=max_new_tokens, hook=hook)
        return [row.tokens for row in decoded], hook.labels()

    # -- inside ----------------------------------------------------------------------------

    def _in_batches(self, lengths: list[int], run: Callable[[list[int]], Sequence[Result]]) -> list[Result]:
        """Run rows in batches of at most ``max_batch_tokens``, the longest first, those of a length together."""
        todo = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
        results: dict[int, Result] = {}
        while todo:
            totals = accumulate(lengths[row] for row in todo)
            rows = todo[: max(1, sum(total <= self.max_batch_tokens for total in totals))]
            try:
                results.update(zip(rows, run(rows)))
            except RuntimeError as error:
                if len(rows) == 1 or not out_of_memory(error):
                    raise
                # The batch does not fit: run it, and all that follow, in smaller ones.
                self.max_batch_tokens = sum(lengths[row] for row in rows) // 2
                self.prefixes.clear()
                continue
            todo = todo[len(rows) :]
        return [results[row] for row in range(len(lengths))]


def _stop_of_rows(stop: Stop, rows: list[int]) -> Stop:
    """The rule for a batch, whose row ``i`` is the call's row ``rows[i]``."""
    return lambda index, tokens: stop(rows[index], tokens)
