"""The report of a run: its numbers against plain loops, and a page that needs nothing else."""

from __future__ import annotations

import json
import re
from collections import Counter
from html import unescape

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from report_rows import DEPTH, frame, random_questions, steps
from shard_rows import CONFIG, rows

from pipeline.cli.main import main
from pipeline.errors import UserError
from pipeline.report import analysis, png
from pipeline.report.analysis import (
    BOTH,
    GROUPS,
    OTHER_ORDER,
    REPEAT_ONLY,
    SKIP_ONLY,
    PathStudy,
    analyse,
    greedy_cover,
    kinds_of,
)
from pipeline.report.charts import Bars, Heatmap, Lines, ticks
from pipeline.report.page import render
from pipeline.shards.run_folder import RunFolder

IDENTITY = tuple(range(DEPTH))
SETTINGS = {"task": "made", "keep": "all", "search.budget": 1.0}


def study(questions, **changes):
    settings = {**SETTINGS, **changes}
    budget = settings["search.budget"] or 9.0
    return PathStudy.of(frame(questions, budget=budget), settings, steps(questions, budget=budget))


def chart(section, name):
    return next(chart for chart in section.charts if chart.name == name)


def best_lengths(questions, budget=1.0):
    return [
        min((len(layers) for layers, right in tried.items() if right and len(layers) <= budget * DEPTH), default=None)
        for _, tried in questions
    ]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("budget", [0.5, 1.0, 2.0])
def test_each_question_is_in_the_group_that_a_loop_puts_it_in(seed, budget):
    """Catches a group by the wrong verdict, a corrected question without a right program, and one counted twice."""
    questions = random_questions(40, seed=seed)
    found = study(questions, **{"search.budget": budget}).examples
    for (_, tried), length, group in zip(questions, best_lengths(questions, budget), found.group):
        if tried[IDENTITY]:
            expected = GROUPS[0] if length is not None and length < DEPTH else GROUPS[1]
        else:
            expected = GROUPS[2] if length is not None else GROUPS[3]
        assert group == expected
    table = analysis.groups(study(questions, **{"search.budget": budget})).tables[0]
    assert sum(int(row[1]) for row in table.rows) == 40
    for row in table.rows:
        numbers = [int(cell.split()[0]) for cell in row[1:]]
        assert numbers[1] == numbers[2] + numbers[3] and numbers[4] == numbers[5] + numbers[6]
        assert numbers[0] == numbers[1] + numbers[4]


@pytest.mark.parametrize("budget", [0.5, 1.0, 2.0])
def test_the_oracle_curve_is_the_share_of_questions_with_a_right_program(budget):
    """Catches a curve that falls, one that counts wrong programs, and one that lacks a base model beyond the budget."""
    questions = random_questions(50)
    section = analysis.budgets(study(questions, **{"search.budget": budget}))
    for line in chart(section, "budgets").lines:
        if not line.name.endswith("(ceiling)"):
            continue
        task = line.name.removesuffix(" (ceiling)")
        lengths = [length for (of, _), length in zip(questions, best_lengths(questions, 9.0)) if of == task]
        for x, y in line.points:
            assert y == pytest.approx(
                100 * np.mean([length is not None and length <= x for length in lengths]), abs=0.01
            )


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 8)), max_size=40))
def test_a_menu_is_the_greedy_one(pairs):
    """Catches a menu that counts a covered question again, and a heap that trusts what was true before."""
    covers: dict[tuple[int, ...], set[str]] = {}
    for program, question in pairs:
        covers.setdefault((program,), set()).add(str(question))
    covered: set[str] = set()
    expected = []
    while gains := {program: len(of - covered) for program, of in covers.items() if of - covered}:
        covered |= covers[min(gains, key=lambda program: (-gains[program], program))]
        expected.append(len(covered))
    totals = greedy_cover([(program,) for program, _ in pairs], [str(question) for _, question in pairs], most=9)
    assert totals == expected


@pytest.mark.parametrize(
    ("program", "kind"),
    [
        ((0, 1, 2), SKIP_ONLY),
        ((0, 1, 2, 3, 4, 5, 5), REPEAT_ONLY),
        ((0, 1, 1), BOTH),
        ((5, 0, 0), BOTH),
        ((0, 2, 1, 3, 4, 5), OTHER_ORDER),
    ],
)
def test_kinds_of_programs(program, kind):
    """Catches a program that skips and repeats counted as one that only skips."""
    assert kinds_of(analysis.count_layers([program], DEPTH)).tolist() == [kind]


def test_what_each_kind_brings_equals_a_loop():
    """Catches shares of the wrong whole, and a kind that is credited with another's programs."""
    questions = random_questions(60)
    budget = {"search.budget": 2.0}
    for table in analysis.kinds(study(questions, **budget)).tables:
        of_task = [tried for task, tried in questions if task == table.columns[0]]
        for row in table.rows:
            kinds = analysis.KINDS if row[0] == "any of them" else [row[0]]
            mine = [
                {
                    p: right
                    for p, right in tried.items()
                    if p != IDENTITY and kinds_of(analysis.count_layers([p], DEPTH))[0] in kinds
                }
                for tried in of_task
            ]
            assert int(row[1]) == sum(map(len, mine))
            shortened = sum(
                tried[IDENTITY] and any(right and len(p) < DEPTH for p, right in some.items())
                for tried, some in zip(of_task, mine)
            )
            corrected = sum(not tried[IDENTITY] and any(some.values()) for tried, some in zip(of_task, mine))
            assert (int(row[2].split()[0]), int(row[3].split()[0])) == (shortened, corrected)


def test_another_order_of_the_layers_is_a_kind_of_its_own():
    """Catches a correction that the groups count and no kind does."""
    tried = {IDENTITY: False, (0, 2, 1, 3, 4, 5): True}
    [table] = analysis.kinds(study([("t", tried)])).tables
    assert [row[0] for row in table.rows][-2:] == [OTHER_ORDER, "any of them"]
    assert table.rows[-1][3] == table.rows[-2][3] == "1 (100 %)"


def test_what_is_not_known_to_be_all_is_a_lower_bound():
    """Catches a converted run, of right programs alone perhaps, that is said to hold all that were tried."""
    said = [analysis.kinds(study([("t", {IDENTITY: True})], keep=keep)).text[0] for keep in ("all", 4, None)]
    assert ["lower bound" in text for text in said] == [False, True, True]


def test_what_was_found_when_equals_a_loop():
    """Catches curves that count a question before its program was tried."""
    questions = random_questions(60)
    section = analysis.discoveries(study(questions))
    for row in section.tables[0].rows:
        number = int(row[0])
        until = [dict(list(tried.items())[: number + 1]) for _, tried in questions]
        right = [best_lengths([("", tried)])[0] for tried in until if tried[IDENTITY]]
        wrong = [best_lengths([("", tried)])[0] for tried in until if not tried[IDENTITY]]
        shares = [np.mean([length < DEPTH for length in right]), np.mean([length is not None for length in wrong])]
        assert [row[1], row[2]] == [f"{100 * share:.0f} %" for share in shares]
        assert float(row[3]) == pytest.approx(np.mean([DEPTH - length for length in right]), abs=0.006)


def test_a_run_that_does_not_say_when_says_so():
    """Catches an error, or empty curves, for a run of an older version."""
    questions = random_questions(5)
    section = analysis.discoveries(PathStudy.of(frame(questions), SETTINGS, {}))
    assert "does not say in which order" in section.text[0] and not section.charts


def test_what_was_found_by_a_program_that_was_not_tried_is_not_counted():
    """Catches a traceback for a record that counts more programs than its rows do."""
    questions = [("t", {IDENTITY: True, (0, 1): True}), ("t", {IDENTITY: False, (0, 1): True})]
    real = steps(questions)
    wrong = PathStudy.of(frame(questions), SETTINGS, {name: [[99, 2], *found] for name, found in real.items()})
    assert analysis.discoveries(wrong) == analysis.discoveries(study(questions))


@pytest.mark.parametrize("budget", ["abc", [1], 0, -1.0, float("nan"), float("inf"), 10**400])
def test_a_budget_that_is_none_is_named(budget):
    """Catches a traceback in the middle of a page."""
    with pytest.raises(UserError, match="a budget that is not a number above 0"):
        PathStudy.of(frame([("t", {IDENTITY: True})]), {**SETTINGS, "search.budget": budget}, {})


def test_layers_of_the_best_programs_equal_a_loop():
    """Catches a heat map over all programs, or of the wrong outcome."""
    questions = random_questions(60)
    section = analysis.layers(study(questions))
    skipped = chart(section, "layers-skipped")
    for name, values in zip(skipped.rows, skipped.values):
        task, outcome = name.split(", ")
        best = [
            min((p for p, right in tried.items() if right and len(p) <= DEPTH), key=lambda p: (len(p), p))
            for of, tried in questions
            if of == task
            and tried[IDENTITY] == (outcome == "kept right")
            and best_lengths([("", tried)])[0] is not None
        ]
        expected = [np.mean([layer not in p for p in best]) for layer in range(DEPTH)]
        assert values == pytest.approx(expected, abs=1e-3)


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_few_and_inside(low, span):
    """Catches an axis without marks, or with hundreds."""
    marks = ticks(low, low + span)
    assert 1 <= len(marks) <= 8 or span < abs(low) * 1e-6
    assert all(low - span * 0.01 <= mark <= low + span * 1.01 for mark in marks)


# -- the page ------------------------------------------------------------------------------


def page_of(questions, **changes):
    return render("A <title>", ["a & b"], analyse(study(questions, **changes)))


def test_the_page_needs_nothing_else_and_escapes_what_it_shows():
    """Catches a font or script from elsewhere, and a task's name that becomes markup."""
    page = page_of([("<b>task</b>", {IDENTITY: True, (0, 1): True})])
    assert "<b>task" not in page and "&lt;b&gt;task" in page and "A &lt;title&gt;" in page
    assert "<script" not in page and not re.search(r"(src|href)=\"(?!data:)", page)
    assert "http://" not in page and "https://" not in page and "@import" not in page and "url(" not in page


def test_every_figure_is_drawn_and_every_mark_says_its_number():
    """Catches a chart that is left out, and marks without a tooltip."""
    sections = analyse(study(random_questions(40)))
    page = render("t", [], sections)
    charts = [chart for section in sections for chart in section.charts]
    assert {chart.name for chart in charts} >= {"groups", "lengths", "layers-skipped", "budgets", "menus", "found"}
    for one in charts:
        assert f'data-figure="{one.name}"' in page
    marks, tooltips = Counter(re.findall(r'<(rect|circle) class="\S+ mark"', page)), re.findall("<title>([^<]+)", page)
    cells = sum(len(row) for one in charts if isinstance(one, Heatmap) for row in one.values)
    bars = sum(value > 0 for one in charts if isinstance(one, Bars) for s in one.series for value in s.values)
    points = sum(len(line.points) for one in charts if isinstance(one, Lines) for line in one.lines)
    assert marks == {"rect": cells + bars, "circle": points}
    assert len(tooltips) >= cells + bars + points and all(re.search(r"\d", unescape(text)) for text in tooltips[1:])


#: Runs in which no program is right, none is shorter, or none is within the budget.
RUNS_WITH_LITTLE = [
    [("t", {IDENTITY: False})],
    [("t", {IDENTITY: True})],
    [("t", {IDENTITY: False, (0,): True})],
    [("t", {IDENTITY: True, (*IDENTITY, 5): True})],
]


@pytest.mark.parametrize("questions", RUNS_WITH_LITTLE)
@pytest.mark.parametrize("budget", [0.5, 1.0, 2.0, None])
def test_a_page_of_a_run_with_little_in_it(questions, budget):
    """Catches a division by zero where there is nothing to divide by."""
    page = page_of(questions, **{"search.budget": budget})
    assert "nan" not in page and "inf" not in page and "1e-09" not in page


@pytest.mark.parametrize(
    ("questions", "budget"),
    [
        pytest.param(questions, budget, marks=() if (number, budget) == (2, 0.5) else pytest.mark.exhaustive)
        for number, questions in enumerate(RUNS_WITH_LITTLE)
        for budget in (0.5, 1.0, 2.0, None)
    ],
)
def test_pictures_of_a_run_with_little_in_it(questions, budget, tmp_path):
    """Catches an axis without a range, and a legend of nothing."""
    sections = analyse(study(questions, **{"search.budget": budget}))
    png.write([chart for section in sections for chart in section.charts], tmp_path)


def test_reasons_are_counted_for_the_base_model_and_for_other_programs():
    """Catches a count of all rows as the base model's, and a table of nothing for a run that holds no reasons."""
    made = frame([("t", {IDENTITY: False, (0,): True}), ("t", {IDENTITY: True}), ("t", {IDENTITY: False, (1,): False})])
    assert analysis.count_reasons(made) == []
    assert "other kept programs" not in render("t", [], analyse(PathStudy.of(made, SETTINGS, {})))
    made["reason"] = ["cut", "ended", "ended", "cut", "unequal"]
    assert analysis.count_reasons(made) == [("cut", 2, 0), ("ended", 1, 1), ("unequal", 0, 1)]
    assert "other kept programs" in render("t", [], analyse(PathStudy.of(made, SETTINGS, {})))


@pytest.mark.exhaustive
def test_many_tasks_of_odd_names_are_told_apart(tmp_path):
    """Catches curves without a colour, names that are read as formulas or left out, and ones that leave the page."""
    names = ["_hidden", "$\\frac$", "a name " * 20, *(f"task {number}" for number in range(6))]
    sections = analyse(study([(name, {IDENTITY: True, (0, 1): number % 2 == 0}) for number, name in enumerate(names)]))
    page = render("t", [], sections)
    styled = set(re.findall(r"\.((?:fill|line)\d+) \{", page))
    assert set(re.findall(r'class="((?:fill|line)\d+)', page)) <= styled
    assert all(float(width) > 0 for width in re.findall(r' width="([-\d.]+)"', page))
    assert all(0 <= float(x) <= 720 for x in re.findall(r'<text x="([-\d.]+)"', page))
    png.write([chart for section in sections for chart in section.charts], tmp_path)


@pytest.mark.exhaustive
def test_ten_thousand_questions_fit_into_five_megabytes():
    """Catches a page that grows with the run."""
    questions = random_questions(500, tried=12)
    part, steps_of_part = frame(questions), steps(questions)
    rows = pd.concat([part.assign(example_id=f"{number}-" + part.example_id) for number in range(20)])
    found = {f"{number}-{example}": best for number in range(20) for example, best in steps_of_part.items()}
    made = PathStudy.of(rows, SETTINGS, found)
    assert len(made.examples) == 10_000 and len(render("t", [], analyse(made)).encode()) < 5_000_000


# -- the command -----------------------------------------------------------------------------


def report(*arguments, status=0):
    result = CliRunner().invoke(main, ["report", *map(str, arguments)])
    assert result.exit_code == status, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.output


@pytest.fixture
def run(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.open(CONFIG, provenance={})
    folder.commit(0, rows("q-0"), improvements={"q-0": [[0, 3], [1, 2]]})
    folder.close()
    return folder.root


def test_the_command_writes_the_page_and_the_pictures(run, tmp_path):
    """Catches pictures that are no PNG, and a page somewhere else than it was said."""
    said = report(run, "--out", tmp_path / "deep" / "page.html")
    assert str(tmp_path / "deep" / "page.html") in said and str(tmp_path / "deep" / "page") in said
    pictures = sorted((tmp_path / "deep" / "page").glob("*.png"))
    assert "groups" in {file.stem for file in pictures}
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in pictures)
    assert "found" in {file.stem for file in pictures}, "the manifest says when"
    report(run)
    assert (run / "report.html").is_file() and (run / "report" / "groups.png").is_file()


def test_what_cannot_be_reported_is_said(run, tmp_path):
    """Catches a traceback."""
    assert "no-run is no run folder" in report(tmp_path / "no-run", status=2)
    empty = RunFolder(tmp_path / "empty")
    empty.open(CONFIG, provenance={})
    empty.close()
    assert "nothing is committed" in report(empty.root, status=2)
    (tmp_path / "file").write_text("")
    assert "cannot be written" in report(run, "--out", tmp_path / "file" / "page.html", status=2)
    assert "a page's name, such as page.html" in report(run, "--out", tmp_path / "page", status=2)
    (run / "run.json").write_text(json.dumps({}))
    assert "holds no settings" in report(run, status=2)
