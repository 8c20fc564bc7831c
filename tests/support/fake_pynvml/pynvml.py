"""A stand-in for ``pynvml`` for a process of its own: two GPUs with constant power.

Put its folder on PYTHONPATH.
"""

from __future__ import annotations

from types import SimpleNamespace

NVML_SUCCESS = 0
NVML_TEMPERATURE_GPU, NVML_CLOCK_SM, NVML_CLOCK_MEM = 0, 1, 2
POWER_MW = {"GPU-a": 300_000, "GPU-b": 75_500}


class NVMLError(Exception):
    """As in pynvml, the base of all its errors."""


def nvmlInit():
    pass


def nvmlShutdown():
    pass


def nvmlDeviceGetHandleByUUID(uuid):
    if uuid not in POWER_MW:
        raise NVMLError("Not Found")
    return uuid


def nvmlDeviceGetFieldValues(handle, fields):
    assert fields == [(186, 0)]
    value = SimpleNamespace(uiVal=POWER_MW[handle])
    return [SimpleNamespace(nvmlReturn=NVML_SUCCESS, value=value)]


def nvmlDeviceGetPowerUsage(handle):
    return POWER_MW[handle] + 1_000


def nvmlDeviceGetTemperature(handle, sensor):
    return 41


def nvmlDeviceGetClockInfo(handle, clock_type):
    return {NVML_CLOCK_SM: 1980, NVML_CLOCK_MEM: 2619}[clock_type]


def nvmlDeviceGetUtilizationRates(handle):
    return SimpleNamespace(gpu=97, memory=40)


def nvmlDeviceGetCurrentClocksEventReasons(handle):
    return 4
