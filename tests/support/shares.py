"""What must hold of the shares of any window's joules, on whichever engine it was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest


def assert_shared_out(metrics: Mapping[str, Any]) -> None:
    """Check that all windows of a backend are shared out to their requests, to the last joule."""
    best: dict[tuple, Mapping[str, Any]] = {}
    for row in sorted(metrics["rows"], key=lambda row: row["energy_status"] == "measured"):
        best[row["cell"], row["workload"], row["repeat"]] = row
    assert best
    for row in best.values():
        assert row["attributed_reason"] is None
        shares_j = row["attributed_energy_j"], row["attributed_idle_energy_j"]
        assert min(shares_j) >= 0
        assert sum(shares_j) == pytest.approx(row["gross_energy_j"], rel=1e-9)
        assert row["request_energy"]["mean_j"] > 0
        assert not {"A20", "A21"} & {*row["flags"]}, "the audit finds its steps at fault"
