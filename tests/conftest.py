"""Make the package importable and offer the fixtures that many tests share."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes says how busy the machine is, not whether the code is right.
# A shared runner draws the same examples each time: what fails there fails at one's desk too.
settings.register_profile("untimed", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("untimed")

ROOT = Path(__file__).resolve().parent.parent
STARTED_IN = Path.cwd()
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]


@pytest.fixture(autouse=True)
def _same_working_folder():
    """Begin and end every test in the folder that pytest was started in."""
    with contextlib.chdir(STARTED_IN):
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with real engines, which take longest: no worker is left with them at the end."""
    items.sort(key=lambda item: item.get_closest_marker("engine") is None)
