"""Read the state of an NVIDIA board beside an interval's edges, and say what happened in between.

Every reading may fail alone and is then None: boards, drivers and virtual machines differ in what
they answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from llm_energy.meter.glance import BoardGlance
from llm_energy.meter.processes import Processes
from llm_energy.records import BoardActivity

# The driver's violation-time counters in ns (nvmlViolationTime_t,
# https://docs.nvidia.com/deploy/nvml-api/api/structnvmlViolationTime__t.html), by their NVML field
# values. By number: the last three had other numbers in older headers, where an old binding would
# look them up, and an older driver refuses these.
VIOLATION_FIELDS = {
    "power": 74,
    "thermal": 75,
    "sync_boost": 76,
    "board_limit": 77,
    "reliability": 79,
    "sw_thermal": 269,
    "hw_thermal": 270,
    "power_brake": 271,
}
# The same by nvmlPerfPolicyType_t, for drivers without these fields.
VIOLATION_POLICIES = {
    "power": 0,
    "thermal": 1,
    "sync_boost": 2,
    "board_limit": 3,
    "reliability": 5,
}
# By nvmlValueType_t: double, unsigned int, long and long long, signed long long and int, short.
VALUE_TYPES = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
NVML_SUCCESS = 0

# More than a driver keeps on a board that nobody uses, less than one CUDA context takes.
USED_MEMORY_BYTES = 200 * 2**20


@dataclass(frozen=True)
class BoardState:
    """What one board showed at one moment; ``processes`` are the ids that compute on it."""

    temperature_c: float | None
    sm_clock_mhz: int | None
    memory_clock_mhz: int | None
    power_limit_w: float | None
    memory_used_bytes: int | None
    violations_ns: dict[str, int]
    processes: frozenset[int] | None


def read_state(nvml: Any, handle: Any) -> BoardState:
    """Read one board (some milliseconds, so outside what is metered)."""
    power_limit_mw = ask(nvml, lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle))
    return BoardState(
        temperature_c=_temperature_c(nvml, handle),
        sm_clock_mhz=_clock_mhz(nvml, handle, "NVML_CLOCK_SM"),
        memory_clock_mhz=_clock_mhz(nvml, handle, "NVML_CLOCK_MEM"),
        power_limit_w=_watts(power_limit_mw),
        memory_used_bytes=_memory_used_bytes(nvml, handle),
        violations_ns=_violations_ns(nvml, handle),
        processes=_processes(nvml, handle),
    )


def activity(
    device: str,
    states: tuple[BoardState, BoardState],
    tables: tuple[Processes | None, Processes | None],
) -> BoardActivity:
    """Give what happened between two states; ``tables`` are the host's processes at the two."""
    first, last = states
    users = [_users(state, table) for state, table in zip(states, tables, strict=True)]
    foreign = sorted({pid for user in users if user for pid in user.foreign})
    blind = any(user is None for user in users)
    return BoardActivity(
        device=device,
        temperature_c=(first.temperature_c, last.temperature_c),
        sm_clock_mhz=(first.sm_clock_mhz, last.sm_clock_mhz),
        memory_clock_mhz=(first.memory_clock_mhz, last.memory_clock_mhz),
        power_limit_w=(first.power_limit_w, last.power_limit_w),
        memory_used_bytes=(first.memory_used_bytes, last.memory_used_bytes),
        throttled_s={
            cause: (last.violations_ns[cause] - begin_ns) / 1e9
            for cause, begin_ns in first.violations_ns.items()
            if last.violations_ns.get(cause, -1) >= begin_ns
        },
        # What one edge shows is known, whatever the other hides.
        foreign_processes=None if blind and not foreign else tuple(foreign),
        own_process_seen=any(user and user.own for user in users) or (None if blind else False),
    )


def glance(
    nvml: Any, device: str, handle: Any, mig: bool | None, table: Processes | None
) -> BoardGlance:
    """Look at one board once."""
    state = read_state(nvml, handle)
    users = _users(state, table)
    default_mw = ask(nvml, lambda: nvml.nvmlDeviceGetPowerManagementDefaultLimit(handle))
    return BoardGlance(
        device=device,
        temperature_c=state.temperature_c,
        utilization_percent=ask(nvml, lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu),
        memory_used_bytes=state.memory_used_bytes,
        power_w=_watts(ask(nvml, lambda: nvml.nvmlDeviceGetPowerUsage(handle))),
        foreign_processes=None if users is None else tuple(sorted(users.foreign)),
        clock_event_reasons=_clock_event_reasons(nvml, handle),
        mig=mig,
        power_limit_w=state.power_limit_w,
        default_power_limit_w=_watts(default_mw),
    )


def ask(nvml: Any, question: Callable[[], Any]) -> Any:
    """Give NVML's answer; None for an error, or where the binding does not know the question."""
    try:
        return question()
    # The last is no NVMLError: it says that the driver is older than the binding.
    except (nvml.NVMLError, AttributeError, getattr(nvml, "NVMLLibraryMismatchError", OSError)):
        return None


def field_values(nvml: Any, handle: Any, fields: Sequence[int]) -> dict[int, tuple[int, int]]:
    """Read NVML field values: for each field that the driver offers its value and time in us."""
    found = ask(nvml, lambda: nvml.nvmlDeviceGetFieldValues(handle, list(fields)))
    return {
        item.fieldId: (getattr(item.value, VALUE_TYPES[item.valueType]), item.timestamp)
        for item in found or ()
        if item.nvmlReturn == NVML_SUCCESS
    }


def _temperature_c(nvml: Any, handle: Any) -> float | None:
    return ask(nvml, lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))


def _clock_mhz(nvml: Any, handle: Any, kind: str) -> int | None:
    return ask(nvml, lambda: nvml.nvmlDeviceGetClockInfo(handle, getattr(nvml, kind)))


def _memory_used_bytes(nvml: Any, handle: Any) -> int | None:
    """Give the memory in use, without what the driver keeps for itself where it tells the two."""
    used = ask(nvml, lambda: nvml.nvmlDeviceGetMemoryInfo(handle, nvml.nvmlMemory_v2).used)
    if used is None:
        used = ask(nvml, lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used)
    return used


def _violations_ns(nvml: Any, handle: Any) -> dict[str, int]:
    values = field_values(nvml, handle, list(VIOLATION_FIELDS.values()))
    found = {c: values[field][0] for c, field in VIOLATION_FIELDS.items() if field in values}
    for cause, policy in VIOLATION_POLICIES.items():
        if cause not in found:
            status = ask(nvml, lambda p=policy: nvml.nvmlDeviceGetViolationStatus(handle, p))
            if status is not None:
                found[cause] = status.violationTime
    return found


def _processes(nvml: Any, handle: Any) -> frozenset[int] | None:
    shown = ask(nvml, lambda: nvml.nvmlDeviceGetComputeRunningProcesses(handle))
    return None if shown is None else frozenset(process.pid for process in shown)


def _clock_event_reasons(nvml: Any, handle: Any) -> int | None:
    reasons = ask(nvml, lambda: nvml.nvmlDeviceGetCurrentClocksEventReasons(handle))
    if reasons is None:  # its name in older drivers
        reasons = ask(nvml, lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))
    return reasons


def _watts(power_mw: int | None) -> float | None:
    return None if power_mw is None else power_mw / 1e3


@dataclass(frozen=True)
class _Users:
    own: frozenset[int]
    foreign: frozenset[int]


def _users(state: BoardState, table: Processes | None) -> _Users | None:
    """Part the processes on a board into ours and others'; None where the driver hides them.

    In a container it may show none although somebody holds memory, or ids of the host's own
    numbering, which mean nothing in here.
    """
    if state.processes is None or table is None or not state.processes <= table.everyone:
        return None
    if not state.processes and (state.memory_used_bytes or 0) > USED_MEMORY_BYTES:
        return None
    return _Users(state.processes & table.own, state.processes - table.own)
