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
class FakeGpu:
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

    def seen_s(self, now_s: float) -> float:
        """Return the time of the last tick."""
        return math.floor(now_s / self.tick_s) * self.tick_s if self.tick_s else now_s

    def energy_mj(self, now_s: float) -> int:
        """Return the counter as it stands at ``now_s``: that of the last tick."""
        return self.base_mj + round(self.power_w * self.seen_s(now_s) * 1e3)


def make_nvml(
    gpus: Sequence[FakeGpu], clock: Callable[[], float], init_error: str | None = None
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
            gpu = arguments[0] if arguments else None
            if isinstance(gpu, FakeGpu) and name in gpu.errors:
                raise NVMLError(gpu.errors[name])
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
        return len(gpus)

    def nvmlDeviceGetHandleByIndex(index: int) -> FakeGpu:
        return gpus[index]

    def nvmlDeviceGetHandleByUUID(uuid: str) -> Any:
        for gpu in gpus:
            if uuid == gpu.uuid:
                return gpu
            if uuid in (gpu.mig_instances or ()):
                return ("instance", gpu)
        raise NVMLError("Not Found")

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle: Any) -> FakeGpu:
        if isinstance(handle, FakeGpu):
            raise NVMLError("Invalid Argument")
        return handle[1]

    def nvmlDeviceGetMigMode(gpu: FakeGpu) -> list[int]:
        if gpu.mig_instances is None:
            raise NVMLError("Not Supported")
        return [1, 1]

    def nvmlDeviceGetUUID(gpu: FakeGpu) -> str:
        return gpu.uuid

    def nvmlDeviceGetName(gpu: FakeGpu) -> str:
        return gpu.name

    def nvmlDeviceGetPciInfo(gpu: FakeGpu) -> types.SimpleNamespace:
        return types.SimpleNamespace(busId=gpu.pci_bus_id)

    def nvmlDeviceGetVbiosVersion(gpu: FakeGpu) -> str:
        return "96.00.74.00.01"

    def nvmlDeviceGetEnforcedPowerLimit(gpu: FakeGpu) -> int:
        return gpu.power_limit_mw

    def nvmlDeviceGetPowerManagementDefaultLimit(gpu: FakeGpu) -> int:
        return 350_000

    def nvmlDeviceGetPersistenceMode(gpu: FakeGpu) -> int:
        return 1

    def nvmlDeviceGetEccMode(gpu: FakeGpu) -> list[int]:
        return [0, 0]

    def nvmlDeviceGetTemperature(gpu: FakeGpu, sensor: int) -> int:
        return gpu.temperature_c

    def nvmlDeviceGetClockInfo(gpu: FakeGpu, clock_type: int) -> int:
        return {1: 1980, 2: 2619}[clock_type]

    def nvmlDeviceGetTotalEnergyConsumption(gpu: FakeGpu) -> int:
        return gpu.energy_mj(clock())

    def nvmlDeviceGetFieldValues(gpu: FakeGpu, ids: Sequence[int]) -> list[Any]:
        return [field_value(gpu, field_id) for field_id in ids]

    def field_value(gpu: FakeGpu, field_id: int) -> types.SimpleNamespace:
        values = gpu.violations_ns
        return types.SimpleNamespace(
            fieldId=field_id,
            timestamp=round(clock() * 1e6),  # of the reading, as an H200 has it
            valueType=3,  # unsigned long long
            nvmlReturn=0 if field_id in values else 3,  # NVML_ERROR_NOT_SUPPORTED
            value=types.SimpleNamespace(ullVal=values.get(field_id, 0)),
        )

    def nvmlDeviceGetViolationStatus(gpu: FakeGpu, policy: int) -> types.SimpleNamespace:
        return types.SimpleNamespace(violationTime=round(1e9 * policy * clock()))

    def nvmlDeviceGetMemoryInfo(gpu: FakeGpu, version: int = 0) -> types.SimpleNamespace:
        reserved = 0 if version == module.nvmlMemory_v2 else 500 * 2**20
        return types.SimpleNamespace(used=gpu.memory_used_bytes + reserved)

    def nvmlDeviceGetComputeRunningProcesses(gpu: FakeGpu) -> list[types.SimpleNamespace]:
        return [types.SimpleNamespace(pid=pid, usedGpuMemory=2**30) for pid in gpu.processes]

    def nvmlDeviceGetMPSComputeRunningProcesses(gpu: FakeGpu) -> list[types.SimpleNamespace]:
        return [types.SimpleNamespace(pid=pid, usedGpuMemory=None) for pid in gpu.mps_clients]

    def nvmlDeviceGetGraphicsRunningProcesses(gpu: FakeGpu) -> list[types.SimpleNamespace]:
        return [types.SimpleNamespace(pid=p, usedGpuMemory=b) for p, b in gpu.graphics.items()]

    def nvmlDeviceGetUtilizationRates(gpu: FakeGpu) -> types.SimpleNamespace:
        return types.SimpleNamespace(gpu=17, memory=5)

    def nvmlDeviceGetPowerUsage(gpu: FakeGpu) -> int:
        return round(gpu.power_w * 1e3)

    def nvmlDeviceGetCurrentClocksEventReasons(gpu: FakeGpu) -> int:
        return 0x4

    def nvmlDeviceGetCurrentClocksThrottleReasons(gpu: FakeGpu) -> int:
        return 0x20

    def nvmlDeviceGetC2cModeInfoV(gpu: FakeGpu) -> types.SimpleNamespace:
        if gpu.c2c is None:
            raise NVMLError("Not Supported")
        return types.SimpleNamespace(isC2cEnabled=int(gpu.c2c))

    def nvmlDeviceGetVirtualizationMode(gpu: FakeGpu) -> int:
        return 2 if gpu.virtual else 0

    for name, value in list(locals().items()):
        if name.startswith("nvml"):
            offer(value)
    return module
