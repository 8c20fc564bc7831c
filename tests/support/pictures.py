"""Make the README's pictures: the first screen of a report and a figure, of an archived sweep.

    make pictures

It needs Chromium, which ``make test-tools`` installs.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "pictures"
SCREEN = {"width": 1180, "height": 780}


def main(results: Path) -> None:
    """Write the pictures from the folder ``results`` of a sweep, as ``make paper`` leaves it."""
    FOLDER.mkdir(exist_ok=True)
    shutil.copyfile(results / "figures" / "energy_by_batch.svg", FOLDER / "energy_by_batch.svg")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport=SCREEN, color_scheme="light")
        page.goto((results / "report.html").resolve().as_uri())
        page.wait_for_selector("html[data-ready=yes]")
        page.screenshot(path=FOLDER / "report.png")
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
