"""``python -m benchmarks.results``: write ``docs/results.md``, and the headline table of ``README.md``, from files.

Two files hold the numbers. ``benchmarks/results/latest.json`` is written by ``python -m benchmarks``.
``benchmarks/results/recorded.json`` holds what commands of ``drllm-pipeline`` printed: each table names its commands,
the machine, and the commit that recorded it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import click

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
DOCUMENT = ROOT / "docs" / "results.md"
README = ROOT / "README.md"
HEADLINE_START, HEADLINE_END = "<!-- headline: start -->", "<!-- headline: end -->"

#: A decoded JSON object.
Json = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One figure of ``latest.json`` and how it is shown.

    Attributes:
        key: The figure's key under ``figures``; the same key under ``targets`` holds its bound.
        meaning: Meaning of the figure.
        unit: Unit behind the number; ``%`` also multiplies it by 100.
        decimals: Digits behind the point.
    """

    key: str
    meaning: str
    unit: str = ""
    decimals: int = 0

    def show(self, value: float) -> str:
        """A value of this figure as text."""
        scaled = value * 100 if self.unit == "%" else value
        separator = "" if self.unit in ("", "×") else " "
        return f"{scaled:,.{self.decimals}f}{separator}{self.unit}"


#: The speed figures, in the order in which the document lists them.
FIGURES = (
    Figure(
        key="time_to_released_quality",
        meaning="time of the released search until its early stop, divided by our time to the same quality",
        unit="×",
    ),
    Figure(
        key="time_to_random50_quality",
        meaning="time of 50 random edits by single forward passes, divided by our time to the same quality",
        unit="×",
        decimals=1,
    ),
    Figure(key="evaluations_to_random_50", meaning="programs until as many layers are saved as by 50 random edits"),
    Figure(
        key="layer_executions_ratio",
        meaning="layers run, divided by the layers of all programs run whole (UCB without a prior)",
        decimals=2,
    ),
    Figure(key="two_actors_over_one", meaning="throughput of two actors, divided by one", unit="×", decimals=2),
    Figure(
        key="coordinator_ms_per_example",
        meaning="the coordinator's time for an example, 64 actors, commits included",
        unit="ms",
        decimals=1,
    ),
    Figure(
        key="routing_overhead",
        meaning="time that routing adds to a forward pass, eight routers called",
        unit="%",
        decimals=1,
    ),
    Figure(
        key="routing_overhead_all_asked",
        meaning="time that routing adds to a forward pass, all thirty routers called",
        unit="%",
        decimals=1,
    ),
    Figure(
        key="generate_at_80_percent_over_base",
        meaning="speed of `generate` (32 tokens) with 80 % of the layers, divided by the base model's",
        unit="×",
        decimals=2,
    ),
    Figure(
        key="probe_overhead_pooling",
        meaning="time that a pooling probe adds to an ARC-Easy prompt and one token, batch 1 (the paper: 12 %)",
        unit="%",
        decimals=1,
    ),
    Figure(key="probe_overhead_gate", meaning="the same for a gate probe (the paper: 17 %)", unit="%", decimals=1),
    Figure(key="probe_overhead_mha", meaning="the same for an mha probe (the paper: 52 %)", unit="%", decimals=1),
    Figure(
        key="training_4000_rows_seconds",
        meaning="training routers on 4,000 examples with stored features, 25 epochs",
        unit="s",
    ),
    Figure(
        key="training_over_rerunning",
        meaning="time of an epoch that runs the base model again, divided by one with stored features",
        unit="×",
    ),
    Figure(key="report_megabytes", meaning="size of the report of a run of 10,000 examples", unit="MB", decimals=2),
    Figure(key="report_seconds_to_open", meaning="time until headless Chromium shows it", unit="s", decimals=2),
    Figure(
        key="chaos_more_layers",
        meaning="layers run in addition when actors and drivers are killed",
        unit="%",
        decimals=1,
    ),
    Figure(key="chaos_differing_files", meaning="files of the data set that then differ from the undisturbed run's"),
)

#: Rows of the search comparison: the name in ``latest.json``, and what the document calls it.
_SEARCHES = {
    "released chain, its early stop": "the released search: one chain without branches, with its early stop",
    "random edits": "one to three random edits, no search",
    "plain UCB": "the published constants on a branching tree (`--preset published`, without its early stop)",
    "default, no prior": "the default without a prior (`--calibration 0`)",
    "default": "**the default, with the prior**",
    "default, 4 leaves": "the default with the prior, 4 programs at once (`--leaves 4`)",
}
_TASKS = {"arc_letters": "ARC-Easy by letter", "arithmetic": "arithmetic", "gsm8k64": "GSM8K, 64 new tokens"}
_BASELINES = {
    "released": "the released search: `generate`, one by one",
    "single_pass": "one forward pass per program",
    "program_major": "equal programs batched",
}


def document(latest: Json, recorded: Json) -> str:
    """``docs/results.md``.

    Args:
        latest: The content of ``latest.json``.
        recorded: The content of ``recorded.json``.
    """
    parts = [
        "# Results",
        "<!-- Written by `python -m benchmarks.results`; edit the files under benchmarks/results/ instead. -->",
        "This page is generated by `make results` from `benchmarks/results/latest.json` (written by `make bench`) and\n"
        "`benchmarks/results/recorded.json` (figures that single commands printed). The model is\n"
        "SmolLM2-135M-Instruct with 30 layers. No figure is claimed for GPUs. The rules of measuring are in\n"
        "[performance.md](performance.md).",
        "## Quality of the search",
        _search_quality(latest),
        "## Throughput",
        _throughput(latest),
        "## Cost and speed",
        _figures(latest),
        _costs(latest),
        "## Where and when these were measured",
        _provenance(latest),
        "## Figures of single commands",
        "The commit is the one that recorded the figures; they were measured at it or shortly before.",
        *(_recorded(table) for table in recorded["tables"]),
    ]
    return "\n\n".join(parts) + "\n"


def headline(latest: Json, recorded: Json) -> str:
    """The headline table of the README: what is good, and what is not good yet."""
    quality = latest["details"]["search_quality"]
    with_prior, released = quality["default"], quality["released chain, its early stop"]
    figures, details = latest["figures"], latest["details"]
    routed, base, ceiling = (
        cells(recorded, "routers", row) for row in ("routed (`train`)", "base model", "search that knows the answers")
    )
    selector, selector_base = (cells(recorded, "selector", row) for row in ("selector, `--layer-price 0.01`", "base"))
    [judged_on] = [table["columns"][0].partition(";")[0] for table in recorded["tables"] if table["id"] == "selector"]
    first, all_renderings = cells(recorded, "permutations", "corrected, of the 90 others")
    verdicts = latest["details"]["verdicts"].values()
    compared, different = (sum(v[key] for v in verdicts) for key in ("verdicts_compared", "verdicts_different"))
    rows = [
        (
            "layers saved on the 39 examples that the base model solves, 50 programs each (released search)",
            f"{with_prior['saved_after']['50']:.2f} ({released['saved_after']['50']:.2f})",
        ),
        (
            "corrected of the 21 others (released search)",
            f"{with_prior['corrected_after']['50']:.0%} ({released['corrected_after']['50']:.0%})".replace("%", " %"),
        ),
        (
            "time of the released search over ours at its quality; with the 32 calibration examples counted",
            f"{figures['time_to_released_quality']:.0f}×; "
            f"{details['time_to_released_quality']['ratio_with_calibration']:.1f}×",
        ),
        ("labels that differ from stock transformers, of those compared (float32)", f"{different} of {compared}"),
        (
            "actors and the driver killed during a search: files that differ, additional layers run",
            f"{figures['chaos_differing_files']:.0f}; {figures['chaos_more_layers']:.1%}".replace("%", " %"),
        ),
        (
            f"a selector among 24 programs: correct on {judged_on} (base model)",
            f"{selector[0]} ({selector_base[0]}), {selector[-1]} layers",
        ),
        (
            "**per-layer routers do not beat the base model**: correct on 500 sums (base; search with answers)",
            f"{routed[0]} ({base[0]}; {ceiling[0]}), {routed[-1]} of {base[-1]} layers",
        ),
        (
            "**corrections with four options were guesses**: of 90, corrected in the first rendering; in all four",
            f"{first}; {all_renderings}",
        ),
        (
            "**a vote without the answer loses**: correct on 200 held-out sums, vote of 32 programs (base)",
            f"{cells(recorded, 'votes', 'vote of 32 programs')[0]} ({cells(recorded, 'votes', 'base model')[0]})",
        ),
    ]
    return _table(["SmolLM2-135M-Instruct on 2 CPU cores", "measured"], rows)


def cells(recorded: Json, table: str, row: str) -> list[str]:
    """The cells of one row of a recorded table, without the row's name.

    Raises:
        KeyError: There is no such table or row.
    """
    for candidate in recorded["tables"]:
        if candidate["id"] == table:
            for name, *rest in candidate["rows"]:
                if name == row:
                    return [str(cell) for cell in rest]
    raise KeyError(f"there is no row {row!r} in the recorded table {table!r}")


def with_headline(readme: str, table: str) -> str:
    """The README with its headline table replaced.

    Raises:
        ValueError: The README lacks one of the two markers.
    """
    before, start, rest = readme.partition(HEADLINE_START)
    _, end, after = rest.partition(HEADLINE_END)
    if not start or not end:
        raise ValueError(f"README.md lacks {HEADLINE_START} … {HEADLINE_END}")
    return f"{before}{start}\n{table}\n{end}{after}"


def _search_quality(latest: Json) -> str:
    found = latest["details"]["search_quality"]
    rows = []
    for key, name in _SEARCHES.items():
        one = found[key]
        saved = (f"{one['saved_after'][after]:.2f}" for after in ("10", "50"))
        corrected = (f"{one['corrected_after'][after]:.0%}".replace("%", " %") for after in ("10", "50"))
        rows.append([name, *saved, *corrected, f"{one['distinct_best_programs']} of {one['solved']}"])
    columns = [
        "search, 50 programs an example",
        "layers saved after 10",
        "after 50",
        "corrected after 10",
        "after 50",
        "distinct best programs",
    ]
    right, wrong = found["default"]["right"], found["default"]["wrong"]
    return (
        f"At equal evaluations, on {right + wrong} held-out examples (times table and sums). The base model solves "
        f"{right}\nof them: layers are saved there. The other {wrong} can be corrected. The prior was fitted on 32 "
        "examples of the training\nsplit, on which the defaults were chosen too. With so few examples, small "
        f"differences are noise.\n\n{_table(columns, rows)}"
    )


def _throughput(latest: Json) -> str:
    rows = []
    for task, name in _TASKS.items():
        row = [name]
        for baseline in _BASELINES:
            found = latest["details"][f"{task}_over_{baseline}"]
            if len(row) == 1:
                row.append(f"{median(found['our_programs_a_second']):.1f}")
            row.append(f"{median(found['peer_programs_a_second']):.2f} ({median(found['ratios']):.1f}×)")
        rows.append(row)
    verdicts = latest["details"]["verdicts"].values()
    compared, different = (sum(v[key] for v in verdicts) for key in ("verdicts_compared", "verdicts_different"))
    return (
        "Programs a second: medians of three repeats. In parentheses: our throughput divided by the baseline's.\n\n"
        f"{_table(['', 'ours', *_BASELINES.values()], rows)}\n\n"
        f"Of {compared} results that were compared with single passes of stock transformers, {different} differ."
    )


def _figures(latest: Json) -> str:
    rows = []
    for figure in FIGURES:
        target = latest["targets"][figure.key]
        bound = f"{'≤' if target['at_most'] else '≥'} {figure.show(target['bound'])}"
        verdict = "met" if target["met"] else "**missed**"
        rows.append([figure.meaning, figure.show(latest["figures"][figure.key]), bound, verdict])
    details = latest["details"]
    with_calibration = " and ".join(f"{details[figure.key]['ratio_with_calibration']:.1f}×" for figure in FIGURES[:2])
    return (
        f"{_table(['figure', 'measured', 'target', ''], rows)}\n\n"
        f"The first two figures leave out the calibration set. With its 32 examples counted in full they are "
        f"{with_calibration}."
    )


def _costs(latest: Json) -> str:
    tables = {
        "layers": "cost_by_layers",
        "examples in flight": "cost_by_questions",
        "simulations": "cost_by_simulations",
    }
    rows = [
        [f"{what}: {count}", f"{milliseconds:.0f} ms"]
        for what, key in tables.items()
        for count, milliseconds in latest["details"][key].items()
    ]
    return f"One program of ARC-Easy by letter on one core:\n\n{_table(['', 'time a program'], rows)}"


def _provenance(latest: Json) -> str:
    rows = []
    for name, section in latest["sections"].items():
        machine = section["machine"]
        commit, _, dirty = section["commit"].partition("-")
        where = f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']:g} GiB"
        rows.append(
            [
                f"`{name}`",
                f"`{commit[:7]}`{' (with changes)' if dirty else ''}",
                section["date"][:10],
                where,
                f"{section['settings']['device']}, {section['settings']['dtype']}",
            ]
        )
    columns = ["section of `python -m benchmarks`", "commit", "date", "machine", "device, precision"]
    return _table(columns, rows, numbers=False)


def _recorded(table: Json) -> str:
    commands = "\n".join(f"$ {_wrapped(command)}" for command in table["commands"])
    notes = "\n".join(f"- {note}" for note in table["notes"])
    parts = [
        f"### {table['title']}",
        f"Commit `{table['commit']}`, {table['date']}. {table['machine']}.",
        f"```console\n{commands}\n```",
        _table(table["columns"], table["rows"]),
    ]
    return "\n\n".join([*parts, notes] if notes else parts)


def _wrapped(command: str, width: int = 110) -> str:
    """A shell command on lines that are not too long, continued by backslashes between options."""
    lines = [""]
    for index, option in enumerate(command.split(" --")):
        words = option if index == 0 else f"--{option}"
        if lines[-1] and len(lines[-1]) + len(words) > width:
            lines.append("     ")
        lines[-1] = f"{lines[-1]} {words}" if lines[-1] else words
    return " \\\n".join(lines)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: bool = True) -> str:
    """A Markdown table; columns of numbers, all but the first, are aligned to the right."""
    lines = [columns, ["---", *["---:" if numbers else "---"] * (len(columns) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def read(name: str) -> Any:
    """One of the files of numbers."""
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


@click.command()
def main() -> None:
    """Write docs/results.md and the README's headline table from the files under benchmarks/results."""
    latest, recorded = read("latest.json"), read("recorded.json")
    DOCUMENT.parent.mkdir(exist_ok=True)
    DOCUMENT.write_text(document(latest, recorded), encoding="utf-8")
    README.write_text(with_headline(README.read_text(encoding="utf-8"), headline(latest, recorded)), encoding="utf-8")
    click.echo(f"Wrote {DOCUMENT.relative_to(ROOT)} and the headline table of {README.relative_to(ROOT)}.")


if __name__ == "__main__":
    main()
