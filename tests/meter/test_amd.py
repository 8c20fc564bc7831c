"""AMD GPUs over a stand-in for ``amdsmi``; none of this has met a real GPU."""

from __future__ import annotations

import sys

import pytest
from support.fake_amdsmi import FakeAmdGpu, make_amdsmi
from support.fake_nvml import FakeClock, FakeGpu, make_nvml

from llm_energy.core.errors import LlmEnergyError
from llm_energy.meter.meter import open_meter
from llm_energy.records import MeterSettings

SETTINGS = MeterSettings(codecarbon=False)


@pytest.fixture
def clock():
    return FakeClock(50.0)


@pytest.fixture
def open_amd(tmp_path, clock, monkeypatch):
    """Open a meter of a host with these AMD GPUs, and no other sensor unless it is given."""

    def open_them(*gpus, nvidia=None, init_error=None):
        module = make_amdsmi(gpus, clock, init_error)
        monkeypatch.setitem(sys.modules, "amdsmi", module)
        monkeypatch.setitem(sys.modules, "pynvml", nvidia)
        return open_meter(SETTINGS, clock=clock, sleep=clock.sleep, sysfs=tmp_path, procfs=tmp_path)

    return open_them


def energies(meter, clock, duration_s=10.0, between=lambda: None):
    with meter.interval("window") as interval:
        clock.advance(duration_s)
        between()
    return [c for c in interval.record.energy if c.component == "gpu"]


def test_every_gpu_has_its_own_energy(open_amd, clock):
    meter = open_amd(FakeAmdGpu("aa-1", power_w=300), FakeAmdGpu("bb-2", power_w=90))
    found = energies(meter, clock)
    assert [(c.device, c.status, c.method) for c in found] == [
        ("aa-1", "measured", "amdsmi_energy_count"),
        ("bb-2", "measured", "amdsmi_energy_count"),
    ]
    assert [c.energy_j for c in found] == [pytest.approx(3000), pytest.approx(900)]


def test_an_older_package_names_its_accumulator_otherwise(open_amd, clock):
    (component,) = energies(open_amd(FakeAmdGpu("aa-1", accumulator="power")), clock)
    assert component.energy_j == pytest.approx(1000)


def test_an_unknown_accumulator_is_unavailable(open_amd, clock):
    (component,) = energies(open_amd(FakeAmdGpu("aa-1", accumulator="joules")), clock)
    assert (component.status, component.energy_j) == ("unavailable", None)
    assert "no accumulator in ['counter_resolution', 'joules']" in component.reason


@pytest.mark.parametrize("name", ["aa-1", "GPU-aa-1", "0000:03:00.0", "GPU-00ff", "00ff"])
def test_the_engine_may_name_a_gpu_in_any_of_its_ways(open_amd, clock, name):
    gpu = FakeAmdGpu("aa-1", hip_uuid="GPU-00ff")
    meter = open_amd(FakeAmdGpu("bb-2", bdf="0000:83:00.0"), gpu)
    meter.restrict([name])
    assert [c.device for c in energies(meter, clock)] == ["aa-1"]
    assert [gpu["uuid"] for gpu in meter.gpus()] == ["aa-1"]


def test_an_unknown_gpu_is_refused_with_the_known_ones(open_amd):
    with pytest.raises(LlmEnergyError, match=r"'cc-3'.*GPUs on this host: aa-1"):
        open_amd(FakeAmdGpu("aa-1")).restrict(["cc-3"])


def test_an_engine_on_the_cpu_uses_no_gpu(open_amd, clock):
    meter = open_amd(FakeAmdGpu("aa-1"))
    meter.restrict([])
    (component,) = energies(meter, clock)
    assert component.reason == "the engine uses no GPU"


def test_a_counter_that_fails_or_goes_backwards_is_unavailable(open_amd, clock):
    lost, reset = FakeAmdGpu("aa-1"), FakeAmdGpu("bb-2")

    def go_wrong():
        lost.error, reset.base = "AMDSMI_STATUS_BUSY", 0

    found = energies(open_amd(lost, reset), clock, between=go_wrong)
    assert [c.energy_j for c in found] == [None, None]
    assert "AMDSMI_STATUS_BUSY" in found[0].reason
    assert "went backwards" in found[1].reason


@pytest.mark.parametrize(
    ("gain", "status"),
    [(1.0, "measured"), (2.0, "measured"), (12.0, "unavailable"), (0.06, "unavailable")],
)
def test_a_counter_is_held_against_the_power_before_it_is_used(open_amd, clock, gain, status):
    (component,) = energies(open_amd(FakeAmdGpu("aa-1", gain=gain)), clock)
    assert component.status == status
    assert status == "measured" or "W while the power sensor showed 100.0 W" in component.reason


def test_a_counter_without_a_power_sensor_is_used_all_the_same(open_amd, clock):
    (component,) = energies(open_amd(FakeAmdGpu("aa-1", gain=12, shown_power_w="N/A")), clock)
    assert (component.status, component.energy_j) == ("measured", pytest.approx(12_000))


def dies():
    """Two MI250X cards as amdsmi shows them: the second die of each has neither counter nor power.

    A single GPU of another name that counts nothing is no such die.
    """
    return [
        FakeAmdGpu(
            f"gcd-{k}",
            name="AMD Instinct MI250X",
            power_w=0 if k % 2 else 400,
            bdf=f"0000:{k}3:00.0",
            shown_power_w="N/A" if k % 2 else None,
        )
        for k in range(4)
    ]


def test_the_first_die_of_a_card_counts_for_both(open_amd, clock):
    meter = open_amd(*dies())
    everything = energies(meter, clock)
    assert [c.energy_j for c in everything] == [pytest.approx(4000), None] * 2
    assert everything[3].reason.endswith("its joules are in those of gcd-2")
    meter.restrict(["gcd-0"])
    (first,) = energies(meter, clock)
    assert first.reason == "the counter is that of a whole card, with gcd-1 in it"
    assert first.method == "amdsmi_energy_count_whole_card"
    meter.restrict(["gcd-1", "gcd-0"])
    found = energies(meter, clock)
    assert [c.energy_j for c in found] == [None, pytest.approx(4000)]
    assert (found[1].method, found[1].reason) == ("amdsmi_energy_count", None)


def test_the_second_die_of_a_card_alone_is_refused(open_amd):
    with pytest.raises(LlmEnergyError, match=r"'gcd-3'.*joules are in those of 'gcd-2'.*on both"):
        open_amd(*dies()).restrict(["gcd-3"])


def test_another_gpu_that_counts_nothing_is_no_second_die(open_amd, clock):
    meter = open_amd(FakeAmdGpu("aa-1"), FakeAmdGpu("bb-2", power_w=90, gain=0))
    meter.restrict(["bb-2"])
    (component,) = energies(meter, clock)
    assert "counted 0.0 W while the power sensor showed 90.0 W" in component.reason


def test_partitions_that_show_one_counter_count_once(open_amd, clock):
    parts = [FakeAmdGpu(f"part-{k}", base=7, power_w=500, bdf=f"0:3:0.{k}") for k in range(3)]
    meter = open_amd(*parts, FakeAmdGpu("bb-2", bdf="0:4:0.0"))
    found = energies(meter, clock)
    assert [c.energy_j for c in found] == [pytest.approx(5000), None, None, pytest.approx(1000)]
    assert "its joules are in those of part-0" in found[2].reason
    meter.restrict(["part-2"])
    (component,) = energies(meter, clock)
    assert component.energy_j == pytest.approx(5000)
    assert component.reason.endswith("whole card, with part-0, part-1 in it")


def test_a_glance_has_the_power_and_none_for_the_rest(open_amd):
    (seen,) = open_amd(FakeAmdGpu("aa-1", power_w=77)).glance().gpus
    assert (seen.device, seen.power_w, seen.temperature_c) == ("aa-1", 77, None)
    assert seen.foreign_processes is None


def test_the_tick_is_measured(open_amd):
    meter = open_amd(FakeAmdGpu("aa-1"))
    meter.measure_ticks()
    assert meter.report().counter_tick_s == {"aa-1": pytest.approx(0.01)}


def test_the_sampler_is_not_for_these_gpus(open_amd):
    assert "no GPU whose power could be sampled" in open_amd(FakeAmdGpu("a")).report().trace_reason


def test_a_host_with_nvidia_gpus_takes_those(open_amd, clock):
    nvidia = make_nvml([FakeGpu("GPU-n")], clock)
    assert [c.device for c in energies(open_amd(FakeAmdGpu("aa-1"), nvidia=nvidia), clock)] == [
        "GPU-n"
    ]


def test_a_package_that_fails_is_named_beside_the_other(open_amd, clock):
    (component,) = energies(open_amd(init_error="no driver"), clock)
    assert component.reason.startswith("pynvml is not installed")
    assert component.reason.endswith("; amdsmi: AmdSmiException: no driver")


def test_without_the_package_it_is_not_mentioned(open_amd, clock, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "amdsmi", None)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    (component,) = energies(open_meter(SETTINGS, clock=clock, sysfs=tmp_path), clock)
    assert "amd" not in component.reason


def test_closing_releases_the_library_once(open_amd):
    meter = open_amd(FakeAmdGpu("aa-1"))
    meter.close()
    meter.close()
    assert sys.modules["amdsmi"].closed == 1
