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
class FakeAmdGpu:
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
    gpus: Sequence[FakeAmdGpu], clock: Callable[[], float], init_error: str | None = None
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

    def energy_count(gpu: FakeAmdGpu) -> dict[str, Any]:
        if gpu.error:
            raise AmdSmiException(gpu.error)
        used = round(gpu.gain * gpu.power_w * clock() * 1e6 / RESOLUTION_UJ)
        return {gpu.accumulator: gpu.base + used, "counter_resolution": RESOLUTION_UJ}

    def enumeration_info(gpu: FakeAmdGpu) -> dict[str, Any]:
        if gpu.hip_uuid is None:
            raise AmdSmiException("not supported")
        return {"hip_uuid": gpu.hip_uuid}

    module.AmdSmiException = AmdSmiException
    module.amdsmi_init = init
    module.amdsmi_shut_down = shut_down
    module.amdsmi_get_processor_handles = lambda: list(gpus)
    module.amdsmi_get_gpu_device_uuid = lambda gpu: gpu.uuid
    module.amdsmi_get_gpu_device_bdf = lambda gpu: gpu.bdf
    module.amdsmi_get_gpu_enumeration_info = enumeration_info
    module.amdsmi_get_gpu_asic_info = lambda gpu: {"market_name": gpu.name}
    module.amdsmi_get_energy_count = energy_count
    module.amdsmi_get_power_info = lambda gpu: {
        "socket_power": "N/A",
        "current_socket_power": gpu.power_w if gpu.shown_power_w is None else gpu.shown_power_w,
        "average_socket_power": 7 if gpu.shown_power_w is None else gpu.shown_power_w,
    }
    return module
