"""Probes in the same pass: the time that a label adds to reading a prompt, at batch 1.

With and without a probe take turns in one process of two threads, on ARC's prompts with options; the answer is one
token, so that little but the reading is timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.harness import BenchmarkSection, Findings, Harness, Target
from benchmarks.workloads import arc_examples
from pipeline.engine import FrozenModel
from pipeline.engine.loading import weights_fingerprint
from pipeline.program import LayerProgram
from pipeline.tasks import Example, get_task
from router.artifact.base_model import BaseModelRef
from router.probes.network import ProbeConfig, ProbeNetwork
from router.probes.probe import Probe
from router.probes.probe_requests import AGGREGATORS, Aggregator

LABELS = ("anger", "joy", "optimism", "sadness")
#: Measured by the paper (2601.13288) on Llama-3.2-3B.
PUBLISHED = {"pooling": 0.12, "gate": 0.17, "mha": 0.52}


def measure(harness: Harness) -> Findings:
    """Time every kind of probe."""
    examples = arc_examples(harness.sources, 2 if harness.quick else 12)
    job = TimeProbes(examples=examples, repeats=2 * harness.repeats)
    [seconds] = harness.time([job], wide=not harness.quick).results
    figures = {}
    for kind in AGGREGATORS:
        figures[f"probe_overhead_{kind}"] = median(watched / plain for plain, watched in seconds[kind]) - 1
        harness.say(f"probing      {kind} adds {100 * figures[f'probe_overhead_{kind}']:.1f} % to reading a prompt")
    return Findings(figures=figures, details={f"probe_overhead_{kind}": seconds[kind] for kind in AGGREGATORS})


@dataclass(frozen=True, kw_only=True)
class TimeProbes:
    """Prompts with and without a probe in turn.

    Attributes:
        examples: The examples with their prompts.
        repeats: Turns on each example.
    """

    examples: tuple[Example, ...]
    repeats: int

    def __call__(self, model: FrozenModel) -> Callable[[], dict[str, list[tuple[float, float]]]]:
        prompts = [get_task("arc").prepare(example, model.tokenizer).prompt_ids for example in self.examples]
        probes = {kind: made_probe(model, kind) for kind in AGGREGATORS}
        identity = LayerProgram.identity(model.num_layers)

        def once(prompt: Sequence[int], **more: Any) -> float:
            model.forget()
            began = time.perf_counter()
            model.generate([prompt], [identity], max_new_tokens=1, **more)
            return time.perf_counter() - began

        def run() -> dict[str, list[tuple[float, float]]]:
            pairs: dict[str, list[tuple[float, float]]] = {kind: [] for kind in probes}
            for repeat in range(self.repeats + 1):
                for number, prompt in enumerate(prompts):
                    for kind, probe in probes.items():
                        watched_first = (repeat + number) % 2 == 1
                        before = once(prompt, probes=[probe]) if watched_first else 0.0
                        plain = once(prompt)
                        watched = before or once(prompt, probes=[probe])
                        if repeat:  # the first turn sets things up
                            pairs[kind].append((plain, watched))
            return pairs

        return run


def made_probe(model: FrozenModel, kind: Aggregator) -> Probe:
    """A probe of random weights, which takes as long as a trained one."""
    shape = ProbeConfig(
        num_layers=model.num_layers,
        hidden_size=model.hf_model.config.hidden_size,
        num_classes=len(LABELS),
        aggregator=kind,
    )
    return Probe(
        base=BaseModelRef(name="smollm2", revision="measured"),
        network=ProbeNetwork(shape).eval().requires_grad_(False),
        labels=LABELS,
        weights_fingerprint=weights_fingerprint(model.hf_model),
    )


SECTION = BenchmarkSection(
    name="probing",
    summary="what a label from the same pass adds to reading a prompt, for each kind of probe",
    targets=tuple(
        Target(key=f"probe_overhead_{kind}", bound=bound, meaning=f"time that a {kind} probe adds", at_most=True)
        for kind, bound in PUBLISHED.items()
    ),
    measure=measure,
)
