"""From path data sets to what routers learn: a prompt, and how often each layer should run on it.

A search keeps several right programs a question. Which of them is the label matters: the shortest ones differ from
question to question by what is hardly more than chance, and nothing can learn that. ``consensus`` picks, among a
question's right programs, the one that is most like what the other questions settle on. What they settle on is the
untouched model, which is right more often than any other program, unless a layer has a price.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import UserError
from pipeline.shards.reader import read_json, read_paths, read_settings
from pipeline.storage import AnyPath
from router.artifact.base_model import BaseModelRef, mark

if TYPE_CHECKING:
    import pandas as pd
from router.labels.consensus import consensus
from router.labels.labelled import Labelled, LabelledData, sayable

#: How a question's label is chosen among its right programs; ``expected`` looks at others too, see ``router.menu``.
CHOICES = ("shortest", "consensus", "expected")


def read_labels(runs: Sequence[AnyPath], *, choice: str = "consensus", layer_price: float = 0.0) -> LabelledData:
    """Read path data sets and give each question its label.

    Args:
        runs: Run folders, of the same model.
        choice: One of ``CHOICES``; ``expected`` is a consensus here, until programs are run.
        layer_price: Nats that a layer costs a program where a consensus is sought.

    Raises:
        UserError: A folder is no run, the runs are of different models or were searched with another number of
            permutations, or no question has a label.
    """
    if choice not in CHOICES:
        raise UserError(f"labels {choice!r} are unknown; choose one of: {', '.join(CHOICES)}")
    if not 0 <= layer_price < math.inf:
        raise UserError(f"--layer-price must be a number and not below 0, got {layer_price:g}")
    sources = [_Source.read(run) for run in runs]
    first = sources[0]
    for other in sources[1:]:
        differing = [
            f"{name}: {getattr(first, name)!r} in {first.run}, {getattr(other, name)!r} in {other.run}"
            for name in ("revision", "num_layers", "dtype", "add_special_tokens")
            if getattr(first, name) != getattr(other, name)
        ]
        if differing:
            raise UserError(
                f"the runs are of different models ({first.model} and {other.model}):\n  " + "\n  ".join(differing)
            )
        if first.permutations != other.permutations:
            raise UserError(
                f"{first.run} was searched with --permutations {first.permutations}, {other.run} with "
                f"{other.permutations}: what is right in fewer ways is luck more often; train on runs of one number"
            )
    left_out: dict[str, int] = {}
    marks: set[int] = set()
    found: dict[tuple[str, str], tuple[Labelled, list[tuple[int, ...]]]] = {}
    for source in sources:
        for _, kept in source.rows.groupby(["example_id", "prompt"], sort=False):
            example_id, prompt, task = (str(kept[name].iloc[0]) for name in ("example_id", "prompt", "task"))
            marks |= {mark(prompt), mark(task, example_id)}
            right = kept[kept.correct & (kept["rank"] > 0)].sort_values("rank", kind="stable")
            candidates = [tuple(map(int, counts)) for counts in right.counts if sayable(counts)]
            if candidates:
                label = Labelled(example_id=example_id, task=task, prompt=prompt, counts=candidates[0])
                # The same question in two runs: the shorter programs of both.
                known = found.get((example_id, prompt))
                found[example_id, prompt] = (label, candidates + (known[1] if known else []))
            else:
                reason = "counts cannot say their programs" if len(right) else "no right program was found"
                left_out[reason] = left_out.get(reason, 0) + 1
    if not found:
        raise UserError(
            f"no question of {', '.join(str(source.run) for source in sources)} has a label: "
            + ("; ".join(f"{reason}: {number}" for reason, number in left_out.items()) or "nothing is committed yet")
        )
    labels = [label for label, _ in found.values()]
    candidates_of = [sorted(set(candidates), key=lambda c: (sum(c), c)) for _, candidates in found.values()]
    chosen = [candidates[0] for candidates in candidates_of]
    if choice != "shortest":
        chosen = consensus(candidates_of, layer_price)
    rows = [
        Labelled(example_id=label.example_id, task=label.task, prompt=label.prompt, counts=counts)
        for label, counts in zip(labels, chosen)
    ]
    return LabelledData(
        base=BaseModelRef(name=first.model, revision=first.revision),
        dtype=first.dtype,
        num_layers=first.num_layers,
        add_special_tokens=first.add_special_tokens,
        rows=rows,
        marks=frozenset(marks),
        left_out=left_out,
    )


@dataclass(frozen=True, kw_only=True)
class _Source:
    """A run and what decides whether it goes with another."""

    run: AnyPath
    model: str
    revision: str
    dtype: str
    num_layers: int
    add_special_tokens: bool
    permutations: int
    rows: pd.DataFrame

    @classmethod
    def read(cls, run: AnyPath) -> _Source:
        settings = read_settings(run)
        loaded = read_json(run / "run.json").get("loaded_model")
        rows = read_paths(run)
        try:
            if not isinstance(loaded, dict):
                raise KeyError("loaded_model")
            return cls(
                run=run,
                model=settings["model.name"],
                revision=settings["model.revision"],
                dtype=settings["dtype"],
                num_layers=int(loaded["num_layers"]),
                add_special_tokens=bool(loaded["special_tokens_added"]),
                permutations=settings.get("permutations", 1),
                rows=rows,
            )
        except KeyError as error:
            raise UserError(f"{run / 'run.json'} does not say its {error}: was anything searched there?") from None
