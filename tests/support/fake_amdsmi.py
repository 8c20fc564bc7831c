"""A stand-in for the module ``amdsmi``: GPUs with a known power, under the real sensor."""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

RESOLUTION_UJ = 15.3
BASES = count(10**12, 10**10)  # no two GPUs have used the same


@dataclass
class FakeAmdBoard:
    """One GPU; ``error`` is what its counter fails with, ``gain`` by how much it is wrong.

    GPUs with one ``base`` and power are partitions that show one counter.
    """

    uuid: str
    power_w: float = 100.0
    bdf: str = "0000:03:00.0"
    base: int = field(default_factory=lambda: next(BASES))
    gain: float = 1.0
    name: str = "Fake Instinct"
    shown_power_w: float | str | None = None
    error: str | None = None
    accumulator: str = "energy_accumulator"
    hip_uuid: str | None = None


def make_amdsmi(
    boards: Sequence[FakeAmdBoard], clock: Callable[[], float], init_error: str | None = None
) -> types.ModuleType:
    """Build the module; put it into ``sys.modules["amdsmi"]`` to use it."""
    module: Any = types.ModuleType("amdsmi")
    module.closed = 0

    class AmdSmiException(Exception):
        """As in amdsmi, the base of all its errors."""

    def init() -> None:
        if init_error:
            raise AmdSmiException(init_error)

    def shut_down() -> None:
        module.closed += 1

    def energy_count(board: FakeAmdBoard) -> dict[str, Any]:
        if board.error:
            raise AmdSmiException(board.error)
        used = round(board.gain * board.power_w * clock() * 1e6 / RESOLUTION_UJ)
        return {board.accumulator: board.base + used, "counter_resolution": RESOLUTION_UJ}

    def enumeration_info(board: FakeAmdBoard) -> dict[str, Any]:
        if board.hip_uuid is None:
            raise AmdSmiException("not supported")
        return {"hip_uuid": board.hip_uuid}

    module.AmdSmiException = AmdSmiException
    module.amdsmi_init = init
    module.amdsmi_shut_down = shut_down
    module.amdsmi_get_processor_handles = lambda: list(boards)
    module.amdsmi_get_gpu_device_uuid = lambda board: board.uuid
    module.amdsmi_get_gpu_device_bdf = lambda board: board.bdf
    module.amdsmi_get_gpu_enumeration_info = enumeration_info
    module.amdsmi_get_gpu_asic_info = lambda board: {"market_name": board.name}
    module.amdsmi_get_energy_count = energy_count
    module.amdsmi_get_power_info = lambda board: {
        "socket_power": "N/A",
        "current_socket_power": board.power_w
        if board.shown_power_w is None
        else board.shown_power_w,
        "average_socket_power": 7 if board.shown_power_w is None else board.shown_power_w,
    }
    return module
