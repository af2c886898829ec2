"""``python -m benchmarks``: measure, show a table, write a file."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from benchmarks import (
    chaos,
    coordination,
    prefix_sharing,
    probing,
    quality,
    report,
    report_page,
    routing,
    scaling,
    throughput,
)
from benchmarks.harness import MODEL, BenchmarkSection, Harness
from benchmarks.workloads import Sources, Subject, throughput_workloads
from pipeline.engine.loading import choose_device, choose_dtype
from pipeline.errors import UserError
from pipeline.model_source import resolve_model

#: In the order in which they run.
SECTIONS: tuple[BenchmarkSection, ...] = (
    quality.SECTION,
    throughput.SECTION,
    prefix_sharing.SECTION,
    scaling.SECTION,
    coordination.SECTION,
    routing.SECTION,
    report_page.SECTION,
    probing.SECTION,
    chaos.SECTION,
)
LATEST = Path(__file__).parent / "results" / "latest.json"
#: Rough numbers do not replace measured ones.
QUICK = LATEST.with_name("quick.json")


def _sections_help() -> str:
    width = max(len(section.name) for section in SECTIONS)
    return "\n".join(f"  {section.name:<{width}}  {section.summary}" for section in SECTIONS)


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    help=f"""Measure the search against plainer ways to do the same work, with the embedded model.

Speeds are ratios of two things that are measured alternately in this one run, so that a slow machine
slows both; with repeats, medians. Nothing else should run on the machine.

\b
Sections:
{_sections_help()}

\b
Examples:
  python -m benchmarks --quick                   whether it works, in about three minutes
  python -m benchmarks --arc allenai/ai2_arc:ARC-Easy --gsm8k openai/gsm8k:main
  python -m benchmarks --only sharing --only coordination
""",
)
@click.option("--quick", is_flag=True, help="One repeat of little: shows that it works; the figures are rough.")
@click.option("--repeats", type=click.IntRange(min=1), help="Repeats of each comparison.  [default: 3; quick: 1]")
@click.option("--arc", help="ARC examples: a file, a folder or a hub data set.  [default: made ones as long]")
@click.option("--gsm8k", help="GSM8K examples, likewise.")
@click.option(
    "--only",
    type=click.Choice([section.name for section in SECTIONS]),
    multiple=True,
    help="Only this section; may be given several times.",
)
@click.option("--device", default="cpu", show_default=True, metavar="auto|cpu|cuda", help="Where the models run.")
@click.option("--dtype", default="auto", show_default=True, metavar="auto|float32|bfloat16|float16", help="Precision.")
@click.option("--seed", default=0, show_default=True, help="Seed of made examples, searches and samples.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the numbers are written.  [default: benchmarks/results/latest.json; quick.json with --quick]",
)
def main(
    quick: bool,
    repeats: int | None,
    arc: str | None,
    gsm8k: str | None,
    only: tuple[str, ...],
    device: str,
    dtype: str,
    seed: int,
    out: Path | None,
) -> None:
    """Run the chosen sections."""
    chosen = [section for section in SECTIONS if not only or section.name in only]
    out = out or (QUICK if quick else LATEST)
    sources = Sources(arc=arc, gsm8k=gsm8k, seed=seed)
    figures: dict[str, float] = {}
    try:
        throughput_workloads(sources, quick=quick)  # a wrong file is better found before a model is loaded
        chosen_device = choose_device(device)
        precision = str(choose_dtype(dtype, chosen_device)).removeprefix("torch.")
        subject = Subject(source=resolve_model(MODEL), device=chosen_device.type, dtype=precision)
        repeats = repeats or (1 if quick else 3)
        with Harness(subject=subject, sources=sources, quick=quick, repeats=repeats, seed=seed) as harness:
            settings = {
                "quick": quick,
                "repeats": repeats,
                "seed": seed,
                "device": subject.device,
                "dtype": subject.dtype,
                # Not where they lie: that says nothing on another machine.
                "arc": arc and Path(arc).name,
                "gsm8k": gsm8k and Path(gsm8k).name,
            }
            for section in chosen:
                found = section.measure(harness)
                figures.update(found.figures)
                # After every section, so that a run that is stopped keeps what it measured.
                report.add(out, section.name, report.report(section.targets, found, settings=settings))
    except UserError as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        raise click.ClickException(f"stopped; the sections that were finished are in {out}") from None
    targets = [target for section in chosen for target in section.targets]
    Console().print(report.table(targets, figures))
    click.echo(f"Every number behind it: {out}")


if __name__ == "__main__":
    main()
