"""What the interval of a row speaks for, and how often it holds that."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support import builders, simulated_cells
from support.simulated_cells import DAY_S, KINDS

from llm_energy.analysis.aggregate import aggregate
from llm_energy.records.registry.metrics import GROSS

PLAN = builders.plan([("pytorch", "float32")], 4)
VALUES_J = (0.50, 0.52, 0.56, 0.58)


def row_of(change=lambda k: {}, conditions=lambda k: {}, **policy):
    """Return the row of four repeats; ``change`` alters each, ``conditions`` are beside it."""
    rows = [
        builders.metrics(value_j, k, conditions=f"c{k}", **change(k))
        for k, value_j in enumerate(VALUES_J, 1)
    ]
    known = {f"c{k}": conditions(k) for k in range(1, 5)}
    table = builders.metrics_table(rows, conditions=known)
    (row,) = aggregate([table], replace(PLAN, **policy), {"b1": 1}).rows
    return row


def on_two_days(k):
    began_s = 1e9 + DAY_S * (k > 2) + 60 * k
    return {"span_utc_s": (began_s, began_s + 30), "boot_id": "boot"}


def on_two_gpus(k):
    return {"boards": "GPU-1" if k < 3 else "GPU-2"}


def test_the_interval_of_one_session_says_so():
    assert row_of().interval_scope == "session"


def test_sessions_count_once_each():
    row, plain = row_of(on_two_days), row_of()
    found = row.statistics[GROSS]
    assert (row.interval_scope, found.n, found.mean) == ("sessions", 4, pytest.approx(0.54))
    assert found.degrees_of_freedom == 1
    assert found.sd == plain.statistics[GROSS].sd
    assert found.ci_half > 4 * plain.statistics[GROSS].ci_half
    assert "other sessions like these 2, each of which counts once" in row.assumptions[0]
    assert "is 7.6 % of J per output token" in row.assumptions[0]


def test_unlike_gpus_have_no_interval_and_the_way_to_one_is_told():
    row = row_of(conditions=on_two_gpus)
    assert (row.interval_scope, row.statistics[GROSS].ci_low) == (None, None)
    assert "GPUs: GPU-1 and GPU-2" in row.assumptions[0]
    assert "policy.pool_machines" in row.assumptions[0]


def test_machines_are_pooled_where_the_policy_says_so_and_each_counts_once():
    row = row_of(conditions=on_two_gpus, pool_machines=True)
    assert (row.interval_scope, row.statistics[GROSS].degrees_of_freedom) == ("machines", 1)
    assert "other machines like these 2, each of which counts once" in row.assumptions[0]
    assert "is 7.6 % of J per output token" in row.assumptions[0]


@pytest.mark.parametrize("name", ["engine", "power_limit_w", "hardware"])
def test_what_else_differs_is_never_pooled(name):
    row = row_of(conditions=lambda k: {name: str(k % 2)}, pool_machines=True)
    assert (row.interval_scope, row.statistics[GROSS].ci_low) == (None, None)
    assert "policy" not in row.assumptions[0]


@pytest.mark.parametrize("name", KINDS)
def test_intervals_hold_what_they_speak_for(name):
    """A fixed part of what tests/benchmarks/coverage.py draws, with 3 SD for their number."""
    for quantity, share in simulated_cells.held(KINDS[name], range(400)).items():
        assert 0.86 < share < 0.995, quantity


def test_the_interval_of_one_session_does_not_hold_what_other_days_give():
    """Why nothing is printed about the long run of one session: it would hold it in 75 %."""
    kind, hits = KINDS["one session, about its own mean"], 0
    for seed in range(400):
        row, _ = kind.cell(seed)
        found = row.statistics[GROSS]
        hits += found.ci_low <= simulated_cells.TRUTH_J[GROSS] <= found.ci_high
    assert hits / 400 < 0.85
    assert replace(kind, sessions=5).cell(1)[0].interval_scope == "sessions"
