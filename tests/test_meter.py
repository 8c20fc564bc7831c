"""What a host's sensors give together, and what stands where there is none."""

from __future__ import annotations

import sys

import pytest
from fake_nvml import FakeBoard, FakeClock, make_nvml
from fake_powercap import FakePowercap

from llm_energy.conversion import from_dict, to_dict
from llm_energy.errors import LlmEnergyError
from llm_energy.meter import Meter, combine, open_meter
from llm_energy.meter.nvml import NvmlCounters
from llm_energy.meter.sensors import unavailable
from llm_energy.records import ComponentEnergy, Interval, MeterSettings

NO_ESTIMATES = MeterSettings(codecarbon=False)


@pytest.fixture
def clock():
    return FakeClock(1000.0)


@pytest.fixture
def no_driver(monkeypatch, clock):
    module = make_nvml([], clock, init_error="Driver Not Loaded")
    monkeypatch.setitem(sys.modules, "pynvml", module)


class SpySensor:
    """A sensor that logs when it is asked."""

    def __init__(self, name, log):
        self.name, self.log = name, log

    def start(self):
        self.log.append(f"{self.name} start")

    def stop(self):
        self.log.append(f"{self.name} stop")

    def energy(self, duration_s):
        return (ComponentEnergy(self.name, None, "estimated", "spy", duration_s),)


def test_a_host_without_sensors_gives_three_unavailable_components(tmp_path, clock, no_driver):
    meter = open_meter(NO_ESTIMATES, clock=clock, sysfs=tmp_path)
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
    meter.restrict(["GPU-elsewhere"])  # nothing is known about boards here


def test_a_host_with_all_counters_measures_each_component(tmp_path, clock, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", make_nvml([FakeBoard("GPU-a", power_w=300)], clock))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    powercap = FakePowercap(tmp_path)
    powercap.zone("intel-rapl:0", "package-0")
    powercap.zone("intel-rapl:0:0", "dram")
    meter = open_meter(NO_ESTIMATES, clock=clock, sysfs=tmp_path)
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


def spying_meter(log, monkeypatch, clock):
    monkeypatch.setitem(sys.modules, "pynvml", make_nvml([], clock, init_error="none"))

    def logging_clock():
        log.append("clock")
        return clock()

    return Meter(
        NvmlCounters(), [SpySensor("counter", log)], [SpySensor("cpu", log)], None, logging_clock
    )


def test_counters_are_read_after_the_clock_and_estimates_lie_outside(clock, monkeypatch):
    log = []
    meter = spying_meter(log, monkeypatch, clock)
    with meter.interval("window"):
        log.append("work")
    assert log == [
        *("cpu start", "clock", "counter start"),
        "work",
        *("clock", "counter stop", "cpu stop"),
    ]


def fail_inside(meter, clock):
    """Meter three seconds that end in an exception."""
    try:
        with meter.interval("first") as interval:
            clock.advance(3)
            raise MemoryError
    except MemoryError:
        return interval
    raise AssertionError("the meter swallowed an exception of what it meters")


def test_an_exception_inside_passes_and_the_meter_goes_on(clock, monkeypatch):
    meter = spying_meter([], monkeypatch, clock)
    first = fail_inside(meter, clock)
    with meter.interval("second") as second:
        clock.advance(5)
    for interval, duration_s in ((first, 3), (second, 5)):
        assert interval.record.duration_s == duration_s
        assert [c.energy_j for c in interval.record.energy if c.component == "cpu"] == [duration_s]


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
