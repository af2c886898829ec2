"""Training data from runs: each example's prompt and right programs, and labels chosen among those.

A search keeps several right programs an example. Which of them is the label matters: the shortest ones differ from
example to example by little more than chance, and nothing can learn that. ``consensus`` picks, among an example's right
programs, the one that is most like the choices of the other examples. Where the base model is right, the identity
program is among the right ones, so a consensus is mostly the identity program, unless a layer has a price.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import UserError
from pipeline.shards.reader import read_json, read_paths, read_settings
from pipeline.shards.source_examples import prompting_of
from pipeline.storage import AnyPath, where_it_is
from router.artifact.base_model import BaseModelRef, text_fingerprint
from router.labels.consensus import consensus
from router.labels.labelled import Labelled, expressible_as_counts

if TYPE_CHECKING:
    import pandas as pd

#: Settings that runs must share to be trained on together.
_OF_THE_MODEL = ("revision", "num_layers", "dtype", "add_special_tokens")


@dataclass(frozen=True, kw_only=True)
class SolvedExample:
    """An example with the right programs that its searches found.

    Attributes:
        example_id: Id of the example.
        task: Name of its task.
        prompt: The exact text given to the tokenizer.
        programs: Counts of the right programs that counts express, the shortest first.
    """

    example_id: str
    task: str
    prompt: str
    programs: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True)
class RunData:
    """The training data of one or more runs of one model.

    Attributes:
        base: The base model that was searched.
        dtype: The precision in which it was searched.
        num_layers: Depth L of the model.
        add_special_tokens: Whether the tokenizer adds special tokens to the prompts.
        solved: The examples with a right program, in the order of the runs.
        left_out: Number of the other examples, by the reason.
        fingerprints: Fingerprints (see ``text_fingerprint``) of every prompt and every example that was searched.
        days: The dates in the runs' prompts, as ``Prompting.day`` has them.
    """

    base: BaseModelRef
    dtype: str
    num_layers: int
    add_special_tokens: bool
    solved: list[SolvedExample]
    left_out: dict[str, int]
    fingerprints: frozenset[int]
    days: frozenset[str] = frozenset()


def read_runs(runs: Sequence[AnyPath]) -> RunData:
    """Read run folders of one model.

    Raises:
        UserError: A folder is no run, the runs are of different models or were searched with another number of
            permutations, or no example has a right program.
    """
    sources = [_Run.read(run) for run in runs]
    for other in sources[1:]:
        _check_together(sources[0], other)
    solved, left_out = _solved_examples(sources)
    if not solved:
        raise UserError(
            f"no example of {', '.join(str(source.run) for source in sources)} has a label: "
            + ("; ".join(f"{reason}: {number}" for reason, number in left_out.items()) or "nothing is committed yet")
        )
    first = sources[0]
    return RunData(
        base=BaseModelRef(name=first.model, revision=first.revision),
        dtype=first.dtype,
        num_layers=first.num_layers,
        add_special_tokens=first.add_special_tokens,
        solved=solved,
        left_out=left_out,
        fingerprints=frozenset().union(*(_fingerprints(source.rows) for source in sources)),
        days=frozenset(source.day for source in sources if source.day is not None),
    )


def shortest_labels(solved: Sequence[SolvedExample]) -> list[Labelled]:
    """Each example with the shortest of its right programs."""
    return [_labelled(example, example.programs[0]) for example in solved]


def consensus_labels(solved: Sequence[SolvedExample], *, consensus_price: float) -> list[Labelled]:
    """Each example with the one of its right programs that is most like the other examples' choices.

    Args:
        solved: The examples.
        consensus_price: Nats that a layer costs.
    """
    chosen = consensus([example.programs for example in solved], consensus_price)
    return [_labelled(example, counts) for example, counts in zip(solved, chosen)]


def _labelled(example: SolvedExample, counts: tuple[int, ...]) -> Labelled:
    return Labelled(example_id=example.example_id, task=example.task, prompt=example.prompt, counts=counts)


def _check_together(first: _Run, other: _Run) -> None:
    """Refuse two runs that cannot be trained on together.

    Raises:
        UserError: The models or the numbers of permutations differ.
    """
    differing = [
        f"{name}: {getattr(first, name)!r} in {first.run}, {getattr(other, name)!r} in {other.run}"
        for name in _OF_THE_MODEL
        if getattr(first, name) != getattr(other, name)
    ]
    if differing:
        raise UserError(
            f"the runs are of different models ({first.model} and {other.model}):\n  " + "\n  ".join(differing)
        )
    if first.permutations != other.permutations:
        raise UserError(
            f"{first.run} was searched with --permutations {first.permutations}, {other.run} with "
            f"{other.permutations}: a program that is right in fewer renderings is right by luck more often; train on "
            "runs with one number"
        )


def _solved_examples(sources: Sequence[_Run]) -> tuple[list[SolvedExample], dict[str, int]]:
    """The examples with a right program that counts express, each once; the number of the others, by the reason."""
    left_out: dict[str, int] = {}
    found: dict[tuple[str, str], SolvedExample] = {}
    for source in sources:
        for _, of_example in source.rows.groupby(["example_id", "prompt"], sort=False):
            right = of_example[of_example.correct & (of_example["rank"] > 0)]
            programs = [tuple(map(int, counts)) for counts in right.counts if expressible_as_counts(counts)]
            if not programs:
                reason = "counts cannot say their programs" if len(right) else "no right program was found"
                left_out[reason] = left_out.get(reason, 0) + 1
                continue
            example_id, prompt, task = (str(of_example[name].iloc[0]) for name in ("example_id", "prompt", "task"))
            known = found.get((example_id, prompt))
            both = {*programs, *(known.programs if known else ())}
            shortest_first = tuple(sorted(both, key=lambda counts: (sum(counts), counts)))
            found[example_id, prompt] = SolvedExample(
                example_id=example_id, task=task, prompt=prompt, programs=shortest_first
            )
    return list(found.values()), left_out


def _fingerprints(rows: pd.DataFrame) -> set[int]:
    """Fingerprints of every prompt, and of every example by its task and id."""
    examples = rows[["task", "example_id", "prompt"]].drop_duplicates().itertuples(index=False)
    return {
        fingerprint
        for task, example_id, prompt in examples
        for fingerprint in (text_fingerprint(str(prompt)), text_fingerprint(str(task), str(example_id)))
    }


@dataclass(frozen=True, kw_only=True)
class _Run:
    """A run, and the settings in which it must agree with another."""

    run: AnyPath
    model: str
    revision: str
    dtype: str
    num_layers: int
    add_special_tokens: bool
    permutations: int
    day: str | None
    rows: pd.DataFrame

    @classmethod
    def read(cls, run: AnyPath) -> _Run:
        settings = read_settings(run)
        notes = read_json(run / "run.json")
        loaded = notes.get("loaded_model")
        rows = read_paths(run)
        try:
            if not isinstance(loaded, dict):
                raise KeyError("loaded_model")
            return cls(
                run=run,
                model=where_it_is(settings["model.name"], notes.get("model_path")),
                revision=settings["model.revision"],
                dtype=settings["dtype"],
                num_layers=int(loaded["num_layers"]),
                add_special_tokens=bool(loaded["special_tokens_added"]),
                permutations=settings.get("permutations", 1),
                day=prompting_of(run).day,
                rows=rows,
            )
        except KeyError as error:
            raise UserError(f"{run / 'run.json'} holds no {error}: was anything searched there?") from None
