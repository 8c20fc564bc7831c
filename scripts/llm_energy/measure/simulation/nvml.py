"""A module that shows simulated GPUs as ``pynvml`` shows real ones."""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from llm_energy.measure.simulation.gpus import POWER_SPAN_S, Board

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


def make_nvml(boards: Sequence[Board], clock: Callable[[], float], own_pid: int) -> Any:
    """Build a module with the functions of ``pynvml`` that a meter may call.

    ``module.init_error`` is the code that ``nvmlInit`` ends in, None where there is a driver. The
    fields are those of the energy counter (83), of power (185, 186) and of violation times.
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

    def fields(board: Board, wanted: Sequence[int | tuple[int, int]]) -> list[SimpleNamespace]:
        return [one_field(board, *(f if isinstance(f, tuple) else (f, 0))) for f in wanted]

    def one_field(board: Board, field: int, scope: int) -> SimpleNamespace:
        value: int | None = None
        if field == 83:
            value = board.counter_mj()
        elif field in (185, 186) and scope == 0:
            value = round(board.power_w(clock(), 1.0 if field == 185 else POWER_SPAN_S) * 1e3)
        elif field in VIOLATION_FIELDS:
            value = round(1e9 * sum(board.throttled_s(c) for c in VIOLATION_FIELDS[field]))
        return SimpleNamespace(
            fieldId=field,
            scopeId=scope,
            timestamp=round(clock() * 1e6),
            latencyUsec=0,
            valueType=3,
            nvmlReturn=0 if value is not None else NOT_SUPPORTED,
            value=SimpleNamespace(ullVal=value or 0, uiVal=value or 0, ulVal=value or 0),
        )

    def by_uuid(uuid: str) -> Board:
        for board in boards:
            if board.uuid == uuid:
                return board
        raise NVMLError(6)

    def by_index(index: int) -> Board:
        if not 0 <= index < len(boards):
            raise NVMLError(2)
        return boards[index]

    def not_supported(*arguments: Any) -> Any:
        raise NVMLError(NOT_SUPPORTED)

    def init() -> None:
        if module.init_error is not None:
            raise NVMLError(module.init_error)

    def processes(board: Board) -> list[SimpleNamespace]:
        if not board.truth.shows_processes:
            return []
        used = {own_pid: board.own_bytes} if board.own_bytes else {}
        used |= {pid: held for pid, (_, held) in board.tenants.items()}
        return [SimpleNamespace(pid=pid, usedGpuMemory=held) for pid, held in used.items()]

    def memory(board: Board, version: Any = None) -> SimpleNamespace:
        total, used = board.truth.memory_bytes, board.memory_used_bytes()
        return SimpleNamespace(total=total, used=used, free=total - used)

    def violation(board: Board, policy: int) -> SimpleNamespace:
        causes = VIOLATION_FIELDS.get(74 + policy)
        if causes is None:
            raise NVMLError(NOT_SUPPORTED)
        held_s = sum(board.throttled_s(cause) for cause in causes)
        now_us = round(clock() * 1e6)
        return SimpleNamespace(referenceTime=now_us, violationTime=round(held_s * 1e9))

    def state(board: Board) -> Any:
        return board.history.state(clock())

    def clock_info(board: Board, kind: int) -> int:
        return board.truth.memory_clock_mhz if kind == 2 else state(board)[1]

    def milliwatts(watts: Callable[[Board], float]) -> Callable[[Board], int]:
        return lambda board: round(watts(board) * 1e3)

    def utilization(board: Board) -> SimpleNamespace:
        return SimpleNamespace(gpu=state(board)[2], memory=state(board)[2] // 2)

    module.__dict__.update(
        nvmlInit=init,
        nvmlShutdown=lambda: None,
        nvmlSystemGetDriverVersion=lambda: DRIVER_VERSION,
        nvmlDeviceGetCount=lambda: len(boards),
        nvmlDeviceGetHandleByIndex=by_index,
        nvmlDeviceGetHandleByUUID=by_uuid,
        nvmlDeviceGetDeviceHandleFromMigDeviceHandle=not_supported,
    )
    of_a_board = {
        "nvmlDeviceGetUUID": lambda board: board.uuid,
        "nvmlDeviceGetName": lambda board: board.truth.name,
        "nvmlDeviceGetPciInfo": lambda board: SimpleNamespace(busId=board.pci_bus_id),
        "nvmlDeviceGetVbiosVersion": lambda board: "simulated",
        "nvmlDeviceGetMigMode": lambda board: [int(board.truth.mig)] * 2,
        "nvmlDeviceGetPersistenceMode": lambda board: int(board.truth.persistence),
        "nvmlDeviceGetEccMode": lambda board: [int(board.truth.ecc)] * 2,
        "nvmlDeviceGetTemperature": lambda board, sensor: round(
            board.history.temperature_c(clock())
        ),
        "nvmlDeviceGetClockInfo": clock_info,
        "nvmlDeviceGetEnforcedPowerLimit": milliwatts(lambda board: board.limit_w),
        "nvmlDeviceGetPowerManagementDefaultLimit": milliwatts(
            lambda board: board.truth.default_limit_w
        ),
        "nvmlDeviceGetPowerUsage": milliwatts(lambda board: board.power_w(clock(), 1.0)),
        "nvmlDeviceGetTotalEnergyConsumption": lambda board: board.counter_mj(),
        "nvmlDeviceGetFieldValues": fields,
        "nvmlDeviceGetViolationStatus": violation,
        "nvmlDeviceGetCurrentClocksEventReasons": lambda board: state(board)[0],
        "nvmlDeviceGetCurrentClocksThrottleReasons": lambda board: state(board)[0],
        "nvmlDeviceGetUtilizationRates": utilization,
        "nvmlDeviceGetMemoryInfo": memory,
        "nvmlDeviceGetComputeRunningProcesses": processes,
        "nvmlDeviceGetMPSComputeRunningProcesses": lambda board: [],
        "nvmlDeviceGetGraphicsRunningProcesses": lambda board: [],
        "nvmlDeviceGetVirtualizationMode": lambda board: 0,
        "nvmlDeviceGetC2cModeInfoV": lambda board: SimpleNamespace(isC2cEnabled=board.truth.c2c),
    }

    def offer(name: str, function: Callable[..., Any]) -> None:
        def call(board: Board, *arguments: Any) -> Any:
            if name in board.errors:
                raise NVMLError(board.errors[name])
            return function(board, *arguments)

        setattr(module, name, call)

    for name, function in of_a_board.items():
        offer(name, function)
    return module
