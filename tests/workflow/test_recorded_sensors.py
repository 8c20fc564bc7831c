"""What the sensors of a real GPU were seen to do, and the harness beside the bare engine."""

from __future__ import annotations

import sys

import pytest
from support.project import ROOT

from llm_energy.core.files import read_json

FOLDER = ROOT / "docs" / "measurements"


@pytest.fixture(scope="module")
def findings():
    sys.path.insert(0, str(ROOT / "tests" / "gpu"))
    try:
        import sensor_findings
    finally:
        sys.path.pop(0)
    return sensor_findings


@pytest.fixture(scope="module")
def study(findings):
    return findings.stages(FOLDER / "h200-sensors.tar.gz")


@pytest.fixture(scope="module")
def each(findings, study):
    return findings.series(study)


@pytest.fixture(scope="module")
def grid(findings, each):
    return findings.grid(findings.sharp(each))


def test_the_counters_stamp_is_that_of_the_reading_and_not_of_the_tick(findings, study, each):
    after_ms, later, same = findings.stamps(each, study["gpu"]["wall_minus_monotonic_s"])
    assert same > 4000
    assert later == same
    assert 0 < min(after_ms) < max(after_ms) < 40


def test_the_counter_moves_on_an_even_grid(findings, each, grid):
    seen = findings.sharp(each)
    assert len(seen) > 300
    assert grid.period_s == pytest.approx(0.1, rel=1e-3)
    assert max(grid.off_s(tick) for tick in seen) < 1e-3


def test_a_window_is_known_better_by_its_ticks_than_by_its_edges(findings, study, grid):
    found = findings.polled(study["cooling"]["polling loaded"], grid)
    plain_w, by_ticks_w = [w for _, w, _ in found], [w for _, _, w in found if w is not None]
    assert len(by_ticks_w) >= 4
    assert max(plain_w) > 1.02 * min(plain_w)
    assert max(by_ticks_w) < 1.001 * min(by_ticks_w)


@pytest.mark.parametrize("how", ["10 Hz", "100 Hz"])
@pytest.mark.parametrize("state", ["waiting", "loaded"])
def test_polling_costs_less_than_half_a_percent(findings, study, grid, state, how):
    found = findings.polled(study["cooling"][f"polling {state}"], grid)
    of = {h: [w for other, _, w in found if other == h and w is not None] for h in ("none", how)}
    assert of[how][0] == pytest.approx(of["none"][0], rel=5e-3)


def test_bursts_in_step_with_the_power_sensor_are_missed_by_it_alone(findings, study, each):
    found = {
        name: findings.sensed(each[name], begin_s, end_s)
        for name, begin_s, end_s in findings.stretches(study, each)
    }
    in_step, out_of_step = (found[f"pulses, {name}"] for name in findings.PULSES)
    assert in_step.instant < 0.5
    assert out_of_step.instant == pytest.approx(1, abs=0.05)
    assert found["idle-context"].instant == pytest.approx(1, abs=0.01)
    of_work_w = [findings.pulse_w(study, name) for name in findings.PULSES]
    assert of_work_w[0] == pytest.approx(of_work_w[1], rel=0.05)


def test_the_mean_power_lags_by_half_of_its_second_and_the_current_power_by_a_tick(findings, study):
    falls = findings.falls(study)
    assert len(falls) == 4
    for one in falls:
        assert one.instant_s < 0.15
        assert 0.4 < one.average_s < 0.7
        assert one.width_s == pytest.approx(1, abs=0.15)


def test_a_warm_gpu_draws_more_waiting_and_has_cooled_before_that_is_seen(findings, each):
    after = [each[f"after {s} s"] for s in (3, 10, 40)]
    slope, error, _ = findings.idle_slope(each["cold"], *after)
    assert 0.4 < slope - 2 * error < slope + 2 * error < 1.0
    for one in after:
        soon = next(row for row in one if row.before_s - one[0].before_s > 0.2)
        assert one[0].temperature_c - soon.temperature_c >= 10
        assert findings.mean_w(one, 1.0, 6.0) > findings.mean_w(one[-30:], 0, 9)


def test_zeus_and_codecarbon_read_the_same_counter(study):
    for window in study["others"]["windows"]:
        counter_j, tick_j = window["counter_j"], window["counter_j"] / 6.0 * 0.1
        assert window["zeus_j"] == pytest.approx(counter_j, rel=1e-9)
        # CodeCarbon began a little earlier and ended a little later, and a tick may lie there.
        assert window["codecarbon_j"] == pytest.approx(counter_j, abs=tick_j)


def test_the_harness_takes_the_time_and_the_joules_of_the_bare_engine(findings):
    found = findings.against(read_json(FOLDER / "h200-harness.json"))
    assert [one.batch_size for one in found] == [1, 8, 64, 256, 512]
    for one in found:
        assert one.rate == pytest.approx(1, abs=0.01)
        assert one.joules == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("name", ["h200-sensors.tar.gz", "h200-harness.json"])
def test_the_page_has_the_figures_that_the_command_prints(findings, name, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["sensor_findings.py", str(FOLDER / name)])
    findings.main()
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert f"```\n{capsys.readouterr().out}```" in page
