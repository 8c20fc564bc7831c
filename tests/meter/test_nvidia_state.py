"""The state of a GPU beside an interval: what each reading says, and what its failure costs."""

from __future__ import annotations

import pytest
from support.fake_nvml import VIOLATIONS, FakeClock, FakeGpu, make_nvml

from llm_energy.meter.host.processes import Processes
from llm_energy.meter.host.snapshot import Tenants
from llm_energy.meter.nvidia.state import USED_MEMORY_BYTES, activity, glance, read_state

HOST = Processes(everyone=frozenset({1, 7, 8, 100, 101}), own=frozenset({100, 101}), own_busy_s=1.0)


def between(gpu, change=lambda: None, tables=(HOST, HOST), clock=None):
    """Say what the GPU went through while ``change`` happened."""
    nvml = make_nvml([gpu], clock or FakeClock())
    first = read_state(nvml, gpu)
    change()
    return activity(gpu.uuid, (first, read_state(nvml, gpu)), tables)


def test_both_edges_are_kept():
    gpu = FakeGpu("GPU-a")

    def change():
        gpu.temperature_c, gpu.power_limit_mw, gpu.memory_used_bytes = 70, 250_000, 2**30

    found = between(gpu, change)
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
    gpu = FakeGpu("GPU-a")
    whole = between(gpu)
    found = between(gpu, lambda: gpu.errors.update({call: "Not Supported"}))
    assert getattr(found, attribute) == (getattr(whole, attribute)[0], None)
    assert found.foreign_processes == whole.foreign_processes == ()
    assert found.throttled_s == whole.throttled_s


def test_a_binding_that_lacks_a_function_costs_no_other_reading():
    gpu, nvml = FakeGpu("GPU-a"), make_nvml([], FakeClock())
    for name in ("nvmlDeviceGetFieldValues", "nvmlDeviceGetMemoryInfo", "nvmlMemory_v2"):
        delattr(nvml, name)
    state = read_state(nvml, gpu)
    assert (state.temperature_c, state.memory_used_bytes) == (41, None)


def test_a_binding_newer_than_the_driver_costs_no_other_reading():
    nvml = make_nvml([], FakeClock())

    class NVMLLibraryMismatchError(Exception):
        """As in pynvml, no NVMLError."""

    def mismatch(handle):
        raise NVMLLibraryMismatchError

    nvml.NVMLLibraryMismatchError = NVMLLibraryMismatchError
    nvml.nvmlDeviceGetComputeRunningProcesses = mismatch
    state = read_state(nvml, FakeGpu("GPU-a"))
    assert (state.processes, state.temperature_c) == (None, 41)


def test_throttling_is_the_difference_of_the_drivers_counters_by_cause():
    gpu = FakeGpu("GPU-a", violations_ns={k: 10**9 * k for k in VIOLATIONS})

    def change():
        for field, added_ms in ((74, 3000), (75, 40), (271, 7)):
            gpu.violations_ns[field] += added_ms * 1_000_000

    assert between(gpu, change).throttled_s == {
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
    gpu = FakeGpu("GPU-a", violations_ns={74: 5})
    found = between(gpu, lambda: clock.advance(2), clock=clock)
    # The stand-in's policies count their own number of seconds a second.
    assert found.throttled_s == {
        "power": 0,
        "thermal": pytest.approx(2),
        "sync_boost": pytest.approx(4),
        "board_limit": pytest.approx(6),
        "reliability": pytest.approx(10),
    }


def test_a_cause_whose_counter_vanishes_or_goes_backwards_is_left_out():
    gpu = FakeGpu("GPU-a", violations_ns={270: 5, 271: 5, 269: 5})
    gpu.errors["nvmlDeviceGetViolationStatus"] = "Not Supported"

    def change():
        gpu.violations_ns = {270: 4, 269: 6}

    assert between(gpu, change).throttled_s == {"sw_thermal": pytest.approx(1e-9)}


def test_processes_are_parted_into_ours_and_those_of_others():
    gpu = FakeGpu("GPU-a", processes=(101, 8))

    def change():
        gpu.processes = (101, 7)

    found = between(gpu, change)
    assert (found.foreign_processes, found.own_process_seen) == ((7, 8), True)


def test_clients_of_a_service_compute_too_and_displays_are_told_apart():
    gpu = FakeGpu("GPU-a", processes=(100, 7), mps_clients=(8,), graphics={1: 2**29, 7: 2**20})
    gpu.memory_used_bytes = 2**29 + 2**20
    found = between(gpu)
    assert (found.foreign_processes, found.graphics_processes) == ((7, 8), (1,))


@pytest.mark.parametrize("more", [0, USED_MEMORY_BYTES + 1])
def test_the_memory_of_a_display_is_nobodys_left_behind(more):
    gpu = FakeGpu("GPU-a", graphics={1: 2**30}, memory_used_bytes=2**30 + more)
    found = between(gpu)
    # Memory that no process explains says that the driver hides some.
    assert found.foreign_processes == (None if more else ())
    seen = glance(make_nvml([gpu], FakeClock()), "GPU-a", gpu, None, HOST)
    assert seen.held_bytes == (gpu.memory_used_bytes if more else 0)


def test_who_came_and_left_in_between_is_known():
    gpu, nvml = FakeGpu("GPU-a", processes=(100,)), make_nvml([], FakeClock())
    states = (read_state(nvml, gpu),) * 2
    seen = [Tenants((7,), ()), Tenants((8, 7), (1,)), Tenants((), ())]
    found = activity("GPU-a", states, (HOST, HOST), seen)
    assert (found.foreign_processes, found.graphics_processes) == ((7, 8), (1,))
    hidden = activity("GPU-a", states, (None, HOST), seen)
    assert (hidden.foreign_processes, hidden.own_process_seen) == ((7, 8), True)


def test_a_gpu_that_nobody_uses_is_seen_to_be_free():
    found = between(FakeGpu("GPU-a", memory_used_bytes=USED_MEMORY_BYTES))
    assert (found.foreign_processes, found.own_process_seen) == ((), False)


@pytest.mark.parametrize(
    "gpu",
    [
        FakeGpu("GPU-a", memory_used_bytes=USED_MEMORY_BYTES + 1),
        FakeGpu("GPU-a", processes=(4711,)),
        FakeGpu("GPU-a", processes=(100, 4711)),
        FakeGpu("GPU-a", errors={"nvmlDeviceGetComputeRunningProcesses": "No Permission"}),
    ],
    ids=["none shown", "ids of the host", "some ids of the host", "refused"],
)
def test_a_driver_that_hides_processes_is_not_taken_for_a_free_gpu(gpu):
    found = between(gpu)
    assert (found.foreign_processes, found.own_process_seen) == (None, None)
    assert glance(make_nvml([gpu], FakeClock()), "GPU-a", gpu, None, HOST).foreign_processes is None


def test_a_host_without_a_table_of_processes_knows_nobody():
    found = between(FakeGpu("GPU-a", processes=(100,)), tables=(None, None))
    assert (found.foreign_processes, found.own_process_seen) == (None, None)


def test_what_one_edge_shows_outlives_a_blind_other():
    gpu = FakeGpu("GPU-a", processes=(8,))
    found = between(gpu, tables=(HOST, None))
    assert (found.foreign_processes, found.own_process_seen) == ((8,), None)
    gpu.processes = (100,)
    found = between(gpu, tables=(HOST, None))
    assert (found.foreign_processes, found.own_process_seen) == (None, True)


def test_memory_of_an_older_driver_is_read_in_the_older_way():
    gpu, nvml = FakeGpu("GPU-a", memory_used_bytes=5), make_nvml([], FakeClock())
    del nvml.nvmlMemory_v2
    nvml.nvmlDeviceGetMemoryInfo = lambda handle: type("Memory", (), {"used": 77})
    assert read_state(nvml, gpu).memory_used_bytes == 77


def test_a_glance_asks_an_older_driver_by_the_older_name():
    gpu = FakeGpu("GPU-a")
    nvml = make_nvml([gpu], FakeClock())
    assert glance(nvml, "GPU-a", gpu, None, HOST).clock_event_reasons == 0x4
    del nvml.nvmlDeviceGetCurrentClocksEventReasons
    assert glance(nvml, "GPU-a", gpu, True, HOST).clock_event_reasons == 0x20


def test_a_glance_at_a_lost_gpu_is_all_none():
    gpu = FakeGpu("GPU-a")
    nvml = make_nvml([gpu], FakeClock())
    gpu.errors = {name: "GPU is lost" for name in vars(nvml) if name.startswith("nvmlDevice")}
    found = vars(glance(nvml, "GPU-a", gpu, None, HOST))
    assert found.pop("device") == "GPU-a"
    assert set(found.values()) == {None}
