"""Baselines of a probe: plain classifiers of the same texts, and the model's own answer.

    first-token logits    logistic regression on the logits of the first token of an answer (MULI, Hu et al., 2024)
    zero-shot prompting   the label that the model finds likeliest as its answer
    TF-IDF                logistic regression on the texts' words and pairs of words, without any model

A linear probe on the last token of the last layer is a probe like any other: ``scope="last"``. The regularization of
each logistic regression is the one with the best macro-F1 on the held-out texts.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from pipeline.distributed.actor_pool import ActorPool
from pipeline.distributed.cluster import PoolConfig
from pipeline.distributed.model_actor import ModelActor
from pipeline.errors import UserError
from pipeline.model_source import ModelSource
from pipeline.program import LayerProgram
from pipeline.tasks.scoring.choice import Choice
from pipeline.tasks.task import Task
from pipeline.tasks.types import Example
from router.features.array_store import ArrayStore
from router.features.hidden_states import CHUNK
from router.features.prompt_template import TEXT
from router.probes.metrics import macro_f1
from router.probes.texts import LABELS

_VERSION = 2
_STRENGTHS = (0.01, 0.1, 1.0, 10.0)
_ITERATIONS = 200

Array = np.ndarray[Any, Any]


class ZeroShotActor(ModelActor):
    """The Ray actor that prompts the frozen model for the labels of texts.

    Args:
        source: The frozen model.
        device: ``cpu`` or ``cuda``.
        dtype: The weights' precision.
        threads: Torch threads.
        question: Template of the zero-shot prompt, with ``{text}`` and ``{labels}`` in it.
        labels: The possible answers.
    """

    def __init__(
        self, source: ModelSource, device: str, dtype: str, threads: int, question: str, labels: tuple[str, ...]
    ) -> None:
        super().__init__(source, device=device, dtype=dtype, threads=threads)
        self._labels = labels
        self._question = question.replace(LABELS, ", ".join(labels))
        self._task = Task(
            name="zero-shot", summary="", read=lambda request: [], scoring=Choice(per_character=False), chat=False
        )

    def work(self, texts: Sequence[str]) -> list[Array]:
        """Score the labels of each text.

        Returns:
            For each text ``[1, V + C]``: the log-probabilities of the answer's first token, and the log-probability of
            each label less that of the likeliest label.
        """
        self._begin()
        model = self._model
        example = Example(id="", task="zero-shot", question="", answer=self._labels[0], options=self._labels)
        prompts = [
            self._task.prepare(replace(example, question=self._question.replace(TEXT, text)), model.tokenizer)
            for text in texts
        ]
        rows, owners = [], []
        for owner, prompt in enumerate(prompts):
            room = model.context_length - max(map(len, prompt.answers))
            for answer in [[], *(answer[:-1] for answer in prompt.answers if len(answer) > 1)]:
                # A prompt that is too long is cut at its beginning: the text's end and the labels stay.
                rows.append((prompt.prompt_ids[-room:] + answer, min(len(prompt.prompt_ids), room) - 1))
                owners.append(owner)
        logits = model.logits(
            [tokens for tokens, _ in rows],
            [LayerProgram.identity(model.num_layers)] * len(rows),
            starts=[start for _, start in rows],
        )
        log_probs: list[list[Any]] = [[] for _ in prompts]
        for owner, of_row in zip(owners, logits):
            log_probs[owner].append(of_row.log_softmax(-1))
        found = []
        for prompt, (first, *longer) in zip(prompts, log_probs):
            others = iter(longer)
            scores = [
                float((first if len(answer) == 1 else next(others))[range(len(answer)), answer].sum())
                for answer in prompt.answers
            ]
            # Differences from the likeliest label: near the maximum, float16 is precise enough.
            behind = np.array(scores, dtype=np.float32) - max(scores)
            found.append(np.concatenate([first[0].cpu().numpy(), behind])[None])
        return found


def zero_shot(
    texts: Sequence[str],
    labels: tuple[str, ...],
    *,
    question: str,
    features: Path,
    model: ModelSource,
    device: str,
    dtype: str,
    pool: PoolConfig,
    show: Callable[[int, int], None],
) -> tuple[Array, Array]:
    """Score the labels of each text by prompting the model. The scores are kept on the disk.

    Args:
        texts: The texts.
        labels: The possible answers.
        question: Template of the zero-shot prompt, with ``{text}`` and ``{labels}`` in it.
        features: Folder of all features.
        model: The frozen model.
        device: ``cpu`` or ``cuda``.
        dtype: The weights' precision.
        pool: Number of actors, and the resources of each.
        show: Receives the number of texts that are done, and their total.

    Returns:
        Log-probabilities of the first token, ``[N, V]`` in float16, and of the labels, ``[N, C]``, up to a constant
        of each text.

    Raises:
        UserError: The model cannot be loaded, or its logits are not finite.
    """
    store = ArrayStore(features, ["asked", _VERSION, model.revision, dtype, question, labels])
    absent = sorted({text for text in texts if _key(text) not in store}, key=len, reverse=True)
    chunks = [absent[start : start + CHUNK] for start in range(0, len(absent), CHUNK)]
    if chunks:
        actors: ActorPool[list[str]] = ActorPool(
            ZeroShotActor, (model, device, dtype, pool.cpus_per_actor, question, labels), pool
        )
        done = 0
        with actors:
            for chunk, found in actors.map(chunks):
                store.add([_key(text) for text in chunk], found, names=[repr(text[:40]) for text in chunk])
                done += len(chunk)
                show(done, len(absent))
    whole = np.concatenate([store.read(_key(text)) for text in texts])
    return whole[:, : -len(labels)], whole[:, -len(labels) :].astype(np.float32)


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def first_token_features(log_probs: Array) -> Array:
    """MULI's features of first-token log-probabilities: log-odds, standardized within each text."""
    log_probs = np.minimum(log_probs.astype(np.float32), -1e-6)
    odds = log_probs - np.log(-np.expm1(log_probs))
    standard: Array = (odds - odds.mean(1, keepdims=True)) / odds.std(1, keepdims=True)
    return standard


def word_features(train: Sequence[str], *others: Sequence[str]) -> list[Any]:
    """TF-IDF of words and pairs of words, fitted to ``train``; a sparse array ``[N, words]`` for each set of texts.

    Raises:
        UserError: No word is in two of the training texts.
    """
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    try:
        return [vectorizer.fit_transform(train), *(vectorizer.transform(some) for some in others)]
    except ValueError as error:
        raise UserError(f"the texts have no words in common: {error}") from None


def logistic_regression(train: Any, labels: Array, held_out: Any, held_out_labels: Array, test: Any) -> Array:
    """Fit logistic regression with balanced classes; returns the test texts' probabilities, ``[N, classes]``."""
    best, scores = -1.0, None
    for strength in _STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=_ITERATIONS, class_weight="balanced")
        with warnings.catch_warnings():
            # With weak regularization the fit may not converge; the held-out texts decide whether it is good enough.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(train, labels)
        score = macro_f1(held_out_labels, model.predict(held_out))
        if score > best:
            best, scores = score, model.predict_proba(test)
    assert scores is not None
    return np.asarray(scores)
