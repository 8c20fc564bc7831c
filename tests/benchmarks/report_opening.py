"""Time how long the report of 10,000 measurements takes to make, and to open in a browser.

Makes the sweep of ``scale.py`` (two backends, five repeats, one workload, windows as long as
measured ones), runs the stages up to the report, and opens the page in a headless Chromium three
times. A page counts as open when its tables are filled and can be used; of so large a sweep, plots
are drawn as they come into view, and how long each takes is told too. The exit status says whether
the floor holds: under 3 s.

    .venvs/dev/bin/python tests/benchmarks/report_opening.py
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import scale

MOST_S = 3.0
FOLDER = scale.FOLDER


def make(count: int) -> Path:
    """Generate a sweep of so many measurements and run every stage after measuring on it."""
    scale.set_passes()
    scale.generate(count)
    for jobs in scale.rounds():
        scale.run(*([scale.ROOT / "scripts" / f"{name}.py", *given] for name, given in jobs))
    files = {
        kind: [FOLDER / backend / f"{file}.json" for backend in scale.BACKENDS]
        for kind, file in (
            ("aggregates", "aggregate"),
            ("metrics", "metrics"),
            ("verdicts", "verdicts"),
        )
    }
    read = {kind: [f"--{kind}", *paths] for kind, paths in files.items()}
    plan, compared = ["--plan", FOLDER / "plan.json"], FOLDER / "comparisons.json"
    figures, page = FOLDER / "figures", FOLDER / "report.html"
    drawing = [*read["aggregates"], "--out-dir", figures]
    writing = [*plan, *(part for parts in read.values() for part in parts)]
    writing += ["--comparisons", compared, "--figures", figures, "--out", page]
    for name, arguments in (("figures", drawing), ("report", writing)):
        taken_s, used_mb = scale.run([scale.ROOT / "scripts" / f"{name}.py", *arguments])
        print(f"{name:8} {taken_s:6.2f} s {used_mb:5.0f} MB")
    print(f"{page.name} has {page.stat().st_size / 1e6:.1f} MB")
    return page.resolve()


def opening_s(page: Path) -> float:
    """Open the page in a browser of its own; give the seconds until all is drawn."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        tab = browser.new_page()
        begin = time.monotonic()
        tab.goto(page.as_uri())
        tab.wait_for_selector("html[data-ready=yes]", timeout=120_000)
        taken_s = time.monotonic() - begin
        plots = tab.locator("figure[data-plot]")
        for name in plots.evaluate_all("all => all.map(one => one.dataset.plot)"):
            begin = time.monotonic()
            tab.locator(f"figure[data-plot={name}]").scroll_into_view_if_needed()
            tab.wait_for_selector(f"figure[data-plot={name}][data-drawn=yes]", timeout=120_000)
            print(f"  plot {name}: {time.monotonic() - begin:.2f} s")
        browser.close()
    return taken_s


def main() -> int:
    """Run the benchmark; exit 1 where the floor does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    arguments = parser.parse_args()
    if not shutil.which("chromium"):
        sys.exit("error: no chromium: python3 tests/support/system_tools.py chromium installs it")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        page = make(arguments.count)
        taken_s = statistics.median(opening_s(page) for _ in range(3))
        os.chdir(scale.ROOT)
    print(f"opens in {taken_s:.2f} s (under {MOST_S:g})")
    return int(taken_s >= MOST_S)


if __name__ == "__main__":
    sys.exit(main())
