"""The results of an evaluation: types for one method and for all, and their JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from router.evaluation.answering_actor import Answer

BASE, ROUTED, SINGLE, RANDOM, SEARCH = "base", "routed", "best single program", "random programs", "search"


@dataclass(frozen=True, kw_only=True)
class Result:
    """The results of one method.

    Attributes:
        method: Name of the method.
        accuracy: Share of right answers.
        interval: 95 % bootstrap interval of the accuracy.
        layers: Mean layers of a program.
        lost: Number of examples that only the base gets right.
        won: Number of examples that only this method gets right.
        p_value: p-value of McNemar's exact test against the base.
        programs: Number of different programs that ran.
        identity: Share of examples on which the identity program ran.
        latency: Time of an answer over the base's; None where it was not measured.
        against: Number of examples that only the routed model gets right, number of those that only this method does,
            and the p-value; None for methods that are not other routers.
        answers: Each example's program and verdict.
    """

    method: str
    accuracy: float
    interval: tuple[float, float]
    layers: float
    lost: int
    won: int
    p_value: float
    programs: int
    identity: float
    latency: float | None = None
    against: tuple[int, int, float] | None = None
    answers: list[Answer] = field(default_factory=list, repr=False)


@dataclass(frozen=True, kw_only=True)
class EvaluationResults:
    """The results of all methods.

    Attributes:
        results: The results of each method.
        curve: The results of the routed model, by budget.
        questions: Number of examples. The name is a key of ``evaluation.json``.
        left_out: Examples left out, by the reason.
        num_layers: Depth of the base.
        weights_sha256: SHA-256 of the router's weights that were judged; None where it is not known.
        other_weights_sha256: The same of the other routers, by their names.
    """

    results: list[Result]
    curve: dict[float, Result]
    questions: int
    left_out: dict[str, int]
    num_layers: int
    weights_sha256: str | None = None
    other_weights_sha256: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """All results as JSON values, each answer included."""

        def record(result: Result) -> dict[str, Any]:
            return {
                "contender": result.method,  # the key of earlier releases
                **{name: value for name, value in vars(result).items() if name not in ("method", "answers")},
                "answers": {answer.example_id: [str(answer.program), answer.correct] for answer in result.answers},
            }

        return {
            "questions": self.questions,
            "left_out": self.left_out,
            "num_layers": self.num_layers,
            "weights_sha256": self.weights_sha256,
            "other_weights_sha256": self.other_weights_sha256,
            "results": [record(result) for result in self.results],
            "curve": {f"{budget:g}": record(result) for budget, result in self.curve.items()},
        }
