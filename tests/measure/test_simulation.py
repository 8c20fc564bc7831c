"""The simulated host: does it keep its own truth, and does the real meter find it."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import simulated_runs
from support.simulated_runs import prompts_of, simulated_spec, simulated_workload

from llm_energy.backends.base import STEADY_BEGIN, STEADY_END
from llm_energy.core.errors import BackendUnavailable, OutOfMemory, Unsupported
from llm_energy.measure.simulation.host import SimulatedHost
from llm_energy.measure.simulation.power import Cooling, Fluctuation, History
from llm_energy.measure.simulation.truth import EngineTruth, GpuTruth, PackageTruth, Truth
from llm_energy.meter.meter import open_meter
from llm_energy.records import MeterSettings, power_trace

METER = Path(__file__).resolve().parents[2] / "scripts" / "llm_energy" / "meter"
QUIET = GpuTruth(noise_sd=0.0)
SETTINGS = MeterSettings(codecarbon=False, sampling_period_s=0.1)


def history(sd: float = 0.1, drift_per_s: float = 0.0, seed: int = 1) -> History:
    noise = Fluctuation(Random(seed), sd, 0.5, drift_per_s)
    return History(noise, Cooling(), 0.0, 100.0, None)


def meter_of(host: SimulatedHost, path: Path | None = None, **settings):
    return open_meter(
        replace(SETTINGS, **settings),
        clock=host.clock,
        wall_clock=host.wall_clock,
        sleep=host.sleep,
        sysfs=host.sysfs,
        procfs=host.procfs,
        nvml=host.nvml,
        trace_path=path,
        start_sampler=host.start_sampler,
    )


def idle(host: SimulatedHost, duration_s: float = 10.0, path: Path | None = None, **settings):
    """Meter an idle host for a while."""
    meter = meter_of(host, path, **settings)
    with meter.interval("idle") as interval:
        host.sleep(duration_s)
    meter.close()
    return interval.record


def joules(interval, component: str) -> list[float]:
    return [e.energy_j for e in interval.energy if e.component == component]


def engine_on(host: SimulatedHost, *workloads, **changes):
    spec = replace(simulated_spec(*(workloads or (simulated_workload(),))), **changes)
    engine = host.create_backend("simulated")
    effective = engine.load(spec, Path("/nonexistent"))
    engine.prepare(spec.workloads[0], prompts_of(spec)[spec.workloads[0].id])
    return engine, effective


# the truth


def test_energy_is_the_integral_of_power() -> None:
    device = history(drift_per_s=1e-3)
    for time_s, level_w in ((3.0, 250.0), (7.5, 40.0), (7.9, 400.0)):
        device.set(time_s, level_w, None)
    # Simpson's rule within each piece, whose power is smooth.
    total_j = 0.0
    for a, b in ((0.0, 3.0), (3.0, 7.5), (7.5, 7.9), (7.9, 12.0)):
        n = 40_000
        step_s = (b - a) / n
        inner = [device.power_w(a + k * step_s) for k in range(n)]
        last = device.power_w(b - 1e-12)
        weights = [1 if k == 0 else 4 if k % 2 else 2 for k in range(n)]
        area = sum(w * p for w, p in zip(weights, inner, strict=True)) + last
        total_j += area * step_s / 3
    assert device.energy_j(12.0) == pytest.approx(total_j, rel=1e-9)


@given(
    st.lists(st.tuples(st.floats(0.01, 30), st.floats(10, 700)), min_size=1, max_size=20),
    st.floats(0, 1),
)
def test_energy_of_the_parts_is_that_of_the_whole(pieces, share: float) -> None:
    device, now_s = history(), 0.0
    for duration_s, level_w in pieces:
        device.set(now_s, level_w, None)
        now_s += duration_s
    middle_s = share * now_s
    energies = [device.energy_j(t) for t in (0.0, middle_s, now_s)]
    assert energies == sorted(energies)
    split = (energies[1] - energies[0]) + (energies[2] - energies[1])
    assert split == pytest.approx(energies[2], rel=1e-9)


def test_the_fluctuation_has_the_size_and_the_memory_that_it_is_given() -> None:
    samples, later = [], []
    for seed in range(300):
        noise = Fluctuation(Random(seed), 0.05, 2.0)
        samples.append(noise.at(1000.0) - 1)
        later.append(noise.at(1002.0) - 1)
    variance = sum(x * x for x in samples) / 300
    covariance = sum(x * y for x, y in zip(samples, later, strict=True)) / 300
    assert math.sqrt(variance) == pytest.approx(0.05, rel=0.15)
    assert covariance / variance == pytest.approx(math.exp(-1), abs=0.15)


def test_temperature_follows_power_with_one_time_constant() -> None:
    cooling = Cooling(ambient_c=20.0, resistance_c_per_w=0.1, time_s=10.0)
    device = History(Fluctuation(Random(1), 0.0, 1.0), cooling, 0.0, 100.0, None)
    device.set(50.0, 500.0, None)
    assert device.temperature_c(50.0) == pytest.approx(30.0)
    assert device.temperature_c(60.0) == pytest.approx(70 - 40 * math.exp(-1))
    assert device.temperature_c(1000.0) == pytest.approx(70.0)


# the host under the real meter


def test_the_meter_finds_the_truth_within_one_tick() -> None:
    host = SimulatedHost(Truth(gpus=(replace(QUIET, tick_s=0.1),) * 2), seed=3)
    host.sleep(1.234)
    record = idle(host, 20.0)
    for device in host.gpus:
        truth_j = host.truth_energy_j("gpu", record.start_s, record.end_s, device.uuid)
        [found_j] = [e.energy_j for e in record.energy if e.device == device.uuid]
        assert abs(found_j - truth_j) <= 0.1 / 20 * truth_j
    assert sum(joules(record, "gpu")) == pytest.approx(
        host.truth_energy_j("gpu", record.start_s, record.end_s), rel=0.005
    )


def test_without_a_tick_the_counter_is_exact_to_its_unit() -> None:
    host = SimulatedHost(Truth(gpus=(GpuTruth(tick_s=0.0),)))
    record = idle(host)
    truth_j = host.truth_energy_j("gpu", record.start_s, record.end_s)
    assert joules(record, "gpu") == [pytest.approx(truth_j, abs=2e-3)]


@pytest.mark.parametrize("tick_s", [0.02, 0.1])
def test_the_meter_measures_the_tick(tick_s: float) -> None:
    host = SimulatedHost(Truth(gpus=(GpuTruth(tick_s=tick_s),)))
    meter = meter_of(host)
    meter.measure_ticks()
    assert meter.report().counter_tick_s == {host.gpus[0].uuid: pytest.approx(tick_s, rel=0.1)}
    assert meter.report().simulated is True


def test_reading_often_disturbs_a_counter_that_is_so() -> None:
    def shortfall(period_s: float) -> float:
        host = SimulatedHost(Truth(gpus=(replace(QUIET, read_blind_s=0.013, tick_s=0.0),)))
        gpu = host.gpus[0]
        begin_s, begin_mj = host.clock(), gpu.counter_mj()
        for _ in range(round(10 / period_s)):
            host.sleep(period_s)
            last_mj = gpu.counter_mj()
        truth_j = host.truth_energy_j("gpu", begin_s, host.clock())
        return 1 - (last_mj - begin_mj) / 1e3 / truth_j

    assert shortfall(0.02) == pytest.approx(0.65, abs=0.01)
    assert shortfall(0.1) == pytest.approx(0.13, abs=0.01)
    assert shortfall(10.0) == pytest.approx(0.0013, abs=1e-4)


def test_a_sampler_that_disturbs_shows_between_the_two_sensors(tmp_path: Path) -> None:
    def ratio(share: float) -> float:
        host = SimulatedHost(Truth(gpus=(replace(QUIET, poll_blind_share=share),)))
        record = idle(host, 30.0, tmp_path / f"{share}.trace.csv.gz")
        return joules(record, "gpu")[0] / record.trace[0].energy_j

    assert ratio(0.0) == pytest.approx(1.0, abs=0.01)
    assert ratio(0.4) == pytest.approx(0.6, abs=0.01)


def test_the_trace_is_a_second_sensor_of_the_same_truth(tmp_path: Path) -> None:
    host = SimulatedHost(seed=5)
    path = tmp_path / "r01.trace.csv.gz"
    record = idle(host, 30.0, path)
    truth_j = host.truth_energy_j("gpu", record.start_s, record.end_s)
    assert record.trace[0].energy_j == pytest.approx(truth_j, rel=0.02)
    samples = list(power_trace.read(path))
    assert len(samples) == 301
    assert {s.device for s in samples} == {host.gpus[0].uuid}


def test_cpu_and_memory_are_counted_through_a_wrap() -> None:
    package = PackageTruth(idle_w=900.0, dram_w=(240.0, 240.0), range_uj=10**10)
    host = SimulatedHost(Truth(packages=(package,)), seed=2)
    for _ in range(12):  # both counters go round, one of them several times
        record = idle(host, 4.0, sampling_period_s=None)
        for component in ("cpu", "dram"):
            truth_j = host.truth_energy_j(component, record.start_s, record.end_s)
            assert joules(record, component) == [pytest.approx(truth_j, abs=1e-5)]


def test_mirrored_dies_and_mmio_zones_are_counted_once() -> None:
    package = PackageTruth(dies=2, mmio=True)
    host = SimulatedHost(Truth(packages=(package, package)))
    record = idle(host, sampling_period_s=None)
    counted = [j for j in joules(record, "cpu") if j is not None]
    truth_j = host.truth_energy_j("cpu", record.start_s, record.end_s)
    assert sum(counted) == pytest.approx(truth_j, abs=1e-4)


def test_counters_that_nobody_may_read_and_sockets_without_any_are_said() -> None:
    host = SimulatedHost(Truth(packages=(PackageTruth(readable=False),)))
    statuses = {e.status for e in idle(host).energy if e.component != "gpu"}
    assert statuses == {"unavailable"}
    host = SimulatedHost(Truth(packages=(PackageTruth(),), sockets=2))
    reasons = [e.reason for e in idle(host).energy if e.component == "cpu" and e.reason]
    assert reasons == ["only 1 of 2 sockets have a RAPL package zone"]


def test_a_host_without_gpus_says_that_it_has_no_driver() -> None:
    host = SimulatedHost(Truth(gpus=()))
    [gpu] = [e for e in idle(host).energy if e.component == "gpu"]
    assert gpu.status == "unavailable"
    assert "Driver Not Loaded" in gpu.reason


def test_what_others_do_shows_in_the_activity() -> None:
    truth = Truth(
        steal_per_s=0.5,
        foreign_busy_per_s=3.0,
        swap_pages_per_s=10.0,
        major_faults_per_s=2.0,
        disk_read_bytes_per_s=1e8,
        stalled_per_s=0.25,
    )
    host = SimulatedHost(truth)
    found = idle(host, 20.0).host
    assert found.steal_s == pytest.approx(10.0)
    assert found.busy_s == pytest.approx(60.0, rel=0.01)
    assert found.own_busy_s == pytest.approx(0.2, abs=0.02)
    assert found.stalled_s == pytest.approx(5.0)
    assert (found.pages_swapped_in, found.major_faults) == (200, 40)
    assert found.disk_read_bytes == pytest.approx(2e9, rel=1e-6)
    assert found.wall_clock_step_s == pytest.approx(0.0, abs=1e-6)


def test_what_is_scheduled_happens_at_its_time() -> None:
    host = SimulatedHost(seed=4)
    gpu = host.gpus[0]
    meter = meter_of(host)

    def disturb(host: SimulatedHost) -> None:
        gpu.limit_w = 50.0
        gpu.throttled_share["hw_thermal"] = 0.5
        host.let_in(gpu, 99_999, power_w=300.0, held_bytes=2**30)
        host.step_wall_clock(2.0)

    host.at(host.clock() + 10.0, disturb)
    with meter.interval("disturbed") as interval:
        host.sleep(30.0)
    [found] = interval.record.boards
    assert found.foreign_processes == (99_999,)
    assert found.power_limit_w == (700.0, 50.0)
    assert found.throttled_s["hw_thermal"] == pytest.approx(10.0)
    assert found.throttled_s["power"] == pytest.approx(20.0)
    assert found.memory_used_bytes[1] - found.memory_used_bytes[0] == 2**30
    assert interval.record.host.wall_clock_step_s == pytest.approx(2.0, abs=1e-6)
    # 10 s idle at 70 W, then 20 s at the lowered limit
    assert joules(interval.record, "gpu")[0] == pytest.approx(700 + 1000, rel=0.05)


def test_a_reset_a_stuck_and_a_failing_counter() -> None:
    host = SimulatedHost()
    host.at(host.clock() + 5, lambda h: h.gpus[0].reset_counter())
    [gpu] = [e for e in idle(host).energy if e.component == "gpu"]
    assert "went backwards" in gpu.reason
    host = SimulatedHost()
    host.gpus[0].stuck = True
    assert joules(idle(host), "gpu") == [0.0]
    host = SimulatedHost()
    host.gpus[0].errors["nvmlDeviceGetTotalEnergyConsumption"] = 3
    [gpu] = [e for e in idle(host).energy if e.component == "gpu"]
    assert "Not Supported" in gpu.reason


def test_one_seed_gives_one_history() -> None:
    def found(seed: int):
        return simulated_runs.run(
            SimulatedHost(simulated_runs.draw_truth(7), seed), simulated_spec()
        )

    assert found(1) == found(1)
    assert found(1).windows[0].interval.energy != found(2).windows[0].interval.energy


def test_the_module_has_everything_that_the_meter_asks_of_nvml() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in METER.rglob("*.py"))
    asked = set(re.findall(r"\b_?(?:nvml|module)\.((?:nvml|NVML)\w+)", text))
    assert "nvmlDeviceGetTotalEnergyConsumption" in asked
    assert [name for name in sorted(asked) if not hasattr(SimulatedHost().nvml, name)] == []


def test_the_folder_goes_with_the_host() -> None:
    host = SimulatedHost()
    folder = host.sysfs.parent
    assert folder.is_dir()
    host.close()
    assert not folder.exists()


# the engine


def test_a_pass_takes_simulated_time_and_power() -> None:
    host = SimulatedHost(Truth(gpus=(QUIET, QUIET)))
    engine, effective = engine_on(host)
    first, second = host.gpus
    assert effective["device_uuids"] == [first.uuid]
    assert effective["weight_bytes"] == 16_000_000_000
    begin_s = host.clock()
    engine.generate()
    end_s = host.clock()
    power_w = host.truth_energy_j("gpu", begin_s, end_s) / (end_s - begin_s)
    assert 400 < power_w < 700
    neighbour_w = host.truth_energy_j("gpu", begin_s, end_s, second.uuid) / (end_s - begin_s)
    assert neighbour_w == pytest.approx(70.0, rel=0.05)  # it is colder than a loaded one
    idle_w = host.idle_energy_j(begin_s, end_s) / (end_s - begin_s)
    assert idle_w == pytest.approx(120.0, rel=0.02)
    host.sleep(10.0)
    after_j = host.truth_energy_j("gpu", end_s, host.clock())
    assert after_j == pytest.approx(host.idle_energy_j(end_s, host.clock()))


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["static", "dynamic"]),
    st.integers(1, 9),
    st.integers(1, 24),
    st.integers(1, 40),
    st.booleans(),
)
def test_every_request_is_answered_in_order(
    strategy: str, batch: int, requests: int, tokens: int, forced: bool
) -> None:
    host = SimulatedHost()
    least = tokens if forced else 1
    workload = simulated_workload(f"b{batch}", requests, tokens, strategy, min_output_tokens=least)
    engine, _ = engine_on(host, workload)
    begin_s = host.clock()
    first, second = engine.generate(), engine.generate()
    assert [c.request_id for c in first] == [f"q{k}" for k in range(requests)]
    assert [c.output_token_ids for c in first] == [c.output_token_ids for c in second]
    for completion in first:
        length = len(completion.output_token_ids)
        assert length == tokens if forced else 1 <= length <= tokens
        assert completion.finish_reason == ("length" if length == tokens else "stop")
        assert begin_s == completion.arrival_s < completion.first_token_s
        assert completion.first_token_s <= completion.last_token_s <= second[0].arrival_s
    events, later = engine.events(), engine.events()
    assert events["preempted_requests"] == 0
    assert events["mean_running_requests"] <= batch
    assert later == events | {"mean_running_requests": None}


def test_larger_batches_take_longer_and_less_energy_a_token() -> None:
    def of(batch: int) -> tuple[float, float]:
        host = SimulatedHost(Truth(gpus=(QUIET,), repeat_sd=0.0))
        engine, _ = engine_on(host, simulated_workload(f"b{batch}", batch))
        begin_s = host.clock()
        engine.generate()
        duration_s = host.clock() - begin_s
        joules = host.truth_energy_j("gpu", begin_s, host.clock())
        return duration_s, joules / (64 * batch)

    durations_s, per_token_j = zip(*map(of, (1, 8, 32)), strict=True)
    assert list(durations_s) == sorted(durations_s)
    assert list(per_token_j) == sorted(per_token_j, reverse=True)


@pytest.mark.parametrize("strategy", ["continuous", "dynamic"])
def test_continuous_batching_marks_where_the_batch_is_full(strategy: str) -> None:
    host = SimulatedHost()
    engine, _ = engine_on(host, simulated_workload("b4", 12, 16, strategy))
    marks = []
    completions = engine.generate(lambda label, tokens: marks.append((label, host.clock(), tokens)))
    (begin, begin_s, _), (end, end_s, _) = marks
    assert (begin, end) == (STEADY_BEGIN, STEADY_END)
    first_tokens = sorted(c.first_token_s for c in completions)
    assert begin_s == first_tokens[3]
    assert end_s == sorted(c.last_token_s for c in completions)[12 - 4 - 2]
    assert 0 < marks[0][2] < marks[1][2] <= 12 * 16


@pytest.mark.parametrize(("requests", "strategy"), [(16, "static"), (5, "dynamic")])
def test_no_steady_state_is_marked_where_there_is_none(requests: int, strategy: str) -> None:
    host = SimulatedHost()
    engine, _ = engine_on(host, simulated_workload("b4", requests, 16, strategy))
    marks = []
    engine.generate(lambda label, tokens: marks.append(label))
    assert STEADY_END not in marks


def test_the_first_passes_are_slower() -> None:
    host = SimulatedHost()
    engine, _ = engine_on(host)
    times_s = [host.clock()]
    for _ in range(4):
        engine.generate()
        times_s.append(host.clock())
    first, second, third, fourth = (b - a for a, b in pairwise(times_s))
    assert first > 1.2 * third
    assert second > 1.01 * third
    assert third == pytest.approx(fourth, rel=0.02)


def test_what_the_host_cannot_hold_is_refused() -> None:
    with pytest.raises(OutOfMemory):
        engine_on(SimulatedHost(Truth(engine=EngineTruth(parameter_count=10**12))))
    with pytest.raises(Unsupported, match="1 GPUs were asked for"):
        engine_on(SimulatedHost(Truth(gpus=())))
    with pytest.raises(BackendUnavailable, match="not 'vllm'"):
        SimulatedHost().create_backend("vllm")


def test_memory_and_processes_come_and_go_with_the_model() -> None:
    host = SimulatedHost()
    meter = meter_of(host)
    before = meter.glance().gpus[0].memory_used_bytes
    engine, _ = engine_on(host)
    assert meter.glance().gpus[0].memory_used_bytes > before + 16e9
    assert meter.glance().gpus[0].foreign_processes == ()
    engine.close()
    assert meter.glance().gpus[0].memory_used_bytes == before


# a whole repeat


@pytest.mark.parametrize("seed", range(6))
def test_a_whole_repeat_finds_the_truth(seed: int) -> None:
    host = SimulatedHost(simulated_runs.draw_truth(seed), seed)
    measurement = simulated_runs.run(host, simulated_spec())
    assert measurement.outcome == "ok"
    [window] = measurement.windows
    assert window.warmup_converged is True
    interval = window.interval
    assert interval.duration_s >= 30
    for component in ("gpu", "cpu", "dram"):
        found = [j for j in joules(interval, component) if j is not None]
        truth_j = host.truth_energy_j(component, interval.start_s, interval.end_s)
        tick_s = host.truth.gpus[0].tick_s if component == "gpu" else 1e-5
        assert sum(found) == pytest.approx(truth_j, rel=1.1 * tick_s / interval.duration_s)
    assert len(interval.boards) == 1


def test_the_example_of_the_docs_finds_the_truth(capsys: pytest.CaptureFixture) -> None:
    page = (METER.parents[2] / "docs" / "simulated.md").read_text(encoding="utf-8")
    [example] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(example, {})
    found_j, truth_j = map(float, capsys.readouterr().out.split())
    # 30 s, the last 25 with 80 W of somebody else's
    assert truth_j == pytest.approx(30 * 70 + 25 * 80, rel=0.02)
    assert found_j == pytest.approx(truth_j, rel=0.1 / 30 * 1.5)
