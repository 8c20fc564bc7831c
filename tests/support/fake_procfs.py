"""A folder like ``/proc``, with what the meter reads of it; a test writes the counters."""

from __future__ import annotations

import os
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class FakeProcfs:
    """Build the files one by one; what is never written is missing."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def process(self, pid: int, parent: int, busy_s: float = 0.0, *, me: bool = False) -> None:
        """Add a process, or change one; its name holds what makes parsing hard."""
        ticks = round(busy_s * TICKS_PER_S)
        # A quarter each of user and system time, its own and that of its children.
        quarters = [ticks // 4] * 3 + [ticks - 3 * (ticks // 4)]
        numbers = " ".join(map(str, [parent, *[0] * 9, *quarters, 20, 0]))
        for folder in (str(pid), "self") if me else (str(pid),):
            self.write(f"{folder}/stat", f"{pid} (a) R (b) S {numbers}\n")

    def processors(self, busy_s: float, steal_s: float = 0.0, count: int = 2) -> None:
        """Set the times of all processors together: a fifth of the busy time in each column."""
        fifth, steal = round(busy_s * TICKS_PER_S / 5), round(steal_s * TICKS_PER_S)
        columns = f"{fifth} {fifth} {fifth} 900 800 {fifth} {fifth} {steal} {fifth} 0"
        lines = [f"cpu  {columns}", *(f"cpu{k} {columns}" for k in range(count)), "ctxt 5"]
        self.write("stat", "\n".join(lines) + "\n")

    def memory(self, swapped_in: int, major_faults: int) -> None:
        self.write("vmstat", f"nr_free_pages 7\npswpin {swapped_in}\npgmajfault {major_faults}\n")

    def disks(self, **sectors: int) -> None:
        """Set the sectors that each block device has read; ``dm_0`` stands for ``dm-0``."""
        rows = (
            f" 259 0 {name.replace('_', '-')} 10 0 {read} 5 1 0 {8 * read} 0 0 0 0"
            for name, read in sectors.items()
        )
        self.write("diskstats", "\n".join(rows) + "\n")

    def stalled(self, total_us: int) -> None:
        self.write(
            "pressure/cpu",
            f"some avg10=0.00 avg60=0.00 avg300=0.00 total={total_us}\n"
            "full avg10=0.00 avg60=0.00 avg300=0.00 total=1\n",
        )
