"""A module that shows simulated GPUs as ``pynvml`` shows real ones."""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from llm_energy.measure.simulation.gpus import POWER_SPAN_S, Gpu

DRIVER_VERSION = "simulated-1"

# NVML's field ids of the time for which a cause held the clocks down, in ns.
VIOLATION_FIELDS = {
    74: ("power",),
    75: ("sw_thermal", "hw_thermal"),
    76: ("sync_boost",),
    77: ("board_limit",),
    78: (),
    79: ("reliability",),
    269: ("sw_thermal",),
    270: ("hw_thermal",),
    271: ("power_brake",),
}
NOT_SUPPORTED = 3
ERRORS = {
    1: "Uninitialized",
    2: "Invalid Argument",
    NOT_SUPPORTED: "Not Supported",
    4: "Insufficient Permissions",
    6: "Not Found",
    9: "Driver Not Loaded",
    15: "GPU is lost",
    999: "Unknown Error",
}


def make_nvml(gpus: Sequence[Gpu], clock: Callable[[], float], own_pid: int) -> Any:
    """Build a module with the functions of ``pynvml`` that a meter may call.

    ``module.init_error`` is the code that ``nvmlInit`` ends in, None where there is a driver. The
    fields are those of power (185, 186) and of violation times.
    """
    module: Any = types.ModuleType("pynvml")
    module.init_error = None
    module.NVML_SUCCESS, module.nvmlMemory_v2, module.NVML_TEMPERATURE_GPU = 0, 2, 0
    module.NVML_CLOCK_SM, module.NVML_CLOCK_MEM = 1, 2

    class NVMLError(Exception):
        """As in pynvml: the base of all its errors, with a code."""

        def __init__(self, value: int):
            super().__init__(value)
            self.value = value

        def __str__(self) -> str:
            return ERRORS.get(self.value, "Unknown Error")

    module.NVMLError = NVMLError

    def fields(gpu: Gpu, wanted: Sequence[int | tuple[int, int]]) -> list[SimpleNamespace]:
        return [one_field(gpu, *(f if isinstance(f, tuple) else (f, 0))) for f in wanted]

    def one_field(gpu: Gpu, field: int, scope: int) -> SimpleNamespace:
        value: int | None = None
        if field in (185, 186) and scope == 0:
            value = round(gpu.power_w(clock(), 1.0 if field == 185 else POWER_SPAN_S) * 1e3)
        elif field in VIOLATION_FIELDS:
            value = round(1e9 * sum(gpu.throttled_s(c) for c in VIOLATION_FIELDS[field]))
        return SimpleNamespace(
            fieldId=field,
            scopeId=scope,
            timestamp=round(clock() * 1e6),
            latencyUsec=0,
            valueType=3,
            nvmlReturn=0 if value is not None else NOT_SUPPORTED,
            value=SimpleNamespace(ullVal=value or 0, uiVal=value or 0, ulVal=value or 0),
        )

    def by_uuid(uuid: str) -> Gpu:
        for gpu in gpus:
            if gpu.uuid == uuid:
                return gpu
        raise NVMLError(6)

    def by_index(index: int) -> Gpu:
        if not 0 <= index < len(gpus):
            raise NVMLError(2)
        return gpus[index]

    def not_supported(*arguments: Any) -> Any:
        raise NVMLError(NOT_SUPPORTED)

    def init() -> None:
        if module.init_error is not None:
            raise NVMLError(module.init_error)

    def processes(gpu: Gpu) -> list[SimpleNamespace]:
        if not gpu.truth.shows_processes:
            return []
        used = {own_pid: gpu.own_bytes} if gpu.own_bytes else {}
        used |= {pid: held for pid, (_, held) in gpu.tenants.items()}
        return [SimpleNamespace(pid=pid, usedGpuMemory=held) for pid, held in used.items()]

    def memory(gpu: Gpu, version: Any = None) -> SimpleNamespace:
        total, used = gpu.truth.memory_bytes, gpu.memory_used_bytes()
        return SimpleNamespace(total=total, used=used, free=total - used)

    def violation(gpu: Gpu, policy: int) -> SimpleNamespace:
        causes = VIOLATION_FIELDS.get(74 + policy)
        if causes is None:
            raise NVMLError(NOT_SUPPORTED)
        held_s = sum(gpu.throttled_s(cause) for cause in causes)
        now_us = round(clock() * 1e6)
        return SimpleNamespace(referenceTime=now_us, violationTime=round(held_s * 1e9))

    def state(gpu: Gpu) -> Any:
        return gpu.history.state(clock())

    def clock_info(gpu: Gpu, kind: int) -> int:
        return gpu.truth.memory_clock_mhz if kind == 2 else state(gpu)[1]

    def milliwatts(watts: Callable[[Gpu], float]) -> Callable[[Gpu], int]:
        return lambda gpu: round(watts(gpu) * 1e3)

    def utilization(gpu: Gpu) -> SimpleNamespace:
        return SimpleNamespace(gpu=state(gpu)[2], memory=state(gpu)[2] // 2)

    module.__dict__.update(
        nvmlInit=init,
        nvmlShutdown=lambda: None,
        nvmlSystemGetDriverVersion=lambda: DRIVER_VERSION,
        nvmlDeviceGetCount=lambda: len(gpus),
        nvmlDeviceGetHandleByIndex=by_index,
        nvmlDeviceGetHandleByUUID=by_uuid,
        nvmlDeviceGetDeviceHandleFromMigDeviceHandle=not_supported,
    )
    of_a_gpu = {
        "nvmlDeviceGetUUID": lambda gpu: gpu.uuid,
        "nvmlDeviceGetName": lambda gpu: gpu.truth.name,
        "nvmlDeviceGetPciInfo": lambda gpu: SimpleNamespace(busId=gpu.pci_bus_id),
        "nvmlDeviceGetVbiosVersion": lambda gpu: "simulated",
        "nvmlDeviceGetMigMode": lambda gpu: [int(gpu.truth.mig)] * 2,
        "nvmlDeviceGetPersistenceMode": lambda gpu: int(gpu.truth.persistence),
        "nvmlDeviceGetEccMode": lambda gpu: [int(gpu.truth.ecc)] * 2,
        "nvmlDeviceGetTemperature": lambda gpu, sensor: round(gpu.history.temperature_c(clock())),
        "nvmlDeviceGetClockInfo": clock_info,
        "nvmlDeviceGetEnforcedPowerLimit": milliwatts(lambda gpu: gpu.limit_w),
        "nvmlDeviceGetPowerManagementDefaultLimit": milliwatts(
            lambda gpu: gpu.truth.default_limit_w
        ),
        "nvmlDeviceGetPowerUsage": milliwatts(lambda gpu: gpu.power_w(clock(), 1.0)),
        "nvmlDeviceGetTotalEnergyConsumption": lambda gpu: gpu.counter_mj(),
        "nvmlDeviceGetFieldValues": fields,
        "nvmlDeviceGetViolationStatus": violation,
        "nvmlDeviceGetCurrentClocksEventReasons": lambda gpu: state(gpu)[0],
        "nvmlDeviceGetCurrentClocksThrottleReasons": lambda gpu: state(gpu)[0],
        "nvmlDeviceGetUtilizationRates": utilization,
        "nvmlDeviceGetMemoryInfo": memory,
        "nvmlDeviceGetComputeRunningProcesses": processes,
        "nvmlDeviceGetMPSComputeRunningProcesses": lambda gpu: [],
        "nvmlDeviceGetGraphicsRunningProcesses": lambda gpu: [],
        "nvmlDeviceGetVirtualizationMode": lambda gpu: 0,
        "nvmlDeviceGetC2cModeInfoV": lambda gpu: SimpleNamespace(isC2cEnabled=gpu.truth.c2c),
    }

    def offer(name: str, function: Callable[..., Any]) -> None:
        def call(gpu: Gpu, *arguments: Any) -> Any:
            if name in gpu.errors:
                raise NVMLError(gpu.errors[name])
            return function(gpu, *arguments)

        setattr(module, name, call)

    for name, function in of_a_gpu.items():
        offer(name, function)
    return module
