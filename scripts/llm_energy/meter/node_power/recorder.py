"""Ask a node's management controller for its power again and again, and write down the answers.

Such a controller sees fans, disks and power supplies, as a wall meter does, and no counter of a
component does. The file is one that ``scripts/wall_meter.py`` reads, so that the node's joules get
rows of their own, with their gaps checked, and are never added to those of components.
"""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Protocol, TextIO

from llm_energy.core.errors import LlmEnergyError

COLUMNS = ("time", "power_w")  # seconds since 1970-01-01 UTC, W
PASSWORD = "NODE_POWER_PASSWORD"  # the environment variable: a secret stands in no file or command


class NodeMeter(Protocol):
    """Ask one controller."""

    def power_w(self) -> float:
        """Return the node's power in W; raise LlmEnergyError that says why there is none."""
        ...


def password() -> str:
    """Return the controller's password; raise LlmEnergyError where it is not in the environment."""
    try:
        return os.environ[PASSWORD]
    except KeyError:
        raise LlmEnergyError(
            f"the environment variable {PASSWORD} is not set: it has the password of the controller"
        ) from None


def record(
    meter: NodeMeter, path: Path, period_s: float, stop: Event, say: Callable[[str], None]
) -> tuple[int, int]:
    """Write a row for each reading until ``stop`` is set; return how many came and failed.

    A reading has the time of the middle of its question. The file is made once there is a first
    reading, so that one that cannot be is an error at once, raised as LlmEnergyError; so is a file
    that is there already. What fails later is told and leaves a gap.
    """
    if path.exists():
        raise LlmEnergyError(f"{path}: exists already; name another file")
    row = _reading(meter)
    count, missed, failing = 0, 0, False
    with _opened(path) as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(COLUMNS)
        due_s = time.monotonic()
        while True:
            if row:
                table.writerow(row)
                stream.flush()
                count, failing = count + 1, False
            due_s = max(due_s + period_s, time.monotonic())
            if stop.wait(due_s - time.monotonic()):
                return count, missed
            try:
                row = _reading(meter)
            except LlmEnergyError as error:
                row, missed = None, missed + 1
                if not failing:
                    say(f"no reading, and asking on: {error}")
                failing = True


def _opened(path: Path) -> TextIO:
    try:
        return open(path, "x", encoding="utf-8", newline="")
    except OSError as error:
        raise LlmEnergyError(f"{path}: cannot be written: {error.strerror}") from None


def _reading(meter: NodeMeter) -> tuple[str, str]:
    asked_s = time.time()
    power_w = meter.power_w()
    return f"{(asked_s + time.time()) / 2:.3f}", f"{power_w:g}"
