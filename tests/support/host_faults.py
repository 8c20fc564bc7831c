"""What a busy host may do to a window of a real engine, and so to the numbers of its cell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# A first pass that another program held up looks like compilation; the disk is the whole host's.
BY_THE_HOST = {"E07", "H09"}


def is_measured(project: Any, row: Mapping[str, str]) -> bool:
    """Return whether a row of one repeat has numbers; where not, the host alone is at fault."""
    path = f"results/{row['sweep']}/{row['backend']}/verdicts.json"
    own = ("cell", "workload")
    faults = {
        flag["id"]
        for verdict in project.read(path)["verdicts"]
        if all(verdict[key] == row[key] for key in own)
        for flag in verdict["flags"]
        if flag["severity"] == "invalid"
    }
    assert faults <= BY_THE_HOST, f"{row['cell']}, {row['workload']}: {sorted(faults)}"
    assert row["n"] == ("0" if faults else "1")
    return not faults
