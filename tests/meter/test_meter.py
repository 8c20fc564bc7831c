"""What a host's sensors give together, and what stands where there is none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.fake_nvml import FakeClock, FakeGpu, make_nvml
from support.fake_powercap import RANGE_UJ, FakePowercap
from support.fake_procfs import FakeProcfs

from llm_energy.core.errors import LlmEnergyError
from llm_energy.core.files import sha256_file
from llm_energy.core.serialize import from_dict, to_dict
from llm_energy.meter.host.activity import HostCounters
from llm_energy.meter.interval import combine
from llm_energy.meter.meter import Meter, open_meter
from llm_energy.meter.nvidia.devices import NvmlGpus
from llm_energy.meter.power_sampling.recorder import begin_trace
from llm_energy.meter.sensors import unavailable
from llm_energy.meter.watch import Watch
from llm_energy.records import (
    ComponentEnergy,
    CounterReadings,
    Interval,
    MeterReport,
    MeterSettings,
    TraceSummary,
)

NO_ESTIMATES = MeterSettings(codecarbon=False)
COUNTER = "nvmlDeviceGetTotalEnergyConsumption"


@pytest.fixture
def clock():
    return FakeClock(1000.0)


@pytest.fixture
def no_driver(monkeypatch, clock):
    module = make_nvml([], clock, init_error="Driver Not Loaded")
    monkeypatch.setitem(sys.modules, "pynvml", module)


@pytest.fixture
def open_gpus(tmp_path, clock, monkeypatch):
    """Open a meter of these GPUs, and of nothing else unless ``tmp_path`` holds it."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def open_them(*gpus, settings=NO_ESTIMATES, **options):
        monkeypatch.setitem(sys.modules, "pynvml", make_nvml(gpus, clock))
        where = {"sysfs": tmp_path, "procfs": tmp_path / "proc", "sleep": clock.sleep}
        return open_meter(settings, clock=clock, wall_clock=clock, **{**where, **options})

    return open_them


class SpySensor:
    """A sensor of 1 W that logs when it is asked."""

    def __init__(self, name, log):
        self.name, self.log = name, log

    def read(self):
        self.log.append(self.name)

    def energy(self, first, last, duration_s):
        return (ComponentEnergy(self.name, None, "estimated", "spy", duration_s),)

    def counts(self, readings):
        return ()


def test_a_host_without_sensors_gives_three_unavailable_components(tmp_path, clock, no_driver):
    meter = open_meter(NO_ESTIMATES, clock=clock, sysfs=tmp_path, procfs=tmp_path)
    with meter.interval("idle") as interval:
        clock.advance(2)
    energy = interval.record.energy
    assert [(c.component, c.status, c.energy_j) for c in energy] == [
        ("gpu", "unavailable", None),
        ("cpu", "unavailable", None),
        ("dram", "unavailable", None),
    ]
    assert "Driver Not Loaded" in energy[0].reason
    assert "powercap does not exist" in energy[1].reason
    assert "switched off" in energy[1].reason
    assert from_dict(Interval, to_dict(interval.record)) == interval.record
    assert meter.gpus() == ()
    meter.restrict([])
    meter.restrict(["GPU-elsewhere"])  # nothing is known about GPUs here


def test_a_host_with_all_counters_measures_each_component(tmp_path, clock, open_gpus):
    powercap = FakePowercap(tmp_path)
    powercap.zone("intel-rapl:0", "package-0")
    powercap.zone("intel-rapl:0:0", "dram")
    meter = open_gpus(FakeGpu("GPU-a", power_w=300))
    with meter.interval("window") as interval:
        assert interval.record is None
        clock.advance(10)
        powercap.use("intel-rapl:0", 500_000_000)
        powercap.use("intel-rapl:0:0", 40_000_000)
    record = interval.record
    assert (record.name, record.start_s, record.end_s) == ("window", 1000.0, 1010.0)
    assert [(c.device, c.method, c.energy_j) for c in record.energy] == [
        ("GPU-a", "nvml_total_energy_counter", pytest.approx(3000)),
        ("package-0", "rapl_powercap_package", 500),
        ("package-0/dram", "rapl_powercap_dram", 40),
    ]
    assert all(c.status == "measured" and c.reason is None for c in record.energy)
    assert from_dict(Interval, to_dict(record)) == record


def spying_meter(log, monkeypatch, clock, tmp_path):
    """A meter that logs the order in which it asks its clock, its sensors and its driver."""
    module = make_nvml([FakeGpu("GPU-a")], clock)
    monkeypatch.setitem(sys.modules, "pynvml", module)
    gpus = NvmlGpus({})
    module.calls = log

    def logging_clock():
        log.append("clock")
        return clock()

    def logging_wall_clock():
        log.append("wall clock")
        return clock()

    return Meter(
        gpus=gpus,
        counters=[SpySensor("counter", log)],
        estimates=[SpySensor("cpu", log)],
        host=HostCounters(tmp_path, clock, logging_wall_clock),
        trace=begin_trace(None, None, None, ()),
        watch=Watch(),
        carbon=None,
        simulated=False,
        clock=logging_clock,
        sleep=clock.sleep,
    )


def test_only_counters_stand_between_the_clock_and_the_work(clock, monkeypatch, tmp_path):
    log = []
    meter = spying_meter(log, monkeypatch, clock, tmp_path)
    with meter.interval("window"):
        log.append("work")
    work = log.index("work")
    assert log[work - 3 : work + 4] == [
        *("clock", COUNTER, "counter"),
        "work",
        *("clock", COUNTER, "counter"),
    ]
    before, after = log[: work - 3], log[work + 4 :]
    assert before[-2:] == ["cpu", "wall clock"]  # what is differenced stands nearest
    assert after[:2] == ["wall clock", "cpu"]
    assert set(before[:-2]) == set(after[2:])  # the state of GPUs, outermost
    assert "nvmlDeviceGetTemperature" in before
    assert COUNTER not in before + after


def test_a_mark_reads_the_clock_and_the_counters_and_nothing_else(clock, monkeypatch, tmp_path):
    log = []
    meter = spying_meter(log, monkeypatch, clock, tmp_path)
    with meter.interval("window") as interval:
        log.clear()
        interval.mark("a")
        assert log == ["clock", COUNTER, "counter"]


def test_the_part_between_two_marks_has_its_own_energy(tmp_path, clock, open_gpus):
    powercap = FakePowercap(tmp_path)
    powercap.zone("intel-rapl:0", "package-0")
    gpu = FakeGpu("GPU-a", power_w=300)
    with open_gpus(gpu).interval("window") as interval:
        for name, duration_s, energy_uj in (("a", 1, 10), ("b", 5, 200), ("c", 2, 3_000)):
            clock.advance(duration_s)
            powercap.use("intel-rapl:0", energy_uj * 1_000_000)
            interval.mark(name)
        clock.advance(4)
    part = interval.between("a", "c", "steady_state")
    assert (part.name, part.start_s, part.end_s) == ("steady_state", 1001.0, 1008.0)
    assert [c.energy_j for c in part.energy[:2]] == [pytest.approx(7 * 300), 3200]
    whole = [c.energy_j for c in interval.record.energy[:2]]
    assert whole == [pytest.approx(12 * 300), 3210]


def test_the_readings_give_every_joule_again(tmp_path, clock, open_gpus):
    powercap = FakePowercap(tmp_path)
    powercap.zone("intel-rapl:0", "package-0", RANGE_UJ - 7_000)
    meter = open_gpus(FakeGpu("GPU-a", power_w=300, base_mj=5))
    records = []
    for name, energy_uj in (("idle", 6_000), ("window", 7_000)):
        with meter.interval(name) as interval:
            clock.advance(2)
            powercap.use("intel-rapl:0", energy_uj)
            interval.mark("a")
            clock.advance(0.001)
        records.append(interval.record)
        clock.advance(1)
    gpu, cpu = meter.readings()
    assert (gpu.component, gpu.device, gpu.unit, gpu.wraps_at) == ("gpu", "GPU-a", "mJ", None)
    assert (cpu.component, cpu.device, cpu.unit, cpu.wraps_at) == (
        *("cpu", "package-0", "uJ"),
        RANGE_UJ,
    )
    assert (
        gpu.edge_s
        == gpu.start_s
        == gpu.end_s
        == (1000, 1002, 1002.001, 1003.001, 1005.001, 1005.002)
    )
    first = RANGE_UJ - 7_000
    assert cpu.value == (first, first + 6_000, first + 6_000, first + 6_000, 6_000, 6_000)
    assert [r.energy[1].energy_j for r in records] == [0.006, 0.007]
    for at, record in zip((0, 3), records, strict=True):
        assert record.energy[0].energy_j == (gpu.value[at + 2] - gpu.value[at]) / 1e3
    assert from_dict(CounterReadings, to_dict(gpu)) == gpu


def test_a_reading_that_fails_is_kept_as_none(clock, open_gpus):
    gpu = FakeGpu("GPU-a")
    meter = open_gpus(gpu)
    with meter.interval("window"):
        gpu.errors[COUNTER] = "GPU is lost"
    (kept,) = meter.readings()
    assert kept.value == (101_000_000, None)


def test_a_part_gets_the_mean_power_of_an_estimate(clock, monkeypatch, tmp_path):
    meter = spying_meter([], monkeypatch, clock, tmp_path)
    with meter.interval("window") as interval:
        clock.advance(3)
        interval.mark("a")
        clock.advance(4)
        interval.mark("b")
    cpu = {c.component: c for c in interval.between("a", "b", "part").energy}["cpu"]
    assert (cpu.status, cpu.energy_j) == ("estimated", 4.0)


def test_marks_that_say_nothing_are_refused(clock, monkeypatch, tmp_path):
    meter = spying_meter([], monkeypatch, clock, tmp_path)
    with meter.interval("window") as interval:
        interval.mark("a")
        with pytest.raises(ValueError, match="two marks with the label 'a'"):
            interval.mark("a")
        clock.advance(1)
        interval.mark("b")
    with pytest.raises(ValueError, match="mark 'a' is before mark 'b'"):
        interval.between("b", "a", "part")
    with pytest.raises(KeyError):
        interval.between("a", "c", "part")


def fail_inside(meter, clock):
    """Meter three seconds that end in an exception."""
    try:
        with meter.interval("first") as interval:
            clock.advance(3)
            raise MemoryError
    except MemoryError:
        return interval
    raise AssertionError("the meter swallowed an exception of what it meters")


def test_an_exception_inside_passes_and_the_meter_goes_on(clock, monkeypatch, tmp_path):
    meter = spying_meter([], monkeypatch, clock, tmp_path)
    first = fail_inside(meter, clock)
    with meter.interval("second") as second:
        clock.advance(5)
    for interval, duration_s in ((first, 3), (second, 5)):
        assert interval.record.duration_s == duration_s
        assert [c.energy_j for c in interval.record.energy if c.component == "cpu"] == [duration_s]


def test_an_interval_says_what_gpus_and_host_did(tmp_path, clock, open_gpus):
    procfs = FakeProcfs(tmp_path / "proc")
    procfs.process(100, 1, busy_s=1.0, me=True)
    procfs.process(7, 1)
    procfs.processors(busy_s=10.0)
    gpu = FakeGpu("GPU-a", processes=(100, 7), memory_used_bytes=2**30)
    with open_gpus(gpu).interval("window") as interval:
        clock.advance(10)
        gpu.temperature_c = 66
        gpu.violations_ns[271] += 500_000_000
        procfs.process(100, 1, busy_s=5.0, me=True)
        procfs.processors(busy_s=15.0)
    (activity,) = interval.record.boards
    assert activity.device == "GPU-a"
    assert activity.temperature_c == (41, 66)
    assert activity.throttled_s["power_brake"] == pytest.approx(0.5)
    assert activity.foreign_processes == (7,)
    assert activity.own_process_seen is True
    host = interval.record.host
    assert (host.busy_s, host.own_busy_s) == (pytest.approx(5), pytest.approx(4))
    assert host.steal_s == 0
    assert (host.major_faults, host.stalled_s) == (None, None)


def test_every_gpu_in_use_is_described_and_no_other(clock, open_gpus):
    meter = open_gpus(FakeGpu("GPU-a"), FakeGpu("GPU-b"), FakeGpu("GPU-c"))
    meter.restrict(["GPU-c", "GPU-a"])
    with meter.interval("window") as interval:
        clock.advance(1)
        meter.restrict(["GPU-b"])  # from the next interval on
    record = interval.record
    assert [b.device for b in record.boards] == ["GPU-c", "GPU-a"]
    assert [c.device for c in record.energy if c.component == "gpu"] == ["GPU-c", "GPU-a"]
    assert [b.device for b in meter.glance().gpus] == ["GPU-b"]


class Sampler:
    """A sampler of two GPUs that finds 100 W, and writes one line."""

    problem = None

    def __init__(self, path, period_s, devices):
        self.path, self.period_s, self.devices = path, period_s, devices
        self.asked = []

    def summary(self, start_s, end_s):
        self.asked.append((start_s, end_s))
        energy_j = 100 * (end_s - start_s)
        return tuple(TraceSummary(d, 9, 0.1, energy_j, 100, 50, 0, 99) for d in self.devices)

    def stop(self):
        self.path.write_text("a trace")
        return self.path


@pytest.fixture
def samplers():
    return []


def starting(samplers, **attributes):
    def start(path, period_s, devices):
        samplers.append(Sampler(path, period_s, devices))
        vars(samplers[-1]).update(attributes)
        return samplers[-1]

    return start


def test_the_power_trace_begins_with_the_meter_and_ends_in_the_report(
    tmp_path, clock, open_gpus, samplers
):
    path = tmp_path / "r01.trace.csv.gz"
    meter = open_gpus(
        FakeGpu("GPU-a"),
        FakeGpu("GPU-b"),
        trace_path=path,
        start_sampler=starting(samplers),
    )
    (sampler,) = samplers
    assert (sampler.path, sampler.period_s, sampler.devices) == (path, 0.1, ("GPU-a", "GPU-b"))
    meter.restrict(["GPU-b"])
    with meter.interval("window") as interval:
        clock.advance(4)
    assert sampler.asked == [(1000.0, 1004.0)]
    assert [(t.device, t.energy_j) for t in interval.record.trace] == [("GPU-b", 400.0)]
    assert (meter.report().trace, meter.report().trace_sha256) == (None, None)
    assert meter.report().trace_reason == "the power is still being sampled"
    meter.close_trace()
    report = meter.report()
    assert (report.trace, report.trace_sha256) == (str(path), sha256_file(path))
    assert report.trace_reason is None
    assert from_dict(MeterReport, to_dict(report)) == report
    with meter.interval("after") as after:
        clock.advance(1)
    assert after.record.trace == ()


def test_closing_the_meter_ends_a_sampler_that_is_still_there(tmp_path, open_gpus, samplers):
    path = tmp_path / "trace"
    meter = open_gpus(FakeGpu("GPU-a"), trace_path=path, start_sampler=starting(samplers))
    meter.close()
    assert path.exists()


def test_a_sampler_that_failed_says_so_and_leaves_what_it_has(tmp_path, open_gpus, samplers):
    start = starting(samplers, problem="the sampler died")
    meter = open_gpus(FakeGpu("GPU-a"), trace_path=tmp_path / "trace", start_sampler=start)
    assert meter.report().trace_reason == "the sampler died"
    meter.close_trace()
    assert meter.report().trace_reason == "the sampler died"
    assert meter.report().trace is not None


def test_a_sampler_without_a_file_is_reported(tmp_path, open_gpus, samplers):
    start = starting(samplers, stop=lambda: None)
    meter = open_gpus(FakeGpu("GPU-a"), trace_path=tmp_path / "trace", start_sampler=start)
    meter.close_trace()
    assert meter.report().trace is None
    assert meter.report().trace_reason == "the sampler left no trace"


@pytest.mark.parametrize(
    ("gpus", "changes", "reason"),
    [
        ([], {}, "no GPU"),
        ([FakeGpu("GPU-a")], {"settings": MeterSettings(False, None)}, "switched off"),
        ([FakeGpu("GPU-a")], {"trace_path": None}, "no file"),
    ],
)
def test_without_anything_to_sample_there_is_no_sampler_and_a_reason(
    clock, open_gpus, gpus, changes, reason
):
    def never(*arguments):
        raise AssertionError("a sampler was started")

    options = {"trace_path": Path("trace"), "start_sampler": never, **changes}
    meter = open_gpus(*gpus, **options)
    with meter.interval("window") as interval:
        clock.advance(1)
    assert interval.record.trace == ()
    assert reason in meter.report().trace_reason


def test_the_report_has_each_gpus_tick_once_it_is_measured(clock, open_gpus):
    meter = open_gpus(
        FakeGpu("GPU-a", tick_s=0.1),
        FakeGpu("GPU-b", tick_s=0.02),
        FakeGpu("GPU-c", power_w=0),
        FakeGpu("GPU-d", errors={COUNTER: "Not Supported"}),
    )
    assert meter.report().counter_tick_s == {}
    begin_s = clock()
    meter.measure_ticks()
    assert meter.report().counter_tick_s == {
        "GPU-a": pytest.approx(0.1),
        "GPU-b": pytest.approx(0.02, rel=0.1),
        "GPU-c": None,
        "GPU-d": None,
    }
    assert clock() - begin_s < 3 * 4


def test_a_glance_sees_gpus_and_host(tmp_path, open_gpus):
    procfs = FakeProcfs(tmp_path / "proc")
    procfs.process(100, 1, me=True)
    procfs.process(7, 1)
    procfs.processors(0, count=4)
    procfs.write("loadavg", "2.00 1.00 0.50 3/400 12345\n")
    procfs.write(
        "meminfo",
        "MemTotal: 100 kB\nMemAvailable:   60 kB\nSwapTotal: 9 kB\nSwapFree: 5 kB\nHugePages: 0\n",
    )
    gpu = FakeGpu("GPU-a", processes=(7,), power_w=250, memory_used_bytes=2**30)
    found = open_gpus(gpu).glance()
    assert found.load_per_cpu == 0.5
    assert found.memory_available_bytes == 60 * 1024
    assert found.swap_used_bytes == 4 * 1024
    (seen,) = found.gpus
    assert (seen.device, seen.temperature_c, seen.utilization_percent) == ("GPU-a", 41, 17)
    assert (seen.power_w, seen.power_limit_w, seen.default_power_limit_w) == (250, 300, 350)
    assert (seen.memory_used_bytes, seen.foreign_processes) == (2**30, (7,))
    assert (seen.clock_event_reasons, seen.mig) == (0x4, None)


def test_a_glance_at_a_host_that_shows_nothing_is_empty(open_gpus):
    found = open_gpus().glance()
    assert (found.gpus, found.load_per_cpu) == ((), None)
    assert (found.memory_available_bytes, found.swap_used_bytes) == (None, None)


def test_a_simulated_host_is_reported_and_never_estimated(tmp_path, clock):
    module = make_nvml([FakeGpu("GPU-a")], clock)
    meter = open_meter(MeterSettings(), clock=clock, sysfs=tmp_path, nvml=module)
    with meter.interval("window") as interval:
        clock.advance(10)
    assert meter.report().simulated is True
    gpu, cpu, _ = interval.record.energy
    assert gpu.energy_j == pytest.approx(1000)
    assert (cpu.status, cpu.energy_j) == ("unavailable", None)


MEASURED = ComponentEnergy("cpu", "package-0", "measured", "rapl_powercap_package", 5.0)
ESTIMATED = ComponentEnergy("cpu", "machine", "estimated", "model", 7.0)
BROKEN = unavailable("cpu", "counter broken", "package-1")


def test_an_estimate_never_joins_a_measured_component():
    assert combine([MEASURED], [ESTIMATED]) == (MEASURED,)
    assert combine([MEASURED, BROKEN], [ESTIMATED]) == (MEASURED, BROKEN)


def test_an_estimate_stands_in_and_says_why_nothing_was_measured():
    (only,) = combine([BROKEN], [ESTIMATED])
    assert (only.status, only.energy_j) == ("estimated", 7.0)
    assert only.reason == "not measured: counter broken"


@pytest.mark.parametrize(
    ("module", "method"),
    [
        ({"c2c": True}, "nvml_total_energy_counter_whole_module"),
        ({"c2c": True, "virtual": True}, "nvml_total_energy_counter_whole_module_whole_board_vgpu"),
        ({"c2c": False}, "nvml_total_energy_counter"),
    ],
)
def test_what_a_modules_counter_holds_is_not_estimated_again(
    module, method, clock, open_gpus, monkeypatch
):
    model = SpySensor("cpu", [])
    monkeypatch.setattr("llm_energy.meter.meter.open_estimates", lambda settings: (model,))
    with open_gpus(FakeGpu("GPU-a", **module)).interval("window") as interval:
        clock.advance(10)
    gpu, cpu, *_ = interval.record.energy
    assert (gpu.method, gpu.energy_j) == (method, pytest.approx(1000))
    assert gpu.whole_module is (cpu.status == "unavailable")
    assert not gpu.whole_module or "NVLink-C2C" in gpu.reason
    assert not gpu.whole_module or "in that of the GPU's module" in cpu.reason


def test_without_either_one_component_has_both_reasons():
    (only,) = combine([BROKEN], [unavailable("cpu", "model missing")])
    assert (only.status, only.energy_j) == ("unavailable", None)
    assert only.reason == "counter broken; model missing"


def test_a_carbon_intensity_in_the_config_comes_first(tmp_path, no_driver):
    settings = MeterSettings(False, country_iso_code="FRA", carbon_intensity_g_per_kwh=12.5)
    meter = open_meter(settings, sysfs=tmp_path)
    assert meter.carbon_intensity() == {"g_per_kwh": 12.5, "source": "config"}


def test_without_config_or_country_the_carbon_intensity_is_none(tmp_path, no_driver):
    assert open_meter(NO_ESTIMATES, sysfs=tmp_path).carbon_intensity() is None


def test_a_country_gives_its_factor_from_the_table_of_codecarbon(tmp_path, no_driver):
    pytest.importorskip("codecarbon")
    meter = open_meter(MeterSettings(False, country_iso_code="FRA"), sysfs=tmp_path)
    found = meter.carbon_intensity()
    assert 10 < found["g_per_kwh"] < 200
    assert found["source"].startswith("codecarbon ")
    assert "France" in found["source"]


def test_an_unknown_country_is_refused_with_near_ones(tmp_path, no_driver):
    pytest.importorskip("codecarbon")
    with pytest.raises(LlmEnergyError, match=r"country_iso_code: found 'FRX'.*FRA"):
        open_meter(MeterSettings(False, country_iso_code="FRX"), sysfs=tmp_path)
