"""The package and memory counters over a made powercap tree: zones, wraps, permissions."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fake_nvml import FakeClock
from support.fake_powercap import RANGE_UJ, FakePowercap

from llm_energy.meter.host.snapshot import Look
from llm_energy.meter.rapl import RaplCounters


@pytest.fixture
def powercap(tmp_path):
    return FakePowercap(tmp_path)


def sense(powercap, used_uj, duration_s=10.0):
    """Meter an interval in which each zone uses what ``used_uj`` says; give it by device."""
    sensor = RaplCounters(powercap.sysfs)
    first = sensor.read()
    for entry, energy_uj in used_uj.items():
        powercap.use(entry, energy_uj)
    return {c.device: c for c in sensor.energy(first, sensor.read(), duration_s)}


def test_packages_and_their_memory_count_once_and_nothing_else(powercap):
    powercap.zone("intel-rapl:0", "package-0", 5_000_000)
    powercap.zone("intel-rapl:0:0", "core")
    powercap.zone("intel-rapl:0:1", "dram")
    powercap.zone("intel-rapl:1", "package-1", 900_000_000)
    powercap.zone("intel-rapl:1:0", "dram", 400_000_000)
    powercap.zone("intel-rapl:2", "psys")
    powercap.zone("intel-rapl-mmio:0", "package-0", 77)
    powercap.zone("intel-rapl-mmio:0:0", "dram", 78)
    powercap.sockets(2)
    used = {"intel-rapl:0": 50_000_000, "intel-rapl:0:1": 6_000_000, "intel-rapl:1": 70_000_000}
    used["intel-rapl:1:0"] = 1_000_000
    found = sense(powercap, {**used, "intel-rapl:2": 10**9, "intel-rapl-mmio:0": 50_000_000})
    assert {device: (c.component, c.status, c.energy_j) for device, c in found.items()} == {
        "package-0": ("cpu", "measured", 50.0),
        "package-0/dram": ("dram", "measured", 6.0),
        "package-1": ("cpu", "measured", 70.0),
        "package-1/dram": ("dram", "measured", 1.0),
    }


def test_a_zone_that_only_mmio_shows_is_used(powercap):
    powercap.zone("intel-rapl-mmio:0", "package-0")
    assert sense(powercap, {"intel-rapl-mmio:0": 3_000_000})["package-0"].energy_j == 3.0


def test_an_amd_package_has_no_memory_zone_and_that_is_said(powercap):
    powercap.zone("intel-rapl:0", "package-0")
    powercap.zone("intel-rapl:0:0", "core")
    found = sense(powercap, {"intel-rapl:0": 3_000_000})
    assert found["package-0"].energy_j == 3.0
    assert (found[None].component, found[None].status) == ("dram", "unavailable")
    assert "no DRAM zone" in found[None].reason


@given(start_uj=st.integers(0, RANGE_UJ - 1), used_uj=st.integers(1, RANGE_UJ - 1))
def test_one_wrap_is_undone(start_uj, used_uj):
    with tempfile.TemporaryDirectory() as folder:
        powercap = FakePowercap(Path(folder))
        powercap.zone("intel-rapl:0", "package-0", start_uj)
        found = sense(powercap, {"intel-rapl:0": used_uj}, 262.0)
        assert found["package-0"].energy_j == pytest.approx(used_uj / 1e6)


@pytest.mark.parametrize(("duration_s", "status"), [(262.0, "measured"), (263.0, "unavailable")])
def test_an_interval_in_which_two_wraps_are_possible_is_unavailable(powercap, duration_s, status):
    powercap.zone("intel-rapl:0", "package-0")
    found = sense(powercap, {"intel-rapl:0": 1_000_000}, duration_s)["package-0"]
    assert found.status == status
    assert status == "measured" or "may have wrapped more than once" in found.reason


def test_readings_inside_an_interval_that_is_too_long_bound_the_wraps_of_its_parts(powercap):
    powercap.zone("intel-rapl:0", "package-0", RANGE_UJ - 1_000_000)
    sensor = RaplCounters(powercap.sysfs)
    readings = [sensor.read()]
    for _ in range(2):
        powercap.use("intel-rapl:0", 30_000_000)
        readings.append(sensor.read())
    parts = [sensor.energy(readings[k], readings[k + 1], 200.0)[0].energy_j for k in (0, 1)]
    assert parts == [30.0, 30.0]
    assert sensor.energy(readings[0], readings[2], 400.0)[0].status == "unavailable"


@given(data=st.data(), start_uj=st.integers(0, RANGE_UJ - 1))
def test_looks_in_between_count_every_wrap(data, start_uj):
    used_uj = data.draw(st.lists(st.integers(1, RANGE_UJ - 1), min_size=2, max_size=12))
    looks = []
    with tempfile.TemporaryDirectory() as folder:
        powercap = FakePowercap(Path(folder))
        powercap.zone("intel-rapl:0", "package-0", start_uj)
        sensor = RaplCounters(powercap.sysfs, FakeClock(50.0), lambda start_s, end_s: looks)
        first = sensor.read()
        for k, energy_uj in enumerate(used_uj, 1):
            powercap.use("intel-rapl:0", energy_uj)
            last = sensor.read()
            (count,) = last.counters.values()
            looks.append(Look(50.0 + 262 * k, {"package-0": count.value}))
        looks.pop()
        component = sensor.energy(first, last, 262.0 * len(used_uj))[0]
    assert component.status == "measured"
    assert component.energy_j == pytest.approx(sum(used_uj) / 1e6)


def test_of_the_looks_those_around_a_wrap_are_kept(powercap):
    powercap.zone("intel-rapl:0", "package-0", 5, range_uj=300)
    seen = [(10.0, 9), (20.0, 290), (30.0, 40), (40.0, 60)]
    looks = [Look(time_s, {"package-0": value}) for time_s, value in seen]
    clock = FakeClock()
    sensor = RaplCounters(powercap.sysfs, clock, lambda start_s, end_s: looks)
    first = sensor.read()
    clock.advance(50.0)
    powercap.use("intel-rapl:0", 365)
    ((counter, counts),) = sensor.counts([first, sensor.read()])
    assert (counter.unit, counter.wraps_at) == ("uJ", 300)
    assert [(c.value, c.start_s, c.between) for c in counts] == [
        *((5, 0.0, False), (290, 20.0, True), (40, 30.0, True)),
        (70, 50.0, False),
    ]


def test_a_gap_between_looks_in_which_two_wraps_are_possible_is_unavailable(powercap):
    powercap.zone("intel-rapl:0", "package-0", range_uj=65_532_610_987)
    looks = [Look(10.0, {"package-0": 5}), Look(20.0, {"package-0": 9}), Look(30.0, {})]
    sensor = RaplCounters(powercap.sysfs, FakeClock(), lambda start_s, end_s: looks)
    first = sensor.read()
    powercap.use("intel-rapl:0", 100)
    assert sensor.energy(first, sensor.read(), 85.0)[0].energy_j == 100 / 1e6
    late = sensor.energy(first, sensor.read(), 90.0)[0]
    assert late.reason.endswith("not read for 70 s, and only below 65.5 s is that impossible")


@pytest.mark.parametrize(("duration_s", "status"), [(40.0, "unavailable"), (0.01, "measured")])
def test_a_zone_that_stands_still_does_not_count(powercap, duration_s, status):
    powercap.zone("intel-rapl:0", "package-0")
    powercap.zone("intel-rapl:1", "package-1", 7)
    found = sense(powercap, {"intel-rapl:1": 3_000_000}, duration_s)
    assert found["package-1"].energy_j == 3.0
    assert found["package-0"].status == status
    assert status == "measured" or "stands still at 0 uJ" in found["package-0"].reason


def test_a_counter_below_its_start_by_more_than_a_wrap_is_never_negative(powercap):
    powercap.zone("intel-rapl:0", "package-0", 500, range_uj=300)
    sensor = RaplCounters(powercap.sysfs)
    first = sensor.read()
    (powercap.root / "intel-rapl:0" / "energy_uj").write_text("100\n")
    component = sensor.energy(first, sensor.read(), 1e-7)[0]
    assert (component.status, component.energy_j) == ("unavailable", None)
    assert "went backwards" in component.reason


def test_a_counter_that_began_anew_is_not_taken_for_one_that_wrapped(powercap):
    powercap.zone("intel-rapl:0", "package-0", 90_000_000_000)
    sensor = RaplCounters(powercap.sysfs)
    first = sensor.read()
    (powercap.root / "intel-rapl:0" / "energy_uj").write_text("100\n")
    assert "which no wrap explains" in sensor.energy(first, sensor.read(), 60.0)[0].reason


def test_an_unreadable_counter_names_the_remedy(powercap, monkeypatch):
    powercap.zone("intel-rapl:0", "package-0")
    read_text = Path.read_text

    def refuse(path, *arguments, **options):  # root, who may run this, can read any file
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(path))
        return read_text(path, *arguments, **options)

    sensor = RaplCounters(powercap.sysfs)
    monkeypatch.setattr(Path, "read_text", refuse)
    reason = sensor.energy(sensor.read(), sensor.read(), 1)[0].reason
    assert f"sudo chmod o+r {powercap.root}/intel-rapl*:*/energy_uj" in reason
    assert "/etc/udev/rules.d" in reason


def test_a_counter_that_vanishes_is_unavailable(powercap):
    powercap.zone("intel-rapl:0", "package-0")
    sensor = RaplCounters(powercap.sysfs)
    first = sensor.read()
    (powercap.root / "intel-rapl:0" / "energy_uj").unlink()
    assert "No such file" in sensor.energy(first, sensor.read(), 1)[0].reason


def test_a_socket_without_a_zone_is_not_passed_over(powercap):
    powercap.zone("intel-rapl:0", "package-0")
    powercap.sockets(2)
    found = sense(powercap, {"intel-rapl:0": 1_000_000})
    assert found["package-0"].status == "measured"
    assert found["other sockets"].reason == "only 1 of 2 sockets have a RAPL package zone"


def test_dies_that_mirror_one_counter_count_once(powercap):
    for die in range(4):
        powercap.zone(f"intel-rapl:{die}", f"package-0-die-{die}", 700_000_000 + die)
    found = sense(powercap, {f"intel-rapl:{die}": 80_000_000 for die in range(4)})
    energies = [c.energy_j for c in found.values() if c.status == "measured"]
    assert energies == [80.0]
    assert "counter of package-0-die-0 again" in found["package-0-die-3"].reason


def test_dies_with_counters_of_their_own_all_count(powercap):
    powercap.zone("intel-rapl:0", "package-0-die-0", 700_000_000)
    powercap.zone("intel-rapl:1", "package-0-die-1", 300_000_000)
    found = sense(powercap, {"intel-rapl:0": 80_000_000, "intel-rapl:1": 80_000_000})
    assert [c.energy_j for c in found.values() if c.component == "cpu"] == [80.0, 80.0]


@pytest.mark.parametrize("exists", [False, True])
def test_a_host_without_zones_says_what_is_missing(powercap, exists):
    if exists:
        powercap.root.mkdir(parents=True)
    sensor = RaplCounters(powercap.sysfs)
    components = sensor.energy(sensor.read(), sensor.read(), 1)
    assert [(c.component, c.status) for c in components] == [
        ("cpu", "unavailable"),
        ("dram", "unavailable"),
    ]
    assert all("no RAPL counters" in c.reason for c in components)
