"""Actors without a cluster, on a clock of their own: what each does with what it is given is a function of a test."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from ray.exceptions import RayActorError
from shard_rows import rows

from pipeline.distributed.evaluator import GroupResult, Loaded
from pipeline.distributed.failure_policy import FailureKind
from pipeline.distributed.search_actors import CallFailure
from pipeline.prior import Evaluation
from pipeline.program import LayerProgram
from pipeline.tasks import Example

NEVER = float("inf")


def failure(kind: FailureKind, error: Exception | None = None) -> CallFailure:
    """An actor that failed; its error is Ray's, as long as none is given."""
    died = RayActorError(error_msg="the actor died:\n  its node ran out of memory")
    return CallFailure(kind=kind, error=died if error is None else error)


def evaluations(example: str) -> list[Evaluation]:
    """What the search of a calibration example tried."""
    programs = [LayerProgram((0, 1, 2), 3), LayerProgram((0, 2), 3)]
    return [Evaluation(example_id=example, program=program, correct=True, margin=1.0) for program in programs]


def found(examples: Sequence[Example], calibrates: bool = False) -> GroupResult:
    """The result of a search without faults."""
    ids = [example.id for example in examples]
    return GroupResult(
        rows=[row for name in ids for row in rows(name)],
        failed={},
        evaluations=[evaluation for name in ids for evaluation in evaluations(name)] if calibrates else [],
    )


@dataclass(frozen=True, kw_only=True)
class Handed:
    """A call of ``search``."""

    actor: int
    ids: list[str]
    prior: Any
    calibrates: bool


@dataclass(kw_only=True)
class SimulatedActors:
    """Implements ``SearchActors``.

    Attributes:
        on_load: From an actor's number to the answer of its ``load``; None for an actor that loads on machine ``a``.
        on_preview: From an actor's number and the first examples to the base model's answers; None for none.
        on_search: From an actor's number and the examples to the answer; None for a search without faults.
        on_activity: From an actor's number to the answer when it is polled; None for one that gets on.
        seconds: How long a search takes.
        load_seconds: From an actor's number to how long it loads.
        room: What ``capacity`` says.
    """

    on_load: Callable[[int], Any] = lambda actor: None
    on_preview: Callable[[int, Sequence[Example]], Any] = lambda actor, examples: None
    on_search: Callable[[int, Sequence[Example]], Any] = lambda actor, examples: None
    on_activity: Callable[[int], Any] = lambda actor: None
    seconds: Callable[[int, Sequence[Example]], float] = lambda actor, examples: 1.0
    load_seconds: Callable[[int], float] = lambda actor: 1.0
    room: int = 2
    clock: float = 0.0
    started: list[float] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    handed: list[Handed] = field(default_factory=list)
    _calls: dict[int, tuple[float, Any]] = field(default_factory=dict)
    _numbers: Any = field(default_factory=count)

    def now(self) -> float:
        return self.clock

    def capacity(self) -> int:
        return self.room

    def start(self) -> int:
        self.started.append(self.clock)
        return len(self.started) - 1

    def end(self, actor: int) -> None:
        assert actor not in self.ended, "an actor is ended once"
        self.ended.append(actor)

    @property
    def alive(self) -> int:
        """Actors that were started and not ended."""
        return len(self.started) - len(self.ended)

    def load(self, actor: int) -> int:
        answer = self.on_load(actor)
        loaded = Loaded(facts={"num_layers": 3, "special_tokens_added": True}, node="a")
        return self._call(loaded if answer is None else answer, self.load_seconds(actor))

    def preview(self, actor: int, examples: Sequence[Example]) -> int:
        answer = self.on_preview(actor, examples)
        return self._call([] if answer is None else answer, self.seconds(actor, examples))

    def search(self, actor: int, examples: Sequence[Example], prior: Any, calibrates: bool) -> int:
        assert actor not in self.ended
        ids = [example.id for example in examples]
        self.handed.append(Handed(actor=actor, ids=ids, prior=prior, calibrates=calibrates))
        answer = self.on_search(actor, examples)
        return self._call(found(examples, calibrates) if answer is None else answer, self.seconds(actor, examples))

    def activity(self, actor: int) -> int:
        answer = self.on_activity(actor)
        return self._call((int(2 * self.clock), 0) if answer is None else answer, 0.0)

    def share(self, prior: Any) -> Any:
        return prior

    def wait(self, calls: Iterable[int], seconds: float) -> list[int]:
        pending = list(calls)
        latest = self.clock + seconds
        self.clock = max(self.clock, min([latest, *(self._calls[call][0] for call in pending)]))
        return [call for call in pending if self._calls[call][0] <= self.clock]

    def result(self, call: int) -> Any:
        return self._calls.pop(call)[1]

    def _call(self, answer: Any, seconds: float) -> int:
        call = next(self._numbers)
        self._calls[call] = (self.clock + seconds, answer)
        return call
