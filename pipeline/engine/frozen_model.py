"""A frozen language model that runs layer programs: ``logits``, ``decode`` and ``generate``.

Any mixture of prompts and programs goes in one call. Results do not depend, beyond rounding, on what
else is in the call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from typing import Any, TypeVar, overload

import torch

from pipeline.engine.batch_limit import batch_tokens, out_of_memory
from pipeline.engine.decoder_stack import DecoderStack, check_against_stock
from pipeline.engine.greedy_decoding import Decoded, GreedyDecoding, Stop
from pipeline.engine.loading import choose_device, choose_dtype, load_transformers
from pipeline.engine.prefill import Reader
from pipeline.engine.prefix_cache import PrefixCache
from pipeline.engine.state_hooks import PromptStates, StateProbe
from pipeline.program import LayerProgram

TokenIds = Sequence[int]
Result = TypeVar("Result")

#: How far the identity program may be from the stock model, relative to the largest logit.
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 1e-1, torch.float16: 2e-2}


class FrozenModel:
    """A transformers causal language model whose layers run in any order.

    Args:
        hf_model: The model, inside the decoder-layer contract; it is put in evaluation mode.
        tokenizer: Its tokenizer; may be None where only token ids are used.
        max_batch_tokens: Most tokens that one pass holds; longer calls are split, so memory does not grow
            with the number of rows. None: as many as the machine has room for (see ``memory``). Where a
            pass finds no room all the same, it is halved until ``forget``.
        cache_bytes: Most bytes in which ``logits`` keeps residual streams, so that programs of one
            text that begin alike run their beginning once; 0 keeps nothing. See ``prefixes``.

    Raises:
        UserError: The model is outside the contract.
    """

    def __init__(
        self, hf_model: Any, tokenizer: Any = None, *, max_batch_tokens: int | None = None, cache_bytes: int = 0
    ) -> None:
        self.hf_model = hf_model.eval()
        self.tokenizer = tokenizer
        self._most_tokens = batch_tokens(hf_model) if max_batch_tokens is None else max_batch_tokens
        self.max_batch_tokens = self._most_tokens
        #: What ``logits`` has kept.
        self.prefixes = PrefixCache(cache_bytes)
        self.stack = DecoderStack(hf_model)
        self._reader = Reader(self.stack, self.prefixes)
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
        cache_bytes: int = 0,
    ) -> FrozenModel:
        """Load a model by hub id, folder, ``.gguf`` file or embedded name (``smollm2``).

        Args:
            source: Which model.
            device: ``auto``, ``cpu`` or ``cuda``.
            dtype: ``auto`` (float32 on the CPU, bfloat16 on CUDA), ``float32``, ``bfloat16``, ``float16``.
            revision: Commit on the hub.
            cache_bytes: As for the constructor.

        Raises:
            UserError: There is no such model, device or dtype, or the model is outside the contract.
        """
        place = choose_device(device)
        precision = choose_dtype(dtype, place)
        hf_model, tokenizer = load_transformers(source, device=place, dtype=precision, revision=revision)
        return cls(hf_model, tokenizer, cache_bytes=cache_bytes)

    @property
    def num_layers(self) -> int:
        """Depth L."""
        return self.stack.num_layers

    @property
    def layers_run(self) -> int:
        """Layers run so far, one a text (or row of new tokens) and call: what sharing leaves to run."""
        return self._reader.executor.layers_run

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

    def reads_alike(self, length: int, longer: int) -> bool:
        """Whether a text of so many tokens is read in a longer one as it is read alone.

        Not where a rotary embedding changes with the length (Phi-3's long contexts) and the change lies between.
        """
        switch = self.stack.rope_switch
        return switch is None or length > switch or longer <= switch

    def forget(self) -> None:
        """Make what comes next depend on nothing that came before, rounding included."""
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
            starts: First position of each row whose logits are wanted; the head runs on those alone.

        Returns:
            For each row a float tensor ``[T_i - start_i, vocab]``.

        Raises:
            ValueError: Rows and programs do not match, a row is empty, or a program has another depth.
        """
        self._check(token_ids, programs)
        starts = [0] * len(token_ids) if starts is None else starts

        def run(rows: list[int]) -> Sequence[torch.Tensor]:
            states = self._reader.read(
                [token_ids[row] for row in rows], [programs[row] for row in rows], [starts[row] for row in rows]
            )
            return torch.split(self.stack.head(torch.cat(states)).float(), [len(state) for state in states])

        return self._in_batches([len(ids) for ids in token_ids], run)

    @torch.inference_mode()
    def hidden_states(
        self,
        token_ids: Sequence[TokenIds],
        programs: Sequence[LayerProgram],
        reduce: Callable[[torch.Tensor], torch.Tensor] = lambda state: state,
    ) -> list[torch.Tensor]:
        """The residual stream on each row's way through its program, in one pass over its whole text.

        Args:
            token_ids: One text a row, of any lengths.
            programs: One program a row.
            reduce: What is made of each state ``[T_i, D]``; everything else of it is forgotten.

        Returns:
            For each row the reduced states, ``[K + 1, …]`` for a program of K layers: what enters its first
            layer, its second, …, and what leaves its last.

        Raises:
            ValueError: As for ``logits``.
        """
        self._check(token_ids, programs)

        def run(rows: list[int]) -> list[torch.Tensor]:
            seen: list[list[torch.Tensor]] = [[] for _ in rows]

            def note(places: Sequence[int], depth: int, state: torch.Tensor) -> None:
                reduced = reduce(state)
                for place in places:
                    assert len(seen[place]) == depth
                    seen[place].append(reduced)

            self._reader.read(
                [token_ids[row] for row in rows], [programs[row] for row in rows], [0] * len(rows), on_state=note
            )
            return [torch.stack(states) for states in seen]

        return self._in_batches([len(ids) for ids in token_ids], run)

    def decode(
        self,
        token_ids: Sequence[TokenIds],
        programs: Sequence[LayerProgram],
        *,
        max_new_tokens: int,
        stop: Stop | None = None,
        begun: Sequence[TokenIds] | None = None,
    ) -> list[Decoded]:
        """Greedy decoding with a cache slot for each position of each program.

        What ``logits`` has told of a row's greedy text need not be written again: decoding starts behind
        it, from what is kept of its reading.

        Args:
            token_ids: One prompt a row.
            programs: One program a row, kept for every generated token.
            max_new_tokens: Most new tokens a row, those that are known included.
            stop: Ends a row early; the model's own end-of-sequence tokens always end it.
            begun: The first new tokens of each row, where they are known to be what greedy decoding
                writes; they are given back with the others.

        Raises:
            ValueError: As for ``logits``, or ``max_new_tokens`` is below 1.
        """
        return self._decode(token_ids, programs, max_new_tokens=max_new_tokens, stop=stop, begun=begun)

    @torch.inference_mode()
    def _decode(
        self,
        token_ids: Sequence[TokenIds],
        programs: Sequence[LayerProgram],
        *,
        max_new_tokens: int,
        stop: Stop | None = None,
        begun: Sequence[TokenIds] | None = None,
        watched: PromptStates | None = None,
        whole: bool = False,
    ) -> list[Decoded]:
        """``decode``, with someone who looks on while prompts are read."""
        self._check(token_ids, programs)
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
        known: Sequence[TokenIds] = [()] * len(token_ids) if begun is None else begun

        def run(rows: list[int]) -> list[Decoded]:
            decoding = GreedyDecoding(
                self._reader,
                [token_ids[row] for row in rows],
                [programs[row] for row in rows],
                max_new_tokens=max_new_tokens,
                ends=self.end_tokens,
                stop=stop and partial(_by_place, stop, rows),
                begun=[known[row] for row in rows],
                on_state=None if watched is None else partial(_note_by_place, watched, rows),
                whole=whole,
            )
            decoded = decoding.run()
            if watched is not None:
                watched.finish(rows)
            return decoded

        return self._in_batches([len(ids) + max_new_tokens for ids in token_ids], run)

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
            probes: Who looks on while the prompts are read; that costs no second pass. See ``router.Probe``: the
                prompts should have the form that its texts were given in training (``Probe.prompt``).

        Returns:
            The new tokens; with probes, also what each of them says of each row.

        Raises:
            ValueError: As for ``decode``, or a program does not keep the layers' order and there are probes.
            UserError: A probe was made for another model.
        """
        if not probes:
            decoded = self.decode(token_ids, programs, max_new_tokens=max_new_tokens)
            tokens = [row.tokens for row in decoded]
            return tokens if probes is None else (tokens, [[] for _ in tokens])
        for probe in probes:
            probe.check_model(self.hf_model)
        watched = PromptStates(probes, programs)
        whole = any(probe.whole for probe in probes)
        decoded = self._decode(token_ids, programs, max_new_tokens=max_new_tokens, watched=watched, whole=whole)
        return [row.tokens for row in decoded], watched.labels()

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
                # One that is too large here: everything from now on goes in smaller ones.
                self.max_batch_tokens = sum(lengths[row] for row in rows) // 2
                self.prefixes.clear()
                continue
            todo = todo[len(rows) :]
        return [results[row] for row in range(len(lengths))]


def _note_by_place(
    watched: PromptStates, rows: list[int], places: Sequence[int], depth: int, state: torch.Tensor
) -> None:
    """Tell of a batch's rows by their numbers in the call."""
    watched.note([rows[place] for place in places], depth, state)


def _by_place(stop: Stop, rows: list[int], place: int, tokens: list[int]) -> bool:
    """Ask about a call's row by its place in a batch."""
    return stop(rows[place], tokens)
