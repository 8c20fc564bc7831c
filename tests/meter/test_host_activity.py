"""What the host did over an interval, over a made procfs, and what a missing file costs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.fake_nvml import FakeClock
from support.fake_procfs import FakeProcfs

from llm_energy.meter.host.activity import HostCounters, activity
from llm_energy.meter.host.processes import read_processes


@pytest.fixture
def procfs(tmp_path):
    procfs = FakeProcfs(tmp_path / "proc")
    procfs.process(1, 0, 9.0)
    procfs.process(100, 1, 1.0, me=True)
    procfs.process(101, 100, 2.0)
    procfs.process(102, 101, 4.0)
    procfs.process(7, 1, 50.0)
    procfs.processors(busy_s=60.0, steal_s=3.0)
    procfs.memory(10, 20)
    procfs.disks(sda=100, sda1=90, nvme0n1=1000, nvme0n1p1=999, dm_0=500, loop0=70)
    procfs.stalled(5_000_000)
    return procfs


@pytest.fixture
def clocks():
    return FakeClock(100.0), FakeClock(1_700_000_000.0)


def between(procfs, clocks, change=lambda: None):
    counters = HostCounters(procfs.root, *clocks)
    first = counters.read()
    change()
    return activity(first, counters.read())


def test_each_counter_is_differenced(procfs, clocks):
    clock, wall_clock = clocks

    def change():
        clock.advance(30.0)
        wall_clock.advance(29.5)
        procfs.processors(busy_s=80.0, steal_s=3.5)
        procfs.memory(14, 26)
        procfs.stalled(5_250_000)
        procfs.disks(sda=110, sda1=95, nvme0n1=1200, nvme0n1p1=1150, dm_0=800, loop0=90)
        procfs.process(102, 101, 14.0)
        procfs.process(7, 1, 57.0)

    found = between(procfs, clocks, change)
    assert found.busy_s == pytest.approx(20)
    assert found.own_busy_s == pytest.approx(10)
    assert found.steal_s == pytest.approx(0.5)
    assert found.stalled_s == pytest.approx(0.25)
    assert (found.pages_swapped_in, found.major_faults) == (4, 6)
    assert found.disk_read_bytes == 512 * (10 + 200)
    assert found.wall_clock_step_s == pytest.approx(-0.5)
    assert found.duration_s == 30.0


def test_the_time_of_a_child_that_ended_is_not_lost(procfs, clocks):
    def change():
        (procfs.root / "102" / "stat").unlink()
        procfs.process(101, 100, 2.0 + 5.0)  # it waited for the other, which had used 1 s more

    assert between(procfs, clocks, change).own_busy_s == pytest.approx(1.0)


def test_this_process_is_told_from_its_children(procfs, clocks):
    def change():
        procfs.process(100, 1, 14.0, me=True)  # half of it is that of children that have ended
        procfs.process(102, 101, 14.0)

    found = between(procfs, clocks, change)
    assert (found.own_busy_s, found.self_busy_s) == (pytest.approx(23.0), pytest.approx(6.5))


def test_a_counter_that_goes_backwards_is_none(procfs, clocks):
    assert between(procfs, clocks, lambda: procfs.memory(9, 21)).pages_swapped_in is None


@pytest.mark.parametrize(
    ("name", "attributes"),
    [
        ("stat", {"busy_s", "steal_s"}),
        ("vmstat", {"pages_swapped_in", "major_faults"}),
        ("diskstats", {"disk_read_bytes"}),
        ("pressure/cpu", {"stalled_s"}),
        ("self/stat", {"own_busy_s", "self_busy_s"}),
    ],
)
@pytest.mark.parametrize("text", [None, "", "nonsense 1\n"])
def test_a_file_that_is_missing_or_strange_costs_only_its_own(
    procfs, clocks, name, attributes, text
):
    if text is None:
        (procfs.root / name).unlink()
    else:
        procfs.write(name, text)
    found = vars(between(procfs, clocks))
    assert {attribute for attribute, value in found.items() if value is None} == attributes


def test_a_host_without_procfs_still_has_its_clocks(tmp_path, clocks):
    found = vars(between(FakeProcfs(tmp_path / "none"), clocks))
    assert (found.pop("wall_clock_step_s"), found.pop("duration_s")) == (0, 0)
    assert set(found.values()) == {None}


def test_ours_are_this_process_and_all_that_it_started(procfs):
    found = read_processes(procfs.root)
    assert found.own == {100, 101, 102}
    assert found.everyone == {1, 7, 100, 101, 102}


def test_the_real_procfs_shows_this_process():
    found = read_processes(Path("/proc"))
    assert os.getpid() in found.own
    assert os.getppid() not in found.own
    assert found.own_busy_s > 0


def test_a_disk_with_many_neighbours_is_not_their_partition(procfs, clocks):
    procfs.disks(nvme0n1=1, nvme0n10=2, sda=4, sdaa=8, sdaa1=16, md0=32, zram0=64)

    def change():
        procfs.disks(nvme0n1=2, nvme0n10=4, sda=8, sdaa=16, sdaa1=32, md0=64, zram0=128)

    assert between(procfs, clocks, change).disk_read_bytes == 512 * (1 + 2 + 4 + 8)
