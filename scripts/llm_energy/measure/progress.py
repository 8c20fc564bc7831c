"""Tell a person which repeat is on, how many are left, and about how long that will take."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TextIO

from llm_energy.core.units import readable_duration

BAR_WIDTH = 16


class Progress:
    """Show one repeat's steps on ``stream``.

    ``position`` counts from 1; ``total`` is the number of repeats of the sweep. On a terminal the
    steps share one line that is drawn again at each step; elsewhere only the last line is written.
    The protocol calls ``step`` between stretches, so nothing is written inside a window.
    """

    def __init__(
        self, title: str, position: int, total: int, steps: int, stream: TextIO | None = None
    ):
        self._title = f"[{position:>{len(str(total))}}/{total}] {title}"
        self._steps = max(steps, 1)
        self._done = 0
        self._stream = stream or sys.stdout
        self._live = self._stream.isatty()

    def step(self, label: str) -> None:
        """Show that the step called ``label`` begins."""
        if self._live:
            full = min(BAR_WIDTH, BAR_WIDTH * self._done // self._steps)
            bar = "#" * full + "." * (BAR_WIDTH - full)
            self._write(f"\r\x1b[2K{self._title} {bar} {label}")
        self._done += 1

    def note(self, text: str) -> None:
        """Say something on a line of its own, also where no terminal follows the steps."""
        clear = "\r\x1b[2K" if self._live else ""
        self._write(f"{clear}{self._title}: {text}\n")

    def finish(
        self, outcome: str, duration_s: float, left_s: float | None, clock: str = ""
    ) -> None:
        """Close the line with the outcome, the time taken and an estimate of the time left.

        ``clock`` names the kind of time where it is not that of the person who waits.
        """
        left = "" if not left_s else f", about {readable_duration(left_s)} left"
        clear = "\r\x1b[2K" if self._live else ""
        took = f"{readable_duration(duration_s)}{f' ({clock})' if clock else ''}"
        self._write(f"{clear}{self._title}: {outcome} in {took}{left}\n")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def estimate_left_s(durations_s: Sequence[float], left: int) -> float | None:
    """Estimate the time for ``left`` repeats from the mean of those that are done (None if none).

    >>> estimate_left_s([10.0, 14.0], 3)
    36.0
    """
    if not durations_s:
        return None
    return sum(durations_s) / len(durations_s) * left
