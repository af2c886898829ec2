"""The Ray actor of an evaluation: one base model with its routers; it runs programs, routes, searches or times."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

from pipeline.distributed.installation import Installation
from pipeline.distributed.model_actor import ModelActor
from pipeline.model_source import ModelSource
from pipeline.prior import Prior
from pipeline.program import LayerProgram
from pipeline.search.group_search import search_group
from pipeline.shards.run_config import RunConfig
from pipeline.tasks import Example, PreparedExample, get_task
from router.routed.checkpoint import Router

#: Tokens that are written, at most, where latencies are compared.
TIMED_TOKENS = 16


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A request to an actor: some examples, and the method that answers them.

    Attributes:
        method: The method that answers.
        examples: Examples of the task.
        programs: The program of each example; None where the routers or a search choose.
        budget: Budget of the router; see ``RoutedCausalLM``.
        average: Average of the router; see ``RoutedCausalLM``.
        router: Index of the router.
        search: Search with the reference answers, instead of routing.
        timed: Compare the time of answers, instead of scoring them.
    """

    method: str
    examples: Sequence[Example]
    programs: Sequence[LayerProgram] | None = None
    budget: float | None = None
    average: float | None = None
    router: int = 0
    search: bool = False
    timed: bool = False


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The result of one example.

    Attributes:
        example_id: Id of the example.
        program: The program that ran.
        correct: Whether the answer is right.
    """

    example_id: str
    program: LayerProgram
    correct: bool


class AnsweringActor(ModelActor):
    """One copy of the base model with its routers.

    Args:
        routers: The routers; times are measured with the first.
        source: The base model.
        config: The settings under which a search is the ceiling: model, task, device and the rest.
        prior: The prior that guides that search; None without a prior.
    """

    def __init__(self, routers: Sequence[Router], source: ModelSource, config: RunConfig, prior: Prior | None) -> None:
        super().__init__(
            source,
            device=config.device,
            dtype=config.dtype,
            threads=config.cpus_per_actor,
            cache_gib=config.cache_gib,
        )
        self._routers, self._config, self._prior = routers, config, prior
        self._task = get_task(
            config.task,
            max_new_tokens=config.max_new_tokens,
            options=config.task_options,
            prompting=config.prompting,
        )

    def load(self) -> Installation:
        """Load the model.

        Raises:
            UserError: The model cannot be loaded, or is not the router's base.
        """
        from router.routed.causal_lm import RoutedCausalLM

        runs: Installation = super().load()
        # Routers are judged, not what stands in for those that are known to be worse.
        self._routed = [
            RoutedCausalLM(self._model.hf_model, self._model.tokenizer, router, fallback=False)
            for router in self._routers
        ]
        return runs

    def work(self, ask: Ask) -> Any:
        """The answer to each example; for a timed request, the median seconds of base and routed model."""
        self._begin()
        prepared = [self._task.prepare(example, self._model.tokenizer) for example in ask.examples]
        if ask.timed:
            return self._times(ask, prepared)
        if ask.search:
            return self._search(prepared)
        programs = ask.programs
        if programs is None:
            prompts = [one.prompt_ids for one in prepared]
            programs = self._routed[ask.router].route(prompts, budget=ask.budget, average=ask.average)
        outcomes = self._task.score(self._model, prepared, programs, need_response=False)
        return [
            Answer(example_id=one.example_id, program=program, correct=outcome.correct)
            for one, program, outcome in zip(prepared, programs, outcomes)
        ]

    def _search(self, examples: Sequence[PreparedExample]) -> list[Answer]:
        searched = search_group(
            examples,
            num_layers=self._model.num_layers,
            config=self._config,
            score=partial(self._task.score, self._model),
            prior=self._prior,
        )
        answers = []
        for item in searched:
            best = item.tree.best()
            program = item.tree.identity.program if best is None else best.program
            answers.append(Answer(example_id=item.prepared.example.id, program=program, correct=best is not None))
        return answers

    def _times(self, ask: Ask, examples: Sequence[PreparedExample]) -> tuple[float, float]:
        """Median seconds of an answer of ``TIMED_TOKENS`` tokens at batch 1, base and routed model in turn."""
        import torch

        seconds: dict[str, list[float]] = {"base": [], "routed": []}
        plain: dict[str, Any] = {"max_new_tokens": TIMED_TOKENS, "min_new_tokens": TIMED_TOKENS}

        def base(ids: torch.Tensor) -> None:
            self._model.hf_model.generate(ids, attention_mask=torch.ones_like(ids), **plain)

        def routed(ids: torch.Tensor) -> None:
            self._routed[ask.router].generate(ids.tolist(), budget=ask.budget, average=ask.average, **plain)

        with torch.inference_mode():
            # The first example runs twice: the setup of a first call is not timed.
            for turn, example in enumerate([examples[0], *examples]):
                ids = torch.tensor([example.prompt_ids], device=self._model.device)
                for answer in (base, routed) if turn % 2 else (routed, base):
                    began = time.perf_counter()
                    answer(ids)
                    if turn:
                        seconds[answer.__name__].append(time.perf_counter() - began)
        return median(seconds["base"]), median(seconds["routed"])
