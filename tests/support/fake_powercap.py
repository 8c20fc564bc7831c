"""A powercap tree in a folder, as Linux shows it under ``/sys``; a test moves the counters."""

from __future__ import annotations

from pathlib import Path

RANGE_UJ = 262_143_328_850


class FakePowercap:
    """Build ``<sysfs>/class/powercap`` zone by zone; ``use`` lets a zone use joules, and wrap."""

    def __init__(self, sysfs: Path) -> None:
        self.sysfs = sysfs
        self.root = sysfs / "class" / "powercap"

    def zone(self, entry: str, name: str, energy_uj: int = 0, range_uj: int = RANGE_UJ) -> None:
        """Add a zone, such as ``zone("intel-rapl:0:1", "dram")``."""
        folder = self.root / entry
        folder.mkdir(parents=True)
        (folder / "name").write_text(f"{name}\n")
        (folder / "max_energy_range_uj").write_text(f"{range_uj}\n")
        (folder / "energy_uj").write_text(f"{energy_uj}\n")

    def use(self, entry: str, energy_uj: int) -> None:
        """Count ``energy_uj`` in a zone; the counter goes round at its range."""
        folder = self.root / entry
        range_uj = int((folder / "max_energy_range_uj").read_text())
        counter = folder / "energy_uj"
        counter.write_text(f"{(int(counter.read_text()) + energy_uj) % range_uj}\n")

    def sockets(self, count: int) -> None:
        """Show that many sockets, with two threads each, in the kernel's CPU topology."""
        for thread in range(2 * count):
            folder = self.sysfs / "devices" / "system" / "cpu" / f"cpu{thread}" / "topology"
            folder.mkdir(parents=True)
            (folder / "physical_package_id").write_text(f"{thread // 2}\n")
