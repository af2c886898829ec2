"""The workloads: three tasks, their examples, and the number of programs in flight.

Examples come from real files where they are given. Otherwise they are made from a seed, in the data
set's own schema and as long as its examples, and read by the task's own reader.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.model_source import ModelSource
from pipeline.search.config import PUBLISHED, SearchConfig
from pipeline.shards.run_config import RunConfig, fingerprint
from pipeline.tasks import DataRequest, Example, Task, TaskOptions, get_task
from pipeline.tasks.arithmetic_kinds import FORMER_KINDS
from pipeline.tasks.scoring.graded import Graded
from pipeline.tasks.scoring.math_grader import MathGrader

#: Processes that search at once, a core each; a workload has as many groups of examples.
NUM_PROCESSES = 2
#: The published constants on a tree that branches, to its end: plain UCB, without priors.
PLAIN_UCB = replace(PUBLISHED["drllm"], widening=2.0, stop_when_found=False)
#: The search whose programs are run.
SEARCH = PLAIN_UCB

#: Kinds of arithmetic examples on which searches are compared.
KINDS = ("times-table", "sums")
_ALL = 10_000

_MANY = 64


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The model that is measured, and its device and precision.

    Attributes:
        source: The model.
        device: ``cpu`` or ``cuda``.
        dtype: Precision of its weights.
    """

    source: ModelSource
    device: str = "cpu"
    dtype: str = "float32"


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A task with its examples, and the number of programs that run.

    Attributes:
        name: Name of the workload, a part of its figures' keys.
        task: The task's name.
        max_new_tokens: Most tokens of an answer; None for the task's own default.
        examples: The examples, a group for each process.
        leaves: Programs that a tree proposes at once.
        simulations: Programs tried for each example.
        released_pairs: Examples with a program that the released search is given.
        single_pass_pairs: Pairs of example and program of the single-pass baseline.
        shared_programs: Programs that program-major runs on every example.
    """

    name: str
    task: str
    max_new_tokens: int | None = None
    examples: tuple[Example, ...]
    leaves: int = 1
    simulations: int
    released_pairs: int = 0
    single_pass_pairs: int = 0
    shared_programs: int = 0

    @property
    def groups(self) -> list[Sequence[Example]]:
        """The examples of each process."""
        size = -(-len(self.examples) // NUM_PROCESSES)
        return [self.examples[start : start + size] for start in range(0, len(self.examples), size)]

    def new_task(self) -> Task:
        """The task; where it has a grader, one that is running and has compared none of the examples yet."""
        task = get_task(self.task, max_new_tokens=self.max_new_tokens)
        if isinstance(task.scoring, Graded):
            grader = MathGrader()  # its process ends when nothing refers to it any more
            grader.compare("1", "2")
            task = replace(task, scoring=replace(task.scoring, grader=grader))
        return task

    def config(self, subject: Subject, *, search: SearchConfig = SEARCH, seed: int = 0) -> RunConfig:
        """A run's settings, for searching the examples as an actor does."""
        compare = get_task(self.task).scoring.margins_compare
        return RunConfig(
            model=subject.source,
            task=self.task,
            max_new_tokens=self.max_new_tokens,
            data_sha256=fingerprint(self.examples),
            search=replace(search, simulations=self.simulations, margin_scale=search.margin_scale if compare else None),
            seed=seed,
            group_size=len(self.groups[0]),
            leaves=self.leaves,
            device=subject.device,
            dtype=subject.dtype,
        )


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The sources of examples; None for made ones.

    Attributes:
        arc: A file, a folder or a hub data set in ARC's schema.
        gsm8k: A file or folder in GSM8K's schema.
        seed: Seed of made examples.
    """

    arc: str | None = None
    gsm8k: str | None = None
    seed: int = 0


def throughput_workloads(sources: Sources, *, quick: bool) -> list[Workload]:
    """The workloads whose programs a second are compared.

    Raises:
        UserError: A source cannot be read.
    """
    return [
        Workload(
            name="arc_letters",
            task="arc",
            examples=arc_examples(sources, 8 * NUM_PROCESSES),
            leaves=8,
            simulations=16 if quick else 50,
            released_pairs=4 if quick else 24,
            single_pass_pairs=8 if quick else 40,
            shared_programs=1 if quick else 4,
        ),
        Workload(
            name="arithmetic",
            task="arithmetic",
            examples=arithmetic_examples(sources, 8 * NUM_PROCESSES),
            leaves=8,
            simulations=16 if quick else 50,
            released_pairs=6 if quick else 40,
            single_pass_pairs=8 if quick else 40,
            shared_programs=2 if quick else 8,
        ),
        Workload(
            name="gsm8k64",
            task="gsm8k",
            max_new_tokens=64,
            examples=gsm8k_examples(sources, (4 if quick else 16) * NUM_PROCESSES),
            leaves=8,
            simulations=8 if quick else 24,
            released_pairs=2 if quick else 8,
            single_pass_pairs=2 if quick else 8,
            shared_programs=1,
        ),
    ]


def times_and_sums(split: str, count: int, *, seed: int) -> list[Example]:
    """Examples from the times table and sums of one digit, in turn."""
    every = _former_arithmetic(DataRequest(limit=_ALL, split=split, seed=seed))
    kinds = [[example for example in every if example.id.startswith(f"arithmetic-{split}-{kind}-")] for kind in KINDS]
    mixed = [kind[index] for index in range(max(map(len, kinds))) for kind in kinds if index < len(kind)]
    return mixed[:count]


def held_out_examples(sources: Sources, *, quick: bool) -> list[Example]:
    """The examples on which searches are compared; no default was chosen on them, and no prior fitted to them."""
    return times_and_sums("test", 16 if quick else 60, seed=sources.seed)


def arithmetic_examples(sources: Sources, count: int) -> tuple[Example, ...]:
    """Sums and products, made from a seed."""
    return tuple(_former_arithmetic(DataRequest(limit=count, seed=sources.seed)))


def _former_arithmetic(request: DataRequest) -> list[Example]:
    """Examples of the kinds that there have always been, so that figures of several releases are of the same ones."""
    return get_task("arithmetic", options=TaskOptions(kinds=",".join(FORMER_KINDS))).read(request)


def arc_examples(sources: Sources, count: int) -> tuple[Example, ...]:
    """Four-way examples, answered by letter.

    Raises:
        UserError: The source cannot be read.
    """
    return _read("arc", sources.arc, made_arc_row, count, sources.seed)


def gsm8k_examples(sources: Sources, count: int) -> tuple[Example, ...]:
    """Word problems.

    Raises:
        UserError: The source cannot be read.
    """
    return _read("gsm8k", sources.gsm8k, made_gsm8k_row, count, sources.seed)


def _read(
    task: str, data: str | None, make: Callable[[random.Random, int], dict[str, Any]], count: int, seed: int
) -> tuple[Example, ...]:
    """Read examples by the task's own reader, made ones from a file that is gone afterwards."""
    if data is not None:
        return tuple(get_task(task).read(DataRequest(data=data, limit=count)))
    rng = random.Random(f"{task} {seed}")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "made.jsonl"
        file.write_text("".join(json.dumps(make(rng, number)) + "\n" for number in range(count)))
        return tuple(get_task(task).read(DataRequest(data=str(file))))


# -- made examples ------------------------------------------------------------------------

_PLACES = ("a shaded forest", "a shallow pond", "a windy hillside", "a dry grassland", "a warm greenhouse")
_THINGS = ("the soil", "the water", "a flat stone", "a young plant", "a metal rod", "the air near the ground")
_CHANGES = ("became warmer", "lost most of its moisture", "changed its color", "grew heavier", "cooled down quickly")
_CAUSES = (
    "energy from the Sun was absorbed during the morning",
    "water evaporated faster than the rain replaced it",
    "heat moved from the warmer object to the cooler one",
    "bacteria and fungi broke down the fallen leaves",
    "a chemical reaction formed a new kind of substance",
    "the wind carried small particles over a long distance",
    "gravity pulled the loose material down the slope",
)


def made_arc_row(rng: random.Random, number: int) -> dict[str, Any]:
    """An example in ARC's schema: about 132 tokens for SmolLM2, its chat template included (a long one of ARC-Easy)."""
    place, thing, change = rng.choice(_PLACES), rng.choice(_THINGS), rng.choice(_CHANGES)
    days = rng.randint(3, 9)
    options = [f"{cause[0].upper()}{cause[1:]}." for cause in rng.sample(_CAUSES, 4)]
    return {
        "id": f"made-{number:04d}",
        "question": f"For {days} days, a class of students observed {thing} in {place}. On the last day they noticed "
        f"that it {change}. Which statement best explains what they observed?",
        "choices": {"text": options, "label": [*"ABCD"]},
        "answerKey": rng.choice("ABCD"),
    }


_NAMES = ("Maria", "Tom", "Aisha", "Peter", "Lena", "Carlos")
_GOODS = ("apples", "pencils", "stickers", "marbles", "seashells", "postcards")
_GAINS = (
    "On {day}, a friend gives {name} a box with {n} more of them.",
    "Then {name} walks to the market on {day} and buys {n} more {goods} there.",
    "{name}'s grandmother, who collects {goods} too, brings {n} of them on {day}.",
)
_LOSSES = (
    "On {day}, {name} gives {n} of the {goods} to a neighbor who has none.",
    "Unfortunately, {n} of the {goods} are lost on the way home on {day}.",
)
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")


def made_gsm8k_row(rng: random.Random, number: int) -> dict[str, Any]:
    """A word problem in GSM8K's schema, of one to six steps: 90 to 190 tokens for SmolLM2, as most of GSM8K's."""
    name, goods, have = rng.choice(_NAMES), rng.choice(_GOODS), rng.randint(20, 90)
    sentences, steps = [f"{name} collects {goods} and keeps {have} of them in a drawer."], []
    for day in _DAYS[: min(rng.randint(1, 6), rng.randint(1, 6))]:
        loses = have > _MANY or (have > 20 and rng.random() < 0.4)
        change = rng.randint(2, 15)
        text = rng.choice(_LOSSES if loses else _GAINS)
        sentences.append(text.format(name=name, goods=goods, day=day, n=change))
        after = have - change if loses else have + change
        steps.append(f"{have} {'-' if loses else '+'} {change} = {after}")
        have = after
    sentences.append(f"How many {goods} does {name} have at the end?")
    return {"question": " ".join(sentences), "answer": "\n".join([*steps, f"#### {have}"])}
