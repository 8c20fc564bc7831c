"""Each check finds the fault that it is for, and says nothing of its healthy twin.

A pair is (faulty, expected, healthy). For a check of one window, of a file or of the repeats that
are left, ``expected`` is the severity of the one finding. For a check of windows together, faulty
and healthy are lists of traces, and ``expected`` gives the severity by the repeats that are
flagged.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from support import builders, check_pairs_engine_pipeline, check_pairs_meter_machine
from support.check_cases import case

from llm_energy.analysis.checks import (
    CATALOGUE,
    EXPLAINED,
    GROUPS,
    Finding,
    WindowEvidence,
    bias_bound,
    flags_of,
    of_scope,
    summary_of,
    verdict_word,
)
from llm_energy.analysis.energy.accounting import loaded_idle_power_w, remembered, sums
from llm_energy.core.files import canonical_json
from llm_energy.records import ComponentEnergy, Flag, rows_text

PAIRS = check_pairs_meter_machine.PAIRS | check_pairs_engine_pipeline.PAIRS


TOGETHER = ("host", "sweep")


def pairs(together: bool) -> list:
    return [
        pytest.param(CATALOGUE[id], *pair, id=f"{id}-{k}")
        for id, found in PAIRS.items()
        if (CATALOGUE[id].scope in TOGETHER) is together
        for k, pair in enumerate(found)
    ]


def test_the_bound_of_a_bias_is_the_sum_of_the_warnings_and_unknown_where_one_is():
    def flag(id, severity, bound):
        return Flag(id, severity, {}, "", "", bound)

    note, small, large = flag("A", "note", None), flag("B", "warning", 0.5), flag("C", "warning", 2)
    assert bias_bound([]) == (0.0, None)
    assert bias_bound([note, small, large]) == (2.5, None)
    assert bias_bound([small, flag("D", "warning", None)]) == (None, "no bound is known for D")


def test_every_check_has_a_fault_and_a_healthy_twin():
    # Those of the audit have theirs in tests/recorded/edits.yaml.
    audits = {id for id, check in CATALOGUE.items() if check.scope in ("files", "spans")}
    assert CATALOGUE.keys() - audits == PAIRS.keys()


@pytest.mark.parametrize(("check", "faulty", "severity", "healthy"), pairs(together=False))
def test_a_fault_is_found_and_its_twin_is_not(check, faulty, severity, healthy):
    assert check.find(healthy) is None
    flag = check.flag(check.find(faulty))
    assert (flag.id, flag.severity) == (check.id, severity)
    assert canonical_json(flag.evidence)  # evidence is finite JSON


@pytest.mark.parametrize(("check", "faulty", "expected", "healthy"), pairs(together=True))
def test_a_fault_of_a_sweep_is_found_and_its_twin_is_not(check, faulty, expected, healthy):
    assert list(check.find(healthy)) == []
    flags = [(trace.key.repeat, check.flag(finding)) for trace, finding in check.find(faulty)]
    assert {repeat: flag.severity for repeat, flag in flags} == expected
    assert all(canonical_json(flag.evidence) for _, flag in flags)


def test_every_explanation_is_a_sentence():
    assert {id[0] for id in [*CATALOGUE, *EXPLAINED]} == set("MHEPA")
    assert all(why.endswith(".") for why in EXPLAINED.values())


NOTES = {"M11", "M12", "M22"}  # the healthy host estimates its memory and cannot read its CPU


def test_a_healthy_window_gets_notes_only():
    flags = flags_of("window", case())
    assert {flag.id for flag in flags} == NOTES
    assert verdict_word(flags) == "valid"


def older(measurement):
    """Take away what earlier versions of the record did not hold."""

    def bare(interval):
        return replace(interval, boards=(), host=None, trace=())

    unknown = {"warmup_trend": None, "thermal_wait_s": None, "temperature_slope_c_per_10s": None}
    return replace(
        measurement,
        host=replace(measurement.host, settings={}),
        baselines=tuple(map(bare, measurement.baselines)),
        windows=tuple(
            replace(w, interval=bare(w.interval), **unknown) for w in measurement.windows
        ),
        preflight=None,
        meter=None,
    )


def test_an_older_measurement_is_not_accused_of_what_it_lacks():
    measurements = [older(builders.measurement(builders.spec(repeat=k))) for k in range(1, 13)]
    cases = [WindowEvidence(m, m.windows[0]) for m in measurements]
    assert {flag.id for judged in cases for flag in flags_of("window", judged)} == NOTES
    traces = [summary_of(judged) for judged in cases]
    # Those with all there is to know stand beside them in one sweep.
    newer = builders.measurement(builders.spec(repeat=13))
    traces.append(summary_of(WindowEvidence(newer, newer.windows[0])))
    checks = [check for scope in TOGETHER for check in of_scope(scope)]
    assert [check.id for check in checks if list(check.find(traces))] == []


def test_every_check_says_what_it_is():
    for id, check in CATALOGUE.items():
        assert check.id == id
        assert check.group in GROUPS
        assert check.find.__doc__
        assert check.title
        assert check.advice.endswith(".")


def test_the_worst_flag_decides():
    note, warning, invalid = (
        Flag("X", severity, {}, "") for severity in ("note", "warning", "invalid")
    )
    assert verdict_word([]) == "valid"
    assert verdict_word([note]) == "valid"
    assert verdict_word([note, warning]) == "degraded"
    assert verdict_word([warning, invalid, note]) == "invalid"


def test_a_finding_may_change_the_severity():
    check = CATALOGUE["M03"]
    assert check.flag(Finding({})).severity == "note"
    assert check.flag(Finding({}, "invalid")).severity == "invalid"
    assert check.flag(Finding({})).title == check.title


def test_evidence_that_is_not_finite_becomes_text():
    flag = CATALOGUE["M09"].flag(Finding({"energy_j": {"gpu": float("nan")}, "all": (1.5, -1e999)}))
    assert flag.evidence == {"energy_j": {"gpu": "nan"}, "all": [1.5, "-inf"]}


def test_measured_and_estimated_joules_are_added_apart():
    found = sums(builders.interval("window", 0.0, 10.0))
    assert {status: total.energy_j for status, total in found.items()} == {
        "measured": 1000.0,
        "estimated": 50.0,
    }
    assert found["measured"].components == ("gpu",)


def test_what_is_remembered_of_a_window_is_not_written():
    window = builders.window()
    written = rows_text(window)
    assert sums(window.interval) is sums(window.interval)
    assert rows_text(window) == written


def test_functions_of_one_name_remember_each_its_own():
    def other():
        @remembered
        def sums(interval):
            return interval.name

        return sums

    interval = builders.interval("window", 0.0, 10.0)
    assert sums(interval)["measured"].energy_j == 1000.0
    assert other()(interval) == "window"


def test_components_are_named_in_one_order():
    parts = [ComponentEnergy(c, c, "measured", "x", 1.0) for c in ("dram", "cpu", "gpu", "cpu")]
    interval = builders.interval("window", 0.0, 1.0, tuple(parts))
    assert sums(interval)["measured"].components == ("gpu", "cpu", "dram")
    assert sums(interval)["measured"].energy_j == 4.0


class TestLoadedIdlePower:
    parts = sums(builders.interval("x", 0.0, 1.0))["measured"].parts

    def power(self, *baselines):
        measured = builders.measurement(baselines=baselines)
        return loaded_idle_power_w(measured, "measured", self.parts)

    def idle(self, when, gpu_w, duration_s=10.0):
        parts = builders.energy(duration_s, gpu_w)
        return builders.interval(f"loaded_idle_{when}", 0.0, duration_s, parts)

    def test_it_is_the_mean_of_before_and_after(self):
        assert self.power(self.idle("before", 40.0), self.idle("after", 60.0)) == (50.0, None)

    def test_before_alone_will_do(self):
        assert self.power(self.idle("before", 40.0)) == (40.0, None)

    def test_after_alone_does_not(self):
        assert self.power(self.idle("after", 40.0)) == (None, "no baseline loaded_idle_before")

    def test_the_same_components_are_needed(self):
        other = builders.interval("loaded_idle_before", 0.0, 10.0, builders.estimated_only(10.0))
        power_w, reason = self.power(other)
        assert power_w is None
        assert "loaded_idle_before has not the same measured components" in reason

    def test_a_baseline_without_length_gives_none(self):
        power_w, reason = self.power(self.idle("before", 40.0, 0.0))
        assert power_w is None
        assert "lasted 0.0 s" in reason
