"""Intervals of latency quantiles hold what all requests wait, where they are printed."""

from __future__ import annotations

import pytest
from support import simulated_queues

from llm_energy.analysis import aggregate
from llm_energy.analysis.energy.latency import OUTERMOST, least_requests

FULL = "one at a time, busy for 80 %"


@pytest.mark.parametrize("percent", [50, 90])
@pytest.mark.parametrize("title", ["8 at a time, busy for 80 %", FULL])
def test_intervals_of_quantiles_hold_what_all_requests_wait(title, percent):
    """A small share of what tests/benchmarks/latency_coverage.py does; 300 sweeps to 3 SD."""
    requests = max(16, int(least_requests(percent)))
    queue = simulated_queues.KINDS[title]
    assert simulated_queues.share_held(queue, percent, requests, range(3)) > 0.87


def test_fewer_requests_have_no_interval_since_it_would_not_hold(monkeypatch):
    queue = simulated_queues.KINDS[FULL]
    assert simulated_queues.share_held(queue, OUTERMOST, 100, [0]) is None
    monkeypatch.setattr(aggregate, "least_requests", lambda percent: 0)
    assert simulated_queues.share_held(queue, OUTERMOST, 100, [0]) < 0.85
