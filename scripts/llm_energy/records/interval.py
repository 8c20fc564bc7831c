"""One metered stretch: its joules, and what GPUs, host and power trace did in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from llm_energy.core.errors import RecordError

WHOLE_MODULE = "_whole_module"
Status = Literal["measured", "estimated", "unavailable"]


@dataclass(frozen=True)
class ComponentEnergy:
    """The energy of one component over one interval, with how it is known.

    ``component`` is ``gpu``, ``cpu`` or ``dram``; ``device`` names the GPU or zone. ``energy_j``
    is None exactly when ``status`` is ``unavailable``, and ``reason`` then says why.
    """

    component: str
    device: str | None
    status: Status
    method: str
    energy_j: float | None
    reason: str | None = None

    RULES: ClassVar[dict[str, Any]] = {
        "if": {"properties": {"status": {"const": "unavailable"}}},
        "then": {
            "required": ["reason"],
            "properties": {
                "energy_j": {"type": "null"},
                "reason": {"type": "string", "minLength": 1},
            },
        },
        "else": {"properties": {"energy_j": {"type": "number"}}},
    }

    def __post_init__(self) -> None:
        if (self.energy_j is None) != (self.status == "unavailable"):
            raise RecordError(
                f"component {self.component}: energy_j is {self.energy_j} though the status is "
                f"{self.status}; exactly an unavailable component has null energy"
            )
        if self.status == "unavailable" and not self.reason:
            raise RecordError(f"component {self.component}: unavailable without a reason")

    @property
    def whole_module(self) -> bool:
        """Return whether a GPU's counter is that of a superchip, with its CPU and their memory."""
        return WHOLE_MODULE in self.method


@dataclass(frozen=True)
class BoardActivity:
    """What one GPU went through over an interval, from readings beside its two edges.

    Others' processes are also looked for every few seconds in between.

    Pairs are (start, end); a reading that failed is None. ``throttled_s`` says, by cause, for how
    many seconds of the interval the driver held the clocks down. ``foreign_processes`` are ids of
    processes that compute on the GPU outside this process's tree, None where the driver does not
    show them, and ``graphics_processes`` those that only draw on it, None in older records too;
    ``own_process_seen`` says whether this process's tree was among those shown.
    """

    device: str
    temperature_c: tuple[float | None, float | None]
    sm_clock_mhz: tuple[int | None, int | None]
    memory_clock_mhz: tuple[int | None, int | None]
    power_limit_w: tuple[float | None, float | None]
    memory_used_bytes: tuple[int | None, int | None]
    throttled_s: dict[str, float]
    foreign_processes: tuple[int, ...] | None
    own_process_seen: bool | None
    graphics_processes: tuple[int, ...] | None = None


@dataclass(frozen=True)
class HostActivity:
    """What the host did over an interval, as differences of the kernel's counters; None if unread.

    ``busy_s`` and ``own_busy_s`` are processor seconds of all processes and of this process's tree,
    ``steal_s`` those that a hypervisor took, ``stalled_s`` the seconds in which some task waited
    for a processor. ``wall_clock_step_s`` is by how much the wall clock moved against the
    monotonic one.
    """

    busy_s: float | None
    own_busy_s: float | None
    steal_s: float | None
    stalled_s: float | None
    pages_swapped_in: int | None
    major_faults: int | None
    disk_read_bytes: int | None
    wall_clock_step_s: float | None


@dataclass(frozen=True)
class TraceSummary:
    """What the power trace says of one device over an interval: a second sensor of its energy.

    ``energy_j`` is the trapezoid integral of the samples over the interval, None with fewer than
    two. ``clock_event_reasons`` is the OR of NVML's bit masks, ``utilization_percent`` the mean.
    """

    device: str
    samples: int
    longest_gap_s: float | None
    energy_j: float | None
    max_power_w: float | None
    max_temperature_c: float | None
    clock_event_reasons: int | None
    utilization_percent: float | None


@dataclass(frozen=True)
class Interval:
    """One metered stretch of a repeat: a baseline, the load, or the inside of a window.

    ``name`` is ``window``, ``load``, ``deep_idle``, ``loaded_idle_before`` or
    ``loaded_idle_after``. ``boards`` and ``trace`` have an entry for each GPU in use.
    """

    name: str
    start_s: float
    end_s: float
    energy: tuple[ComponentEnergy, ...]
    boards: tuple[BoardActivity, ...] = ()
    host: HostActivity | None = None
    trace: tuple[TraceSummary, ...] = ()

    @property
    def duration_s(self) -> float:
        """Return the length of the interval in seconds."""
        return self.end_s - self.start_s
