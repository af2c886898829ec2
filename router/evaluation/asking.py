"""The driver's side of an evaluation: what the actors are configured with, and how they are asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipeline.distributed.actor_pool import ActorPool
from pipeline.distributed.cluster import Placement
from pipeline.model_source import ModelSource
from pipeline.program import LayerProgram
from pipeline.search.config import SearchConfig
from pipeline.shards.run_config import RunConfig, fingerprint
from pipeline.tasks import Example, Task, TaskOptions
from router.evaluation.answering_actor import Answer, Ask

#: Examples that an actor is handed at once.
GROUP = 16


def answering_config(
    name: str,
    source: ModelSource,
    examples: Sequence[Example],
    task: Task,
    placement: Placement,
    *,
    max_new_tokens: int | None,
    task_options: TaskOptions,
    search: SearchConfig,
    seed: int = 0,
) -> RunConfig:
    """The settings under which actors answer, and search where a search is the ceiling.

    Args:
        name: The name by which the actors find the task.
        source: The base model.
        examples: The examples.
        task: Their task.
        placement: Where the actors run.
        max_new_tokens: Most tokens of a generated answer; None for the task's default.
        task_options: The task's options.
        search: Configuration of the search.
        seed: Seed of the search.
    """
    return RunConfig(
        model=source,
        task=name,
        data_sha256=fingerprint(list(examples)),
        max_new_tokens=max_new_tokens,
        prompt_version=task.prompting.version,
        thinking=task.prompting.thinking,
        day=task.prompting.day,
        task_options=task_options,
        search=search,
        seed=seed,
        device=placement.device,
        dtype=placement.dtype,
        cpus_per_actor=placement.pool.cpus_per_actor,
        leaves=task.scoring.leaves,
    )


class Asking:
    """Sends prompts to the actors, and puts the answers in order.

    Args:
        actors: The actors.
        show: Receives the name of a method, how many of its examples are done, and of how many.
    """

    def __init__(self, actors: ActorPool[Ask], show: Callable[[str, int, int], None]) -> None:
        self._show = show
        self._actors = actors

    def answers(
        self,
        method: str,
        examples: Sequence[Example],
        *,
        programs: Sequence[LayerProgram] | None = None,
        budget: float | None = None,
        average: float | None = None,
        search: bool = False,
        router: int = 0,
    ) -> list[Answer]:
        """A method's answers, in the order of the examples."""
        # Questions behind the same worked examples are asked together: what they share runs once.
        alike = sorted(range(len(examples)), key=lambda index: examples[index].question)
        asks: dict[int, list[int]] = {}
        requests = []
        for start in range(0, len(examples), GROUP):
            indices = alike[start : start + GROUP]
            ask = Ask(
                method=method,
                examples=[examples[index] for index in indices],
                programs=None if programs is None else [programs[index] for index in indices],
                budget=budget,
                average=average,
                search=search,
                router=router,
            )
            asks[id(ask)] = indices
            requests.append(ask)
        found: dict[int, Answer] = {}
        for ask, answers in self._actors.map(requests):
            found.update(zip(asks[id(ask)], answers, strict=True))
            self._show(method, len(found), len(examples))
        return [found[index] for index in range(len(examples))]

    def times(self, examples: Sequence[Example], *, budget: float | None, average: float | None) -> tuple[float, float]:
        """Median seconds of an answer, of the base model and of the routed one."""
        ask = Ask(method="latency", examples=examples, budget=budget, average=average, timed=True)
        [(_, seconds)] = list(self._actors.map([ask]))
        base, routed = seconds
        return float(base), float(routed)
