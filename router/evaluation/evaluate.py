"""Pass@1 of a routed model on examples that its routers were not trained on, beside that of other methods.

Five methods answer the same prompts, greedily: the base model; the routed one; the best single program, chosen
on training examples; a random program of the routed one's length for each example; and the search itself, which
knows the answers and is the ceiling. Other routers of the same base can be compared with the routed one.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from pipeline.distributed.actor_pool import ActorPool
from pipeline.distributed.cluster import check_output, joined_cluster
from pipeline.errors import UserError
from pipeline.program import LayerProgram
from pipeline.search.config import PRESETS
from pipeline.significance import bootstrap_interval, mcnemar
from pipeline.storage import AnyPath, is_folder, locate, uploaded
from pipeline.tasks import DataRequest, Example, Task, get_task, read_or_explain
from pipeline.tasks.prompting import PROMPT_VERSION, Prompting, today
from router.artifact.base_model import find_base, short_revision
from router.artifact.folder import EVALUATION_FILE, EVALUATION_PICTURE, weights_sha256
from router.evaluation.answering_actor import Answer, AnsweringActor, Ask
from router.evaluation.asking import Asking, answering_config
from router.evaluation.evaluate_request import EvaluateRequest
from router.evaluation.evaluation_plot import draw_evaluation
from router.evaluation.evaluation_results import (
    BASE,
    RANDOM,
    ROUTED,
    SEARCH,
    SINGLE,
    EvaluationResults,
    Result,
)
from router.evaluation.single_program import TrainingRuns, choose_single
from router.evaluation.unseen_examples import days_of, numbers_left_out, unseen_examples
from router.routed.causal_lm import check_average, limit_of
from router.routed.checkpoint import Router

#: Questions whose answers are timed.
TIMED_EXAMPLES = 16


def evaluate(
    request: EvaluateRequest,
    *,
    announce: Callable[[str], None] = lambda line: None,
    show: Callable[[str, int, int], None] = lambda method, done, total: None,
) -> EvaluationResults:
    """Evaluate a router; ``write`` keeps the results.

    Args:
        request: The router, the examples and the methods.
        announce: Receives a line for the user.
        show: Receives for each method how many of its examples are done, of how many.

    Raises:
        UserError: Something in the request is wrong.
    """
    assert request.router is not None
    router, judged = Router.load(request.router), weights_sha256(request.router, "router")
    others = _others(request, router)
    others_judged = {path.name: weights_sha256(path, "router") for path in request.against}
    if request.out is None and not is_folder(locate(request.router)):
        raise UserError(f"{request.router} is on the hub; say with --out where the results go")
    check_output(results_folder(request))
    for one in (router, *others.values()):
        limit_of(one.head, request.budget)
        if request.average is not None:
            check_average(one.head, request.average)
    curve = _reachable(request, router, announce)
    source = find_base(router.base, request.base, kind="router")
    prompting = Prompting(thinking=request.thinking, day=today())
    task = get_task(
        request.task,
        max_new_tokens=request.max_new_tokens,
        options=request.task_options,
        prompting=prompting,
    )
    read, earlier = read_requested(task, request), read_requested(task, request, prompt_version=1)
    routers = [router, *others.values()]
    trained_on = frozenset[int]().union(*(one.trained_on for one in routers))
    days = [day for one in routers for day in days_of(one)]
    examples, left_out = unseen_examples(read, earlier, task, source, trained_on=trained_on, days=days)
    training = TrainingRuns.read(_training_runs(request, router), router, announce)
    search = PRESETS["default"]["drllm"]
    prior = training.prior
    if not task.scoring.margins_compare:
        search = replace(search, margin_scale=None)
        prior = prior and replace(prior, margin_scale=None)
    with joined_cluster(request.resources, source) as placement:
        config = answering_config(
            request.task,
            source,
            examples,
            task,
            placement,
            max_new_tokens=request.max_new_tokens,
            task_options=request.task_options,
            search=replace(search, simulations=max(request.simulations, 1)),
            seed=request.seed,
        )
        announce(f"{len(examples)} examples of {request.task}{numbers_left_out(left_out)}; {placement.describe()}.")
        actors: ActorPool[Ask] = ActorPool(
            AnsweringActor, ([router, *others.values()], source, config, prior), placement.pool
        )
        with actors:
            asking = Asking(actors, show)
            depth = router.head.num_layers
            found = _evaluate(request, asking, depth, examples, training, left_out, curve=curve, others=list(others))
            return replace(found, weights_sha256=judged, other_weights_sha256=others_judged)


def _training_runs(request: EvaluateRequest, router: Router) -> list[tuple[AnyPath, str | None]]:
    """The runs of the training, each with the place of its examples; None for where the search found them.

    Raises:
        UserError: There are more or fewer places than runs.
    """
    made = router.made
    runs = [locate(run) for run in made.get("data", [])] if request.runs is None else list(request.runs)
    places: Sequence[str | None] = request.questions or (made.get("questions_at", []) if request.runs is None else [])
    if request.questions and len(request.questions) != len(runs):
        raise UserError(f"--questions must be given once for each run of the training: {len(runs)} times")
    return list(zip(runs, places if len(places) == len(runs) else [None] * len(runs), strict=True))


def _others(request: EvaluateRequest, router: Router) -> dict[str, Router]:
    """The other routers to compare with ``router``, by the names of their folders.

    Raises:
        UserError: A router cannot be read or has another base, or two folders have the same name.
    """
    others: dict[str, Router] = {}
    for path in request.against:
        other = Router.load(path)
        if other.base.revision != router.base.revision:
            raise UserError(
                f"{path} was trained on {other.base.name} (revision {short_revision(other.base.revision)}), "
                f"{request.router} on {router.base.name} ({short_revision(router.base.revision)}): "
                "they cannot be compared"
            )
        if path.name in others:
            raise UserError(f"two routers of --against are called {path.name!r}: give their folders other names")
        others[path.name] = other
    return others


def _reachable(request: EvaluateRequest, router: Router, announce: Callable[[str], None]) -> list[float]:
    """The budgets of the curve that the router can keep.

    Raises:
        UserError: A budget is out of range for every router.
    """
    least = router.head.least_layers / router.head.num_layers
    for budget in request.curve:
        if budget >= least or not budget > 0:
            limit_of(router.head, budget)
    reachable = [budget for budget in request.curve if budget >= least]
    if len(reachable) < len(request.curve):
        announce(
            f"The shortest program of this router has {router.head.least_layers} of {router.head.num_layers} layers: "
            f"budgets below {least:.3f} are left out of the curve."
        )
    return reachable


def results_folder(request: EvaluateRequest) -> AnyPath:
    """The folder of an evaluation's results."""
    return request.out or locate(request.router or ".")


def write(evaluation: EvaluationResults, folder: AnyPath) -> None:
    """Write the results and their picture.

    Raises:
        UserError: The folder cannot be written.
    """
    try:
        with uploaded(folder) as written:
            written.mkdir(parents=True, exist_ok=True)
            (written / EVALUATION_FILE).write_text(json.dumps(evaluation.to_json(), indent=1) + "\n", encoding="utf-8")
            draw_evaluation(evaluation, written / EVALUATION_PICTURE)
    except OSError as error:
        raise UserError(f"results cannot be written to {folder}: {error.strerror or error}") from None


def read_requested(task: Task, request: EvaluateRequest, *, prompt_version: int = PROMPT_VERSION) -> list[Example]:
    """The examples of a request, in the wordings of a prompt version."""
    if request.limit is not None and request.limit < 1:
        raise UserError(f"--limit must be at least 1, got {request.limit}")
    return read_or_explain(
        task,
        DataRequest(
            data=request.data,
            split=request.split,
            limit=request.limit,
            seed=request.seed,
            prompt_version=prompt_version,
        ),
    )


def _evaluate(
    request: EvaluateRequest,
    asking: Asking,
    depth: int,
    examples: list[Example],
    training: TrainingRuns,
    left_out: dict[str, int],
    *,
    curve: Sequence[float],
    others: Sequence[str],
) -> EvaluationResults:
    identity = LayerProgram.identity(depth)
    base = asking.answers(BASE, examples, programs=[identity] * len(examples))
    routed = asking.answers(ROUTED, examples, budget=request.budget, average=request.average)
    mean = float(np.mean([len(answer.program) for answer in routed]))
    results = [result_of_answers(BASE, base, base), result_of_answers(ROUTED, routed, base)]
    for number, name in enumerate(others, 1):
        answers = asking.answers(name, examples, budget=request.budget, average=request.average, router=number)
        versus = mcnemar([answer.correct for answer in routed], [answer.correct for answer in answers])
        results.append(replace(result_of_answers(name, answers, base), against=versus))
    single = choose_single(
        training,
        task=request.task,
        most=int(np.ceil(mean)),
        depth=depth,
        ask=lambda some, programs: asking.answers("choosing the single program", some, programs=programs),
    )
    if single is not None:
        answers = asking.answers(SINGLE, examples, programs=[single] * len(examples))
        results.append(result_of_answers(SINGLE, answers, base))
    rng = random.Random(f"random programs {request.seed}")
    programs = [random_program(depth, len(answer.program), rng) for answer in routed]
    results.append(result_of_answers(RANDOM, asking.answers(RANDOM, examples, programs=programs), base))
    if request.simulations:
        results.append(result_of_answers(SEARCH, asking.answers(SEARCH, examples, search=True), base))
    by_budget = {
        budget: result_of_answers(
            ROUTED, asking.answers(f"routed, budget {budget:g}", examples, budget=budget, average=request.average), base
        )
        for budget in curve
    }
    seconds = asking.times(examples[:TIMED_EXAMPLES], budget=request.budget, average=request.average)
    results[1] = replace(results[1], latency=seconds[1] / seconds[0])
    return EvaluationResults(
        results=results, curve=by_budget, questions=len(examples), left_out=left_out, num_layers=depth
    )


def result_of_answers(method: str, answers: list[Answer], base: list[Answer]) -> Result:
    """The result of a method, from its answers and the base model's to the same examples."""
    right = [answer.correct for answer in answers]
    lost, won, p_value = mcnemar([answer.correct for answer in base], right)
    return Result(
        method=method,
        accuracy=float(np.mean(right)),
        interval=bootstrap_interval(right),
        layers=float(np.mean([len(answer.program) for answer in answers])),
        lost=lost,
        won=won,
        p_value=p_value,
        programs=len({answer.program for answer in answers}),
        identity=float(np.mean([answer.program.is_identity for answer in answers])),
        answers=answers,
    )


def random_program(depth: int, length: int, rng: random.Random) -> LayerProgram:
    """A program of a given length, with random layers skipped or repeated."""
    counts = [1] * depth
    if length <= depth:
        for layer in rng.sample(range(depth), depth - length):
            counts[layer] = 0
    else:
        for layer in rng.sample(range(depth), min(length - depth, depth)):
            counts[layer] = 2
    return LayerProgram.from_counts(counts)
