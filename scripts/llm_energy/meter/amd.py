"""Sense the energy of AMD boards through the package ``amdsmi``, where it can be imported.

The counter is ``amdsmi_get_energy_count``: an accumulator and its resolution in uJ
(https://rocm.docs.amd.com/projects/amdsmi/en/latest/reference/amdsmi-py-api.html). This has been
tested against a stand-in for the package only, never on an AMD board. State at the edges, the power
trace and process lists are not read here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from llm_energy.errors import LlmEnergyError
from llm_energy.meter.glance import BoardGlance
from llm_energy.meter.processes import Processes
from llm_energy.meter.sensors import unavailable
from llm_energy.meter.tick import CounterReading
from llm_energy.records import BoardActivity, ComponentEnergy
from llm_energy.units import joules_from_microjoules

METHOD = "amdsmi_energy_count"
POWER_KEYS = ("socket_power", "current_socket_power", "average_socket_power")  # by version and part


@dataclass(frozen=True, eq=False)
class _Board:
    """One board; ``names`` are all by which an engine may call it."""

    uuid: str
    names: tuple[str, ...]
    handle: Any


Reading = dict[_Board, float | str]  # uJ, or the reason why the counter could not be read


class AmdBoards:
    """Know the AMD boards of this host, and hold those that are metered.

    ``problem`` says why the package, where it is installed, finds none.
    """

    def __init__(self) -> None:
        self._amdsmi: Any = None
        self._known: tuple[_Board, ...] = ()
        self.problem: str | None = None
        try:
            import amdsmi

            amdsmi.amdsmi_init()
            self._amdsmi = amdsmi
            self._known = tuple(map(self._identify, amdsmi.amdsmi_get_processor_handles()))
        except ModuleNotFoundError:
            pass  # as on every host without such boards
        except Exception as error:  # without its system library the import itself may raise any
            self.problem = f"amdsmi: {type(error).__name__}: {error}"
        self._boards = self._known

    @property
    def found(self) -> bool:
        """Tell whether this host has a board that can be sensed."""
        return bool(self._known)

    def sensor(self) -> AmdSensor:
        """Give the sensor of the boards in use now; restricting later leaves it as it is."""
        return AmdSensor(self._amdsmi, self._boards)

    def restrict(self, device_uuids: Iterable[str]) -> None:
        """Keep only these boards, in sensors that are asked for from now on.

        A board may be named by its UUID, HIP's UUID or its PCI address. Raises LlmEnergyError for
        a name that no board has.
        """
        chosen: list[_Board] = []
        for name in device_uuids:
            board = next((b for b in self._known if name.removeprefix("GPU-") in b.names), None)
            if board is None:
                known = ", ".join(b.uuid for b in self._known)
                raise LlmEnergyError(
                    f"meter: the engine reports GPU {name!r}, which amdsmi does not know; "
                    f"boards on this host: {known}"
                )
            if board not in chosen:
                chosen.append(board)
        self._boards = tuple(chosen)

    def gpus(self) -> tuple[dict[str, Any], ...]:
        """Give the identity of the boards in use."""
        return tuple(self._describe(board) for board in self._boards)

    def close(self) -> None:
        """Release the library."""
        if self._amdsmi is not None:
            self._ask(self._amdsmi.amdsmi_shut_down)
            self._amdsmi, self._known, self._boards = None, (), ()

    def _identify(self, handle: Any) -> _Board:
        smi = self._amdsmi
        uuid = smi.amdsmi_get_gpu_device_uuid(handle)
        others = (
            self._ask(lambda: smi.amdsmi_get_gpu_enumeration_info(handle)["hip_uuid"]),
            self._ask(lambda: smi.amdsmi_get_gpu_device_bdf(handle)),
        )
        names = (str(name).removeprefix("GPU-") for name in (uuid, *others) if name)
        return _Board(uuid, tuple(names), handle)

    def _describe(self, board: _Board) -> dict[str, Any]:
        smi, handle = self._amdsmi, board.handle
        return {
            "uuid": board.uuid,
            "pci_bus_id": self._ask(lambda: smi.amdsmi_get_gpu_device_bdf(handle)),
            "name": self._ask(lambda: smi.amdsmi_get_gpu_asic_info(handle)["market_name"]),
            "driver_version": self._ask(
                lambda: smi.amdsmi_get_gpu_driver_info(handle)["driver_version"]
            ),
        }

    def _ask(self, question: Callable[[], Any]) -> Any:
        try:
            return question()
        except (self._amdsmi.AmdSmiException, AttributeError, KeyError):
            return None


class AmdSensor:
    """Read a fixed set of AMD boards; it has the methods of ``NvmlSensor``."""

    def __init__(self, amdsmi: Any, in_use: Sequence[_Board]):
        self._amdsmi = amdsmi
        self._boards = tuple(in_use)

    @property
    def devices(self) -> tuple[str, ...]:
        """Give no board: the sampler of power knows only NVIDIA's."""
        return ()

    def read(self) -> Reading:
        """Read the energy counter of every board (one call each)."""
        return {board: self._read(board) for board in self._boards}

    def energy(
        self, first: Reading, last: Reading, duration_s: float
    ) -> tuple[ComponentEnergy, ...]:
        """Give one component a board, in J."""
        if not self._boards:
            return (unavailable("gpu", "the engine uses no GPU"),)
        return tuple(_difference(board, first[board], last[board]) for board in self._boards)

    def read_states(self) -> None:
        """Read nothing: a board's state is not read here."""

    def activity(
        self, first: None, last: None, tables: tuple[Processes | None, Processes | None]
    ) -> tuple[BoardActivity, ...]:
        """Give nothing, as ``read_states`` reads nothing."""
        return ()

    def glance(self, table: Processes | None) -> tuple[BoardGlance, ...]:
        """Look at the power of every board once."""
        return tuple(BoardGlance(b.uuid, power_w=self._power_w(b)) for b in self._boards)

    def counters(self) -> dict[str, Callable[[], CounterReading | None]]:
        """Give, by board, how to read its counter."""
        return {b.uuid: lambda b=b: self._read_for_tick(b) for b in self._boards}

    def _read(self, board: _Board) -> float | str:
        """Give the counter in uJ, or the reason why it cannot be read."""
        try:
            found = self._amdsmi.amdsmi_get_energy_count(board.handle)
        except self._amdsmi.AmdSmiException as error:
            return f"amdsmi's energy counter: {error}"
        # Called power before ROCm 6.
        accumulated = found.get("energy_accumulator", found.get("power"))
        if accumulated is None:
            return f"amdsmi's energy counter: no accumulator in {sorted(found)}"
        return accumulated * found["counter_resolution"]

    def _read_for_tick(self, board: _Board) -> CounterReading | None:
        energy_uj = self._read(board)
        return None if isinstance(energy_uj, str) else CounterReading(energy_uj, None)

    def _power_w(self, board: _Board) -> float | None:
        try:
            found = self._amdsmi.amdsmi_get_power_info(board.handle)
        except self._amdsmi.AmdSmiException:
            return None
        # What a part does not have reads as a text.
        return next(
            (float(found[key]) for key in POWER_KEYS if isinstance(found.get(key), int | float)),
            None,
        )


def _difference(board: _Board, first: float | str, last: float | str) -> ComponentEnergy:
    for reading in (first, last):
        if isinstance(reading, str):
            return unavailable("gpu", reading, board.uuid)
    if last < first:
        reason = f"amdsmi's energy counter went backwards, from {first:.0f} to {last:.0f} uJ"
        return unavailable("gpu", reason, board.uuid)
    energy_j = joules_from_microjoules(last - first)
    return ComponentEnergy("gpu", board.uuid, "measured", METHOD, energy_j)
