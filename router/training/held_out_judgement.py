"""A trained router beside the best program that is known for all prompts, on held-out examples of its training.

A router's loss says how well it imitates labels, not whether its programs are right. Here its programs run on held-out
examples, beside the base model and the best static program; a router that is worth less than either says so, and the
better program is kept as its fallback.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np

from pipeline.distributed.actor_pool import ActorPool
from pipeline.errors import UserError
from pipeline.program import LayerProgram
from pipeline.search.config import PRESETS
from pipeline.tasks import Example, TaskOptions, get_task
from pipeline.tasks.prompting import Prompting
from router.evaluation.answering_actor import Answer, AnsweringActor, Ask
from router.evaluation.asking import Asking, answering_config
from router.heads.kind import ModelService
from router.labels.label_request import LabelRequest
from router.labels.labelled import TrainingLabels
from router.menu.candidates import SearchedRun
from router.menu.expected_labels import candidate_set
from router.routed.checkpoint import Router
from router.training.model_service import FrozenModelService


class AskedTask(Protocol):
    """The task of examples that a router is asked."""

    @property
    def task(self) -> str:
        """Its name."""
        ...

    @property
    def max_new_tokens(self) -> int | None:
        """Most tokens of a generated answer; None for the task's default."""
        ...

    @property
    def task_options(self) -> TaskOptions:
        """The task's options."""
        ...

    @property
    def prompting(self) -> Prompting:
        """The settings of the prompts."""
        ...


#: Most held-out examples that are judged: more would cost more than they say.
MOST_JUDGED = 512
ROUTER, STATIC, BASE = "router", "best static program", "base model"


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One method's result on the held-out examples.

    Attributes:
        method: Name of the method.
        right: Share of right answers.
        layers: Mean layers.
    """

    method: str
    right: float
    layers: float

    def value(self, layer_price: float) -> float:
        """Right answers an example, less the price of the layers."""
        return self.right - layer_price * self.layers


@dataclass(frozen=True, kw_only=True)
class HeldOutJudgement:
    """A router's result on held-out examples, beside those of one program for all.

    Attributes:
        examples: Number of examples.
        static: The best static program that is known, the identity program included.
        judged: The results: of the router, of the static program, and of the base model.
        layer_price: Price of a layer, in right answers an example.
    """

    examples: int
    static: LayerProgram
    judged: list[Judged]
    layer_price: float

    @property
    def best_program(self) -> LayerProgram:
        """The static program or the identity program, the better one here."""
        _, static, base = self.judged
        is_static = static.value(self.layer_price) > base.value(self.layer_price)
        return self.static if is_static else LayerProgram.identity(self.static.num_layers)

    @property
    def router_is_worse(self) -> bool:
        """Whether one program for all prompts is worth more than the router."""
        router, *others = (one.value(self.layer_price) for one in self.judged)
        return router < max(others)

    def describe(self) -> str:
        """What was found, in lines for the user."""
        lines = [f"On {self.examples} held-out examples:"]
        for one in self.judged:
            name = f"{one.method} ({self.static})" if one.method == STATIC else one.method
            lines.append(f"  {name}: {100 * one.right:.1f} % right with {one.layers:.2f} layers")
        return "\n".join(lines)

    def to_settings(self) -> dict[str, Any]:
        """The judgement as JSON values, for the router's ``config.json``."""
        return {
            "examples": self.examples,
            "static": str(self.static),
            "layer_price": self.layer_price,
            "methods": [asdict(one) for one in self.judged],
        }


def judge(
    router: Router | None,
    asked: Sequence[tuple[AskedTask, Sequence[Example]]],
    static: LayerProgram,
    service: FrozenModelService,
    *,
    layer_price: float,
    show: Callable[[str, int, int], None] = lambda method, done, total: None,
) -> HeldOutJudgement:
    """Judge a router beside a static program and the base model.

    Args:
        router: The router; None where none was trained.
        asked: The held-out examples, by their task.
        static: The best static program that is known, or the identity program.
        service: The base model at work.
        layer_price: Price of a layer, in right answers an example.
        show: Receives for each method how many of its examples are done, of how many.

    Raises:
        UserError: The model cannot be loaded.
    """
    answers: dict[str, list[Answer]] = {ROUTER: [], STATIC: [], BASE: []}
    for task, examples in asked:
        if examples:
            for method, found in _answers(router, task, examples, static, service, show).items():
                answers[method] += found
    results = [_judged(method, of_method) for method, of_method in answers.items()]
    judgement = HeldOutJudgement(examples=len(answers[BASE]), static=static, judged=results, layer_price=layer_price)
    if router is None:  # the router is then the better program
        better = results[1] if judgement.best_program == static else results[2]
        return replace(judgement, judged=[replace(better, method=ROUTER), *results[1:]])
    return judgement


def judge_on_held_out(
    router: Router | None,
    labels: TrainingLabels,
    request: LabelRequest,
    service: FrozenModelService,
    *,
    show: Callable[[str, int, int], None] = lambda method, done, total: None,
) -> HeldOutJudgement | None:
    """Judge a router on held-out examples.

    Args:
        router: The router; None where none was trained, and the best program alone is looked for.
        labels: The labels of the training, with the held-out examples.
        request: The runs, and the price of a layer.
        service: The base model at work.
        show: Receives for each method how many of its examples are done, of how many.

    Returns:
        The judgement; None where the examples cannot be read again, which is announced.

    Raises:
        UserError: The model cannot be loaded.
    """
    # By the prompt, as the split is: two runs may give one id to different examples.
    held_out = {row.prompt for row in labels.held_out}
    try:
        runs = [SearchedRun.read(path, questions=questions) for path, questions in request.sources]
    except UserError as error:
        service.announce(f"The router is not compared with one program for all prompts: {error}")
        return None
    asked = [[one for one in run.examples if one.prompt in held_out] for run in runs]
    share = min(1.0, MOST_JUDGED / max(1, sum(map(len, asked))))
    asked = [examples[: max(1, round(share * len(examples)))] for examples in asked]
    price = request.layer_price if request.labels == "expected" else 0.0
    depth = int(runs[0].rows.num_layers.iloc[0])
    static = (
        best_static(runs, service, held_out, layer_price=price)
        if request.labels == "expected"
        else LayerProgram.identity(depth)
    )
    return judge(router, list(zip(runs, asked)), static, service, layer_price=price, show=show)


def best_static(
    runs: Sequence[SearchedRun], service: ModelService, held_out: Set[str], *, layer_price: float
) -> LayerProgram:
    """Of the programs that are candidates in all runs, the one that is worth most on the training examples.

    Args:
        runs: The runs.
        service: Knows the candidates' verdicts from the labels.
        held_out: Prompts of the examples that do not count.
        layer_price: Price of a layer, in right answers an example.
    """
    right: dict[LayerProgram, list[float]] = {}
    for run in runs:
        candidates, verdicts = candidate_set(run, service, held_out=held_out)
        counts = [example.prompt not in held_out for example in run.examples]
        for program, of_program in zip(candidates, np.asarray(verdicts).T):
            right.setdefault(program, []).append(float(of_program[counts].sum()))
    training = sum(example.prompt not in held_out for run in runs for example in run.examples)
    shared = {program: sum(found) for program, found in right.items() if len(found) == len(runs)}
    return min(
        shared, key=lambda program: (layer_price * len(program) - shared[program] / max(1, training), len(program))
    )


def _answers(
    router: Router | None,
    of_task: AskedTask,
    examples: Sequence[Example],
    static: LayerProgram,
    service: FrozenModelService,
    show: Callable[[str, int, int], None],
) -> dict[str, list[Answer]]:
    """The answers of each method to the examples of a task."""
    identity = LayerProgram.identity(static.num_layers)
    with asking_of([] if router is None else [router], of_task, examples, service, show) as asking:
        base = asking.answers(BASE, examples, programs=[identity] * len(examples))
        of_static = base if static == identity else asking.answers(STATIC, examples, programs=[static] * len(examples))
        routed = of_static if router is None else asking.answers(ROUTER, examples)
    return {ROUTER: routed, STATIC: of_static, BASE: base}


@contextmanager
def asking_of(
    routers: Sequence[Router],
    of_task: AskedTask,
    examples: Sequence[Example],
    service: FrozenModelService,
    show: Callable[[str, int, int], None],
) -> Iterator[Asking]:
    """Actors with the base model and some routers, for the examples of a task."""
    source, placement = service.on_ray()
    task = get_task(
        of_task.task,
        max_new_tokens=of_task.max_new_tokens,
        options=of_task.task_options,
        prompting=of_task.prompting,
    )
    config = answering_config(
        of_task.task,
        source,
        examples,
        task,
        placement,
        max_new_tokens=of_task.max_new_tokens,
        task_options=of_task.task_options,
        search=PRESETS["default"]["drllm"],
    )
    actors: ActorPool[Ask] = ActorPool(AnsweringActor, (list(routers), source, config, None), placement.pool)
    with actors:
        yield Asking(actors, show)


def _judged(method: str, answers: Sequence[Answer]) -> Judged:
    return Judged(
        method=method,
        right=sum(answer.correct for answer in answers) / len(answers),
        layers=sum(len(answer.program) for answer in answers) / len(answers),
    )
