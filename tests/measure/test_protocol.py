"""What one repeat does, in which order, and what it keeps when an engine fails."""

from __future__ import annotations

import gc
from dataclasses import fields, replace
from pathlib import Path

import pytest
from support.simulated import (
    POWER_W,
    Clock,
    ContinuousBackend,
    SimulatedBackend,
    SimulatedMeter,
    glance,
    gpu,
    spec,
)

from llm_energy.core.errors import OutOfMemory, RecordError, Unsupported
from llm_energy.measure import window as window_rows
from llm_energy.measure.protocol import run_repeat
from llm_energy.records import Completion, Protocol, Request

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "protocol.md"


def measure(the_spec, backend=None, clock=None, look=lambda _: glance(), **hooks):
    clock = clock or Clock()
    backend = backend or SimulatedBackend(clock, gpus=["GPU-1"])
    meter = SimulatedMeter(clock, look)
    requests = {
        w.id: tuple(Request(f"{w.id}-{k}", (1, 2)) for k in range(w.requests))
        for w in the_spec.workloads
    }
    repeat = run_repeat(
        the_spec, Path("model"), requests, backend, meter, clock=clock, sleep=clock.sleep, **hooks
    )
    return repeat, backend, meter


def test_a_repeat_runs_in_the_order_of_the_protocol():
    repeat, backend, meter = measure(spec(["b1", "b8"]))
    assert meter.names == [
        "ticks",
        "deep_idle",
        "load",
        "loaded_idle_before",
        *("window", "hot_idle") * 2,
        "loaded_idle_after",
    ]
    assert [b.name for b in repeat.baselines] == [
        "deep_idle",
        "loaded_idle_before",
        "loaded_idle_after",
    ]
    assert [w.workload for w in repeat.windows] == ["b1", "b8"]
    assert [w.order for w in repeat.windows] == [0, 1]
    assert {(w.hot_idle.name, w.hot_idle.duration_s) for w in repeat.windows} == {
        ("hot_idle", Protocol().hot_idle_duration_s)
    }
    assert meter.restricted_to == ["GPU-1"]
    assert backend.closed


def test_a_repeat_waits_for_an_idle_host_before_anything_is_metered():
    def busy_until_103_s(now_s):
        return glance(gpu(utilization_percent=0 if now_s >= 103 else 80))

    repeat, _, _ = measure(spec(), look=busy_until_103_s)
    assert repeat.preflight.wait_s == pytest.approx(3.0)
    assert all(condition.ok for condition in repeat.preflight.conditions)
    assert repeat.baselines[0].start_s >= 103


def test_a_repeat_is_judged_by_the_gpus_that_its_engine_uses():
    others = gpu("GPU-2", foreign_processes=(42,))
    repeat, _, _ = measure(spec(), look=lambda _: glance(gpu("GPU-1"), others))
    assert repeat.preflight.wait_s == pytest.approx(60.0)
    assert all(condition.ok for condition in repeat.preflight.conditions)
    assert {c.name for c in repeat.preflight.conditions} >= {"board_processes", "host_load"}


def test_what_did_not_hold_is_recorded_even_when_the_load_fails():
    clock = Clock()
    crowded = gpu(foreign_processes=(42,))
    repeat, _, _ = measure(
        spec(preflight_max_wait_s=5.0),
        SimulatedBackend(clock, fail={"load": OutOfMemory("full")}),
        clock,
        look=lambda _: glance(crowded),
    )
    assert repeat.outcome == "oom"
    assert repeat.preflight.wait_s == pytest.approx(5.0)
    assert [c.name for c in repeat.preflight.conditions if not c.ok] == ["board_processes"]


def test_the_energy_of_a_window_is_that_of_its_passes_alone():
    repeat, _, _ = measure(spec(window_min_duration_s=3.0))
    window = repeat.windows[0]
    assert window.passes == 3
    assert window.interval.duration_s == pytest.approx(3.0)
    assert window.interval.energy[0].energy_j == pytest.approx(3.0 * POWER_W)


def test_a_window_holds_whole_passes_only():
    clock = Clock()
    repeat, _, _ = measure(spec(), SimulatedBackend(clock, [1.0] * 5 + [2.2]), clock)
    assert repeat.windows[0].passes == 2
    assert repeat.windows[0].interval.duration_s == pytest.approx(4.4)


def test_every_request_of_every_pass_is_a_row():
    repeat, _, _ = measure(spec())
    window = repeat.windows[0]
    assert window.requests.request_id == ("b1-0",) * 3
    assert window.requests.output_tokens == (3, 3, 3)
    first_measured_pass = 6  # after five warm-up passes
    assert window.output_token_ids == {"b1-0": (first_measured_pass, 2, 3)}


def test_no_baseline_is_taken_when_its_duration_is_zero():
    none = dict.fromkeys((f"{name}_idle_duration_s" for name in ("deep", "loaded", "hot")), 0)
    repeat, _, _ = measure(spec(**none))
    assert repeat.baselines == ()
    assert repeat.windows[0].hot_idle is None


def test_nothing_of_ours_is_called_inside_an_interval():
    clock = Clock()
    meter = SimulatedMeter(clock)
    seen = []

    def note(_):
        seen.append(meter.open)

    the_spec = spec(["b1", "b8"])
    requests = {w.id: (Request("r", (1,)),) for w in the_spec.workloads}
    run_repeat(
        the_spec,
        Path("model"),
        requests,
        SimulatedBackend(clock),
        meter,
        keep=note,
        step=note,
        clock=clock,
        sleep=clock.sleep,
    )
    assert len(seen) > 8
    assert set(seen) == {None}


def test_garbage_is_not_collected_inside_a_window():
    clock = Clock()
    states = []

    class Watching(SimulatedBackend):
        def generate(self, *mark):
            states.append(gc.isenabled())
            return super().generate(*mark)

    measure(spec(), Watching(clock), clock)
    assert states == [True] * 5 + [False] * 3
    assert gc.isenabled()


def test_garbage_is_collected_again_after_a_window_that_failed():
    clock = Clock()

    class FailsInTheWindow(SimulatedBackend):
        def generate(self, *mark):
            if self.passes == 6:
                raise OutOfMemory("no memory left")
            return super().generate(*mark)

    repeat, _, _ = measure(spec(), FailsInTheWindow(clock), clock)
    assert repeat.windows[0].outcome == "oom"
    assert repeat.windows[0].passes == 1
    assert len(repeat.windows[0].pass_ends_s) == 1
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Unsupported("no such quantisation"), "unsupported"),
        (OutOfMemory("3 GiB wanted"), "oom"),
        (ValueError("odd"), "failed"),
    ],
)
def test_a_load_that_fails_is_an_outcome(error, outcome):
    clock = Clock()
    repeat, backend, _ = measure(spec(), SimulatedBackend(clock, fail={"load": error}), clock)
    assert repeat.outcome == outcome
    assert str(error) in repeat.reason
    assert repeat.windows == ()
    assert [b.name for b in repeat.baselines] == ["deep_idle"]
    assert backend.closed


def test_a_workload_out_of_memory_costs_no_other_workload():
    clock = Clock()

    class TooBig(SimulatedBackend):
        def prepare(self, workload, requests):
            self.fail = {"generate": OutOfMemory("too big")} if workload.id == "b8" else {}
            return super().prepare(workload, requests)

    repeat, _, _ = measure(spec(["b1", "b8", "b2"]), TooBig(clock), clock)
    assert [w.outcome for w in repeat.windows] == ["ok", "oom", "ok"]
    assert repeat.windows[1].interval is None
    assert repeat.windows[1].requests is None
    assert "too big" in repeat.windows[1].reason


def test_what_is_finished_is_kept_after_each_window():
    kept = []
    measure(spec(["b1", "b8"]), keep=lambda repeat: kept.append(len(repeat.windows)))
    assert kept == [0, 1, 2]


def test_warm_up_goes_on_until_passes_take_the_same_time():
    clock = Clock()
    durations_s = [9.0, 5.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    repeat, _, _ = measure(spec(), SimulatedBackend(clock, durations_s), clock)
    window = repeat.windows[0]
    assert window.warmup_durations_s == pytest.approx(durations_s)
    assert window.warmup_converged is True
    assert window.warmup_trend == pytest.approx(0.0)


def test_warm_up_that_never_settles_stops_at_the_maximum_and_says_so():
    clock = Clock()
    repeat, _, _ = measure(spec(), SimulatedBackend(clock, [1.0, 9.0] * 4), clock)
    assert len(repeat.windows[0].warmup_durations_s) == 7
    assert repeat.windows[0].warmup_converged is False


def test_the_end_of_every_pass_is_recorded():
    window = measure(spec())[0].windows[0]
    begin_s = window.interval.start_s
    assert window.pass_ends_s == pytest.approx([begin_s + 1, begin_s + 2, begin_s + 3])


def test_the_events_of_a_window_are_those_that_happened_in_it():
    window = measure(spec())[0].windows[0]
    assert window.events == {"steps": 9, "mean_running_requests": 1.0}


def warming(limit_c: float, c_per_s: float = 0.5):
    """Return a host whose GPU warms up at this rate from the clock's start, up to a limit."""
    return lambda now_s: glance(gpu(temperature_c=min(limit_c, 40.0 + c_per_s * (now_s - 100.0))))


def test_sustained_serves_on_until_the_temperature_has_settled():
    the_spec = spec(thermal_policy="sustained", thermal_slope_c_per_10s=1.0)
    repeat, backend, _ = measure(the_spec, look=warming(60.0))
    window = repeat.windows[0]
    # The GPU reaches its 60 °C at 140 s; over the ten seconds before 149 s it has risen by less
    # than 1 °C.
    assert window.interval.start_s == pytest.approx(149.0, abs=2.0)
    assert abs(window.temperature_slope_c_per_10s) < 1.0
    served_s = sum(window.warmup_durations_s)
    assert window.interval.start_s - repeat.baselines[1].end_s == pytest.approx(served_s)
    assert window.thermal_wait_s == pytest.approx(served_s - 5.0)
    assert backend.passes == len(window.warmup_durations_s) + window.passes


def test_sustained_goes_on_at_its_limit_and_the_slope_tells():
    the_spec = spec(thermal_policy="sustained", thermal_max_wait_s=20.0)
    window = measure(the_spec, look=warming(1e9))[0].windows[0]
    assert window.thermal_wait_s == pytest.approx(20.0)
    assert window.temperature_slope_c_per_10s == pytest.approx(5.0)


def test_cooldown_rests_between_warm_up_and_window():
    the_spec = spec(thermal_policy="cooldown", cooldown_duration_s=30.0)
    repeat, backend, _ = measure(the_spec, look=warming(1e9))
    window = repeat.windows[0]
    assert window.thermal_wait_s == pytest.approx(30.0)
    assert len(window.warmup_durations_s) == 5
    assert window.interval.start_s - repeat.baselines[1].end_s == pytest.approx(35.0)
    assert backend.passes == 5 + window.passes


@pytest.mark.parametrize(
    ("policy", "look"),
    [("none", warming(1e9)), ("sustained", lambda _: glance(gpu(temperature_c=None)))],
)
def test_without_a_policy_or_a_temperature_nothing_is_waited_for(policy, look):
    window = measure(spec(thermal_policy=policy), look=look)[0].windows[0]
    assert window.thermal_wait_s == 0.0
    assert len(window.warmup_durations_s) == 5


def continuous(requests: int, batch_size: int = 2):
    """Return a spec of one workload with continuous batching."""
    blank = spec(["b2"])
    workload = replace(
        blank.workloads[0],
        requests=requests,
        parameters={"batching": {"batch_size": batch_size}},
    )
    return replace(blank, workloads=(workload,))


def test_the_steady_state_is_cut_out_of_every_pass():
    clock = Clock()
    repeat, _, _ = measure(continuous(requests=4), ContinuousBackend(clock), clock)
    window = repeat.windows[0]
    steady = window.steady_state
    assert window.passes == 3
    assert [i.start_s for i in steady.intervals] == pytest.approx(
        [end_s - 0.8 for end_s in window.pass_ends_s]
    )
    assert [i.duration_s for i in steady.intervals] == pytest.approx([0.6] * 3)
    assert [i.energy[0].energy_j for i in steady.intervals] == pytest.approx([0.6 * POWER_W] * 3)
    assert steady.output_tokens == 3 * (8 - 2)
    assert steady.reason is None


def test_without_a_steady_state_the_reason_says_how_many_requests_it_needs():
    clock = Clock()
    repeat, _, _ = measure(continuous(requests=3), ContinuousBackend(clock), clock)
    window = repeat.windows[0]
    assert window.outcome == "ok"
    assert window.steady_state.intervals == ()
    assert window.steady_state.output_tokens == 0
    assert "needs 4 requests or more, this workload has 3" in window.steady_state.reason


def test_copies_of_a_model_have_no_steady_state_in_common():
    class Copies(ContinuousBackend):
        def generate(self, mark=None):
            return super().generate(lambda *marked: None)

    clock, asked = Clock(), continuous(requests=4)
    spread = {"sharding": {"strategy": "data_parallel", "num_devices": 2}}
    (workload,) = asked.workloads
    workload = replace(workload, parameters=workload.parameters | spread)
    repeat, _, _ = measure(replace(asked, workloads=(workload,)), Copies(clock), clock)
    assert "each copy" in repeat.windows[0].steady_state.reason


def test_a_batch_that_never_filled_up_has_its_own_reason():
    clock = Clock()

    class NeverFull(ContinuousBackend):
        def prepare(self, workload, requests):
            effective = super().prepare(workload, requests)
            self.fills = False
            return effective

    repeat, _, _ = measure(continuous(requests=9), NeverFull(clock), clock)
    assert "9 requests had ended before 2" in repeat.windows[0].steady_state.reason


def test_static_batching_has_no_steady_state():
    assert measure(spec())[0].windows[0].steady_state is None


def test_every_setting_of_the_protocol_is_explained_with_its_default():
    text = DOCUMENT.read_text(encoding="utf-8")
    for setting in fields(Protocol):
        default = "null" if setting.default is None else str(setting.default)
        if setting.name == "version":
            continue
        assert f"| `{setting.name}` | `{default}` |" in text, setting.name


def test_a_window_stands_without_its_steps():
    class Confused(SimulatedBackend):
        def steps(self):
            raise RecordError("steps overlap")

    clock = Clock()
    repeat, *_ = measure(spec(["b1"]), Confused(clock), clock)
    assert [window.outcome for window in repeat.windows] == ["ok"]
    assert repeat.steps == {"b1": "steps overlap"}
    repeat, *_ = measure(spec(["b1"]))
    assert repeat.steps == {"b1": "the engine does not tell its steps"}


def test_of_a_server_without_ids_counts_are_kept_and_gaps_and_ids_are_not():
    spans = (0.0, 1.0, 2.0, (1.0, 1.5, 2.0), 0.0)
    with_ids = Completion("a", 2, 0, 0, (7, 8, 9), "length", *spans)
    without = Completion("b", 2, 0, 0, (), "length", *spans, counted_tokens=3)

    assert window_rows.table([with_ids, without]).output_tokens == (3, 3)
    assert window_rows.ids([with_ids, without]) == {"a": (7, 8, 9)}
    assert window_rows.inter_token([without]) is None
    assert window_rows.inter_token([with_ids, without]) == window_rows.inter_token([with_ids])
