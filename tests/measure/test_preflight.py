"""What a repeat waits for before it begins, and what it then says did not hold."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.simulated import Clock, glance, gpu

from llm_energy.measure.preflight import conditions, free_disk_bytes, preflight

GIB = 2**30


def judge(now, before=None, disk=100 * GIB) -> dict:
    return {c.name: c for c in conditions(now, before, disk)}


def failed(now, before=None, disk=100 * GIB) -> list[str]:
    return [name for name, c in judge(now, before, disk).items() if not c.ok]


def look(views, max_wait_s: float = 60.0):
    """Run a preflight on a host that shows one of ``views`` after the other, the last for ever."""
    clock, views = Clock(), list(views)
    begin_s = clock()
    found = preflight(
        lambda: views.pop(0) if len(views) > 1 else views[0],
        max_wait_s,
        Path(),
        clock,
        clock.sleep,
    )
    assert clock() - begin_s == pytest.approx(found.wait_s)
    return found.judge()


def test_a_healthy_host_passes_every_condition_without_waiting():
    found = look([glance(gpu())])
    assert found.wait_s == 0
    assert all(c.ok for c in found.conditions)
    assert [c.name for c in found.conditions] == [
        "board_processes",
        "board_utilization",
        "board_memory",
        "board_clocks",
        "board_mig",
        "board_temperature",
        "host_load",
        "host_memory",
        "swap",
        "disk",
    ]


@pytest.mark.parametrize(
    ("name", "now"),
    [
        ("board_processes", glance(gpu(foreign_processes=(17, 18)))),
        ("board_utilization", glance(gpu(utilization_percent=1.0))),
        ("board_memory", glance(gpu(memory_used_bytes=200 * 2**20))),
        ("board_memory", glance(gpu(memory_used_bytes=2**30, graphics_bytes=2**29))),
        ("board_clocks", glance(gpu(clock_event_reasons=0x40 | 0x1))),
        ("board_clocks", glance(gpu(clock_event_reasons=0x80))),
        ("board_mig", glance(gpu(mig=True))),
        ("board_temperature", glance(gpu(temperature_c=None))),
        ("host_load", glance(load_per_cpu=0.5)),
        ("host_memory", glance(memory_available_bytes=GIB - 1)),
    ],
)
def test_each_fault_fails_its_own_condition_alone(name, now):
    assert failed(now) == [name]


def test_the_memory_of_a_display_is_not_in_the_way():
    assert failed(glance(gpu(memory_used_bytes=2**30, graphics_bytes=2**30 - 2**20))) == []


def test_a_condition_says_what_was_found_where_and_what_is_allowed():
    healthy, shared = gpu("GPU-1"), gpu("GPU-2", foreign_processes=(17, 18))
    condition = judge(glance(healthy, shared))["board_processes"]
    assert condition.found == "GPU-2: processes 17, 18"
    assert condition.allowed == "no process of others that computes"
    assert "GPU-1: 60 %" in judge(glance(gpu(utilization_percent=60)))["board_utilization"].found


def test_a_repeat_is_judged_by_the_gpus_that_it_uses():
    mine, others = gpu("GPU-1"), gpu("GPU-2", memory_used_bytes=2**34)
    clock = Clock()
    found = preflight(lambda: glance(mine, others), 5.0, Path(), clock, clock.sleep)
    assert [c.name for c in found.judge().conditions if not c.ok] == ["board_memory"]
    assert all(c.ok for c in found.judge(["GPU-1"]).conditions)
    assert not any(c.name.startswith("board") for c in found.judge([]).conditions)


def test_a_power_cap_and_an_idle_clock_are_no_fault():
    assert failed(glance(gpu(clock_event_reasons=0x1 | 0x4))) == []


def test_swap_in_use_is_no_fault_unless_it_grows():
    small, large = glance(swap_used_bytes=2**20), glance(swap_used_bytes=2**21)
    assert failed(large, before=large) == []
    assert failed(small, before=large) == []
    assert failed(large, before=small) == ["swap"]
    assert failed(large, before=glance(swap_used_bytes=0)) == ["swap"]


def test_a_full_disk_is_a_fault():
    assert failed(glance(), disk=GIB - 1) == ["disk"]


def test_what_the_host_does_not_show_is_not_claimed_to_hold():
    blind = gpu(foreign_processes=None, utilization_percent=None, memory_used_bytes=None, mig=None)
    now = glance(blind, load_per_cpu=None, memory_available_bytes=None, swap_used_bytes=None)
    assert set(judge(now, disk=None)) == {"board_clocks", "board_temperature"}
    assert judge(glance(), disk=None).keys() == {"host_load", "host_memory", "swap"}


def test_it_waits_until_everything_holds():
    busy = glance(gpu(utilization_percent=90.0))
    found = look([busy, busy, busy, glance(gpu())])
    assert found.wait_s == pytest.approx(3.0)
    assert all(c.ok for c in found.conditions)


def test_it_goes_on_at_the_limit_and_says_what_did_not_hold():
    found = look([glance(gpu(foreign_processes=(17,)))], max_wait_s=2.5)
    assert found.wait_s == pytest.approx(2.5)
    assert [c.name for c in found.conditions if not c.ok] == ["board_processes"]


def test_with_no_time_to_wait_it_looks_once():
    found = look([glance(load_per_cpu=4.0, swap_used_bytes=2**20)], max_wait_s=0)
    assert found.wait_s == 0
    assert [c.name for c in found.conditions if not c.ok] == ["host_load"]


def test_it_does_not_wait_for_what_no_waiting_mends():
    found = look([glance(gpu(mig=True, temperature_c=None))])
    assert found.wait_s == 0
    assert [c.name for c in found.conditions if not c.ok] == ["board_mig", "board_temperature"]


def test_swap_in_use_is_looked_at_twice():
    grown = [glance(swap_used_bytes=k * 2**20) for k in (1, 2, 3, 3)]
    assert look(grown).wait_s == pytest.approx(3.0)


def test_the_room_for_a_folder_that_is_yet_to_be_made_is_known(tmp_path):
    assert free_disk_bytes(tmp_path / "not" / "yet") > 0
