"""What the compare stage says of a sweep whose truth is known."""

from __future__ import annotations

import math
from dataclasses import replace

import compare as script
import pytest
from support import builders, simulated_sweeps
from support.simulated_sweeps import Sweep

from llm_energy.analysis.aggregate import aggregate
from llm_energy.analysis.compare.crossovers import where
from llm_energy.analysis.compare.rankings import fronts
from llm_energy.analysis.compare.recommend import _candidate
from llm_energy.analysis.compare.stage import comparisons
from llm_energy.core.errors import LlmEnergyError
from llm_energy.core.serialize import to_dict
from llm_energy.records import Plan, Statistic, read_record, write_record
from llm_energy.records.comparison import Comparisons
from llm_energy.records.files import storage

GROSS = "energy_per_output_token_j"
SMALL = {"backends": ("pytorch",), "batch_sizes": (1, 8)}


def said(sweep=None, seed=1, change=None, bounds=None) -> Comparisons:
    """Return what is said of one drawn sweep; ``change`` may alter a row or its conditions."""
    sweep = sweep or Sweep(**SMALL)
    tables = sweep.measured(seed)
    if change:
        tables = [change(table) for table in tables]
    plan = replace(sweep.plan(), recommendation=bounds or {})
    return comparisons(tables, [aggregate([t], plan, {}) for t in tables], plan)


def rows_changed(choose, **changes):
    """Change the rows that ``choose`` picks, and with ``conditions`` theirs."""
    conditions = changes.pop("conditions", {})

    def change(table):
        rows, known = [], dict(table.conditions)
        for row in table.rows:
            if choose(row):
                row = replace(row, **changes)
                known[row.conditions] = known[row.conditions] | conditions
            rows.append(row)
        return replace(table, rows=tuple(rows), conditions=known)

    return change


def of(found, contrast, metric=GROSS):
    return [c for c in found.comparisons if (c.contrast, c.metric) == (contrast, metric)]


def test_each_precision_stands_against_each_other_and_each_batch_size_against_the_next():
    found = said(Sweep(batch_sizes=(1, 8, 32)))
    pairs = {(c.reference.precision, c.other.precision) for c in of(found, "precision")}
    assert pairs == {("bfloat16", "int8"), ("bfloat16", "int4"), ("int8", "int4")}
    sizes = {(c.reference.batch_size, c.other.batch_size) for c in of(found, "batch_size")}
    assert sizes == {(1, 8), (8, 32)}
    assert {(c.reference.backend, c.other.backend) for c in of(found, "backend")} == {
        ("pytorch", "vllm")
    }
    assert of(found, "model") == []


def test_of_many_precisions_each_stands_against_the_first_alone():
    names = tuple(f"p{k}" for k in range(9))
    level = Sweep(simulated_sweeps.no_difference, precisions=names, **SMALL)
    pairs = {(c.reference.precision, c.other.precision) for c in of(said(level), "precision")}
    assert pairs == {("p0", name) for name in names[1:]}


def test_a_clear_saving_is_said_in_words_with_its_interval():
    one = next(c for c in of(said(), "precision") if c.other.precision == "int4")
    assert one.outcome == "less"
    assert one.ci_low < 0.7 < one.ci_high
    assert one.n == 5
    assert one.blocks == (1, 2, 3, 4, 5)
    assert one.verdict.startswith("int4 uses ")
    assert "% less J per output token than bfloat16, 95 % CI" in one.verdict


def test_what_is_within_noise_is_not_told_apart_and_says_what_would_have_been_seen():
    found = said(Sweep(truth=simulated_sweeps.no_difference, **SMALL))
    one = of(found, "precision")[0]
    assert one.outcome == "not_distinguishable"
    assert 1 < one.smallest_detectable_percent < 10
    assert "not distinguishable at n = 5" in one.verdict
    family = next(f for f in found.families if f.id == one.family)
    assert (family.comparisons, family.found) == (6, 0)
    assert family.noise_percent == pytest.approx(100 * 0.015 * 2**0.5, rel=0.5)


def test_a_differing_condition_is_named_and_no_ratio_given():
    lower = rows_changed(lambda row: row.precision == "int4", conditions={"power_limit_w": "300"})
    one = next(c for c in of(said(change=lower), "precision") if c.other.precision == "int4")
    assert (one.outcome, one.ratio, one.n) == ("not_comparable", None, 0)
    assert [d.field for d in one.differs] == ["power_limit_w"]
    told = "bfloat16 and int4 are not comparable: power limit of the GPUs (W): not recorded and 300"
    assert one.verdict == told


def test_batch_sizes_of_unlike_prompts_say_how_to_make_them_alike():
    longer = rows_changed(lambda row: row.batch_size == 8, conditions={"prompt_lengths": "61"})
    one = of(said(change=longer), "batch_size")[0]
    assert one.verdict == (
        "batch size 1 and batch size 8 are not comparable: prompt tokens a request: not recorded "
        "and 61. Give their workloads the same requests, or synthetic prompts"
    )


def test_a_block_that_ran_on_another_host_is_left_out_and_said_so():
    moved = rows_changed(
        lambda row: row.precision == "int4" and row.repeat == 3, conditions={"host": "node2"}
    )
    one = next(c for c in of(said(change=moved), "precision") if c.other.precision == "int4")
    assert one.blocks == (1, 2, 4, 5)
    (left,) = one.left_out
    assert (left.block, left.reason) == (3, "host: not recorded and node2")


DAY_S, RUN_S = 86_400.0, 300.0
ORDER = ("bfloat16", "int8", "int4")


def measured_at(late=lambda row: 0.0, boot=lambda row: "a"):
    """Let the repeats of each block follow one another, moved by ``late`` seconds."""

    def change(table):
        rows = []
        for row in table.rows:
            began_s = 1e9 + RUN_S * (len(ORDER) * row.repeat + ORDER.index(row.precision))
            began_s += late(row)
            span_utc_s = (began_s, began_s + RUN_S - 1)
            rows.append(replace(row, boot_id=boot(row), span_utc_s=span_utc_s))
        return replace(table, rows=tuple(rows))

    return change


ADDED = {
    "40 days later": measured_at(lambda row: 40 * DAY_S * (row.precision == "int4")),
    "after a reboot": measured_at(boot=lambda row: row.precision),
    "right after the others": measured_at(lambda row: 20 * RUN_S * (row.precision == "int4")),
}


@pytest.mark.parametrize("when", ADDED)
def test_a_cell_that_was_added_later_is_in_no_block_of_the_earlier_ones(when):
    found = of(said(change=ADDED[when]), "precision")
    added = [one for one in found if one.other.precision == "int4"]
    assert {(one.outcome, one.n, one.ratio) for one in added} == {("not_comparable", 0, None)}
    assert all("Raise protocol.repeats" in one.verdict for one in added)
    assert all("takes an anchor" in one.verdict for one in added)
    assert all(" UTC" in one.verdict for one in added)


def test_blocks_of_two_sessions_are_each_paired_within_its_own():
    later = measured_at(lambda row: DAY_S * (row.repeat > 3), lambda row: str(row.repeat > 3))
    found = said(change=later)
    assert {one.blocks for one in of(found, "precision")} == {(1, 2, 3, 4, 5)}
    plain = of(said(), "precision")
    assert {one.scope for one in plain} == {"session"}
    for one, of_one_session in zip(of(found, "precision"), plain, strict=True):
        assert one.scope == "sessions"
        assert "over 2 sessions, of which each counts once" in one.notes
        assert one.ci_high / one.ci_low > of_one_session.ci_high / of_one_session.ci_low
    assert len(next(h for h in found.held_fixed if h.field == "session").values) == 2


def test_a_repeat_that_was_measured_anew_later_is_left_out_of_its_block():
    again = measured_at(lambda row: DAY_S * (row.precision == "int4" and row.repeat == 2))
    one = next(c for c in of(said(change=again), "precision") if c.other.precision == "int4")
    assert one.blocks == (1, 3, 4, 5)
    assert one.left_out[0].reason.startswith("session: begun 2001-09-09")


NET = "net_energy_per_output_token_j"


def test_the_ratio_of_net_energies_holds_the_drift_of_the_idle_power():
    share = 0.5 * 0.1 * 2 * 3**0.5  # of a drift whose standard uncertainty is 5 % of the net energy

    def drifting(table):
        rows = [
            replace(row, loaded_idle_drift_w=share * row.net_energy_j / row.duration_s)
            for row in table.rows
        ]
        return replace(table, rows=tuple(rows))

    plain, found = (of(said(change=change), "precision", NET)[0] for change in (None, drifting))
    assert found.ratio == plain.ratio
    assert math.log(found.ci_high / found.ratio) >= 1.96 * 0.05 * 2**0.5
    assert found.p_adjusted > plain.p_adjusted
    assert found.smallest_detectable_percent > plain.smallest_detectable_percent
    gross = [of(said(change=change), "precision") for change in (None, drifting)]
    assert gross[0] == gross[1]


@pytest.mark.parametrize("value_j", [0.0, -0.01])
def test_net_energy_of_zero_or_less_is_kept_and_has_no_ratio(value_j):
    low = rows_changed(
        lambda row: row.precision == "int4" and row.repeat == 2,
        net_energy_per_output_token_j=value_j,
    )
    one = next(c for c in of(said(change=low), "precision", NET) if c.other.precision == "int4")
    assert (one.outcome, one.ratio, one.other.n) == ("not_comparable", None, 5)
    assert "is 0 or less in repeat 2" in one.verdict


@pytest.mark.parametrize(("int4", "wider"), [(0.1, True), (0.0, True), (0.05, False)])
def test_cold_baselines_widen_a_ratio_by_that_alone_in_which_they_differ(int4, wider):
    def warm(table):
        rows = []
        for row in table.rows:
            share = int4 if row.precision == "int4" else 0.05
            excess_w = share * row.net_energy_j / row.duration_s
            rows.append(replace(row, loaded_idle_excess_w=excess_w))
        return replace(table, rows=tuple(rows))

    plain, found = (
        next(c for c in of(said(change=change), "precision", NET) if c.other.precision == "int4")
        for change in (None, warm)
    )
    assert (found.ci_high / found.ratio > 1.02 * plain.ci_high / plain.ratio) is wider


def test_a_sweep_split_over_two_hosts_is_paired_within_each():
    whole = rows_changed(lambda row: row.repeat > 3, conditions={"host": "node2", "boards": "B"})
    found = said(change=whole)
    one = of(found, "precision")[0]
    assert one.n == 5
    assert "blocks of 2 different sets of GPUs" in one.notes


def test_measured_joules_are_not_compared_with_estimated_ones():
    guessed = rows_changed(
        lambda row: row.precision == "int4",
        energy_status="estimated",
        components=("cpu",),
        conditions={"energy_status": "estimated"},
    )
    found = said(change=guessed)
    one = next(c for c in of(found, "precision") if c.other.precision == "int4")
    assert (one.outcome, one.differs[0].field) == ("not_comparable", "energy_status")
    speed = [c for c in of(found, "precision", "output_tokens_per_s") if c.n]
    assert "int4" in {c.other.precision for c in speed}


def test_estimated_joules_say_so():
    guessed = rows_changed(lambda row: True, energy_status="estimated")
    found = said(change=guessed)
    assert found.findings[0].startswith("Every joule is estimated")
    assert "estimated by a model" in of(found, "precision")[0].notes[0]
    assert "estimated energy" in found.recommendations[0].statement


def test_a_crossover_is_found_where_it_is_with_an_interval_around_it():
    found = said(Sweep(truth=simulated_sweeps.crossing, backends=("pytorch",)))
    crossing = next(c for c in found.crossovers if c.precision == "int4")
    assert crossing.kind == "stops_saving"
    assert crossing.ci_low < 16 < crossing.ci_high
    assert crossing.ci_high / crossing.ci_low < 2
    assert "up to a batch size of about" in crossing.statement
    level = next(c for c in found.crossovers if c.precision == "int8")
    assert (level.kind, level.batch_size) == ("undecided", None)


def test_a_crossover_whose_interval_reaches_beyond_the_batch_sizes_has_an_open_end():
    first, last = {1: -0.11, 2: -0.1, 3: -0.09}, {1: -0.03, 2: 0.01, 3: 0.05}
    size, low, high = where([(1, -0.1, first), (8, 0.01, last)])
    assert 1 < low < size < 8
    assert high is None
    assert where([(1, -0.1, first), (8, -0.2, last)]) == (None, None, None)


def test_a_crossover_between_batch_sizes_that_share_one_repeat_has_no_interval():
    size, low, high = where([(1, -0.1, {1: -0.1, 2: -0.1}), (8, 0.1, {2: 0.1, 3: 0.1})])
    assert (1 < size < 8, low, high) == (True, None, None)


@pytest.mark.parametrize("together", [0.0, 0.9])
def test_the_interval_of_a_crossover_holds_it_whatever_the_windows_of_a_repeat_share(together):
    """A fixed part of what tests/benchmarks/comparison_coverage.py draws."""
    assert 0.93 < simulated_sweeps.crossovers_held(together, range(300)) < 0.99


def test_the_lowest_is_recommended_and_what_cannot_be_told_from_it_named():
    found = said(Sweep(truth=simulated_sweeps.no_difference, backends=("pytorch",)))
    (one,) = found.recommendations
    assert len(one.candidates) == 12
    assert len(one.ties) >= 9
    assert "cannot be told" in one.statement
    assert found.lowest[0].ties == one.ties
    (clear,) = said(Sweep(backends=("pytorch",))).recommendations
    assert clear.best == ("m--pytorch--int4", "b128")
    assert clear.ties == ()


def test_bounds_refuse_what_is_lower_and_say_why():
    worse = rows_changed(lambda row: row.precision == "int4", nll_per_token=2.2)
    rest = rows_changed(lambda row: row.precision != "int4", nll_per_token=2.0)
    bounds = {"max_quality_drop_percent": 1.0, "max_tpot_s": 0.0334, "max_ttft_s": None}
    found = said(change=lambda table: rest(worse(table)), bounds=bounds)
    (one,) = found.recommendations
    assert one.best == ("m--pytorch--int8", "b8")
    assert one.bounds == {"max_quality_drop_percent": 1.0, "max_tpot_s": 0.0334}
    refused = next(c for c in one.candidates if c.cell == "m--pytorch--int4")
    assert refused.quality_drop_percent == pytest.approx(10)
    assert refused.refused[0] == "its quality drop of 10 % is above 1.0 %"
    assert any("uses less, but its quality drop" in reason for reason in one.reasons)
    (lowest,) = found.lowest
    assert (lowest.cell, lowest.workload) == ("m--pytorch--int4", "b8")
    assert lowest.refused == refused.refused
    assert "within the bounds" in one.statement
    assert "within the bounds" not in lowest.statement
    nobody = said(bounds={"max_e2e_latency_s": 0.001}).recommendations[0]
    assert (nobody.best, nobody.statement) == (None, "On pytorch no cell of m keeps the bounds")


@pytest.mark.parametrize(("traffic", "metric"), [(None, "service_ttft_s"), ("poisson", "ttft_s")])
def test_where_all_requests_wait_from_the_start_the_queue_decides_nothing(traffic, metric):
    """Batches of 8 leave others in the queue for longer than batches of 128, and answer sooner."""
    rows = [
        builders.aggregate_row(
            workload=f"b{size}",
            batch_size=size,
            traffic=traffic,
            statistics={
                GROSS: Statistic(3, 1.0 / size, None, None, None),
                "ttft_s": Statistic(3, 100.0 / size, None, None, None),
                "service_ttft_s": Statistic(3, 0.001 * size, None, None, None),
            },
        )
        for size in (8, 128)
    ]
    [front] = fronts([("work", rows)])
    assert front.against == metric
    on_it = {point.workload for point in front.points if point.dominated_by is None}
    assert on_it == ({"b8", "b128"} if traffic is None else {"b128"})
    kept = [row.workload for row in rows if not _candidate(row, None, {"max_ttft_s": 0.05}).refused]
    assert kept == (["b8"] if traffic is None else [])


def test_a_front_has_what_nothing_beats_in_both():
    front = next(f for f in said().pareto if f.against == "output_tokens_per_s")
    on_it = {(p.precision, p.batch_size) for p in front.points if p.dominated_by is None}
    assert ("int4", 8) in on_it
    by_place = {(p.cell, p.workload): p for p in front.points}
    for point in front.points:
        if point.dominated_by:
            better = by_place[point.dominated_by]
            assert better.energy_j <= point.energy_j
            assert better.against >= point.against


def test_another_denominator_that_changes_the_order_beyond_noise_is_told():
    long = rows_changed(lambda row: row.precision == "int4", energy_per_request_j=60.0)
    (ranking,) = said(Sweep(batch_sizes=(1,), backends=("pytorch",)), change=long).rankings
    assert ranking.rows[0].cell == "m--pytorch--int4"
    assert ranking.rows[0].ranks["energy_per_request_j"] == 3
    assert ranking.metrics[0] == GROSS
    assert ranking.changes_total == 2
    assert ranking.changes[0].metric == "energy_per_request_j"
    assert ranking.changes[0].statement.endswith("by J per output token, and more by J per request")


def test_what_was_held_fixed_is_listed_with_its_values():
    held = {one.field: one.values for one in said().held_fixed}
    assert held["precision"] == ("bfloat16", "int8", "int4")
    assert held["boards"] == ("GPU-1",)


def test_the_record_keeps_its_schema_and_its_order(tmp_path):
    found = said(Sweep())
    assert storage.problems(Comparisons, to_dict(found)) == []
    assert found == said(Sweep())


def test_records_of_another_sweep_are_refused():
    sweep = Sweep(**SMALL)
    with pytest.raises(LlmEnergyError, match="records of sweep 'test' do not belong"):
        comparisons(sweep.measured(1), [], Plan(sweep="other", cells=()))


def test_the_command_writes_what_the_stage_says(tmp_path):
    sweep = Sweep()
    plan = sweep.plan()
    tables = sweep.measured(1)
    arguments = {"--metrics": [], "--aggregates": []}
    for table in tables:
        for name, record in (("metrics", table), ("aggregates", aggregate([table], plan, {}))):
            path = tmp_path / f"{table.backend}-{name}.json"
            write_record(path, record)
            arguments[f"--{name}"].append(str(path))
    write_record(tmp_path / "plan.json", plan)
    out = tmp_path / "comparisons.json"
    rest = ["--plan", str(tmp_path / "plan.json"), "--out", str(out)]
    given = [word for name, paths in arguments.items() for word in (name, *paths)]
    assert script.main([*given, *rest]) == 0
    assert read_record(Comparisons, out) == said(sweep)


def test_intervals_hold_the_truth_and_findings_are_true():
    """A small share of what tests/benchmarks/comparison_coverage.py does; the bounds are 3 SD."""
    usual = simulated_sweeps.score(Sweep(), range(60))
    assert 0.92 < usual.covered < 0.975
    assert usual.found > 0.85
    for noise in ({"correlation": 0.3}, {"skewed": True}, {"sessions": 5, "session_sd": 0.015}):
        assert simulated_sweeps.score(Sweep(**noise), range(30)).covered > 0.88, noise
    level = simulated_sweeps.score(Sweep(truth=simulated_sweeps.no_difference), range(60))
    assert level.false < 0.09
