"""A stand-in for the module ``pynvml``: GPUs with a known power, under the real sensor.

Counters follow a clock, so a test knows every joule: ``E(t) = base + P * t``, shown only at the
ticks of the counter. An NVML call is made to fail by putting its name and an error into ``errors``;
a field value by leaving it out of ``fields``.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

VIOLATIONS = (74, 75, 76, 77, 79, 269, 270, 271)


class FakeClock:
    """A monotonic clock that moves only when told to."""

    def __init__(self, now_s: float = 0.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s

    def advance(self, duration_s: float) -> None:
        self.now_s += duration_s

    sleep = advance


@dataclass
class FakeBoard:
    """One GPU; ``errors`` maps NVML function names to the message that they fail with.

    It is its own handle, and cannot be hashed, as NVML's pointers cannot.
    """

    uuid: str
    power_w: float = 100.0
    tick_s: float = 0.0
    base_mj: int = 1_000_000
    pci_bus_id: str = "00000000:01:00.0"
    name: str = "Fake GPU"
    mig_instances: tuple[str, ...] | None = None
    errors: dict[str, str] = field(default_factory=dict)
    virtual: bool = False
    c2c: bool | None = None  # None: no such question, as before Grace Hopper
    temperature_c: int = 41
    power_limit_mw: int = 300_000
    memory_used_bytes: int = 2**20
    processes: tuple[int, ...] = ()
    mps_clients: tuple[int, ...] = ()
    graphics: dict[int, int | None] = field(default_factory=dict)  # bytes by process id
    # By field id, in ns. The driver offers these fields and no others, 83 apart.
    violations_ns: dict[int, int] = field(default_factory=lambda: dict.fromkeys(VIOLATIONS, 0))
    stamped: bool = True

    def seen_s(self, now_s: float) -> float:
        """Return the time of the last tick."""
        return math.floor(now_s / self.tick_s) * self.tick_s if self.tick_s else now_s

    def energy_mj(self, now_s: float) -> int:
        """Return the counter as it stands at ``now_s``: that of the last tick."""
        return self.base_mj + round(self.power_w * self.seen_s(now_s) * 1e3)


def make_nvml(
    boards: Sequence[FakeBoard], clock: Callable[[], float], init_error: str | None = None
) -> types.ModuleType:
    """Build the module; put it into ``sys.modules["pynvml"]`` to use it.

    ``module.calls`` lists the names of the functions called, in order.
    """
    module: Any = types.ModuleType("pynvml")
    module.calls = []
    module.NVML_TEMPERATURE_GPU, module.NVML_CLOCK_SM, module.NVML_CLOCK_MEM = 0, 1, 2
    module.nvmlMemory_v2 = 0x02000028

    class NVMLError(Exception):
        """As in pynvml, the base of all its errors."""

    module.NVMLError = NVMLError

    def offer(function: Callable[..., Any]) -> None:
        name = function.__name__

        def call(*arguments: Any) -> Any:
            module.calls.append(name)
            board = arguments[0] if arguments else None
            if isinstance(board, FakeBoard) and name in board.errors:
                raise NVMLError(board.errors[name])
            return function(*arguments)

        setattr(module, name, call)

    def nvmlInit() -> None:
        if init_error:
            raise NVMLError(init_error)

    def nvmlShutdown() -> None:
        pass

    def nvmlSystemGetDriverVersion() -> str:
        return "590.48.01"

    def nvmlDeviceGetCount() -> int:
        return len(boards)

    def nvmlDeviceGetHandleByIndex(index: int) -> FakeBoard:
        return boards[index]

    def nvmlDeviceGetHandleByUUID(uuid: str) -> Any:
        for board in boards:
            if uuid == board.uuid:
                return board
            if uuid in (board.mig_instances or ()):
                return ("instance", board)
        raise NVMLError("Not Found")

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle: Any) -> FakeBoard:
        if isinstance(handle, FakeBoard):
            raise NVMLError("Invalid Argument")
        return handle[1]

    def nvmlDeviceGetMigMode(board: FakeBoard) -> list[int]:
        if board.mig_instances is None:
            raise NVMLError("Not Supported")
        return [1, 1]

    def nvmlDeviceGetUUID(board: FakeBoard) -> str:
        return board.uuid

    def nvmlDeviceGetName(board: FakeBoard) -> str:
        return board.name

    def nvmlDeviceGetPciInfo(board: FakeBoard) -> types.SimpleNamespace:
        return types.SimpleNamespace(busId=board.pci_bus_id)

    def nvmlDeviceGetVbiosVersion(board: FakeBoard) -> str:
        return "96.00.74.00.01"

    def nvmlDeviceGetEnforcedPowerLimit(board: FakeBoard) -> int:
        return board.power_limit_mw

    def nvmlDeviceGetPowerManagementDefaultLimit(board: FakeBoard) -> int:
        return 350_000

    def nvmlDeviceGetPersistenceMode(board: FakeBoard) -> int:
        return 1

    def nvmlDeviceGetEccMode(board: FakeBoard) -> list[int]:
        return [0, 0]

    def nvmlDeviceGetTemperature(board: FakeBoard, sensor: int) -> int:
        return board.temperature_c

    def nvmlDeviceGetClockInfo(board: FakeBoard, clock_type: int) -> int:
        return {1: 1980, 2: 2619}[clock_type]

    def nvmlDeviceGetTotalEnergyConsumption(board: FakeBoard) -> int:
        return board.energy_mj(clock())

    def nvmlDeviceGetFieldValues(board: FakeBoard, ids: Sequence[int]) -> list[Any]:
        return [field_value(board, field_id) for field_id in ids]

    def field_value(board: FakeBoard, field_id: int) -> types.SimpleNamespace:
        values = {83: board.energy_mj(clock()), **board.violations_ns}
        return types.SimpleNamespace(
            fieldId=field_id,
            timestamp=round(board.seen_s(clock()) * 1e6) if board.stamped else 0,
            valueType=3,  # unsigned long long
            nvmlReturn=0 if field_id in values else 3,  # NVML_ERROR_NOT_SUPPORTED
            value=types.SimpleNamespace(ullVal=values.get(field_id, 0)),
        )

    def nvmlDeviceGetViolationStatus(board: FakeBoard, policy: int) -> types.SimpleNamespace:
        return types.SimpleNamespace(violationTime=round(1e9 * policy * clock()))

    def nvmlDeviceGetMemoryInfo(board: FakeBoard, version: int = 0) -> types.SimpleNamespace:
        reserved = 0 if version == module.nvmlMemory_v2 else 500 * 2**20
        return types.SimpleNamespace(used=board.memory_used_bytes + reserved)

    def nvmlDeviceGetComputeRunningProcesses(board: FakeBoard) -> list[types.SimpleNamespace]:
        return [types.SimpleNamespace(pid=pid, usedGpuMemory=2**30) for pid in board.processes]

    def nvmlDeviceGetMPSComputeRunningProcesses(board: FakeBoard) -> list[types.SimpleNamespace]:
        return [types.SimpleNamespace(pid=pid, usedGpuMemory=None) for pid in board.mps_clients]

    def nvmlDeviceGetGraphicsRunningProcesses(board: FakeBoard) -> list[types.SimpleNamespace]:
        return [types.SimpleNamespace(pid=p, usedGpuMemory=b) for p, b in board.graphics.items()]

    def nvmlDeviceGetUtilizationRates(board: FakeBoard) -> types.SimpleNamespace:
        return types.SimpleNamespace(gpu=17, memory=5)

    def nvmlDeviceGetPowerUsage(board: FakeBoard) -> int:
        return round(board.power_w * 1e3)

    def nvmlDeviceGetCurrentClocksEventReasons(board: FakeBoard) -> int:
        return 0x4

    def nvmlDeviceGetCurrentClocksThrottleReasons(board: FakeBoard) -> int:
        return 0x20

    def nvmlDeviceGetC2cModeInfoV(board: FakeBoard) -> types.SimpleNamespace:
        if board.c2c is None:
            raise NVMLError("Not Supported")
        return types.SimpleNamespace(isC2cEnabled=int(board.c2c))

    def nvmlDeviceGetVirtualizationMode(board: FakeBoard) -> int:
        return 2 if board.virtual else 0

    for name, value in list(locals().items()):
        if name.startswith("nvml"):
            offer(value)
    return module
