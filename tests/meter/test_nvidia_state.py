"""The state of a GPU beside an interval: what each reading says, and what its failure costs."""

from __future__ import annotations

import pytest
from support.fake_nvml import VIOLATIONS, FakeBoard, FakeClock, make_nvml

from llm_energy.meter.host.processes import Processes
from llm_energy.meter.host.snapshot import Tenants
from llm_energy.meter.nvidia.state import USED_MEMORY_BYTES, activity, glance, read_state

HOST = Processes(everyone=frozenset({1, 7, 8, 100, 101}), own=frozenset({100, 101}), own_busy_s=1.0)


def between(board, change=lambda: None, tables=(HOST, HOST), clock=None):
    """Say what the GPU went through while ``change`` happened."""
    nvml = make_nvml([board], clock or FakeClock())
    first = read_state(nvml, board)
    change()
    return activity(board.uuid, (first, read_state(nvml, board)), tables)


def test_both_edges_are_kept():
    board = FakeBoard("GPU-a")

    def change():
        board.temperature_c, board.power_limit_mw, board.memory_used_bytes = 70, 250_000, 2**30

    found = between(board, change)
    assert found.temperature_c == (41, 70)
    assert found.power_limit_w == (300, 250)
    assert found.memory_used_bytes == (2**20, 2**30)
    assert (found.sm_clock_mhz, found.memory_clock_mhz) == ((1980, 1980), (2619, 2619))


@pytest.mark.parametrize(
    ("call", "attribute"),
    [
        ("nvmlDeviceGetTemperature", "temperature_c"),
        ("nvmlDeviceGetClockInfo", "sm_clock_mhz"),
        ("nvmlDeviceGetClockInfo", "memory_clock_mhz"),
        ("nvmlDeviceGetEnforcedPowerLimit", "power_limit_w"),
        ("nvmlDeviceGetMemoryInfo", "memory_used_bytes"),
    ],
)
def test_a_reading_that_fails_is_none_and_costs_no_other(call, attribute):
    board = FakeBoard("GPU-a")
    whole = between(board)
    found = between(board, lambda: board.errors.update({call: "Not Supported"}))
    assert getattr(found, attribute) == (getattr(whole, attribute)[0], None)
    assert found.foreign_processes == whole.foreign_processes == ()
    assert found.throttled_s == whole.throttled_s


def test_a_binding_that_lacks_a_function_costs_no_other_reading():
    board, nvml = FakeBoard("GPU-a"), make_nvml([], FakeClock())
    for name in ("nvmlDeviceGetFieldValues", "nvmlDeviceGetMemoryInfo", "nvmlMemory_v2"):
        delattr(nvml, name)
    state = read_state(nvml, board)
    assert (state.temperature_c, state.memory_used_bytes) == (41, None)


def test_a_binding_newer_than_the_driver_costs_no_other_reading():
    nvml = make_nvml([], FakeClock())

    class NVMLLibraryMismatchError(Exception):
        """As in pynvml, no NVMLError."""

    def mismatch(handle):
        raise NVMLLibraryMismatchError

    nvml.NVMLLibraryMismatchError = NVMLLibraryMismatchError
    nvml.nvmlDeviceGetComputeRunningProcesses = mismatch
    state = read_state(nvml, FakeBoard("GPU-a"))
    assert (state.processes, state.temperature_c) == (None, 41)


def test_throttling_is_the_difference_of_the_drivers_counters_by_cause():
    board = FakeBoard("GPU-a", violations_ns={k: 10**9 * k for k in VIOLATIONS})

    def change():
        for field, added_ms in ((74, 3000), (75, 40), (271, 7)):
            board.violations_ns[field] += added_ms * 1_000_000

    assert between(board, change).throttled_s == {
        "power": pytest.approx(3.0),
        "thermal": pytest.approx(0.04),
        "sync_boost": 0,
        "board_limit": 0,
        "reliability": 0,
        "sw_thermal": 0,
        "hw_thermal": 0,
        "power_brake": pytest.approx(0.007),
    }


def test_an_older_driver_is_asked_in_the_older_way():
    clock = FakeClock(10)
    board = FakeBoard("GPU-a", violations_ns={74: 5})
    found = between(board, lambda: clock.advance(2), clock=clock)
    # The stand-in's policies count their own number of seconds a second.
    assert found.throttled_s == {
        "power": 0,
        "thermal": pytest.approx(2),
        "sync_boost": pytest.approx(4),
        "board_limit": pytest.approx(6),
        "reliability": pytest.approx(10),
    }


def test_a_cause_whose_counter_vanishes_or_goes_backwards_is_left_out():
    board = FakeBoard("GPU-a", violations_ns={270: 5, 271: 5, 269: 5})
    board.errors["nvmlDeviceGetViolationStatus"] = "Not Supported"

    def change():
        board.violations_ns = {270: 4, 269: 6}

    assert between(board, change).throttled_s == {"sw_thermal": pytest.approx(1e-9)}


def test_processes_are_parted_into_ours_and_those_of_others():
    board = FakeBoard("GPU-a", processes=(101, 8))

    def change():
        board.processes = (101, 7)

    found = between(board, change)
    assert (found.foreign_processes, found.own_process_seen) == ((7, 8), True)


def test_clients_of_a_service_compute_too_and_displays_are_told_apart():
    board = FakeBoard("GPU-a", processes=(100, 7), mps_clients=(8,), graphics={1: 2**29, 7: 2**20})
    board.memory_used_bytes = 2**29 + 2**20
    found = between(board)
    assert (found.foreign_processes, found.graphics_processes) == ((7, 8), (1,))


@pytest.mark.parametrize("more", [0, USED_MEMORY_BYTES + 1])
def test_the_memory_of_a_display_is_nobodys_left_behind(more):
    board = FakeBoard("GPU-a", graphics={1: 2**30}, memory_used_bytes=2**30 + more)
    found = between(board)
    # Memory that no process explains says that the driver hides some.
    assert found.foreign_processes == (None if more else ())
    seen = glance(make_nvml([board], FakeClock()), "GPU-a", board, None, HOST)
    assert seen.held_bytes == (board.memory_used_bytes if more else 0)


def test_who_came_and_left_in_between_is_known():
    board, nvml = FakeBoard("GPU-a", processes=(100,)), make_nvml([], FakeClock())
    states = (read_state(nvml, board),) * 2
    seen = [Tenants((7,), ()), Tenants((8, 7), (1,)), Tenants((), ())]
    found = activity("GPU-a", states, (HOST, HOST), seen)
    assert (found.foreign_processes, found.graphics_processes) == ((7, 8), (1,))
    hidden = activity("GPU-a", states, (None, HOST), seen)
    assert (hidden.foreign_processes, hidden.own_process_seen) == ((7, 8), True)


def test_a_board_that_nobody_uses_is_seen_to_be_free():
    found = between(FakeBoard("GPU-a", memory_used_bytes=USED_MEMORY_BYTES))
    assert (found.foreign_processes, found.own_process_seen) == ((), False)


@pytest.mark.parametrize(
    "board",
    [
        FakeBoard("GPU-a", memory_used_bytes=USED_MEMORY_BYTES + 1),
        FakeBoard("GPU-a", processes=(4711,)),
        FakeBoard("GPU-a", processes=(100, 4711)),
        FakeBoard("GPU-a", errors={"nvmlDeviceGetComputeRunningProcesses": "No Permission"}),
    ],
    ids=["none shown", "ids of the host", "some ids of the host", "refused"],
)
def test_a_driver_that_hides_processes_is_not_taken_for_a_free_board(board):
    found = between(board)
    assert (found.foreign_processes, found.own_process_seen) == (None, None)
    assert (
        glance(make_nvml([board], FakeClock()), "GPU-a", board, None, HOST).foreign_processes
        is None
    )


def test_a_host_without_a_table_of_processes_knows_nobody():
    found = between(FakeBoard("GPU-a", processes=(100,)), tables=(None, None))
    assert (found.foreign_processes, found.own_process_seen) == (None, None)


def test_what_one_edge_shows_outlives_a_blind_other():
    board = FakeBoard("GPU-a", processes=(8,))
    found = between(board, tables=(HOST, None))
    assert (found.foreign_processes, found.own_process_seen) == ((8,), None)
    board.processes = (100,)
    found = between(board, tables=(HOST, None))
    assert (found.foreign_processes, found.own_process_seen) == (None, True)


def test_memory_of_an_older_driver_is_read_in_the_older_way():
    board, nvml = FakeBoard("GPU-a", memory_used_bytes=5), make_nvml([], FakeClock())
    del nvml.nvmlMemory_v2
    nvml.nvmlDeviceGetMemoryInfo = lambda handle: type("Memory", (), {"used": 77})
    assert read_state(nvml, board).memory_used_bytes == 77


def test_a_glance_asks_an_older_driver_by_the_older_name():
    board = FakeBoard("GPU-a")
    nvml = make_nvml([board], FakeClock())
    assert glance(nvml, "GPU-a", board, None, HOST).clock_event_reasons == 0x4
    del nvml.nvmlDeviceGetCurrentClocksEventReasons
    assert glance(nvml, "GPU-a", board, True, HOST).clock_event_reasons == 0x20


def test_a_glance_at_a_lost_board_is_all_none():
    board = FakeBoard("GPU-a")
    nvml = make_nvml([board], FakeClock())
    board.errors = {name: "GPU is lost" for name in vars(nvml) if name.startswith("nvmlDevice")}
    found = vars(glance(nvml, "GPU-a", board, None, HOST))
    assert found.pop("device") == "GPU-a"
    assert set(found.values()) == {None}
