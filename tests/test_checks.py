"""Each check finds the fault that it is for, and says nothing of its healthy twin."""

from __future__ import annotations

import math
from dataclasses import replace

import builders
import pytest

from llm_energy.checks import (
    CATALOGUE,
    GROUPS,
    Case,
    Current,
    FileState,
    Finding,
    Remaining,
    trace_of,
    verdict_word,
)
from llm_energy.checks.accounting import loaded_idle_power_w, sums
from llm_energy.files import canonical_json
from llm_energy.records import ComponentEnergy, Flag

CURRENT = Current(
    spec_sha256=builders.measurement().spec_sha256,
    weights_sha256="w" * 64,
    parameter_count=1000,
    prompts_sha256=builders.prompt_set().sha256["b1"],
    prompt_tokens={"q0": 4, "q1": 4},
)
SOUND = (ComponentEnergy("gpu", "GPU-1", "measured", "nvml_total_energy", 4000.0),)


def case(window=None, current=CURRENT, **changes) -> Case:
    window = builders.window(**(window or {}))
    return Case(builders.measurement(windows=(window,), **changes), window, current)


def metered(duration_s: float, parts=None) -> Case:
    """Give a window of another length or energy, with its requests inside."""
    interval = builders.interval("window", 1020.0, duration_s, parts)
    return case({"interval": interval, "requests": builders.request_table(1020.0, duration_s)})


def column(spec=None, **changes) -> Case:
    return case({"requests": builders.request_table(1020.0, **changes)}, spec=spec)


def quantised(weight_bytes: int, *, bits8: bool = True, **changes) -> Case:
    asked = {"quantization": {"load_in_8bit": bits8, "load_in_4bit": False}}
    spec = builders.spec(workloads=(builders.workload(**asked),))
    effective = {"dtype": "float32", "weight_bytes": weight_bytes}
    return case(spec=spec, effective=effective, **changes)


WITHOUT_TOKENS = {"output_token_ids": {"q0": (1,), "q1": tuple(range(8))}}
FREE = builders.spec(workloads=(builders.workload(min_output_tokens=1),))
# By check: a faulty window with the severity it must get, and a healthy one that looks like it.
WINDOWS = {
    "M03": [
        (metered(29.0), "note", metered(30.0)),
        (metered(4.0), "warning", metered(31.0)),
        (metered(0.5), "invalid", metered(31.0)),
        (metered(0.5, builders.estimated_only(0.5)), "note", metered(31.0)),
    ],
    "M09": [
        (metered(40.0, builders.energy(40.0, gpu_w=power)), "invalid", case())
        for power in (math.nan, math.inf, -1.0, 0.0, 49.0)
    ]
    + [
        (metered(40.0, builders.estimated_only(40.0)[:1]), "invalid", case()),
        (metered(40.0, builders.energy(40.0, dram_w=4.9)), "note", case()),
    ],
    "M11": [(case(), "note", metered(40.0, SOUND))],
    "M12": [(case(), "note", metered(40.0, SOUND))],
    "M15": [
        (
            metered(40.0, (*SOUND, replace(SOUND[0], status="estimated", method="model"))),
            "warning",
            case(),
        )
    ],
    "M20": [
        (column(arrival_s=(1019.0,) * 4), "invalid", column(arrival_s=(1020.0,) * 4)),
        (column(last_token_s=(1061.0,) * 4), "invalid", column(last_token_s=(1060.0,) * 4)),
        (column(first_token_s=(1059.0,) * 4), "invalid", column(first_token_s=(None,) * 4)),
        (metered(-1.0), "invalid", case()),
    ],
    "M22": [(case(), "note", metered(40.0, SOUND))],
    "E03": [
        (case(effective={"dtype": "bfloat16"}), "invalid", case()),
        (case(effective={"dtype": 7}), "invalid", case(effective={"dtype": "torch.float32"})),
        (case(effective={}), "warning", case(spec=builders.spec(engine={}), effective={})),
    ],
    "E04": [
        (quantised(4000), "invalid", quantised(3000)),
        (quantised(2000, bits8=False), "warning", quantised(4100, bits8=False)),
        (quantised(4000), "invalid", quantised(4000, current=Current())),
    ],
    "E11": [
        (column(output_tokens=(8, 8, 8, 7)), "invalid", column(output_tokens=(8,) * 4)),
        (column(output_tokens=(8, 8, 8, 9)), "invalid", case(spec=FREE)),
    ],
    "E12": [
        (
            column(finish_reason=("stop", *("length",) * 3)),
            "invalid",
            column(FREE, finish_reason=("stop",) * 4),
        )
    ],
    "E14": [
        (column(prompt_tokens=(4, 4, 4, 3)), "invalid", case()),
        (case(current=Current(prompt_tokens={"q0": 4})), "invalid", case(current=Current())),
    ],
    "E18": [
        (case(WITHOUT_TOKENS), "invalid", case()),
        (case({"output_token_ids": {}}), "invalid", column(output_tokens=(8, 8, 7, 6))),
    ],
    "E19": [
        (column(finish_reason=("abort", *("length",) * 3)), "invalid", case()),
        (column(output_tokens=(8, 8, 8, 0)), "invalid", case()),
        (case({"passes": 3}), "invalid", case()),
    ],
    "E29": [
        (case({"warmup_converged": False}), "warning", case({"warmup_converged": None})),
    ],
    "P06": [
        (case(**{name: "other"}), "invalid", case(current=Current(), **{name: "other"}))
        for name in ("spec_sha256", "weights_sha256")
    ]
    + [(case(prompts_sha256={"b1": "other"}), "invalid", case())],
}


def traces(*changes: dict) -> list:
    """Give the traces of repeats 1, 2, ... each with its changes."""
    found = []
    for repeat, change in enumerate(changes, 1):
        measured = builders.measurement(builders.spec(repeat=repeat), **change)
        found.append(trace_of(Case(measured, measured.windows[0])))
    return found


MOVED = tuple(replace(part, device="GPU-2") for part in SOUND)
OTHER_BOARD = {
    "windows": (builders.window(interval=builders.interval("window", 3020.0, 40.0, MOVED)),)
}
# By check: faulty traces, the repeats that must be flagged, and healthy traces.
SWEEPS = {
    "H10": [
        (traces({}, {}, OTHER_BOARD), [1, 2, 3], traces({}, {})),
        (traces({}, {"host": builders.host(hostname="node2")}), [1, 2], traces({})),
    ],
    "E15": [
        (traces({}, {"weights_sha256": "x"}), [1, 2], traces({}, {})),
        (traces({}, {"prompts_sha256": {"b1": "x"}}), [1, 2], traces({"prompts_sha256": {}})),
    ],
    "P01": [
        (traces({"start_s": 0.0}, {"start_s": 39.0}, {}), [1, 2], traces({}, {"start_s": 1040.0})),
        (
            traces({"start_s": 0.0}, {"start_s": 39.0}),
            [1, 2],
            traces({"start_s": 0.0}, {"start_s": 39.0, "host": builders.host(boot_id="boot-2")}),
        ),
        (
            traces({"start_s": 0.0}, {"start_s": 0.0}),
            [1, 2],
            traces(*({"start_s": 0.0, "host": builders.host(boot_id=None)},) * 2),
        ),
    ],
}
FILES = {
    "P04": [(FileState("r01.json", False), FileState("r01.json", True))],
    "P07": [(FileState("r01.json", True, "no JSON"), FileState("r01.json", True))],
}
REPEATS = {
    "P03": [
        (Remaining("c", "b1", (1,), (1,)), Remaining("c", "b1", (1, 2), (1, 2))),
        (Remaining("c", "b1", (1, 3), (1, 2, 3)), Remaining("c", "b1", (), (1, 2, 3))),
    ],
}


def flat(pairs: dict) -> list:
    return [
        pytest.param(CATALOGUE[id], *pair, id=f"{id}-{k}")
        for id, found in pairs.items()
        for k, pair in enumerate(found)
    ]


def test_every_check_has_a_fault_and_a_healthy_twin():
    assert CATALOGUE.keys() == WINDOWS.keys() | SWEEPS.keys() | FILES.keys() | REPEATS.keys()


@pytest.mark.parametrize(("check", "faulty", "severity", "healthy"), flat(WINDOWS))
def test_window_check(check, faulty, severity, healthy):
    assert check.find(healthy) is None
    flag = check.flag(check.find(faulty))
    assert (flag.id, flag.severity) == (check.id, severity)
    assert canonical_json(flag.evidence)  # evidence is finite JSON


@pytest.mark.parametrize(("check", "faulty", "flagged", "healthy"), flat(SWEEPS))
def test_sweep_check(check, faulty, flagged, healthy):
    assert list(check.find(healthy)) == []
    found = list(check.find(faulty))
    assert sorted({trace.key.repeat for trace, _ in found}) == flagged
    assert all(canonical_json(finding.evidence) for _, finding in found)


@pytest.mark.parametrize(("check", "faulty", "healthy"), flat(FILES) + flat(REPEATS))
def test_file_and_repeats_checks(check, faulty, healthy):
    assert check.find(healthy) is None
    assert canonical_json(check.find(faulty).evidence)


def test_a_healthy_window_gets_notes_only():
    checks = [check for check in CATALOGUE.values() if check.scope == "window"]
    flags = [check.flag(f) for check in checks if (f := check.find(case())) is not None]
    assert {flag.id for flag in flags} == {"M11", "M12", "M22"}
    assert verdict_word(flags) == "valid"


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


def test_measured_and_estimated_joules_are_added_apart():
    found = sums(builders.interval("window", 0.0, 10.0))
    assert {status: total.energy_j for status, total in found.items()} == {
        "measured": 1000.0,
        "estimated": 50.0,
    }
    assert found["measured"].components == ("gpu",)


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
