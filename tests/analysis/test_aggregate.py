"""Means over repeats, one backend at a time, with everything that did not enter them."""

from __future__ import annotations

import math
import random
import statistics
from dataclasses import replace

import aggregate as script
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import builders

from llm_energy.analysis.aggregate import (
    MIXED,
    ONE_DRAW,
    OTHER_PROMPTS,
    aggregate,
    planned_batch_sizes,
)
from llm_energy.core.errors import LlmEnergyError
from llm_energy.records import Aggregate, Plan, read_record, write_record
from llm_energy.records.registry.metrics import GROSS, METRICS, SUMMARISED

SIZES = {"b1": 1, "b8": 8}
ONE = builders.plan([("pytorch", "float32")])
BOTH = builders.plan([("pytorch", "float32"), ("vllm", "float32")])


def summed(rows, plan=ONE, without=(), **options):
    return aggregate([builders.metrics_table(rows, without)], plan, SIZES, **options).rows


def lost(repeat, outcome="ok", reason=None, **changes):
    return builders.verdict(
        repeat=repeat, outcome=outcome, reason=reason, verdict="invalid", **changes
    )


def test_the_mean_is_over_repeats():
    (row,) = summed([builders.metrics(0.4, 1), builders.metrics(0.6, 2)])
    found = row.statistics["energy_per_output_token_j"]
    assert (row.n, found.n, found.mean) == (2, 2, pytest.approx(0.5))
    assert found.sd == pytest.approx(0.1414, abs=1e-4)
    assert (row.outcome, row.reason, row.excluded, row.flags) == ("ok", None, (), ())
    assert row.measurements == (
        "pytorch/m--pytorch--float32/r01.json",
        "pytorch/m--pytorch--float32/r02.json",
    )
    assert set(row.statistics) == set(SUMMARISED)


def test_one_repeat_has_no_spread():
    (row,) = summed([builders.metrics(0.4, 1)], without=[lost(2, "oom", "no memory")])
    found = row.statistics["energy_per_output_token_j"]
    assert (found.n, found.sd, found.ci_low) == (1, None, None)
    assert row.excluded == ((2, "oom: no memory"),)


def metered(value_j, repeat=1, **changes):
    """Return a measured repeat whose counters leave 1 % of the gross energy open."""
    row = builders.metrics(value_j, repeat)
    fields = {
        "gross_energy_standard_uncertainty_j": 0.01 * row.gross_energy_j,
        "net_energy_standard_uncertainty_j": 0.02 * row.gross_energy_j,
        "counter_lag_j": 0.0,
        "loaded_idle_drift_w": 0.0,
    }
    return replace(row, **(fields | changes))


def half_percent(statistic, prefix="ci"):
    low, high = (getattr(statistic, f"{prefix}_{end}") for end in ("low", "high"))
    return 100 * (high - low) / 2 / statistic.mean


def test_one_measured_repeat_has_the_interval_of_its_counters():
    (row,) = summed([metered(0.5)])
    # 1 % of gross is 1 % of all that is proportional to it; net is half of gross.
    for name in (name for name, metric in METRICS.items() if metric.kind == "gross"):
        if row.statistics[name].n:
            assert half_percent(row.statistics[name]) == pytest.approx(1.96, abs=0.001), name
    for name in (name for name, metric in METRICS.items() if metric.kind == "net"):
        assert half_percent(row.statistics[name]) == pytest.approx(2 * 1.96 * 2, abs=0.01), name
    assert row.statistics["output_tokens_per_s"].ci_low is None


def test_repeats_that_scatter_hold_their_ticks_already():
    values = (0.4, 0.5, 0.6)
    (plain,) = summed([builders.metrics(v, k) for k, v in enumerate(values, 1)])
    (row,) = summed([metered(v, k) for k, v in enumerate(values, 1)])
    for name in ("energy_per_output_token_j", "net_energy_per_output_token_j"):
        one, other = row.statistics[name], plain.statistics[name]
        assert (one.ci_low, one.ci_high) == pytest.approx((other.ci_low, other.ci_high))
        assert (one.degrees_of_freedom, other.degrees_of_freedom) == (pytest.approx(2), None)


def test_what_repeats_share_does_not_average_out():
    def widths(**changes):
        rows = [metered(v, k, **changes) for k, v in enumerate((0.49, 0.50, 0.51), 1)]
        found = summed(rows)[0].statistics
        names = ("energy_per_output_token_j", "net_energy_per_output_token_j")
        return [half_percent(found[name]) for name in names]

    gross, net = widths()
    # Half of 0.1 W as a uniform distribution, over 40 s, of 8 J net.
    drifted = [
        pytest.approx(gross),
        pytest.approx(1.96 * 0.1 / 2 / 3**0.5 * 40 / 8 * 100, rel=0.02),
    ]
    assert widths(loaded_idle_drift_w=0.1) == drifted
    assert widths(loaded_idle_drift_w=0.01)[1] >= net
    lagged = widths(counter_lag_j=1.0)
    assert lagged[0] > gross
    assert lagged[1] > net


def test_an_absolute_interval_holds_the_sensors_error():
    (row,) = summed([metered(0.5)])
    found = row.statistics["energy_per_output_token_j"]
    assert half_percent(found, "absolute_ci") == pytest.approx(1.96 * math.hypot(1, 5), abs=0.01)
    (estimated,) = summed([builders.metrics(0.5, k, energy_status="estimated") for k in (1, 2)])
    assert estimated.statistics["energy_per_output_token_j"].absolute_ci_low is None


def test_the_steady_state_has_the_interval_of_its_repeats():
    name = "steady_state_energy_per_output_token_j"
    rows = [metered(0.5, k, **{name: 0.3 + k / 100}) for k in (1, 2, 3)]
    found = summed(rows)[0].statistics[name]
    assert (found.n, found.mean) == (3, pytest.approx(0.32))
    assert found.absolute_ci_low < found.ci_low < found.mean
    assert summed([metered(0.5)])[0].statistics[name].n == 0


def test_repeats_that_were_not_needed_are_neither_lost_nor_counted():
    rows = [builders.metrics(0.5, k) for k in (1, 2, 3)]
    without = [lost(k, "not_needed", "narrow enough") for k in (4, 5)]
    without.append(lost(6, "oom", "no memory"))
    (row,) = summed(rows, without=without)
    assert (row.n, row.not_needed, row.excluded) == (3, (4, 5), ((6, "oom: no memory"),))
    assert (row.outcome, row.statistics["energy_per_output_token_j"].n) == ("ok", 3)


def test_simulated_and_real_joules_are_never_put_together():
    rows = [builders.metrics(0.5, 1), builders.metrics(0.5, 2, simulated=True)]
    with pytest.raises(LlmEnergyError, match=r"r02.json is of a simulated host and .*r01.json of"):
        summed(rows)
    assert summed(rows[1:])[0].simulated
    assert not summed(rows[:1])[0].simulated


def test_batching_and_assumptions_are_those_of_the_repeats():
    told = ("a tick",)
    rows = [builders.metrics(0.5, k, batching="continuous", assumptions=told) for k in (1, 2)]
    (row,) = summed(rows)
    assert (row.batching, row.assumptions) == ("continuous", told)
    (row,) = summed([rows[0], replace(rows[1], batching="static")])
    assert row.batching is None


def test_a_value_that_is_null_is_not_a_zero():
    rows = [builders.metrics(0.4, 1), builders.metrics(0.6, 2, net_energy_j=None)]
    (row,) = summed(rows)
    assert (row.statistics["net_energy_j"].n, row.n) == (1, 2)


def test_estimated_and_measured_joules_are_two_rows():
    estimated = {"energy_status": "estimated", "components": ("cpu", "dram")}
    rows = [builders.metrics(0.1, k, **estimated) for k in (1, 2)]
    rows += [builders.metrics(0.4, k) for k in (1, 2)]
    found = summed(rows)
    assert [(r.energy_status, r.components, r.n) for r in found] == [
        ("measured", ("gpu",), 2),
        ("estimated", ("cpu", "dram"), 2),
    ]


def test_sums_over_other_components_are_never_averaged():
    found = summed([builders.metrics(0.4, 1), builders.metrics(0.9, 2, components=("gpu", "cpu"))])
    assert [(r.components, r.n, r.excluded) for r in found] == [
        (("gpu",), 1, ((2, "not measured for gpu"),)),
        (("gpu", "cpu"), 1, ((1, "not measured for gpu, cpu"),)),
    ]


def test_degraded_repeats_are_counted_and_flags_are_kept():
    rows = [
        builders.metrics(0.4, 1, verdict="degraded", flags=("E29", "M03")),
        builders.metrics(0.6, 2, flags=("M03",), hostname="node2"),
    ]
    (row,) = summed(rows)
    assert (row.degraded, row.flags) == (1, ("E29", "M03"))
    assert row.hosts == ("node1", "node2")


def test_every_expected_cell_is_a_row():
    cells = [("pytorch", "int4!"), ("pytorch", "float32"), ("pytorch", "int8"), ("vllm", "int8")]
    without = [
        lost(0, "unsupported", "no kernel", cell="m--pytorch--int4", measurement=None),
        lost(0, "unsupported", "no kernel", cell="m--pytorch--int4", workload="b8"),
        lost(1, "oom", "no memory", cell="m--pytorch--int8"),
        lost(2, "ok", "E19 failed requests", cell="m--pytorch--int8"),
    ]
    rows = [builders.metrics(0.4, k) for k in (1, 2)]
    found = summed(rows, builders.plan(cells, workloads=("b1", "b8")), without)
    assert [(r.precision, r.workload, r.n, r.outcome, r.reason) for r in found] == [
        ("int4", "b1", 0, "unsupported", "unsupported: no kernel"),
        ("int4", "b8", 0, "unsupported", "unsupported: no kernel"),
        ("float32", "b1", 2, "ok", None),
        ("float32", "b8", 0, "missing", "no metrics of this cell were given"),
        ("int8", "b1", 0, "oom", "oom: no memory; invalid: E19 failed requests"),
        ("int8", "b8", 0, "missing", "no metrics of this cell were given"),
    ]
    assert found[4].excluded == ((1, "oom: no memory"), (2, "invalid: E19 failed requests"))
    assert [r.batch_size for r in found[:2]] == [1, 8]
    assert {(r.energy_status, r.components) for r in found if r.n == 0} == {("unavailable", ())}


def mixed_tables():
    return [
        builders.metrics_table([builders.metrics(0.4, k) for k in (1, 2)]),
        builders.metrics_table([builders.metrics(0.8, k, backend="vllm") for k in (1, 2)]),
    ]


def test_mixed_backends_are_refused():
    with pytest.raises(LlmEnergyError) as error:
        aggregate(mixed_tables(), BOTH, SIZES)
    assert str(error.value).startswith(
        "Mixed backends detected: pytorch, vllm. Aggregating results from different backends "
        "produces statistically invalid comparisons."
    )
    assert "policy.allow_mixed_backends" in str(error.value)


def test_mixed_backends_inside_one_file_are_refused():
    rows = [builders.metrics(0.4, 1), builders.metrics(0.8, 1, backend="vllm")]
    with pytest.raises(LlmEnergyError, match="Mixed backends detected: pytorch, vllm"):
        summed(rows, BOTH)


@pytest.mark.parametrize("by", ["option", "policy"])
def test_mixed_backends_can_be_allowed_and_every_number_is_marked(by):
    plan = replace(BOTH, allow_mixed_backends=by == "policy")
    found = aggregate(mixed_tables(), plan, SIZES, allow_mixed_backends=by == "option")
    (row,) = found.rows
    assert found.mixed_backends == ("pytorch", "vllm")
    assert found.backend == row.backend == "pytorch+vllm"
    assert row.flags == (MIXED,)
    assert (row.cell, row.n) == ("m--pytorch+vllm--float32", 4)
    assert row.statistics["energy_per_output_token_j"].mean == pytest.approx(0.6)


def test_one_backend_is_never_marked_mixed():
    found = aggregate(mixed_tables()[:1], BOTH, SIZES, allow_mixed_backends=True)
    assert (found.backend, found.mixed_backends) == ("pytorch", ())
    assert {r.backend for r in found.rows} == {"pytorch"}


def test_a_repeat_that_is_given_twice_is_refused():
    table = mixed_tables()[0]
    with pytest.raises(LlmEnergyError, match="repeat 1, workload 'b1' is given twice"):
        aggregate([table, table], ONE, SIZES)


def test_metrics_that_the_plan_does_not_know_are_refused():
    row = builders.metrics(0.4, 1, precision="int8")
    with pytest.raises(LlmEnergyError, match="cell 'm--pytorch--int8' with workload 'b1' is not"):
        summed([row])
    with pytest.raises(LlmEnergyError, match="metrics of sweep 'test' do not belong to"):
        summed([builders.metrics()], Plan(sweep="other", cells=()))


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=6), st.randoms())
def test_the_order_of_metrics_changes_no_number(values, order: random.Random):
    rows = [builders.metrics(value, k) for k, value in enumerate(values, 1)]
    plan = builders.plan([("pytorch", "float32")], repeats=len(values))
    shuffled = order.sample(rows, len(rows))
    one, other = summed(rows, plan)[0], summed(shuffled, plan)[0]
    assert one.statistics == other.statistics
    assert sorted(one.measurements) == sorted(other.measurements)


def test_batch_sizes_come_from_metrics_or_a_spec(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = builders.spec(workloads=(builders.workload("b1"), builders.workload("b8")))
    write_record("results/test/specs/m--vllm--float32/r01.json", spec)
    cells = [("pytorch", "float32!"), ("vllm", "float32")]
    plan = builders.plan(cells, workloads=("b1", "b8"))
    assert planned_batch_sizes(plan, []) == {"b1": 1, "b8": 8}
    assert planned_batch_sizes(ONE, mixed_tables()) == {"b1": 1}


def test_the_command_line(tmp_path, capsys):
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, table in zip(paths, mixed_tables(), strict=True):
        write_record(path, table)
    write_record(tmp_path / "plan.json", BOTH)
    out = tmp_path / "aggregate.json"
    ending = ["--plan", str(tmp_path / "plan.json"), "--out", str(out)]
    assert script.main(["--metrics", str(paths[0]), *ending]) == 0
    assert read_record(Aggregate, out).backend == "pytorch"
    both = ["--metrics", *map(str, paths), *ending]
    assert script.main(both) == 1
    assert capsys.readouterr().err.startswith("error: Mixed backends detected: pytorch, vllm.")
    assert script.main(["--allow-mixed-backends", *both]) == 0
    assert read_record(Aggregate, out).mixed_backends == ("pytorch", "vllm")


def test_an_outlier_is_flagged_with_the_summary_without_it_and_stays_in_the_mean():
    values = (0.50, 0.51, 0.49, 0.50, 0.90)
    (row,) = summed([builders.metrics(v, k) for k, v in enumerate(values, 1)])
    found = {one.metric: one for one in row.outliers}["energy_per_output_token_j"]
    assert found.repeats == (5,)
    assert (found.without.n, found.without.mean) == (4, pytest.approx(0.5))
    assert row.statistics["energy_per_output_token_j"].mean == pytest.approx(0.58)
    assert row.n == 5


def test_the_coefficient_of_variation_is_that_of_the_repeats():
    (row,) = summed([builders.metrics(0.4, 1), builders.metrics(0.6, 2)])
    assert row.statistics["energy_per_output_token_j"].cv == pytest.approx(0.2828, abs=1e-4)
    assert summed([builders.metrics(0.4, 1)])[0].statistics["energy_per_output_token_j"].cv is None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ([{"arrivals_sha256": "a"}, {"arrivals_sha256": "a"}], ONE_DRAW),
        ([{"arrivals_sha256": "a"}, {"arrivals_sha256": "b"}], None),
        ([{"arrivals_sha256": "a"}], None),
        ([{"traffic": "constant"}, {"traffic": "constant"}], None),
        ([{"traffic": None, "prompts_sha256": n} for n in "ab"], OTHER_PROMPTS),
    ],
)
def test_a_row_says_of_which_draws_its_interval_speaks(changes, told):
    rows = [
        builders.metrics(repeat=n, **{"traffic": "poisson"} | one)
        for n, one in enumerate(changes, 1)
    ]
    [row] = aggregate([builders.metrics_table(rows)], ONE, SIZES).rows
    assert [text for text in row.assumptions if text in (ONE_DRAW, OTHER_PROMPTS)] == (
        [told] if told else []
    )


@pytest.mark.parametrize(
    ("bounds", "largest"), [((0.5, 2.0), 2.0), ((0.5, None), None), ((0.0, 0.0), 0.0)]
)
def test_a_row_has_the_largest_bias_of_its_repeats(bounds, largest):
    rows = [
        builders.metrics(0.5, 1),
        *(
            builders.metrics(0.5, k, verdict="degraded", bias_bound_percent=bound)
            for k, bound in enumerate(bounds, 2)
        ),
    ]
    plan = builders.plan([("pytorch", "float32")], 3)
    (row,) = aggregate([builders.metrics_table(rows)], plan, {}).rows
    assert row.bias_bound_percent == largest


@pytest.mark.parametrize(
    "unlike",
    [
        {"boards": "GPU-2"},
        {"host": "node2"},
        {"driver": "600"},
        {"engine": "vllm 0.27"},
        {"configuration": "enforce_eager True"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_repeats_of_unlike_machines_have_a_mean_and_no_interval(unlike):
    like = {"boards": "GPU-1", "host": "node1", "driver": "580", "engine": "vllm 0.26"}
    rows = [
        builders.metrics(value, k, conditions="b" if k == 3 else "a", latencies_s={"ttft_p50": 1.0})
        for k, value in enumerate((0.5, 0.51, 0.52), 1)
    ]

    def summarised(second):
        table = builders.metrics_table(rows, conditions={"a": like, "b": like | second})
        plan = builders.plan([("pytorch", "float32")], 3)
        (row,) = aggregate([table], plan, {}).rows
        return row

    row, plain = summarised(unlike), summarised({})
    name = "energy_per_output_token_j"
    assert plain.statistics[name].ci_low is not None
    assert plain.assumptions == ()
    assert (row.n, row.statistics[name].mean) == (3, plain.statistics[name].mean)
    summaries = [*row.statistics.values(), *row.latencies_s.values()]
    assert {(one.ci_low, one.absolute_ci_low, one.standard_uncertainty) for one in summaries} == {
        (None, None, None)
    }
    assert next(iter(unlike.values())) in row.assumptions[0]


def test_the_joules_per_token_of_timed_traffic_are_all_joules_over_all_tokens():
    """A window with few tokens must not weigh as much as the others."""
    tokens = (100, 400, 1000)
    rows = [
        builders.metrics(
            repeat=n,
            traffic="poisson",
            output_tokens=count,
            gross_energy_j=1000.0 + count,
            energy_per_output_token_j=(1000.0 + count) / count,
        )
        for n, count in enumerate(tokens, 1)
    ]
    [timed] = summed(rows)
    assert timed.statistics[GROSS].mean == pytest.approx(4500 / 1500)
    residuals = [1000.0 + count - 3.0 * count for count in tokens]
    assert timed.statistics[GROSS].sd == pytest.approx(statistics.stdev(residuals) / 500)
    [offline] = summed([replace(row, traffic=None) for row in rows])
    assert offline.statistics[GROSS].mean == pytest.approx((11 + 3.5 + 2) / 3)


@pytest.mark.parametrize(
    ("traffic", "requests", "without"),
    [
        ("poisson", 533, {"ttft_p90", "ttft_p95", "ttft_p99"}),
        ("gamma", 1278, {"ttft_p95", "ttft_p99"}),
        ("poisson", 10**6, {"ttft_p99"}),
        ("constant", 20, set()),
        (None, 20, set()),
    ],
)
def test_quantiles_that_the_requests_do_not_support_have_no_interval(traffic, requests, without):
    """The repeat with the fewest decides; their means stand all the same."""
    rows = [
        builders.metrics(
            0.4,
            k,
            traffic=traffic,
            requests=requests * k,
            latencies_s={f"ttft_p{percent}": 1.0 + k for percent in (50, 90, 95, 99)},
        )
        for k in (1, 2)
    ]
    found = summed(rows)[0].latencies_s
    assert {name for name, one in found.items() if one.ci_low is None} == without
    assert {one.mean for one in found.values()} == {2.5}
