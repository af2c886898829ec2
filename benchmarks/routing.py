"""Routers: the time they add to a forward pass, the gain of a shorter program, and the cost of their training.

Base and routed model take turns in one process of two threads, at batch 1. The routers' biases set their
decisions: to run all layers, where the cost of the routers is measured, or to skip a fifth of the layers. With labels
from a candidate set most layers have a constant router, and eight read the prompt (docs/routers.md);
the cost where all routers read it is measured too.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.harness import BenchmarkSection, Findings, Harness, Target
from benchmarks.workloads import arc_examples, arithmetic_examples
from pipeline.engine import FrozenModel
from pipeline.tasks import Example, get_task
from router.features.window_features import FeatureStore, pooled_along
from router.heads.per_layer.fit import fit
from router.heads.per_layer.per_layer_head import PerLayerHead
from router.heads.per_layer.per_layer_request import FitConfig
from router.heads.per_layer.routers import LayerRouters, RouterConfig
from router.heads.per_layer.train import StoredRows
from router.labels.labelled import Labelled
from router.routed.layers import RoutedCache, steered

OVERHEAD, OVERHEAD_ALL, SPEED, SECONDS, RATIO = (
    "routing_overhead",
    "routing_overhead_all_asked",
    "generate_at_80_percent_over_base",
    "training_4000_rows_seconds",
    "training_over_rerunning",
)
#: Number of routers that read the prompt; the others are constant.
NUM_READING = 8
#: Tokens of a generated text.
NEW_TOKENS = 32
#: Rows whose features are computed anew, as training without a cache would every epoch.
RERUN_ROWS = 64
BATCH = 16


def measure(harness: Harness) -> Findings:
    """Compare routed and base forward passes, then training with and without kept features."""
    figures, details = {}, {}
    letters = arc_examples(harness.sources, 2 if harness.quick else 8)
    sums = arithmetic_examples(harness.sources, 2 if harness.quick else 8)
    for name, num_reading in ((OVERHEAD, NUM_READING), (OVERHEAD_ALL, None)):
        overhead = _turns(
            harness, [("arc", letters), ("arithmetic", sums)], share=1.0, new_tokens=0, num_reading=num_reading
        )
        figures[name] = median(base_routed[1] / base_routed[0] for base_routed in overhead) - 1
        details[name] = {"seconds": overhead, "asked": num_reading}
        harness.say(f"routing      {num_reading or 'all'} routers add {100 * figures[name]:.2f} % to a forward pass")
    speed = _turns(harness, [("arithmetic", sums)], share=0.8, new_tokens=NEW_TOKENS)
    figures[SPEED] = median(base_routed[0] / base_routed[1] for base_routed in speed)
    details[SPEED] = {"seconds": speed}
    harness.say(f"routing      generate with 80 % of the layers is {figures[SPEED]:.2f} times as fast")

    rows = 160 if harness.quick else 4000
    examples = arithmetic_examples(harness.sources, rows)
    job = TrainBothWays(examples=examples, epochs=2 if harness.quick else FitConfig().epochs)
    [trained] = harness.time([job], wide=not harness.quick).results
    figures[SECONDS] = trained["training_seconds"]
    figures[RATIO] = trained["rerun_seconds_an_epoch"] / trained["seconds_an_epoch"]
    details[SECONDS] = details[RATIO] = trained
    harness.say(
        f"routing      training on {rows} rows: {figures[SECONDS]:.0f} s, an epoch {figures[RATIO]:.0f} times faster"
    )
    return Findings(figures=figures, details=details)


def _turns(
    harness: Harness,
    tasks: list[tuple[str, tuple[Example, ...]]],
    *,
    share: float,
    new_tokens: int,
    num_reading: int | None = None,
) -> list[tuple[float, float]]:
    jobs = [
        TakeTurns(
            task=task,
            examples=examples,
            share=share,
            new_tokens=new_tokens,
            num_reading=num_reading,
            repeats=2 * harness.repeats,
        )
        for task, examples in tasks
    ]
    return [pair for job in jobs for pair in harness.time([job], wide=not harness.quick).results[0]]


@dataclass(frozen=True, kw_only=True)
class TakeTurns:
    """Base and routed model in turn on each example.

    Attributes:
        task: The examples' task.
        examples: The examples.
        share: Share of the layers that the routers run.
        new_tokens: Number of new tokens; 0 for one forward pass over the prompt.
        num_reading: Number of routers that read the prompt; None for all.
        repeats: Turns on each example.
    """

    task: str
    examples: tuple[Example, ...]
    share: float
    new_tokens: int
    num_reading: int | None
    repeats: int

    def __call__(self, model: FrozenModel) -> Callable[[], list[tuple[float, float]]]:
        prompts = [get_task(self.task).prepare(example, model.tokenizer).prompt_ids for example in self.examples]
        routed = steered(model.hf_model)
        head = PerLayerHead(decided_routers(model, self.share, num_reading=self.num_reading))
        steering = head.steering(np.zeros((1, *head.sample_shape)))
        options = {"max_new_tokens": self.new_tokens, "min_new_tokens": self.new_tokens}

        def once(stock: Any, prompt: list[int], **more: Any) -> float:
            ids = torch.tensor([prompt], device=model.device)
            mask = torch.ones_like(ids)
            began = time.perf_counter()
            if self.new_tokens:
                stock.generate(ids, attention_mask=mask, **options, **more)
            else:
                stock(ids, attention_mask=mask, logits_to_keep=1, **more)
            return time.perf_counter() - began

        def run() -> list[tuple[float, float]]:
            pairs = []
            with torch.inference_mode():
                for repeat in range(self.repeats + 1):
                    turn = []
                    for number, prompt in enumerate(prompts):
                        routed_first = (repeat + number) % 2 == 1
                        before = once(routed, prompt, past_key_values=RoutedCache(steering)) if routed_first else 0.0
                        base = once(model.hf_model, prompt)
                        after = before or once(routed, prompt, past_key_values=RoutedCache(steering))
                        turn.append((base, after))
                    if repeat:  # the first turn sets things up
                        pairs += turn
            return pairs

        return run


def decided_routers(model: FrozenModel, share: float, *, num_reading: int | None = None) -> LayerRouters:
    """Routers of which ``num_reading`` read the prompt, and which run a share of the layers; both are spread evenly."""
    size = RouterConfig(num_layers=model.num_layers, hidden_size=model.hf_model.config.hidden_size)
    routers = LayerRouters(size).requires_grad_(False)
    routers.weight_out.mul_(1e-6)  # not zero: a router with constant logits would not read the prompt
    routers.bias_out[:, 1] = 5.0
    skipped = model.num_layers - math.floor(share * model.num_layers + 1e-9)
    for index in range(skipped):
        routers.bias_out[int((index + 0.5) * model.num_layers / skipped), 0] = 9.0
    if num_reading is not None:
        constant = torch.ones(model.num_layers, dtype=torch.bool)
        constant[[int((index + 0.5) * model.num_layers / num_reading) for index in range(num_reading)]] = False
        routers.make_constant(constant, routers.bias_out.clone())
    return routers.to(model.device)


@dataclass(frozen=True, kw_only=True)
class TrainBothWays:
    """Training from kept features, against reading the prompts anew in every epoch.

    Attributes:
        examples: The examples, a row each with a random label.
        epochs: Epochs of the training, without early stopping.
    """

    examples: tuple[Example, ...]
    epochs: int

    def __call__(self, model: FrozenModel) -> Callable[[], dict[str, Any]]:
        rng = np.random.default_rng(0)
        counts = rng.choice(3, p=[0.035, 0.953, 0.012], size=(len(self.examples), model.num_layers))
        rows = [
            Labelled(example_id=example.id, task=example.task, prompt=example.question, counts=tuple(map(int, label)))
            for example, label in zip(self.examples, counts)
        ]

        def run() -> dict[str, Any]:
            with tempfile.TemporaryDirectory() as folder:
                store = FeatureStore(
                    Path(folder), revision="measured", dtype="float32", num_windows=8, add_special_tokens=True
                )
                began = time.perf_counter()
                for start in range(0, len(rows), BATCH):
                    store.add(rows[start : start + BATCH], read(model, rows[start : start + BATCH]))
                extraction = time.perf_counter() - began
                size = RouterConfig(num_layers=model.num_layers, hidden_size=model.hf_model.config.hidden_size)
                config = FitConfig(epochs=self.epochs, patience=self.epochs, batch_size=BATCH)
                held_out = StoredRows.of(store, rows[: max(1, len(rows) // 10)])
                began = time.perf_counter()
                fitted = fit(StoredRows.of(store, rows), held_out, size, config)
                training = time.perf_counter() - began
                few = rows[:RERUN_ROWS]
                began = time.perf_counter()
                for start in range(0, len(few), BATCH):
                    read(model, few[start : start + BATCH])
                reading = (time.perf_counter() - began) / len(few)
            epoch = median(record["seconds"] for record in fitted.history)
            return {
                "rows": len(rows),
                "epochs": len(fitted.history),
                "extraction_seconds": extraction,
                "training_seconds": training,
                "seconds_an_epoch": epoch,
                # Reading anew comes on top of everything else that an epoch does.
                "rerun_seconds_an_epoch": epoch + reading * len(rows),
                "milliseconds_to_read_a_row": 1000 * reading,
            }

        return run


def read(model: FrozenModel, rows: list[Labelled]) -> np.ndarray[Any, Any]:
    """Features of rows, read in one packed batch: more than released code does."""
    model.forget()
    return pooled_along(model, rows, num_windows=8, add_special_tokens=True)


SECTION = BenchmarkSection(
    name="routing",
    summary="what routers add to a forward pass, what shorter programs gain, and what training costs",
    targets=(
        Target(key=OVERHEAD, bound=0.02, meaning="time that routing adds to a forward pass", at_most=True),
        Target(key=OVERHEAD_ALL, bound=0.02, meaning="the same where every router reads the prompt", at_most=True),
        Target(key=SPEED, bound=1.15, meaning="speed of generate with 80 % of the layers, to the base"),
        Target(key=SECONDS, bound=300.0, meaning="seconds of a training on 4,000 rows of kept features", at_most=True),
        Target(key=RATIO, bound=20.0, meaning="speed of an epoch, to one that runs the frozen model again"),
    ),
    measure=measure,
)
