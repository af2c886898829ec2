"""``probe compare``: kinds of probes and plain classifiers, trained and evaluated on the same texts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from pipeline.distributed.cluster import joined_cluster
from pipeline.engine.loading import cache_folder
from pipeline.errors import UserError
from pipeline.model_source import resolve_model
from pipeline.storage import without_secrets
from router.features.read_hidden_states import StateRequest, read_states
from router.probes.baselines import first_token_features, logistic_regression, word_features, zero_shot
from router.probes.fit import FittedProbe, fit_probe, logits_of
from router.probes.metrics import metrics_of
from router.probes.probe_requests import (
    AGGREGATORS,
    SCOPES,
    Aggregator,
    CompareRequest,
    ProbeKind,
    Scope,
)
from router.probes.texts import LabelledText, check_labels, labels_of, read_texts
from router.probes.train import StoredTexts, read_split, shape_on

#: The methods that are probes.
_KINDS: dict[str, tuple[Aggregator, Scope]] = {
    **{aggregator: (aggregator, "all") for aggregator in AGGREGATORS},
    **{f"gate-{scope}": ("gate", scope) for scope in SCOPES[1:-1]},
    "last": ("pooling", "last"),
}
_PLAIN = ("first-token", "tf-idf", "zero-shot")


@dataclass(frozen=True, kw_only=True)
class Compared:
    """The figures of one method.

    Attributes:
        method: Name of the method.
        runs: Metrics of each seed; see ``router.probes.metrics``. Methods without randomness have one run.
        learning_rate: Learning rate of a probe; None for plain classifiers.
        parameters: Number of trained parameters; None for plain classifiers.
        seconds: Mean seconds of a training; None for plain classifiers.
    """

    method: str
    runs: list[dict[str, Any]]
    learning_rate: float | None = None
    parameters: int | None = None
    seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        """All figures, under the keys of earlier releases."""
        figures = asdict(self)
        return {"contender": figures.pop("method"), **figures}

    def mean(self, figure: str) -> float:
        """Mean of a figure over the seeds; NaN where the texts do not define the figure."""
        return float(np.mean([math.nan if run[figure] is None else run[figure] for run in self.runs]))

    def deviation(self, figure: str) -> float | None:
        """Standard deviation of a figure over the seeds; None for a single seed."""
        if len(self.runs) < 2 or math.isnan(self.mean(figure)):
            return None
        return float(np.std([run[figure] for run in self.runs], ddof=1))


def compare(
    request: CompareRequest,
    *,
    announce: Callable[[str], None] = lambda line: None,
    show: Callable[[str, int, int], None] = lambda what, done, total: None,
    on_result: Callable[[Compared], None] = lambda compared: None,
) -> list[Compared]:
    """Train and evaluate the methods.

    Args:
        request: The methods and the texts.
        announce: Receives a line for the user.
        show: Receives the name of a step, how much of the step is done, and of how much.
        on_result: Receives each method's figures once they are known.

    Raises:
        UserError: Something in the request, or in the texts, is wrong.
    """
    train, held_out = read_split(request.train)
    test = read_texts(
        request.test,
        text_column=request.train.text_column,
        label_column=request.train.label_column,
        split=request.test_split,
    )
    labels = labels_of(train, request.train.data)
    check_labels(held_out, labels, request.train.validation or request.train.data)
    check_labels(test, labels, request.test)
    known = {text.text for text in (*train, *held_out)}
    repeated = sum(text.text in known for text in test)
    said = f"; {repeated} of them are among the others too" if repeated else ""
    announce(f"{len(train)} texts to train on, {len(held_out)} held out, {len(test)} to test on{said}.")
    for name in request.methods:
        if name not in _PLAIN:
            # A shape that does not fit the model should fail before any method is trained.
            shape_on(resolve_model(request.train.model), _kind(request.train.kind, name), num_classes=len(labels))
    comparison = _Comparison(request, train, held_out, test, labels, announce, show)
    results = []
    for name in request.methods:
        result = comparison.evaluate(name)
        results.append(result)
        on_result(result)
    return results


def _kind(given: ProbeKind, name: str) -> ProbeKind:
    """The kind of probe of a method: aggregator and scope by its name, all else as in ``given``."""
    aggregator, scope = _KINDS[name]
    return replace(given, aggregator=aggregator, scope=scope)


@dataclass(frozen=True)
class _Comparison:
    """The texts, and everything that all methods have in common."""

    request: CompareRequest
    train: Sequence[LabelledText]
    held_out: Sequence[LabelledText]
    test: Sequence[LabelledText]
    labels: tuple[str, ...]
    announce: Callable[[str], None]
    show: Callable[[str, int, int], None]

    def evaluate(self, name: str) -> Compared:
        """Train a method, and evaluate it on the test texts."""
        if name in ("first-token", "zero-shot"):
            return self._prompting(name)
        if name == "tf-idf":
            parts = word_features(*([text.text for text in texts] for texts in self._texts))
            return Compared(method=name, runs=[self._metrics(self._regression(parts))])
        return self._probe(name)

    @property
    def _texts(self) -> tuple[Sequence[LabelledText], ...]:
        return self.train, self.held_out, self.test

    def _probe(self, name: str) -> Compared:
        given, kind = self.request.train, _kind(self.request.train.kind, name)
        source = resolve_model(given.model)
        shape = shape_on(source, kind, num_classes=len(self.labels))
        store, _ = read_states(
            StateRequest(
                source=source,
                prompt_template=given.prompt_template,
                state_selection=kind.state_selection,
                features=self._features,
                resources=given.resources,
                most_gib=given.most_gib,
            ),
            [text.text for texts in self._texts for text in texts],
            announce=self.announce,
            show=self.show,
        )
        train, held_out, test = (StoredTexts.of(store, texts, self.labels) for texts in self._texts)
        seconds: list[float] = []

        def fitted(rate: float, seed: int) -> FittedProbe:
            began = time.perf_counter()
            try:
                found = fit_probe(train, held_out, shape, replace(given.fit, learning_rate=rate, seed=seed))
            except ValueError as error:
                raise UserError(f"{name} cannot be trained on {without_secrets(given.data)}: {error}") from None
            seconds.append(time.perf_counter() - began)
            self.show(f"{name} trained", len(seconds), len(rates) + self.request.seeds - 1)
            return found

        rates = self.request.learning_rates
        tried = [(rate, fitted(rate, 0)) for rate in rates]
        rate, first = max(tried, key=lambda of: of[1].best["macro_f1"])
        networks = [first.network, *(fitted(rate, seed).network for seed in range(1, self.request.seeds))]
        return Compared(
            method=name,
            runs=[self._metrics(logits_of(network, test).double().softmax(-1).numpy()) for network in networks],
            learning_rate=rate,
            parameters=sum(parameter.numel() for parameter in first.network.parameters()),
            seconds=float(np.mean(seconds)),
        )

    def _prompting(self, name: str) -> Compared:
        # Zero-shot prompting trains nothing, so that it needs the test texts only.
        asked_about = (self.test,) if name == "zero-shot" else self._texts
        texts = [text.text for part in asked_about for text in part]
        source = resolve_model(self.request.train.model)
        with joined_cluster(self.request.train.resources, source) as placement:
            self.announce(f"Prompting the model for the labels of {len(texts)} texts.")
            first, scores = zero_shot(
                texts,
                self.labels,
                question=self.request.question,
                features=self._features,
                model=source,
                device=placement.device,
                dtype=placement.dtype,
                pool=placement.pool,
                show=lambda done, total: self.show("texts prompted", done, total),
            )
        if name == "zero-shot":
            likely = np.exp(scores)
            return Compared(method=name, runs=[self._metrics(likely / likely.sum(1, keepdims=True))])
        ends = np.cumsum([len(part) for part in self._texts])
        parts = np.split(first_token_features(first), ends[:-1])
        return Compared(method=name, runs=[self._metrics(self._regression(parts))])

    def _regression(self, parts: Sequence[Any]) -> np.ndarray[Any, Any]:
        train, held_out, test = parts
        return logistic_regression(train, self._numbers(self.train), held_out, self._numbers(self.held_out), test)

    def _metrics(self, scores: np.ndarray[Any, Any]) -> dict[str, Any]:
        """Metrics on the test texts, with the likeliest label chosen."""
        return metrics_of(self._numbers(self.test), scores.argmax(1), scores, self.labels)

    def _numbers(self, texts: Sequence[LabelledText]) -> np.ndarray[Any, Any]:
        return np.array([self.labels.index(text.label) for text in texts])

    @property
    def _features(self) -> Any:
        return self.request.train.features or cache_folder() / "features"
