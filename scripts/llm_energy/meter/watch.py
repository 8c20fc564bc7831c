"""Look between the edges of an interval, every few seconds, from a process of its own.

Two things can pass unseen between two edges: a RAPL counter that goes round more than once, and a
process that comes to a GPU and leaves again. Reading them in the measured process would take time
from it. One look is a few files and driver calls (about a millisecond) on the last core, at low
priority. Times are comparable as those of the sampler are (see ``sampler.py``).
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from llm_energy.meter import aside

# A counter of 65 kJ, the smallest range of RAPL, takes a minute to go round at 1 kW.
PERIOD_S = 5.0
END_TIMEOUT_S = 5.0
MODULE = "llm_energy.meter.watch"


@dataclass(frozen=True)
class Look:
    """What was seen at one moment: the counter of each zone in uJ, without those not readable."""

    time_s: float
    energy_uj: dict[str, int]


class Watch:
    """Hold the process that looks, and what it has seen; without ``start`` it has seen nothing.

    No failure of the process is an exception here: the looks then end.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._seen: int | None = None  # a file in memory, which fills though nobody reads
        self._looks: list[Look] = []
        self._read_bytes = 0

    def start(self, zones: Mapping[str, Path], period_s: float = PERIOD_S) -> None:
        """Look at these counters from now on, until ``stop`` or the end of this process."""
        files = {device: str(path) for device, path in zones.items()}
        with contextlib.suppress(OSError):
            self._seen = os.memfd_create("looks")
            self._process = aside.start(
                MODULE,
                (str(os.getpid()), str(period_s), json.dumps(files)),
                stdin=subprocess.DEVNULL,
                stdout=self._seen,
                stderr=subprocess.DEVNULL,
            )

    def looks(self, start_s: float, end_s: float) -> Sequence[Look]:
        """Return the looks between two times, in their order; call it outside windows."""
        if self._seen is not None:
            size = os.fstat(self._seen).st_size
            text = os.pread(self._seen, size - self._read_bytes, self._read_bytes)
            text = text[: text.rfind(b"\n") + 1]
            self._read_bytes += len(text)
            self._looks += [Look(**json.loads(line)) for line in text.splitlines()]
        return [look for look in self._looks if start_s < look.time_s < end_s]

    def stop(self) -> None:
        """End the process; a second time does nothing."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()  # it holds nothing that is worth an orderly end
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(END_TIMEOUT_S)
        if self._seen is not None:
            os.close(self._seen)
            self._seen = None


# from here on: inside the watching process


def main(argv: Sequence[str]) -> None:
    """Look until the parent has ended; the arguments are its id, the period in s and the files."""
    parent, period_s, zones = int(argv[0]), float(argv[1]), json.loads(argv[2])
    aside.give_way()
    while os.getppid() == parent:
        print(json.dumps(asdict(_look(zones))), flush=True)
        time.sleep(period_s)


def _look(zones: Mapping[str, str]) -> Look:
    time_s, energy_uj = time.monotonic(), {}
    for device, path in zones.items():
        with contextlib.suppress(OSError, ValueError):
            energy_uj[device] = int(Path(path).read_text())
    return Look(time_s, energy_uj)


if __name__ == "__main__":
    main(sys.argv[1:])
