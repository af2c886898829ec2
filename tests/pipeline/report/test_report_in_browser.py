"""The report's page in a real browser: what is drawn, at which width, in which light."""

from __future__ import annotations

import pytest
from report_rows import frame, random_questions, steps

from benchmarks.browser import chromium, chromium_is_here
from pipeline.report.analysis import PathStudy, analyse
from pipeline.report.page import render

pytestmark = pytest.mark.skipif(not chromium_is_here(), reason="needs Debian's chromium and chromium-driver")

SETTINGS = {"keep": "all", "search.budget": 2.0}
FIGURES = {"groups", "lengths", "layers-skipped", "layers-repeated", "budgets", "menus", "found", "saved"}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    questions = random_questions(60, depth=30, tried=20)
    study = PathStudy.of(frame(questions, depth=30, budget=2.0), SETTINGS, steps(questions, depth=30, budget=2.0))
    file = tmp_path_factory.mktemp("report") / "report.html"
    file.write_text(render("Layer programs of a model", ["facts"], analyse(study)), encoding="utf-8")
    return file.as_uri()


@pytest.fixture(scope="module")
def driver():
    with chromium() as driver:
        yield driver


def media(driver, *, width=1000, scheme="light"):
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )


def test_all_figures_are_drawn_without_a_word_on_the_console(driver, page):
    """Catches a figure of no size, and a page that a browser complains about."""
    media(driver)
    driver.get(page)
    assert driver.get_log("browser") == []
    boxes = driver.execute_script(
        "return [...document.querySelectorAll('svg[data-figure]')].map(svg => {"
        "const box = svg.getBBox(); return [svg.dataset.figure, box.width, box.height,"
        "svg.querySelectorAll('.mark').length]})"
    )
    assert {name for name, *_ in boxes} == FIGURES
    assert all(width > 300 and height > 50 and marks for _, width, height, marks in boxes), boxes
    spills = driver.execute_script(
        "return [...document.querySelectorAll('svg[data-figure]')].filter(svg => {"
        "const box = svg.getBBox(), view = svg.viewBox.baseVal;"
        "return box.x < -1 || box.y < -1 || box.x + box.width > view.width + 1 || box.y + box.height > view.height + 1"
        "}).map(svg => svg.dataset.figure)"
    )
    assert spills == [], "something is drawn outside its figure"


def test_the_page_is_readable_on_a_phone(driver, page):
    """Catches a page that must be moved sideways as a whole, and letters that shrink with the screen."""
    media(driver, width=390)
    driver.get(page)
    assert driver.execute_script("return document.documentElement.scrollWidth") <= 390
    letters = driver.execute_script(
        "return [...document.querySelectorAll('svg[data-figure]')].map("
        "svg => 12 * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width)"
    )
    assert min(letters) >= 9


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_and_marks_stand_out_from_the_page(driver, page, scheme):
    """Catches black on black: WCAG asks for a contrast of 4.5 for texts and of 3 for figures."""
    media(driver, scheme=scheme)
    driver.get(page)
    colours = driver.execute_script(
        "const of = (query, name) => getComputedStyle(document.querySelector(query))[name];"
        "return [of('body', 'backgroundColor'), of('p', 'color'), of('.facts', 'color'), of('svg text', 'fill'),"
        "...[0, 1, 2, 3].map(i => of('.fill' + i, 'fill')), of('.cell', 'fill')]"
    )
    page_colour, *texts = (luminance(colour) for colour in colours)
    contrasts = [(max(page_colour, one) + 0.05) / (min(page_colour, one) + 0.05) for one in texts]
    assert (page_colour < 0.1) == (scheme == "dark")
    assert min(contrasts[:3]) >= 4.5 and min(contrasts[3:]) >= 3, contrasts


def luminance(colour):
    channels = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
