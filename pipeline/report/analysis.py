"""The numbers of a report, from committed rows: four groups, lengths, layers, kinds of programs, budgets, coverage.

A search knows the answers, so each accuracy here is a ceiling: a router may not reach it.

Shapes: N rows, L layers.
"""

from __future__ import annotations

import heapq
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipeline.errors import UserError
from pipeline.report.charts import Bars, Heatmap, Line, Lines, Section, Series, Table, percent, percent_of

#: CoLa's four groups of examples (arXiv 2507.07996, section 4), by what the search made of the base model's answer.
GROUPS = ("shortened", "already optimal", "corrected", "unsolved")
_SHORTENED, _ALREADY_OPTIMAL, _CORRECTED, _UNSOLVED = GROUPS
#: The outcomes whose best programs are shown, each with the groups that have it.
_OUTCOMES = {"kept right": (_SHORTENED, _ALREADY_OPTIMAL), "corrected": (_CORRECTED,)}
#: Kinds of programs, by what they do to the model's layers.
KINDS = ("skip only", "repeat only", "skip and repeat", "other order")
SKIP_ONLY, REPEAT_ONLY, BOTH, OTHER_ORDER = KINDS
_MOST_PROGRAMS = 64
_AT_ONCE = 100_000

Array = np.ndarray[Any, Any]
#: For each example, pairs of an evaluation's number and the new best length; see
#: ``pipeline.shards.reader.ShardRecord``.
Improvements = Mapping[str, Sequence[Sequence[int]]]


@dataclass(frozen=True, kw_only=True)
class PathStudy:
    """A run's rows, with the tables that several sections need.

    Attributes:
        rows: The rows, with a column ``kind``: one of ``KINDS``, or empty for the identity program.
        counts: Number of times that each row's program runs each layer, ``[N, L]``.
        examples: A row for each example: ``task``, ``group``, ``baseline_correct``, and ``length`` of its best
            program (NaN where there is none).
        depth: Depth L of the model.
        budget: The longest program that counts, as a fraction of L; None for no bound.
        keep: The run's setting ``keep``; None where ``run.json`` does not say.
        improvements: The improvements of each example; empty where the run does not say.
    """

    rows: pd.DataFrame
    counts: Array
    examples: pd.DataFrame
    depth: int
    budget: float | None
    keep: Any
    improvements: Improvements

    @classmethod
    def of(cls, rows: pd.DataFrame, settings: Mapping[str, Any], improvements: Improvements) -> PathStudy:
        """Study a run's rows.

        Args:
            rows: The rows that ``read_paths`` gives; at least one.
            settings: The settings that ``read_settings`` gives.
            improvements: The improvements that the manifest holds.

        Raises:
            UserError: The budget is not a number above 0.
        """
        budget = settings.get("search.budget")
        if budget is not None and not (isinstance(budget, (int, float)) and 0 < budget <= sys.float_info.max):
            raise UserError(f"run.json holds a budget that is not a number above 0: {budget!r}")
        depth = int(rows.num_layers.iloc[0])
        counts = count_layers(rows.program, depth)
        identity = np.array([program.tolist() == list(range(depth)) for program in map(np.asarray, rows.program)])
        rows = rows.assign(kind=np.where(identity, "", kinds_of(counts)))
        examples = rows.groupby("example_id", sort=False)[["task", "baseline_correct"]].first()
        best = rows[rows.is_best].set_index("example_id").length.astype(float)
        examples = examples.assign(length=best.reindex(examples.index))
        found, right = examples.length.notna(), examples.baseline_correct
        examples["group"] = np.select(
            [right & (examples.length < depth), right, found], [_SHORTENED, _ALREADY_OPTIMAL, _CORRECTED], _UNSOLVED
        )
        return cls(
            rows=rows,
            counts=counts,
            examples=examples,
            depth=depth,
            budget=budget,
            keep=settings.get("keep"),
            improvements=improvements,
        )

    @property
    def right(self) -> Array:
        """Whether each row's program is right and within the budget, bool ``[N]``."""
        return np.asarray(self.rows["rank"] > 0)

    def by_task(self) -> Iterator[tuple[str, pd.DataFrame]]:
        """Iterate over the tasks, each with the rows of ``examples`` that belong to it."""
        for task, examples in self.examples.groupby("task"):
            yield str(task), examples


def analyse(study: PathStudy) -> list[Section]:
    """Make all sections of a report, in their order on the page."""
    sections = (groups, lengths, layers, kinds, budgets, coverage, discoveries)
    return [section(study) for section in sections]


def groups(study: PathStudy) -> Section:
    """The right answers that have a shorter program, and the wrong answers that have a correcting one."""
    rows = []
    shares = []
    for task, examples in study.by_task():
        number = examples.group.value_counts()
        right, wrong = int(examples.baseline_correct.sum()), int((~examples.baseline_correct).sum())
        of = (right, right, wrong, wrong)
        cells = [f"{number.get(name, 0)} ({percent_of(number.get(name, 0), total)})" for name, total in zip(GROUPS, of)]
        rows.append((task, str(len(examples)), str(right), *cells[:2], str(wrong), *cells[2:]))
        shares.append([100 * number.get(name, 0) / len(examples) for name in GROUPS])
    return Section(
        title="What a search makes of the model's answers",
        text=(
            "Each example is in one of four groups. Shortened: the base model is right and a shorter program too. "
            "Already optimal: it is right, and no shorter program was found. Corrected: it is wrong, and another "
            "program is right. Unsolved: it is wrong, and so is every program within the budget that was tried.",
            "CoLa (arXiv 2507.07996) reports a shorter program for more than 75 % of the right answers of its models "
            "and a correcting one for more than 60 % of the wrong ones. A search that knows the answers also finds "
            "lucky guesses, the more the fewer answers there are to choose from.",
        ),
        tables=(
            Table(
                columns=(
                    "task",
                    "examples",
                    "base right",
                    *GROUPS[:2],
                    "base wrong",
                    *GROUPS[2:],
                ),
                rows=tuple(rows),
            ),
            *_reasons(study),
        ),
        charts=(
            Bars(
                name="groups",
                title="Four groups of examples",
                x_label="task",
                y_label="% of the examples",
                categories=tuple(task for task, _ in study.by_task()),
                series=tuple(
                    Series(name=name, values=tuple(round(share[index], 2) for share in shares))
                    for index, name in enumerate(GROUPS)
                ),
            ),
        ),
    )


def _reasons(study: PathStudy) -> list[Table]:
    """A table of why answers are right or wrong; none where the run does not say."""
    counted = [(name, str(base), str(others)) for name, base, others in count_reasons(study.rows)]
    return [Table(columns=("reason", "base model", "other kept programs"), rows=tuple(counted))] if counted else []


def count_reasons(rows: pd.DataFrame) -> list[tuple[str, int, int]]:
    """Each reason with its numbers among the base model's answers and among the other kept programs' answers.

    Empty for a run that does not hold reasons: one of schema version 1, or a converted one.
    """
    known = rows[rows.reason.notna()]
    if known.empty:
        return []
    identity = tuple(range(int(known.num_layers.iloc[0])))
    is_identity = known.program.map(tuple).map(lambda program: program == identity)
    base, others = known.reason[is_identity].value_counts(), known.reason[~is_identity].value_counts()
    names = sorted({*base.index, *others.index}, key=lambda name: (-base.get(name, 0), -others.get(name, 0), name))
    return [(name, int(base.get(name, 0)), int(others.get(name, 0))) for name in names]


def lengths(study: PathStudy) -> Section:
    """The lengths of the best programs."""
    parts = {name: study.examples[study.examples.group.isin(of)].length.dropna() for name, of in _OUTCOMES.items()}
    every = pd.concat(parts.values())
    steps = range(int(every.min()), int(every.max()) + 1) if len(every) else range(0)
    rows = [
        (
            name,
            str(len(part)),
            f"{part.mean():.2f}",
            *(f"{value:g}" for value in (part.median(), part.min(), part.max())),
        )
        if len(part)
        else (name, "0", "-", "-", "-", "-")
        for name, part in parts.items()
    ]
    counted = {name: part.astype(int).value_counts() for name, part in parts.items()}
    return Section(
        title="How long the best programs are",
        text=(f"The model has {study.depth} layers. An example's best program is its shortest right one.",),
        tables=(
            Table(columns=("", "examples", "mean", "median", "shortest", "longest"), rows=tuple(rows)),
            Table(
                columns=("layers run", *parts),
                rows=tuple((str(step), *(str(count.get(step, 0)) for count in counted.values())) for step in steps),
            ),
        ),
        charts=(
            Bars(
                name="lengths",
                title="Length of the best programs",
                x_label="layers run",
                y_label="examples",
                categories=tuple(map(str, steps)),
                series=tuple(
                    Series(name=name, values=tuple(float(count.get(step, 0)) for step in steps))
                    for name, count in counted.items()
                ),
            ),
        ),
    )


def layers(study: PathStudy) -> Section:
    """The layers that the best programs skip and repeat, by task and outcome."""
    names, skipped, repeated = [], [], []
    group = study.rows.example_id.map(study.examples.group)
    for task, _ in study.by_task():
        for outcome, of in _OUTCOMES.items():
            chosen = np.asarray(study.rows.is_best & (study.rows.task == task) & group.isin(of))
            if chosen.any():
                names.append(f"{task}, {outcome}")
                skipped.append((study.counts[chosen] == 0).mean(0))
                repeated.append((study.counts[chosen] > 1).mean(0))
    columns = tuple(map(str, range(study.depth)))
    table = Table(
        columns=("layer", *(f"{name}: {what}" for name in names for what in ("skipped", "repeated"))),
        rows=tuple(
            (column, *(f"{100 * use[layer]:.0f} %" for pair in zip(skipped, repeated) for use in pair))
            for layer, column in enumerate(columns)
        ),
    )
    charts = tuple(
        Heatmap(
            name=f"layers-{what}",
            title=f"Layers that the best programs {does}",
            x_label="layer",
            rows=tuple(names),
            columns=columns,
            values=tuple(tuple(float(round(share, 4)) for share in use) for use in uses),
        )
        for what, does, uses in (("skipped", "skip", skipped), ("repeated", "repeat", repeated))
        if names
    )
    return Section(
        title="Which layers are skipped and repeated",
        text=(
            "The share of the best programs, by task and outcome, that skip a layer, and that run it more than once.",
        ),
        tables=(table,) if names else (),
        charts=charts,
    )


def kinds(study: PathStudy) -> Section:
    """Answers shortened and corrected by programs that only skip, that only repeat, and that do both."""
    tables = []
    right_rows = study.rows[study.right]
    for task, examples in study.by_task():
        of_task = right_rows[right_rows.task == task]
        tried = study.rows[study.rows.task == task].kind.value_counts()
        base_right = examples.index[examples.baseline_correct]
        base_wrong = examples.index[~examples.baseline_correct]
        rows = []
        for kind, allowed in (
            (SKIP_ONLY, [SKIP_ONLY]),
            (REPEAT_ONLY, [REPEAT_ONLY]),
            (BOTH, [BOTH]),
            (OTHER_ORDER, [OTHER_ORDER]),
            ("any of them", list(KINDS)),
        ):
            if kind == OTHER_ORDER and kind not in tried:
                continue  # only nested edits lead there
            found = of_task[of_task.kind.isin(allowed)]
            shorter = found[found.length < study.depth].example_id.unique()
            corrected = base_wrong.isin(found.example_id).sum()
            rows.append(
                (
                    kind,
                    str(sum(int(tried.get(name, 0)) for name in allowed)),
                    f"{base_right.isin(shorter).sum()} ({percent_of(base_right.isin(shorter).sum(), len(base_right))})",
                    f"{corrected} ({percent_of(corrected, len(base_wrong))})",
                    percent_of(len(base_right) + corrected, len(examples)),
                    f"{found.groupby('example_id').length.min().mean():.1f}" if len(found) else "-",
                )
            )
        tables.append(
            Table(
                columns=(
                    task,
                    "programs",
                    "right answers shortened",
                    "wrong ones corrected",
                    "accuracy with them (ceiling)",
                    "mean layers of the shortest",
                ),
                rows=tuple(rows),
            )
        )
    kept = (
        "Programs counts all that were tried."
        if study.keep == "all"
        else "Only kept programs are in the shards, so each line is a lower bound; `search --keep all` keeps every one."
    )
    return Section(
        title="Skipping, repeating, and both",
        text=(
            "What is found where programs may only skip layers, where they may only repeat some, and where one program "
            f"does both. A program that repeats and skips nothing is longer than the model: within a budget of "
            f"{'no bound' if study.budget is None else f'{study.budget:g}'} "
            f"{'it counts' if study.budget is None or study.budget > 1 else 'none counts'}. {kept}",
        ),
        tables=tuple(tables),
    )


def budgets(study: PathStudy) -> Section:
    """The share of examples that have a right program of at most so many layers."""
    # The search's own budget does not apply: the base model may be longer than that.
    shortest = study.rows[study.rows.correct].groupby("example_id").length.min()
    most = max(study.depth, int(shortest.max()) if len(shortest) else 0)
    steps = np.arange(1, most + 1)
    lines, shares = [], {}
    for task, examples in study.by_task():
        of_task = shortest.reindex(examples.index).dropna()
        reached = np.searchsorted(np.sort(of_task), steps, side="right") / len(examples)
        shares[task] = reached
        start = max(int((reached > 0).argmax()) - 1, 0) if reached.any() else 0
        lines.append(
            Line(
                name=f"{task} (ceiling)",
                points=tuple((int(step), round(100 * value, 2)) for step, value in zip(steps[start:], reached[start:])),
                steps=True,
            )
        )
        base = 100 * examples.baseline_correct.mean()
        lines.append(Line(name=f"{task}, base model", points=((study.depth, round(base, 2)),)))
    rows = [
        (f"{tenth * 10} %", *(percent(share[int(tenth * study.depth / 10 + 1e-9) - 1]) for share in shares.values()))
        for tenth in range(1, 10 * most // study.depth + 1)
        if tenth * study.depth // 10 >= 1
    ]
    rows.append(("base model", *(percent(examples.baseline_correct.mean()) for _, examples in study.by_task())))
    return Section(
        title="Accuracy against budget",
        text=(
            "The share of examples for which some program of at most so many layers is right. An oracle picks each "
            "example's program by its answer: a perfect router could reach this share, and no router does yet.",
        ),
        tables=(Table(columns=("layers at most", *shares), rows=tuple(rows)),),
        charts=(
            Lines(
                name="budgets",
                title="Right answers by budget, chosen by an oracle",
                x_label="layers at most",
                y_label="% right",
                lines=tuple(lines),
                vertical_line=(study.depth, f"the model's {study.depth} layers"),
            ),
        ),
    )


def coverage(study: PathStudy) -> Section:
    """The share of examples for which a set of so many programs holds a right one."""
    right = study.rows[study.rows.correct]
    sizes = [1 << power for power in range(_MOST_PROGRAMS.bit_length())]
    lines, columns = [], {}
    for task, examples in study.by_task():
        of_task = right[right.task == task]
        covered = greedy_cover(
            map(tuple, of_task.program), of_task.example_id, most=min(_MOST_PROGRAMS, max(len(of_task), 1))
        )
        reached = [number / len(examples) for number in covered]
        lines.append(
            Line(name=task, points=tuple((size, round(100 * value, 2)) for size, value in enumerate(reached, start=1)))
        )
        columns[task] = reached
    rows = [
        (str(size), *(percent(share[min(size, len(share)) - 1]) if share else "-" for share in columns.values()))
        for size in sizes
    ]
    return Section(
        title="How many programs cover how many examples",
        text=(
            "A set of so many programs, chosen greedily, holds a right one for this share of the examples. The "
            "identity program counts as one of them. "
            + (
                "All programs that were evaluated are counted."
                if study.keep == "all"
                else "Only the programs that the run kept are counted, so this is a lower bound."
            ),
        ),
        tables=(Table(columns=("programs", *columns), rows=tuple(rows)),),
        charts=(
            Lines(
                name="menus",
                title="Examples that a set of programs covers",
                x_label="programs",
                y_label="% of the examples",
                lines=tuple(lines),
            ),
        ),
    )


def discoveries(study: PathStudy) -> Section:
    """Answers shortened and corrected, by the number of programs that were evaluated."""
    title = "What is found after how many programs"
    known = study.examples[study.examples.index.isin(list(study.improvements))]
    if known.empty:
        return Section(title=title, text=("This run does not say in which order its programs were tried.",))
    most = int(study.rows.simulations.max())
    # A record may be wrong: an improvement after the last evaluation is ignored.
    found = {name: [step for step in study.improvements[name] if step[0] <= most] for name in known.index}
    right, wrong = known.index[known.baseline_correct], known.index[~known.baseline_correct]
    shorter = np.zeros(most + 1)
    corrected = np.zeros(most + 1)
    saved = np.zeros(most + 1)
    for name in right:
        before = 0
        for number, length in found[name]:
            gain = max(study.depth - length, 0)
            shorter[number] += gain > 0 and before == 0
            saved[number] += gain - before
            before = gain
    for name in wrong:
        for number, _ in found[name][:1]:
            corrected[number] += 1
    curves = {
        f"right answers shortened (of {len(right)})": shorter.cumsum() / max(len(right), 1),
        f"wrong ones corrected (of {len(wrong)})": corrected.cumsum() / max(len(wrong), 1),
    }
    mean_saved = saved.cumsum() / max(len(right), 1)
    shown = [step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if step < most] + [most]
    rows = [
        (str(step), *(percent(curve[step]) for curve in curves.values()), f"{mean_saved[step]:.2f}") for step in shown
    ]
    return Section(
        title=title,
        text=("By the number of programs that were tried beside the identity program.",),
        tables=(Table(columns=("programs", *curves, "layers saved on right answers"), rows=tuple(rows)),),
        charts=(
            Lines(
                name="found",
                title="Found after so many programs",
                x_label="programs tried",
                y_label="% of them",
                lines=tuple(
                    Line(name=name, points=_changes(100 * curve), steps=True) for name, curve in curves.items()
                ),
            ),
            Lines(
                name="saved",
                title="Layers saved on right answers",
                x_label="programs tried",
                y_label="layers",
                lines=(Line(name="mean", points=_changes(mean_saved), steps=True),),
            ),
        ),
    )


# -- counting --------------------------------------------------------------------------------


def count_layers(programs: Sequence[Any] | pd.Series[Any], depth: int) -> Array:
    """Number of times that each program runs each layer, ``[N, L]``."""
    counts = np.zeros((len(programs), depth), dtype=np.int16)
    listed = list(programs)
    for start in range(0, len(listed), _AT_ONCE):
        some = listed[start : start + _AT_ONCE]
        owners = np.repeat(np.arange(len(some)), [len(program) for program in some])
        cells = owners * depth + np.concatenate(some).astype(np.int64)
        counts[start : start + len(some)] = np.bincount(cells, minlength=len(some) * depth).reshape(len(some), depth)
    return counts


def kinds_of(counts: Array) -> Array:
    """The kind of each program by its counts ``[N, L]``; a program that runs each layer once has another order."""
    skips, repeats = (counts == 0).any(1), (counts > 1).any(1)
    return np.select([skips & repeats, skips, repeats], [BOTH, SKIP_ONLY, REPEAT_ONLY], OTHER_ORDER)


def greedy_cover(programs: Iterable[tuple[int, ...]], examples: Iterable[str], *, most: int) -> list[int]:
    """The number of examples that the first 1, 2, … programs of a set cover, each program chosen to add most.

    Args:
        programs: Programs that are right.
        examples: The example that each program is right on.
        most: Largest size of the set; it is smaller where no further program adds an example.
    """
    covers: dict[tuple[int, ...], set[str]] = {}
    for program, example in zip(programs, examples):
        covers.setdefault(program, set()).add(example)
    # A program never adds more later than it did before, so only the first of the heap is counted again.
    heap = [(-len(of), program) for program, of in covers.items()]
    heapq.heapify(heap)
    covered: set[str] = set()
    totals: list[int] = []
    while heap and len(totals) < most:
        seemed, program = heapq.heappop(heap)
        adds = len(covers[program] - covered)
        if adds < -seemed:
            if adds:
                heapq.heappush(heap, (-adds, program))
            continue
        covered |= covers[program]
        totals.append(len(covered))
    return totals


def _changes(curve: Array) -> tuple[tuple[float, float], ...]:
    """The points ``(index, value)`` at which a curve over 0, 1, … changes, and its two ends."""
    indices = {0, len(curve) - 1, *(np.flatnonzero(np.diff(curve)) + 1).tolist()}
    return tuple((index, round(float(curve[index]), 2)) for index in sorted(indices))
