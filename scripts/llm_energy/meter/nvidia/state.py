"""Read the state of an NVIDIA GPU beside an interval's edges, and say what happened in between.

Every reading may fail alone and is then None: GPUs, drivers and virtual machines differ in what
they answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from llm_energy.meter.host.processes import Processes
from llm_energy.meter.host.snapshot import GpuGlance, Tenants
from llm_energy.records import GpuActivity

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

# More than a driver keeps on a GPU that nobody uses, less than one CUDA context takes.
USED_MEMORY_BYTES = 200 * 2**20


class Shown(NamedTuple):
    """The processes on a GPU: ids that compute, and those that only draw, with their bytes."""

    computing: frozenset[int]
    drawing: dict[int, int]


@dataclass(frozen=True)
class GpuState:
    """What one GPU showed at one moment."""

    temperature_c: float | None
    sm_clock_mhz: int | None
    memory_clock_mhz: int | None
    power_limit_w: float | None
    memory_used_bytes: int | None
    violations_ns: dict[str, int]
    processes: Shown | None


def read_state(nvml: Any, handle: Any) -> GpuState:
    """Read one GPU (some milliseconds, so outside what is metered)."""
    power_limit_mw = ask(nvml, lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle))
    return GpuState(
        temperature_c=_temperature_c(nvml, handle),
        sm_clock_mhz=_clock_mhz(nvml, handle, "NVML_CLOCK_SM"),
        memory_clock_mhz=_clock_mhz(nvml, handle, "NVML_CLOCK_MEM"),
        power_limit_w=_watts(power_limit_mw),
        memory_used_bytes=_memory_used_bytes(nvml, handle),
        violations_ns=_violations_ns(nvml, handle),
        processes=processes(nvml, handle),
    )


def activity(
    device: str,
    states: tuple[GpuState, GpuState],
    tables: tuple[Processes | None, Processes | None],
    seen: Iterable[Tenants] = (),
) -> GpuActivity:
    """Return what happened between two states; ``tables`` are the host's processes at the two.

    ``seen`` are the processes of others that were seen on it in between.
    """
    first, last = states
    users = [_users_at(state, table) for state, table in zip(states, tables, strict=True)]
    tenants = [*(user.others for user in users if user), *seen]
    foreign = sorted({pid for each in tenants for pid in each.computing})
    drawing = sorted({pid for each in tenants for pid in each.drawing}.difference(foreign))
    blind = any(user is None for user in users)
    return GpuActivity(
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
        graphics_processes=None if blind and not drawing else tuple(drawing),
    )


def glance(
    nvml: Any, device: str, handle: Any, mig: bool | None, table: Processes | None
) -> GpuGlance:
    """Look at one GPU once."""
    state = read_state(nvml, handle)
    users = _users_at(state, table)
    default_mw = ask(nvml, lambda: nvml.nvmlDeviceGetPowerManagementDefaultLimit(handle))
    return GpuGlance(
        device=device,
        temperature_c=state.temperature_c,
        utilization_percent=ask(nvml, lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu),
        memory_used_bytes=state.memory_used_bytes,
        power_w=_watts(ask(nvml, lambda: nvml.nvmlDeviceGetPowerUsage(handle))),
        graphics_bytes=_drawing_bytes(state, users),
        foreign_processes=None if users is None else tuple(sorted(users.others.computing)),
        clock_event_reasons=_clock_event_reasons(nvml, handle),
        mig=mig,
        power_limit_w=state.power_limit_w,
        default_power_limit_w=_watts(default_mw),
    )


def ask(nvml: Any, question: Callable[[], Any]) -> Any:
    """Return NVML's answer; None for an error, or where the binding does not know the question."""
    try:
        return question()
    # The last is no NVMLError: it says that the driver is older than the binding.
    except (nvml.NVMLError, AttributeError, getattr(nvml, "NVMLLibraryMismatchError", OSError)):
        return None


def field_values(nvml: Any, handle: Any, fields: Sequence[int]) -> dict[int, int]:
    """Read NVML field values: for each field that the driver offers its value."""
    found = ask(nvml, lambda: nvml.nvmlDeviceGetFieldValues(handle, list(fields)))
    return {
        item.fieldId: getattr(item.value, VALUE_TYPES[item.valueType])
        for item in found or ()
        if item.nvmlReturn == NVML_SUCCESS
    }


def _temperature_c(nvml: Any, handle: Any) -> float | None:
    return ask(nvml, lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))


def _clock_mhz(nvml: Any, handle: Any, kind: str) -> int | None:
    return ask(nvml, lambda: nvml.nvmlDeviceGetClockInfo(handle, getattr(nvml, kind)))


def _memory_used_bytes(nvml: Any, handle: Any) -> int | None:
    """Return the memory in use, without what the driver keeps for itself where it tells the two."""
    used = ask(nvml, lambda: nvml.nvmlDeviceGetMemoryInfo(handle, nvml.nvmlMemory_v2).used)
    if used is None:
        used = ask(nvml, lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used)
    return used


def _violations_ns(nvml: Any, handle: Any) -> dict[str, int]:
    values = field_values(nvml, handle, list(VIOLATION_FIELDS.values()))
    found = {c: values[field] for c, field in VIOLATION_FIELDS.items() if field in values}
    for cause, policy in VIOLATION_POLICIES.items():
        if cause not in found:
            status = ask(nvml, lambda p=policy: nvml.nvmlDeviceGetViolationStatus(handle, p))
            if status is not None:
                found[cause] = status.violationTime
    return found


def processes(nvml: Any, handle: Any) -> Shown | None:
    """List the processes on a GPU (0.4 ms on an H200); None where the driver does not tell."""
    computing = ask(nvml, lambda: nvml.nvmlDeviceGetComputeRunningProcesses(handle))
    if computing is None:
        return None
    # Clients of CUDA's multi-process service (MPS) are in a list of their own.
    clients = ask(nvml, lambda: nvml.nvmlDeviceGetMPSComputeRunningProcesses(handle)) or ()
    drawing = ask(nvml, lambda: nvml.nvmlDeviceGetGraphicsRunningProcesses(handle)) or ()
    ids = frozenset(process.pid for process in (*computing, *clients))
    return Shown(ids, {p.pid: p.usedGpuMemory or 0 for p in drawing if p.pid not in ids})


def _clock_event_reasons(nvml: Any, handle: Any) -> int | None:
    reasons = ask(nvml, lambda: nvml.nvmlDeviceGetCurrentClocksEventReasons(handle))
    if reasons is None:  # its name in older drivers
        reasons = ask(nvml, lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))
    return reasons


def _watts(power_mw: int | None) -> float | None:
    return None if power_mw is None else power_mw / 1e3


class Users(NamedTuple):
    """Our own processes that compute on a GPU, and all of others."""

    own: frozenset[int]
    others: Tenants


def users_of(shown: Shown | None, table: Processes | None) -> Users | None:
    """Part the processes on a GPU into ours and others'; None where the driver hides them.

    In a container it may show ids of the host's own numbering, which mean nothing in here.
    """
    if shown is None or table is None or not shown.computing <= table.everyone:
        return None
    drawing = shown.drawing.keys() & table.everyone - table.own
    others = Tenants(tuple(sorted(shown.computing - table.own)), tuple(sorted(drawing)))
    return Users(shown.computing & table.own, others)


def _users_at(state: GpuState, table: Processes | None) -> Users | None:
    """Part the processes at an edge; None also where none is shown although somebody holds memory.

    That is what a container may show.
    """
    users = users_of(state.processes, table)
    if users is None or state.processes.computing:
        return users
    held_bytes = (state.memory_used_bytes or 0) - (_drawing_bytes(state, users) or 0)
    return None if held_bytes > USED_MEMORY_BYTES else users


def _drawing_bytes(state: GpuState, users: Users | None) -> int | None:
    """Return the memory of others' processes that only draw, such as a display server."""
    if users is None or state.processes is None:
        return None
    return sum(state.processes.drawing[pid] for pid in users.others.drawing)
