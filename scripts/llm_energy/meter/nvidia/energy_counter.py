"""Sense the energy and the state of a fixed set of NVIDIA GPUs.

The counter is NVML's ``nvmlDeviceGetTotalEnergyConsumption``: mJ since the driver was loaded, Volta
and later (https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceQueries.html). It is read at the
edges of an interval and at marks only: reading it often has been seen to disturb it
(https://github.com/ml-energy/zeus/issues/181). Its own time stamp, field 83 of NVML, is not read:
on an H200 it is the time of the reading, not of the tick (docs/measurements/README.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from llm_energy.core.units import joules_from_millijoules
from llm_energy.meter.host.processes import Processes
from llm_energy.meter.host.snapshot import GpuGlance, Look
from llm_energy.meter.nvidia import state
from llm_energy.meter.nvidia.state import GpuState
from llm_energy.meter.sensors import Count, Counter, timed, unavailable
from llm_energy.records import ComponentEnergy, GpuActivity
from llm_energy.records.window import WHOLE_MODULE

METHOD = "nvml_total_energy_counter"

Shared = Literal["mig", "vgpu"]
SHARED_METHODS = {"mig": "_whole_board_mig", "vgpu": "_whole_board_vgpu"}
SHARED_REASONS = {
    "mig": "MIG is on: NVML counts the whole board, so other instances on it are in the energy too",
    "vgpu": "the GPU is virtual, a share of a real one, and NVML counts no share on its own",
}

# zeus found this on a GH200 (https://github.com/ml-energy/zeus/pull/172).
MODULE_REASON = (
    "the GPU is joined to its CPU by NVLink-C2C, where NVML counts the whole module: the CPU and "
    "its memory are in the energy too"
)


# Known by identity: NVML's handle is a pointer, which can be neither compared nor hashed.
@dataclass(frozen=True, eq=False)
class Gpu:
    """One GPU; ``shared`` says in what way it may be one of several on the same silicon.

    ``whole_module`` says that its counter is that of a superchip, of which it is a part.
    """

    index: int
    uuid: str
    pci_bus_id: str
    mig: bool | None
    shared: Shared | None
    whole_module: bool
    handle: Any


Reading = dict[Gpu, Count]  # in mJ
States = dict[Gpu, GpuState]


class NvmlSensor:
    """Read these GPUs; without one, say why by ``reason``.

    The GPUs never change, so that what is metered stays the same from one edge to the other.
    """

    def __init__(self, nvml: Any, in_use: Sequence[Gpu], reason: str, clock: Callable[[], float]):
        self._clock = clock
        self._nvml = nvml
        self._gpus = tuple(in_use)
        self._reason = reason

    @property
    def devices(self) -> tuple[str, ...]:
        """Return the UUIDs of the GPUs."""
        return tuple(gpu.uuid for gpu in self._gpus)

    def read(self) -> Reading:
        """Read the energy counter of every GPU (one NVML call each)."""
        return {gpu: timed(self._clock, lambda gpu=gpu: self._read(gpu)) for gpu in self._gpus}

    def energy(
        self, first: Reading, last: Reading, duration_s: float
    ) -> tuple[ComponentEnergy, ...]:
        """Return one component a GPU, in J; or one that says why there is none."""
        if not self._gpus:
            return (unavailable("gpu", self._reason),)
        return tuple(_difference(gpu, first[gpu].value, last[gpu].value) for gpu in self._gpus)

    def counts(self, readings: Sequence[Reading]) -> Iterator[tuple[Counter, Sequence[Count]]]:
        """Yield the counter of every GPU with its counts, one a reading."""
        for gpu in self._gpus:
            yield Counter("gpu", gpu.uuid, "mJ"), [reading[gpu] for reading in readings]

    def read_states(self) -> States:
        """Read the state of every GPU, outside what is metered."""
        return {gpu: state.read_state(self._nvml, gpu.handle) for gpu in self._gpus}

    def activity(
        self,
        first: States,
        last: States,
        tables: tuple[Processes | None, Processes | None],
        looks: Sequence[Look],
    ) -> tuple[GpuActivity, ...]:
        """Say what each GPU went through between two readings of its state."""
        return tuple(
            state.activity(
                b.uuid,
                (first[b], last[b]),
                tables,
                [look.tenants[b.uuid] for look in looks if b.uuid in look.tenants],
            )
            for b in self._gpus
        )

    def glance(self, table: Processes | None) -> tuple[GpuGlance, ...]:
        """Look at every GPU once."""
        return tuple(state.glance(self._nvml, b.uuid, b.handle, b.mig, table) for b in self._gpus)

    def counters(self) -> dict[str, Callable[[], int | None]]:
        """Return, by GPU, how to read its counter."""
        return {b.uuid: lambda b=b: self._read_for_tick(b) for b in self._gpus}

    def _read(self, gpu: Gpu) -> int | str:
        """Return the counter in mJ, or the reason why it cannot be read."""
        try:
            return self._nvml.nvmlDeviceGetTotalEnergyConsumption(gpu.handle)
        except self._nvml.NVMLError as error:
            reason = f"NVML's energy counter: {error}"
            return f"{reason}; {SHARED_REASONS['vgpu']}" if gpu.shared == "vgpu" else reason

    def _read_for_tick(self, gpu: Gpu) -> int | None:
        energy_mj = self._read(gpu)
        return None if isinstance(energy_mj, str) else energy_mj


def _difference(gpu: Gpu, first: int | str, last: int | str) -> ComponentEnergy:
    for reading in (first, last):
        if isinstance(reading, str):
            return unavailable("gpu", reading, gpu.uuid)
    if last < first:
        reason = (
            f"NVML's energy counter went backwards, from {first} to {last} mJ; "
            "the driver was reloaded or the GPU reset during the interval"
        )
        return unavailable("gpu", reason, gpu.uuid)
    energy_j = joules_from_millijoules(last - first)
    module = (WHOLE_MODULE, MODULE_REASON) if gpu.whole_module else ("", None)
    method = METHOD + module[0] + SHARED_METHODS.get(gpu.shared, "")
    reasons = [reason for reason in (module[1], SHARED_REASONS.get(gpu.shared)) if reason]
    reason = "; ".join(reasons) or None
    return ComponentEnergy("gpu", gpu.uuid, "measured", method, energy_j, reason)
