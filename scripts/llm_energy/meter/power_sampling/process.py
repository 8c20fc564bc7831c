"""Sample the power of NVIDIA GPUs from a process of its own, at most ten times a second.

A thread would take turns with the measured process for its interpreter lock; a process of its own
takes nothing from it but a little of one core. It reads power, clocks, temperature, utilisation and
clock event reasons, and never the energy counter: reading that often has been seen to disturb it.
Times need no translation between the two processes: on Linux ``time.monotonic`` is CLOCK_MONOTONIC,
one clock for the whole host (clock_gettime(2)).
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

from llm_energy.core.errors import LlmEnergyError
from llm_energy.meter import own_process
from llm_energy.records import TraceSummary, power_trace

MIN_PERIOD_S = 0.1
FLUSH_PERIOD_S = 1.0
START_TIMEOUT_S = 30.0  # the first process to use a driver without persistence mode loads it
ANSWER_TIMEOUT_S = 10.0

# The current power has a field of its own, in mW
# (https://docs.nvidia.com/deploy/nvml-api/group__nvmlFieldValueEnums.html). What the older
# nvmlDeviceGetPowerUsage gives depends on the GPU: a mean over one second from Ampere on, GA100
# excepted, else the current power
# (https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceQueries.html).
POWER_INSTANT_FIELD = 186
GPU_SCOPE = 0
INSTANT_METHOD = "nvml_field_186_power_instant_scope_gpu"
USAGE_METHOD = "nvml_power_usage"

MODULE = "llm_energy.meter.power_sampling.process"
QUIT = b"q"
ASK = b"\n"


class Sampler:
    """Hold the sampling process and its trace.

    No failure of the process is an exception here: ``problem`` then says what happened, and the
    samples end.
    """

    def __init__(self, path: Path, period_s: float, devices: Sequence[str]):
        self._path = path
        self._timeout_s = ANSWER_TIMEOUT_S + 2 * period_s
        self._samples: list[power_trace.Sample] = []
        self._read_bytes = 0
        self._sampled_until_s = -math.inf
        self._problem: str | None = None
        self._process: subprocess.Popen[bytes] | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            power_trace.partial_path(path).unlink(missing_ok=True)
            self._process = own_process.start(
                MODULE,
                (str(path), str(period_s), str(os.getpid()), *devices),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        except OSError as error:
            self._problem = f"the sampler could not be started: {error}"
        else:
            self._await_samples(START_TIMEOUT_S)

    @property
    def problem(self) -> str | None:
        """Say why there are no samples any more; None while all is well."""
        if self._process is not None and self._process.poll() is not None:
            self._end("the sampler ended of its own accord")
        return self._problem

    def summary(self, start_s: float, end_s: float) -> tuple[TraceSummary, ...]:
        """Summarise an interval that has ended, by ``trace.summarise``.

        Call it outside windows: it waits for the first samples after the interval's end.
        """
        if self._process is not None and self._sampled_until_s <= end_s:
            with contextlib.suppress(BrokenPipeError):  # it is dead, and no answer will say so
                self._process.stdin.write(ASK)
            self._await_samples(self._timeout_s)
        self._collect()
        return power_trace.summarise(self._samples, start_s, end_s)

    def stop(self) -> Path | None:
        """End the process, complete the trace, and give its path; None where there is no trace."""
        self._end(None)
        self._collect()
        if power_trace.partial_path(self._path).exists():
            try:
                power_trace.pack(self._path)
            except OSError as error:
                self._problem = f"the power trace could not be written: {error}"
                return None
        return self._path if self._read_bytes else None

    def _await_samples(self, timeout_s: float) -> None:
        """Wait until the process has written one more sample of each GPU."""
        answers = select.poll()  # not select(), which refuses descriptors from 1024 on
        answers.register(self._process.stdout, select.POLLIN)
        answer = self._process.stdout.read(64) if answers.poll(timeout_s * 1e3) else b""
        if answer:
            self._sampled_until_s = float(answer)
        else:
            self._end(f"the sampler gave no sample within {timeout_s:g} s")

    def _collect(self) -> None:
        """Read the whole rows that were written since the last time."""
        try:
            with open(power_trace.partial_path(self._path), "rb") as stream:
                stream.seek(self._read_bytes)
                text = stream.read()
        except OSError:
            return
        text = text[: text.rfind(b"\n") + 1]
        rows = text.decode().splitlines()[0 if self._read_bytes else 2 :]
        self._read_bytes += len(text)
        self._samples += map(power_trace.parse, rows)

    def _end(self, problem: str | None) -> None:
        process, self._process = self._process, None
        if process is not None:
            self._problem = _end_process(process) or problem


def start(path: Path, period_s: float, devices: Sequence[str]) -> Sampler:
    """Sample the GPUs with these UUIDs until ``stop``, or until this process dies.

    Returns after the first samples (a fraction of a second, more where the driver must load). The
    rows go to ``trace.partial_path(path)``. Raises LlmEnergyError for more than ten samples a
    second or no GPU at all; every other trouble is the sampler's ``problem``.
    """
    if not devices:
        raise LlmEnergyError("meter: there is no GPU to sample")
    if not period_s >= MIN_PERIOD_S:
        raise LlmEnergyError(
            f"meter.sampling_period_s: found {period_s:g}, allowed {MIN_PERIOD_S:g} and more, or "
            "null for no power trace; GPUs renew their power about ten times a second"
        )
    return Sampler(path, period_s, devices)


def _end_process(process: subprocess.Popen[bytes]) -> str | None:
    """Make the process end, and say what was wrong with it, if something was."""
    try:
        # Closing its input is not enough: an engine's forked process may hold that open as well.
        _, errors = process.communicate(QUIT, timeout=ANSWER_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        # A call that hangs inside the driver outlives even that.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=1.0)
        return "the sampler hung and was killed"
    if not process.returncode:
        return None
    last = errors.decode(errors="replace").strip().rpartition("\n")[2]
    return f"the sampler ended with status {process.returncode}" + (f": {last}" if last else "")


# from here on: inside the sampling process


class _Gpu:
    """Read one GPU; what cannot be read is None."""

    def __init__(self, nvml: Any, device: str):
        self._nvml = nvml
        self._device = device
        self._handle = nvml.nvmlDeviceGetHandleByUUID(device)
        instant = self._instant_power_w() is not None
        self.method = INSTANT_METHOD if instant else USAGE_METHOD
        self._power_w = self._instant_power_w if instant else self._power_usage_w

    def sample(self) -> power_trace.Sample:
        """Read everything once; the time is that of the power."""
        nvml = self._nvml
        before_s = time.monotonic()
        power_w = self._power_w()
        after_s = time.monotonic()
        rates = self._ask(nvml.nvmlDeviceGetUtilizationRates)
        return power_trace.Sample(
            time_s=(before_s + after_s) / 2,
            device=self._device,
            power_w=power_w,
            temperature_c=self._ask(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU),
            sm_clock_mhz=self._ask(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_SM),
            memory_clock_mhz=self._ask(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_MEM),
            utilization_percent=None if rates is None else rates.gpu,
            clock_event_reasons=self._ask(nvml.nvmlDeviceGetCurrentClocksEventReasons),
        )

    def _instant_power_w(self) -> float | None:
        field = (POWER_INSTANT_FIELD, GPU_SCOPE)
        values = self._ask(self._nvml.nvmlDeviceGetFieldValues, [field])
        if values is None or values[0].nvmlReturn != self._nvml.NVML_SUCCESS:
            return None
        return values[0].value.uiVal / 1e3

    def _power_usage_w(self) -> float | None:
        power_mw = self._ask(self._nvml.nvmlDeviceGetPowerUsage)
        return None if power_mw is None else power_mw / 1e3

    def _ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(self._handle, *arguments)
        except self._nvml.NVMLError:
            return None


def main(argv: Sequence[str]) -> None:
    """Sample until told to quit; the arguments are path, period in s, parent's id and UUIDs."""
    path, period, parent, *devices = argv
    own_process.give_way()
    with warnings.catch_warnings():
        # The old distribution named pynvml warns about its own name at import.
        warnings.simplefilter("ignore", FutureWarning)
        import pynvml
    pynvml.nvmlInit()
    gpus = [_Gpu(pynvml, device) for device in devices]
    methods = {device: gpu.method for device, gpu in zip(devices, gpus, strict=True)}
    with open(power_trace.partial_path(Path(path)), "x", encoding="utf-8") as out:
        out.write(power_trace.header(float(period), methods))
        _sample(out, gpus, float(period), int(parent))
    pynvml.nvmlShutdown()


def _sample(out: TextIO, gpus: Sequence[_Gpu], period_s: float, parent: int) -> None:
    """Write rows, and answer on stdout, once asked, with the time of the first row since then."""
    commands = select.poll()
    commands.register(sys.stdin, select.POLLIN)
    begin_s = flushed_s = time.monotonic()
    slot, asked = 0, True
    # An orphan's input may stay open: a forked process of the engine can hold the other end.
    while os.getppid() == parent:
        samples = [gpu.sample() for gpu in gpus]
        out.writelines(map(power_trace.row, samples))
        now_s = time.monotonic()
        if asked or now_s - flushed_s >= FLUSH_PERIOD_S:
            out.flush()
            flushed_s = now_s
        if asked:
            os.write(sys.stdout.fileno(), f"{samples[0].time_s}\n".encode())
            asked = False
        # Every moment is counted from the begin, so that delays don't add up; missed ones are left
        # out, and not made up for by samples in quick succession.
        slot = max(slot + 1, math.ceil((now_s - begin_s) / period_s))
        while commands.poll(max(0.0, begin_s + slot * period_s - time.monotonic()) * 1e3):
            command = os.read(sys.stdin.fileno(), 64)
            if not command or QUIT in command:
                return
            asked = True


if __name__ == "__main__":
    main(sys.argv[1:])
