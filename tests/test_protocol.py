"""What one repeat does, in which order, and what it keeps when an engine fails."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
from simulated import POWER_W, Clock, SimulatedBackend, SimulatedMeter, spec

from llm_energy.errors import OutOfMemory, Unsupported
from llm_energy.protocol import converged, run_repeat, warmed_up
from llm_energy.records import Protocol, Request


def measure(the_spec, backend=None, clock=None, **hooks):
    clock = clock or Clock()
    backend = backend or SimulatedBackend(clock)
    meter = SimulatedMeter(clock)
    requests = {w.id: (Request(f"{w.id}-0", (1, 2)),) for w in the_spec.workloads}
    repeat = run_repeat(
        the_spec, Path("model"), requests, backend, meter, clock=clock, sleep=clock.sleep, **hooks
    )
    return repeat, backend, meter


def test_a_repeat_runs_in_the_order_of_the_protocol():
    repeat, backend, meter = measure(spec(["b1", "b8"]))
    assert meter.names == [
        "deep_idle",
        "load",
        "loaded_idle_before",
        "window",
        "window",
        "loaded_idle_after",
    ]
    assert [b.name for b in repeat.baselines] == [
        "deep_idle",
        "loaded_idle_before",
        "loaded_idle_after",
    ]
    assert [w.workload for w in repeat.windows] == ["b1", "b8"]
    assert [w.order for w in repeat.windows] == [0, 1]
    assert meter.restricted_to == []
    assert backend.closed


def test_the_energy_of_a_window_is_that_of_its_passes_alone():
    repeat, _, _ = measure(spec(window_min_duration_s=3.0))
    window = repeat.windows[0]
    assert window.passes == 3
    assert window.interval.duration_s == pytest.approx(3.0)
    assert window.interval.energy[0].energy_j == pytest.approx(3.0 * POWER_W)


def test_a_window_holds_whole_passes_only():
    clock = Clock()
    repeat, _, _ = measure(spec(), SimulatedBackend(clock, [1.0, 1.0, 1.0, 2.2]), clock)
    assert repeat.windows[0].passes == 2
    assert repeat.windows[0].interval.duration_s == pytest.approx(4.4)


def test_every_request_of_every_pass_is_a_row():
    repeat, _, _ = measure(spec())
    window = repeat.windows[0]
    assert window.requests.request_id == ("b1-0",) * 3
    assert window.requests.output_tokens == (3, 3, 3)
    first_measured_pass = 4  # after three warm-up passes
    assert window.output_token_ids == {"b1-0": (first_measured_pass, 2, 3)}


def test_no_baseline_is_taken_when_its_duration_is_zero():
    repeat, _, _ = measure(spec(deep_idle_duration_s=0, loaded_idle_duration_s=0))
    assert repeat.baselines == ()


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
        def generate(self):
            states.append(gc.isenabled())
            return super().generate()

    measure(spec(), Watching(clock), clock)
    assert states == [True] * 3 + [False] * 3
    assert gc.isenabled()


def test_garbage_is_collected_again_after_a_window_that_failed():
    clock = Clock()

    class FailsInTheWindow(SimulatedBackend):
        def generate(self):
            if self.passes == 4:
                raise OutOfMemory("no memory left")
            return super().generate()

    repeat, _, _ = measure(spec(), FailsInTheWindow(clock), clock)
    assert repeat.windows[0].outcome == "oom"
    assert repeat.windows[0].passes == 1
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
    repeat, _, _ = measure(spec(), SimulatedBackend(clock, [9.0, 5.0, 1.0, 1.0, 1.0]), clock)
    window = repeat.windows[0]
    assert window.warmup_durations_s == pytest.approx((9.0, 5.0, 1.0, 1.0, 1.0))
    assert window.warmup_converged is True


def test_warm_up_that_never_settles_stops_at_the_maximum_and_says_so():
    clock = Clock()
    repeat, _, _ = measure(spec(), SimulatedBackend(clock, [1.0, 9.0] * 3), clock)
    assert len(repeat.windows[0].warmup_durations_s) == 6
    assert repeat.windows[0].warmup_converged is False


def test_too_few_passes_to_tell_is_neither_converged_nor_not():
    settings = Protocol(warmup_min_passes=1, warmup_max_passes=2)
    assert converged([1.0, 1.0], settings) is None
    assert not warmed_up([1.0], settings)
    assert warmed_up([1.0, 1.0], settings)
