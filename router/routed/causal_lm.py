"""``RoutedCausalLM``: a frozen model that chooses its own depth, prompt by prompt, in one line.

    lm = RoutedCausalLM.from_pretrained(ROUTER, budget=0.8)
    lm.generate(["2 + 2 ="], max_new_tokens=8)
    lm.last_programs

The router decides while the prompt is read; its decisions hold for every token that follows. Underneath is
transformers' own ``generate``, so that sampling, streaming and stop strings work as usual.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, overload

import torch

from pipeline.engine.decoder_stack import DecoderStack
from pipeline.engine.loading import choose_device, choose_dtype, load_transformers
from pipeline.errors import UserError
from pipeline.program import LayerProgram, whole_layers
from pipeline.storage import PathOrUrl
from pipeline.tasks.tokens import tokens_of
from router.artifact.base_model import find_base
from router.heads.head import Head
from router.heads.selector.feedback import Feedback, append_feedback
from router.heads.selector.selector_head import SelectorHead, SelectorSteering
from router.heads.static.static_head import StaticHead, StaticSteering
from router.heads.steering import Steering
from router.probes.probe import Label, Probe
from router.routed.checkpoint import Router
from router.routed.layers import RoutedCache, steered

#: Options of ``generate`` that are refused: they would bypass the layers' decisions, or feed whole texts again.
_REFUSED = (
    "assistant_model",
    "output_attentions",
    "output_hidden_states",
    "past_key_values",
    "prefill_chunk_size",
    "prompt_lookup_num_tokens",
    "return_dict_in_generate",
    "use_cache",
)
#: A text, or its token ids.
Prompt = str | Sequence[int]
MOST_BUDGET = 2.0


class RoutedCausalLM:
    """A frozen causal language model with a router.

    Args:
        hf_model: The base model, inside the decoder-layer contract; its weights are shared, not changed.
        tokenizer: The base model's tokenizer.
        router: The router that was trained on it.
        budget: Most layers that any sequence runs, as a fraction of the depth; None for no bound.
        average: Mean layers over the held-out prompts, as a fraction of the depth; None for the likeliest programs.
        fallback: Run the router's ``fallback`` for all prompts, if it has one that the budgets allow: the static
            program that did better on held-out examples than the router.
        explore: For a selector: standard deviations by which chances are drawn around their means. 1 is Thompson
            sampling, which tries programs of which little is known, so that outcomes teach something
            (``record_outcomes``, ``train --feedback``). There is no fallback then.
        explore_seed: Seed of the draws.

    Attributes:
        base: The base model, unchanged.
        model: A transformers model of the base's class, with transformers' own ``generate``; its layers run as the
            router decides under the budget that was given here.
        last_programs: The program of each sequence of the last call.

    Raises:
        UserError: The model has other sizes than the router's base, is outside the contract, or a budget is out of
            range.
    """

    def __init__(
        self,
        hf_model: Any,
        tokenizer: Any,
        router: Router,
        *,
        budget: float | None = None,
        average: float | None = None,
        fallback: bool = True,
        explore: float = 0.0,
        explore_seed: int = 0,
    ) -> None:
        depth, hidden = hf_model.config.num_hidden_layers, hf_model.config.hidden_size
        head = router.head
        if (depth, hidden) != (head.num_layers, head.hidden_size):
            raise UserError(
                f"the router was trained on a model of {head.num_layers} layers and hidden size {head.hidden_size} "
                f"({router.base.name}), this one has {depth} and {hidden}"
            )
        self.base = hf_model
        self.tokenizer = tokenizer
        self.router = router
        self.budget = budget
        self.average = average
        if not 0 <= explore <= 10:
            raise UserError(f"explore must be from 0 to 10, got {explore:g}")
        if explore and not isinstance(head, SelectorHead):
            raise UserError(f"a router of the kind {head.name!r} cannot explore; train a selector (train --menu)")
        self._explore, self._explore_seed = explore, explore_seed
        self._fallback = router.fallback if fallback and not explore else None
        self.last_programs: list[LayerProgram] = []
        # A copy: the caller's head may be on another device.
        self._head = head.on(hf_model.device)
        self._held_out = router.held_out.numpy()
        self._switch = DecoderStack(hf_model).rope_switch
        self._steering = lru_cache(maxsize=16)(self._make_steering)
        self.model = steered(hf_model, self.steering())

    @classmethod
    def from_pretrained(
        cls,
        router: PathOrUrl,
        *,
        base: str | None = None,
        budget: float | None = None,
        average: float | None = None,
        device: str = "auto",
        dtype: str = "auto",
        fallback: bool = True,
        explore: float = 0.0,
        explore_seed: int = 0,
    ) -> RoutedCausalLM:
        """Load a router, and the base model that it names.

        Args:
            router: A folder, or a hub id.
            base: Location of the base model, if another than in training; its weights must be the same.
            budget: Most layers that any sequence runs, as a fraction of the depth; None for no bound.
            average: Mean layers, as a fraction of the depth; see the class.
            device: ``auto``, ``cpu`` or ``cuda``.
            dtype: ``auto`` (float32 on the CPU, bfloat16 on CUDA), ``float32``, ``bfloat16``, ``float16``.
            fallback: See the class.
            explore: See the class.
            explore_seed: See the class.

        Raises:
            UserError: A file is missing or damaged, or the base model is not the one that the router was trained on.
        """
        loaded = Router.load(router)
        source, on = find_base(loaded.base, base, kind="router"), choose_device(device)
        hf_model, tokenizer = load_transformers(
            source.location, device=on, dtype=choose_dtype(dtype, on), revision=source.hub_revision
        )
        return cls(
            hf_model,
            tokenizer,
            loaded,
            budget=budget,
            average=average,
            fallback=fallback,
            explore=explore,
            explore_seed=explore_seed,
        )

    def save_pretrained(self, folder: PathOrUrl) -> None:
        """Write the router to a folder; the base model stays where it is.

        Raises:
            UserError: The folder cannot be written.
        """
        self.router.save(folder)

    def push_to_hub(self, repo_id: str, *, private: bool = False) -> str:
        """Upload the router to the hub; returns its address.

        Raises:
            UserError: The hub does not take it.
        """
        import tempfile

        from huggingface_hub import HfApi

        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            try:
                address = HfApi().create_repo(repo_id, private=private, exist_ok=True)
                HfApi().upload_folder(repo_id=repo_id, folder_path=folder)
            except Exception as error:  # any failure of the network, from any library
                raise UserError(f"the hub does not take {repo_id!r}: {type(error).__name__}: {error}") from None
        return str(address)

    # -- running ---------------------------------------------------------------------------

    @overload
    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int = 32,
        budget: float | None = None,
        average: float | None = None,
        probes: None = None,
        **options: Any,
    ) -> list[str]: ...

    @overload
    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int = 32,
        budget: float | None = None,
        average: float | None = None,
        probes: Sequence[Probe],
        **options: Any,
    ) -> tuple[list[str], list[list[Label]]]: ...

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int = 32,
        budget: float | None = None,
        average: float | None = None,
        probes: Sequence[Probe] | None = None,
        **options: Any,
    ) -> list[str] | tuple[list[str], list[list[Label]]]:
        """Answer prompts, each with the program that the router chooses.

        Args:
            prompts: Texts as they are (no chat template is applied), or token ids.
            max_new_tokens: Most tokens of an answer.
            budget: For this call, instead of the model's.
            average: For this call, instead of the model's.
            probes: Probes that read the hidden states of the prompts, along the programs that the router chooses; no
                second pass runs. Put the prompts as in the probe's training (``Probe.prompt``).
            options: Options of transformers' ``generate``: ``do_sample``, ``temperature``, ``streamer``,
                ``stop_strings``, ``num_beams``, ``num_return_sequences``, ….

        Returns:
            The answers' texts, without the prompts; ``num_return_sequences`` for each prompt. With probes, also the
            label of each probe for each prompt.

        Raises:
            UserError: A prompt is empty, a budget is out of range, an option is refused, prompt
                and answer would cross the length at which the model's rotary embedding changes, or a probe was made
                for another model.
        """
        refused = [name for name in _REFUSED if name in options]
        if refused:
            raise UserError(f"a routed model's generate does not take {', '.join(refused)}")
        if max_new_tokens < 1:
            raise UserError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
        tokens = self._all_tokens(prompts)
        for probe in probes or ():
            probe.check_model(self.base)
        if not tokens:
            self.last_programs = []
            return [] if probes is None else ([], [])
        longest = max(map(len, tokens))
        if self._switch is not None and min(map(len, tokens)) <= self._switch < longest + max_new_tokens:
            raise UserError(
                f"the model's rotary embedding changes at {self._switch} tokens; prompts of up to {longest} tokens "
                f"with {max_new_tokens} new ones cross it, and their programs would have to be chosen again"
            )
        hook = _ProbeHook(probes or (), [len(row) for row in tokens])
        cache = RoutedCache(self.steering(budget, average), on_state=hook.note if probes else None)
        if "stop_strings" in options:
            options.setdefault("tokenizer", self.tokenizer)
        batch = self._padded(tokens)
        written = self.model.generate(**batch, max_new_tokens=max_new_tokens, past_key_values=cache, **options)
        # Beams of a prompt share its program.
        self._note(cache, every=max(1, cache.num_rows // len(written)))
        new: list[str] = self.tokenizer.batch_decode(written[:, longest:], skip_special_tokens=True)
        return new if probes is None else (new, hook.labels())

    @torch.inference_mode()
    def route(
        self,
        prompts: Sequence[Prompt],
        *,
        budget: float | None = None,
        average: float | None = None,
        batch_size: int = 16,
    ) -> list[LayerProgram]:
        """The programs that the router chooses, without an answer.

        Args:
            prompts: As for ``generate``.
            budget: As for ``generate``.
            average: As for ``generate``.
            batch_size: Prompts read at once; prompts of similar length share a batch.

        Returns:
            A program for each prompt.

        Raises:
            UserError: A prompt is empty, or a budget is out of range.
        """
        tokens = self._all_tokens(prompts)
        order = sorted(range(len(tokens)), key=lambda row: len(tokens[row]))
        # A batch is read with the rotary embedding of its longest text: none may cross the length where that changes.
        short = sum(self._switch is None or len(row) <= self._switch for row in tokens)
        programs: dict[int, LayerProgram] = {}
        for part in (order[:short], order[short:]):
            for start in range(0, len(part), batch_size):
                rows = part[start : start + batch_size]
                batch = self._padded([tokens[row] for row in rows])
                positions = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)  # as ``generate`` counts them
                cache = RoutedCache(self.steering(budget, average))
                self.model.model(**batch, position_ids=positions, past_key_values=cache)
                programs.update(zip(rows, self._note(cache)))
        self.last_programs = [programs[row] for row in range(len(tokens))]
        return list(self.last_programs)

    def steering(self, budget: float | None = None, average: float | None = None) -> Steering:
        """The steering under a budget and an average; by default those of the model.

        Raises:
            UserError: A budget is out of range.
        """
        return self._steering(self.budget if budget is None else budget, self.average if average is None else average)

    def record_outcomes(self, file: str | Path, prompts: Sequence[str], right: Sequence[bool | float]) -> None:
        """Append the outcomes of the last call to a file that ``train --feedback`` reads.

        Args:
            file: A file of JSON lines; a new one is made.
            prompts: The texts of the last call.
            right: For each whether its answer was right, or a score from 0 to 1.

        Raises:
            UserError: There are other numbers of prompts or outcomes than in the last call, a score is out of range, or
                the file cannot be written.
        """
        if not len(prompts) == len(right) == len(self.last_programs):
            raise UserError(
                f"{len(prompts)} prompts and {len(right)} outcomes of a call with {len(self.last_programs)} prompts"
            )
        if not all(0 <= score <= 1 for score in right):
            raise UserError("an outcome is true, false, or a score from 0 to 1")
        rows = zip(prompts, self.last_programs, right, strict=True)
        append_feedback(
            Path(file),
            [Feedback(prompt=prompt, program=program, score=float(score)) for prompt, program, score in rows],
        )

    @property
    def runs_fallback(self) -> bool:
        """Whether all prompts run the router's fallback, under the budgets that were given first."""
        return isinstance(self.steering(), StaticSteering) and not isinstance(self._head, StaticHead)

    # -- inside ----------------------------------------------------------------------------

    def _make_steering(self, budget: float | None, average: float | None) -> Steering:
        limit = limit_of(self._head, budget)
        if average is not None:
            check_average(self._head, average)
        if self._fallback is not None and _allowed(self._fallback, limit, average):
            return StaticHead(self._fallback, self._head.hidden_size).steering(self._held_out)
        steering = self._head.steering(self._held_out, limit=limit, average=average)
        if self._explore:
            assert isinstance(steering, SelectorSteering)
            return steering.exploring(self._explore, seed=self._explore_seed)
        return steering

    def _all_tokens(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        if isinstance(prompts, str):
            raise UserError("prompts are a list of texts: put one text into brackets")
        return [self._tokens(prompt) for prompt in prompts]

    def _tokens(self, prompt: Prompt) -> list[int]:
        if isinstance(prompt, str):
            tokens = tokens_of(self.tokenizer, prompt, add_special_tokens=self.router.add_special_tokens)
        else:
            tokens = list(prompt)
        if not tokens:
            raise UserError("a prompt has no tokens")
        return tokens

    def _padded(self, tokens: list[list[int]]) -> dict[str, torch.Tensor]:
        """Token ids and attention mask ``[B, T]``, padded on the left."""
        longest = max(map(len, tokens))
        padding = self.model.generation_config.pad_token_id
        padding = (self.tokenizer.pad_token_id if padding is None else padding) or 0
        ids = [[padding] * (longest - len(row)) + row for row in tokens]
        mask = [[0] * (longest - len(row)) + [1] * len(row) for row in tokens]
        device = self.model.device
        return {
            "input_ids": torch.tensor(ids, device=device),
            "attention_mask": torch.tensor(mask, device=device),
        }

    def _note(self, cache: RoutedCache, *, every: int = 1) -> list[LayerProgram]:
        self.last_programs = cache.programs[::every]
        return self.last_programs


class _ProbeHook:
    """Hands a batch's hidden states to probes while the prompts are read.

    Args:
        probes: The probes that read the states.
        lengths: Tokens of each prompt; padding is on the left.
    """

    def __init__(self, probes: Sequence[Probe], lengths: Sequence[int]) -> None:
        self._probes, self._lengths = probes, lengths
        self._taken: list[list[list[torch.Tensor]]] = [[[] for _ in probes] for _ in lengths]

    def note(self, hidden: torch.Tensor) -> None:
        """Note a layer's states ``[B, T, D]``; the beams of a prompt are adjacent and equal."""
        beams = len(hidden) // len(self._lengths)
        for state, length, taken in zip(hidden[::beams], self._lengths, self._taken):
            for probe, parts in zip(self._probes, taken):
                parts.append(probe.take(state[-length:]))

    def labels(self) -> list[list[Label]]:
        """For each prompt, the label of each probe."""
        return [[probe.label(torch.stack(parts)) for probe, parts in zip(self._probes, taken)] for taken in self._taken]


def limit_of(head: Head, budget: float | None) -> int | None:
    """The most layers that a budget allows; None for no bound.

    Raises:
        UserError: The budget is out of range, or allows fewer layers than the head needs.
    """
    if budget is None:
        return None
    if not 0 < budget <= MOST_BUDGET:
        raise UserError(f"a budget must be above 0 and at most {MOST_BUDGET:g}, got {budget:g}")
    limit = whole_layers(budget, head.num_layers)
    if limit < 1:
        raise UserError(f"a budget of {budget:g} allows less than one of the model's {head.num_layers} layers")
    if limit < head.least_layers:
        raise UserError(
            f"a budget of {budget:g} allows {limit} layers, and the shortest program of this router has "
            f"{head.least_layers} of {head.num_layers}; give a larger budget, or train a router with shorter programs"
        )
    return limit


def _allowed(program: LayerProgram, limit: int | None, average: float | None) -> bool:
    """Whether a program is within the budgets."""
    return (limit is None or len(program) <= limit) and (
        average is None or len(program) <= average * program.num_layers + 1e-9
    )


def check_average(head: Head, average: float) -> None:
    """Refuse an average that the head's programs cannot have.

    Raises:
        UserError: The average is out of range.
    """
    least = head.least_layers / head.num_layers
    if not least <= average <= MOST_BUDGET:
        raise UserError(
            f"an average must be at least {head.least_layers} of the {head.num_layers} layers "
            f"({math.ceil(1000 * least) / 1000:.3f}) and at most {MOST_BUDGET:g}, got {average:g}"
        )
