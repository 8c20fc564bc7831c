"""Read the energy counters of NVIDIA boards, and what identifies the boards.

The counter is NVML's ``nvmlDeviceGetTotalEnergyConsumption``: mJ since the driver was loaded, Volta
and later (https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceQueries.html). It is read at the
edges of an interval only: reading it often has been seen to disturb it.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from llm_energy.errors import LlmEnergyError
from llm_energy.meter.sensors import unavailable
from llm_energy.records import ComponentEnergy
from llm_energy.units import joules_from_millijoules

METHOD = "nvml_total_energy_counter"
MIG_METHOD = "nvml_total_energy_counter_whole_board_mig"
MIG_REASON = (
    "MIG is on: NVML counts the whole board, so other instances on it are in the energy as well"
)


# Known by identity: NVML's handle is a pointer, which can be neither compared nor hashed.
@dataclass(frozen=True, eq=False)
class _Board:
    index: int
    uuid: str
    pci_bus_id: str
    mig: bool
    handle: Any


class NvmlCounters:
    """Sense the energy of NVIDIA boards, each known by its UUID and never by an index.

    Begins with the boards that ``CUDA_VISIBLE_DEVICES`` leaves visible; ``restrict`` then narrows
    to the boards that the engine reports. Without a driver it is there all the same, and says why
    it cannot measure.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ):
        self._nvml: Any = None
        self._known: tuple[_Board, ...] = ()
        self._boards: tuple[_Board, ...] = ()
        self._reason = self._open()  # why there is no board in use, wherever there is none
        if not self._reason:
            self._boards = self._visible(environ)
            self._reason = "CUDA_VISIBLE_DEVICES hides every board"
        self._start: dict[_Board, int | str] = {}
        self._stop: dict[_Board, int | str] = {}

    def start(self) -> None:
        """Read the counter of every board in use (one NVML call each)."""
        self._start = {board: self._read(board) for board in self._boards}

    def stop(self) -> None:
        """Read the counters of the same boards again."""
        self._stop = {board: self._read(board) for board in self._start}

    def energy(self, duration_s: float) -> tuple[ComponentEnergy, ...]:
        """Give one component a board, in J; or one that says why there is none."""
        if not self._start:
            return (unavailable("gpu", self._reason),)
        return tuple(_difference(b, self._start[b], self._stop[b]) for b in self._start)

    def restrict(self, device_uuids: Iterable[str]) -> None:
        """Keep only the boards with these UUIDs, from the next interval on.

        A MIG instance stands for the board it is on. The ``GPU-`` prefix may be missing. Raises
        LlmEnergyError for a UUID that NVML does not know.
        """
        if not self._known:
            return
        boards = []
        for uuid in device_uuids:
            board = self._find(uuid)
            if board is None:
                known = ", ".join(b.uuid for b in self._known)
                raise LlmEnergyError(
                    f"meter: the engine reports GPU {uuid!r}, which NVML does not know; "
                    f"boards on this host: {known}"
                )
            if board not in boards:
                boards.append(board)
        self._boards = tuple(boards)
        self._reason = "the engine uses no GPU"

    def gpus(self) -> tuple[dict[str, Any], ...]:
        """Give the identity and state of the boards in use; what NVML cannot say is None."""
        return tuple(self._describe(board) for board in self._boards)

    def close(self) -> None:
        """Release NVML."""
        if self._nvml is not None:
            self._ask(self._nvml.nvmlShutdown)
            self._nvml, self._known, self._boards = None, (), ()
            self._reason = "the meter is closed"

    def _open(self) -> str:
        """Initialise NVML and list the boards; give the reason if there is none, else ''."""
        try:
            with warnings.catch_warnings():
                # The old distribution named pynvml warns about its own name at import.
                warnings.simplefilter("ignore", FutureWarning)
                import pynvml
        except ImportError:
            return "pynvml is not installed; NVIDIA boards need the package nvidia-ml-py"
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            return f"NVML: {error}"
        self._nvml = pynvml
        found = [self._identify(i) for i in range(self._ask(pynvml.nvmlDeviceGetCount) or 0)]
        # CUDA's PCI_BUS_ID order, which indices in CUDA_VISIBLE_DEVICES may refer to.
        self._known = tuple(sorted((b for b in found if b), key=lambda board: board.pci_bus_id))
        return "" if self._known else "NVML finds no board"

    def _identify(self, index: int) -> _Board | None:
        nvml = self._nvml
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            uuid = _text(nvml.nvmlDeviceGetUUID(handle))
        except nvml.NVMLError:
            return None  # a board that fell off the bus is invisible to CUDA too
        pci_bus_id = self._ask(lambda: _text(nvml.nvmlDeviceGetPciInfo(handle).busId)) or ""
        mig = self._ask(lambda: nvml.nvmlDeviceGetMigMode(handle)[0])
        return _Board(index, uuid, pci_bus_id, bool(mig), handle)

    def _visible(self, environ: Mapping[str, str]) -> tuple[_Board, ...]:
        """Choose boards as CUDA does: the list ends at its first entry that is no device."""
        value = environ.get("CUDA_VISIBLE_DEVICES")
        if value is None:
            return self._known
        chosen: list[_Board] = []
        for entry in (part.strip() for part in value.split(",")):
            if entry.isdigit() and int(entry) < len(self._known):
                if environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
                    # CUDA numbers the fastest board first, an order that NVML cannot tell; the
                    # engine's own report narrows the set later.
                    return self._known
                board = self._known[int(entry)]
            else:
                board = self._find(entry)
            if board is None:
                break
            if board not in chosen:
                chosen.append(board)
        return tuple(chosen)

    def _find(self, uuid: str) -> _Board | None:
        """Find the board of a board's or MIG instance's UUID, or of a unique beginning of it."""
        if uuid.startswith("MIG-GPU-"):  # the old form: MIG-GPU-<board>/<instance>/<instance>
            uuid = uuid.removeprefix("MIG-").partition("/")[0]
        for name in (uuid, f"GPU-{uuid}"):
            found = [board for board in self._known if uuid and board.uuid.startswith(name)]
            if len(found) == 1:
                return found[0]
        nvml = self._nvml
        for name in (uuid, f"MIG-{uuid}"):
            try:
                instance = nvml.nvmlDeviceGetHandleByUUID(name)
                parent = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(instance)
                parent_uuid = _text(nvml.nvmlDeviceGetUUID(parent))
            except nvml.NVMLError:
                continue
            return next((b for b in self._known if b.uuid == parent_uuid), None)
        return None

    def _read(self, board: _Board) -> int | str:
        """Give the counter in mJ, or the reason why it cannot be read."""
        try:
            return self._nvml.nvmlDeviceGetTotalEnergyConsumption(board.handle)
        except self._nvml.NVMLError as error:
            return f"NVML's energy counter: {error}"

    def _ask(self, question: Callable[[], Any]) -> Any:
        try:
            return question()
        except self._nvml.NVMLError:
            return None

    def _describe(self, board: _Board) -> dict[str, Any]:
        nvml, handle, ask = self._nvml, board.handle, self._ask
        limit_mw = ask(lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle))
        default_mw = ask(lambda: nvml.nvmlDeviceGetPowerManagementDefaultLimit(handle))
        return {
            "index": board.index,
            "pci_bus_id": board.pci_bus_id or None,
            "uuid": board.uuid,
            "name": ask(lambda: _text(nvml.nvmlDeviceGetName(handle))),
            "driver_version": ask(lambda: _text(nvml.nvmlSystemGetDriverVersion())),
            "vbios": ask(lambda: _text(nvml.nvmlDeviceGetVbiosVersion(handle))),
            "power_limit_w": None if limit_mw is None else limit_mw / 1e3,
            "default_power_limit_w": None if default_mw is None else default_mw / 1e3,
            "persistence_mode": ask(lambda: bool(nvml.nvmlDeviceGetPersistenceMode(handle))),
            "ecc_mode": ask(lambda: bool(nvml.nvmlDeviceGetEccMode(handle)[0])),
            "mig_mode": ask(lambda: bool(nvml.nvmlDeviceGetMigMode(handle)[0])),
            "temperature_c": ask(
                lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)
            ),
            "sm_clock_mhz": ask(lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
            "mem_clock_mhz": ask(lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM)),
        }


def _difference(board: _Board, start: int | str, stop: int | str) -> ComponentEnergy:
    for reading in (start, stop):
        if isinstance(reading, str):
            return unavailable("gpu", reading, board.uuid)
    if stop < start:
        reason = (
            f"NVML's energy counter went backwards, from {start} to {stop} mJ; "
            "the driver was reloaded or the board reset during the interval"
        )
        return unavailable("gpu", reason, board.uuid)
    energy_j = joules_from_millijoules(stop - start)
    if board.mig:
        return ComponentEnergy("gpu", board.uuid, "measured", MIG_METHOD, energy_j, MIG_REASON)
    return ComponentEnergy("gpu", board.uuid, "measured", METHOD, energy_j)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
