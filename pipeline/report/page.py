"""A report as one HTML page that needs nothing else: no network, no script, light and dark, wide and narrow."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from pipeline.report import svg
from pipeline.report.charts import Section, Table

#: The colour-blind-safe palette of Okabe and Ito (2008), for light pages and, where it is too dark, for dark ones.
_COLOURS = (
    ("#0072b2", "#56b4e9"),
    ("#c27400", "#e69f00"),
    ("#008a64", "#2fc79c"),
    ("#b0413e", "#e8837f"),
    ("#a8558a", "#d592bb"),
    ("#6b6b00", "#e0d53c"),
    ("#5c6670", "#b7c0c8"),
)
assert len(_COLOURS) == svg.COLOURS
_STYLE = """
:root { color-scheme: light dark; --ink: #1c2126; --soft: #5b6670; --rule: #d5dade; --page: #ffffff; LIGHT }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e7eaed; --soft: #a3adb6; --rule: #3a424a; --page: #15191d; DARK }
}
body { margin: 0 auto; max-width: 60rem; padding: 1rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
.facts, summary, figcaption { color: var(--soft); }
figure { margin: 1rem 0; } figcaption { font-weight: 600; }
.wide { overflow-x: auto; }
svg { display: block; width: 100%; min-width: 36rem; height: auto; }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif; }
.grid { stroke: var(--rule); } .border { stroke: var(--soft); stroke-dasharray: 4 3; stroke-width: 2; }
polyline { fill: none; stroke-width: 2; } .mark:hover { stroke: var(--ink); stroke-width: 2; }
.cell { fill: var(--c0); }
table { border-collapse: collapse; font-size: .9rem; margin: .6rem 0; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--rule); text-align: right; white-space: nowrap; }
th { color: var(--soft); font-weight: 600; } th:first-child, td:first-child { text-align: left; }
table.texts td, table.texts th { text-align: left; white-space: normal; min-width: 6rem; vertical-align: top; }
summary { cursor: pointer; }
""" + "".join(f".fill{i} {{ fill: var(--c{i}); }} .line{i} {{ stroke: var(--c{i}); }}\n" for i in range(len(_COLOURS)))
#: Tables with more rows are folded.
_FOLDED = 12


def render(title: str, facts: Sequence[str], sections: Sequence[Section]) -> str:
    """Render a report as an HTML page.

    Args:
        title: Title of the page.
        facts: Sentences that describe the run.
        sections: The sections, in their order.
    """
    parts = [f"<h1>{escape(title)}</h1>", *(f'<p class="facts">{escape(fact)}</p>' for fact in facts)]
    for section in sections:
        parts.append(f"<section><h2>{escape(section.title)}</h2>")
        parts += [f"<p>{escape(paragraph)}</p>" for paragraph in section.text]
        for chart in section.charts:
            parts.append(
                f'<figure><figcaption>{escape(chart.title)}</figcaption><div class="wide" tabindex="0">'
                f"{svg.draw(chart)}</div></figure>"
            )
        parts += map(_table, section.tables)
        parts.append("</section>")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>\n<style>{_style()}</style>\n</head>\n<body>\n'
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def _style() -> str:
    light, dark = (" ".join(f"--c{i}: {pair[side]};" for i, pair in enumerate(_COLOURS)) for side in (0, 1))
    return _STYLE.replace("LIGHT", light).replace("DARK", dark)


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in table.columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    kind = ' class="texts"' if table.texts else ""
    whole = (
        f'<div class="wide" tabindex="0"><table{kind}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )
    return f"<details><summary>All numbers</summary>{whole}</details>" if len(table.rows) > _FOLDED else whole
