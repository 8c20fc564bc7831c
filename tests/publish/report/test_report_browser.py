"""The report in a real browser: it opens, sorts, filters, draws, and runs nothing but itself."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace

import pytest
from support import comparison_example, report_sweep, system_tools
from support.project import ROOT
from support.report_sweep import HOSTILE

from llm_energy.environments import registry
from llm_energy.publish import report
from llm_energy.publish.report import render

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
ROWS = 12  # 2 backends x 3 precisions x 2 workloads
# A plot as high as its rows fits its width alone, which is meant; Vega-Lite warns of it.
EXPECTED = ("warning", 'WARN Dropping "fit-y" because spec has discrete height.')
DRAWN = 10  # all but the two of the cell that is unsupported


@pytest.fixture(scope="module")
def browser():
    system_tools.need("chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # As root, as in most containers, Chromium starts without its sandbox or not at all.
        running = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        yield running
        running.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    compared = replace(comparison_example.example(), findings=(f"A finding about {HOSTILE}.",))
    path = folder / "report.html"
    path.write_text(render(report_sweep.sources(folder, compared)), encoding="utf-8")
    return path.as_uri()


class Opened:
    """An open report with everything that the browser complained about or asked for."""

    def __init__(self, browser, address, viewport=None, scheme="light"):
        self.page = browser.new_page(viewport=viewport or DESKTOP, color_scheme=scheme)
        self.complaints, self.requests = [], []
        self.page.on("console", lambda m: self.complain(m.type, m.text))
        self.page.on("pageerror", lambda error: self.complain("error", str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(address)
        self.page.wait_for_selector("html[data-ready=yes]")

    def complain(self, kind, text):
        if (kind, text) != EXPECTED:
            self.complaints.append((kind, text))


@pytest.fixture(scope="module")
def opened(browser, address):
    """Return the report in one window for the tests that leave it as they find it."""
    one = Opened(browser, address)
    yield one
    one.page.close()


@pytest.fixture
def page(opened):
    opened.page.evaluate("location.hash = ''")
    opened.page.wait_for_selector("#main", state="visible")
    return opened.page


def column(page, index: int) -> list[str]:
    return page.locator(f"#result-table tbody tr > :nth-child({index})").all_inner_texts()


def test_it_opens_without_a_complaint_and_asks_for_nothing_else(opened, address):
    assert opened.complaints == []
    assert [url for url in opened.requests if not url.startswith(("data:", "blob:"))] == [address]


def test_every_plot_is_drawn(page):
    plots = page.locator("figure[data-plot]")
    names = plots.evaluate_all("all => all.map(one => one.dataset.plot)")
    assert names == [
        *("batch", "backend", "throughput", "latency", "components", "requests", "repeats")
    ]
    for name in names:
        marks = page.locator(f"figure[data-plot={name}] svg :is(.mark-symbol, .mark-rect) path")
        assert marks.count() > 0, name
        assert page.locator(f"figure[data-plot={name}] svg").bounding_box()["width"] > 300
    legend = page.locator("figure[data-plot=components] svg .role-legend-label text")
    assert set(legend.all_text_contents()) <= {"GPU", "CPU", "memory"}
    assert legend.count() > 0
    points = page.locator("figure[data-plot=batch] svg g.mark-symbol[aria-roledescription] path")
    assert points.count() >= DRAWN


def test_the_first_screen_holds_all_five_answers(page):
    page.evaluate("scrollTo(0, 0)")
    boxes = [one.bounding_box() for one in page.locator(".abstract dd > p:first-child").all()]
    assert len(boxes) == 5
    assert all(box["y"] + box["height"] < DESKTOP["height"] for box in boxes)


def test_rows_sort_by_a_click_and_by_the_keyboard(page):
    head = page.locator("#result-table thead th", has_text=re.compile(r"^J/output token"))
    assert head.get_attribute("aria-sort") == "ascending"
    rising = column(page, 1)
    assert len(rising) == ROWS
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    falling = column(page, 1)
    assert falling[:DRAWN] == rising[:DRAWN][::-1]
    assert falling[DRAWN:] == rising[DRAWN:]  # what is absent stands last either way
    head.locator("button").click()
    assert column(page, 1) == rising


def test_numbers_keep_the_zeros_that_are_known(page):
    head = page.locator("#limit-table thead th").all_inner_texts()
    place = next(
        k for k, text in enumerate(head, 1) if text.startswith("\N{MULTIPLICATION SIGN} floor")
    )
    assert "5.0" in page.locator(f"#limit-table tbody tr > :nth-child({place})").all_inner_texts()


def test_a_filter_acts_on_the_table_and_on_the_plots(page):
    find, precision = page.get_by_label("Find").first, page.get_by_label("Precision").first
    count = page.locator("#result-filters output")
    bars = page.locator("figure[data-plot=components] svg .mark-rect path")
    before = bars.count()
    find.fill("vllm b8")
    assert count.inner_text() == f"3 of {ROWS} rows"
    assert all(text.startswith("vllm") for text in column(page, 1))
    precision.select_option("int8")
    assert count.inner_text() == f"1 of {ROWS} rows"
    page.wait_for_function(
        "n => document.querySelectorAll"
        "('figure[data-plot=components] svg .mark-rect path').length < n",
        arg=before,
    )
    find.fill("")
    precision.select_option("")
    assert count.inner_text() == f"{ROWS} rows"


def test_a_cell_has_a_page_with_its_timeline_checks_and_provenance(page):
    page.locator("#result-table tbody a").first.click()
    cell = page.locator("#cell")
    page.wait_for_selector("#cell[data-drawn='m--pytorch--int4']")
    assert cell.locator("h1").inner_text() == "m · pytorch · int4"
    assert cell.locator("#timeline svg .mark-rule line").count() > 3
    assert "M12" in cell.inner_text()
    assert "What to do:" in cell.inner_text()
    provenance = cell.locator("section", has_text="Provenance").last.inner_text()
    assert "GPU-1" in provenance
    assert "SHA-256" in provenance
    assert "r03.json" in provenance
    assert not page.locator("#main").is_visible()
    cell.get_by_role("link", name="All results").click()
    page.wait_for_selector("#main", state="visible")
    assert not cell.is_visible()


def test_what_comes_from_outside_stays_text(page):
    assert HOSTILE in page.locator("#main").inner_text()
    page.evaluate("location.hash = '#cell=' + encodeURIComponent('m--pytorch--int4')")
    page.wait_for_selector("#cell[data-drawn='m--pytorch--int4']")
    text = page.locator("#cell").inner_text()
    assert f"example/{HOSTILE}" in text  # the model's name
    assert page.locator("#cell td", has_text=HOSTILE).count() > 0  # the prompt's id
    page.evaluate("location.hash = '#cell=' + encodeURIComponent('<img src=x onerror=hacked=1>')")
    page.wait_for_selector("#cell h1:has-text('There is no cell')")
    assert page.evaluate("window.hacked") is None
    assert page.locator("img, script[src], iframe").count() == 0
    assert page.locator("script").count() == 3


def test_the_theme_follows_the_system_and_can_be_switched(browser, address):
    one = Opened(browser, address, scheme="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    dark = one.page.evaluate(background)
    one.page.get_by_role("button", name="Switch between light and dark").click()
    one.page.wait_for_selector("html[data-theme=light]")
    assert one.page.evaluate(background) != dark
    assert one.complaints == []
    one.page.close()


def test_a_large_sweep_draws_its_plots_as_they_come_into_view(browser, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "MOST_DRAWN_AT_ONCE", 1)
    path = tmp_path / "report.html"
    path.write_text(render(report_sweep.sources(tmp_path)), encoding="utf-8")
    one = Opened(browser, path.as_uri())
    last = one.page.locator("figure[data-plot=repeats]")
    assert last.get_attribute("data-drawn") is None
    last.scroll_into_view_if_needed()
    one.page.wait_for_selector("figure[data-plot=repeats][data-drawn=yes]")
    assert last.locator("svg .mark-symbol path").count() > 0
    assert one.complaints == []
    one.page.close()


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Return the address of a report with what its own compare stage found."""
    folder = tmp_path_factory.mktemp("compared")
    swept = report_sweep.sources(folder)
    found = replace(swept, comparisons=report_sweep.two_lengths(swept))
    path = folder / "report.html"
    path.write_text(render(found), encoding="utf-8")
    return path.as_uri()


@pytest.mark.parametrize(
    ("viewport", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")], ids=["desktop", "phone"]
)
def test_it_is_accessible_and_no_part_scrolls_sideways(
    browser, address, compared, viewport, scheme
):
    """With all opened: by the width of the page, and by axe-core, contrasts of text included.

    It takes axe-core seconds, so each of the two pages is given it at one of the two widths.
    """
    [axe] = registry.interpreter(ROOT, "publishing").parents[1].glob("lib/*/*/*/axe.min.js")
    for where in (address, compared):
        one = Opened(browser, where, viewport=viewport, scheme=scheme)
        audited = (where == compared) == (viewport == PHONE)
        one.page.evaluate(axe.read_text(encoding="utf-8"))

        def check(page=one.page, audited=audited) -> None:
            assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
            if audited:
                found = page.evaluate("axe.run({resultTypes: ['violations']})")["violations"]
                assert [(one["id"], [n["html"] for n in one["nodes"]]) for one in found] == []

        assert one.page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
        one.page.evaluate("document.querySelectorAll('details').forEach((one) => one.open = true)")
        check()
        one.page.locator("#result-table tbody a").first.click()
        one.page.wait_for_selector("#main", state="hidden")
        check()
        one.page.close()


def test_each_choice_is_answered_on_the_first_screen_and_in_figures(browser, compared):
    one = Opened(browser, compared)
    first = one.page.locator("section[aria-labelledby=abstract-head]").inner_text()
    assert "On pytorch at b1, int8 used " in first
    assert " less energy per output token than float32 (95 %: " in first
    block = one.page.locator("details.answer").first
    heads = block.locator("tbody th").all_inner_texts()
    assert heads[:2] == ["J/output token", "tok/s"]
    assert "\N{PLUS-MINUS SIGN}" in block.locator("tbody tr").first.inner_text()
    assert one.complaints == []
    one.page.close()


def test_it_prints_with_every_row(browser, address):
    one = Opened(browser, address)
    assert len(one.page.pdf(format="A4")) > 20_000
    assert one.page.locator("#window-table button.more").is_hidden()
    one.page.close()
