"""``drllm-pipeline report``: a run folder becomes a page and its pictures."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import UserError
from pipeline.report import png
from pipeline.report.analysis import PathStudy, analyse
from pipeline.report.examples import examples
from pipeline.report.page import render
from pipeline.shards.reader import read_improvements, read_paths, read_settings
from pipeline.storage import AnyPath, is_there, uploaded


@dataclass(frozen=True, kw_only=True)
class WrittenReport:
    """The files of a report.

    Attributes:
        page: The HTML file.
        pictures: The PNG files, one for each figure.
    """

    page: AnyPath
    pictures: list[AnyPath]


def write_report(run: AnyPath, out: AnyPath | None = None) -> WrittenReport:
    """Write the report of a run.

    Args:
        run: The run folder; it need not be complete.
        out: The page; None for ``report.html`` in the run folder. The pictures go to a folder beside the page, of its
            name without the ending.

    Raises:
        UserError: The folder is no run, is damaged or holds nothing yet, or the page cannot be written.
    """
    if out is not None and out.suffix not in (".html", ".htm"):
        raise UserError(f"--out must be a page's name, such as {out.name or 'report'}.html, got {str(out)!r}")
    settings, rows = read_settings(run), read_paths(run)
    if rows.empty:
        raise UserError(f"nothing is committed in {run} yet: there is nothing to report")
    out = out or run / "report.html"
    study = PathStudy.of(rows, settings, read_improvements(run))
    groups, *others = analyse(study)
    sections = [groups, examples(study), *others]
    state = "complete" if is_there(run / "_SUCCESS") else "incomplete: more examples may follow"
    evaluations = int(rows.groupby("example_id").evaluations.first().sum())
    facts = (
        f"{len(study.examples):,} examples of {settings.get('task')}, {evaluations:,} programs tried, "
        f"{len(rows):,} kept; {state}.",
        f"Model {settings.get('model.name')} with {study.depth} layers, in {settings.get('dtype')}; "
        f"action space {settings.get('search.action_space', 'unknown')}, "
        f"{settings.get('search.simulations', 'unknown')} simulations an example, "
        f"budget {settings.get('search.budget') or 'none'}.",
    )
    page = render(f"Layer programs of {settings.get('model.name')} on {settings.get('task')}", facts, sections)
    try:
        with uploaded(out) as file:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror or error}") from None
    charts = [chart for section in sections for chart in section.charts]
    pictures = out.with_suffix("")
    with uploaded(pictures) as folder:
        names = [file.name for file in png.write(charts, folder)]
    return WrittenReport(page=out, pictures=[pictures / name for name in names])
