"""Study the sensors of one GPU: their times and lags, its idle power when warm, what reading costs.

    python tests/gpu/sensor_study.py sensors
    tar czf sensors.tar.gz sensors

Each stage leaves one JSON file in the folder as soon as it has ended; ``sensor_findings.py`` says
what they show. Takes four minutes, on a GPU that nobody else uses. Needs PyTorch; Zeus and
CodeCarbon are held against the counter where they are installed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import pynvml

ENERGY, AVERAGE, INSTANT, MEMORY_TEMPERATURE = 83, 185, 186, 82  # NVML's field ids
HELD_BYTES = 40 * 2**30  # about what an engine holds
MATRIX_SIZE, PRODUCTS_PER_WAIT = 8192, 4
POLLING = ("none", "10 Hz", "100 Hz", "100 Hz", "10 Hz", "none")  # a steady drift cancels
POLLED_S = 5.0
# Beside each other: the clock before and after the call, then value and stamp in us of each field.
COLUMNS = (
    *("before_s", "after_s", "energy_mj", "energy_us", "average_mw", "average_us"),
    *("instant_mw", "instant_us", "temperature_c", "memory_temperature_c", "sm_clock_mhz"),
)
Row = list[Any]


class Gpu:
    """Read the first gpu."""

    def __init__(self) -> None:
        pynvml.nvmlInit()
        self.handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        self.uuid = pynvml.nvmlDeviceGetUUID(self.handle)

    def fields(self) -> Row:
        """Read counter and power fields in one call."""
        before_s = time.monotonic()
        found = pynvml.nvmlDeviceGetFieldValues(self.handle, [ENERGY, (AVERAGE, 0), (INSTANT, 0)])
        after_s = time.monotonic()
        energy, average, instant = found
        return [
            *(before_s, after_s, energy.value.ullVal, energy.timestamp),
            *(average.value.uiVal, average.timestamp, instant.value.uiVal, instant.timestamp),
        ]

    def row(self) -> Row:
        """Read the fields, the two temperatures and the clock."""
        fields = self.fields()
        (memory,) = pynvml.nvmlDeviceGetFieldValues(self.handle, [MEMORY_TEMPERATURE])
        return [
            *fields,
            pynvml.nvmlDeviceGetTemperature(self.handle, pynvml.NVML_TEMPERATURE_GPU),
            memory.value.uiVal if memory.nvmlReturn == 0 else None,
            pynvml.nvmlDeviceGetClockInfo(self.handle, pynvml.NVML_CLOCK_SM),
        ]

    def poll(self, duration_s: float, period_s: float, read: Callable[[], Row]) -> list[Row]:
        """Read so often for so long."""
        begin_s, rows = time.monotonic(), []
        while (now_s := time.monotonic()) - begin_s < duration_s:
            rows.append(read())
            time.sleep(max(0.0, period_s - (time.monotonic() - now_s)))
        return rows


class Loader:
    """Load the GPU from a process of its own, which holds a context and memory all the time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--load"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.wait()

    def begin(self, *command: float | str) -> None:
        """Have it do what ``load`` knows, without waiting for its end."""
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()

    def wait(self) -> list[list[float]]:
        """Wait for the end of it, and give its stretches of work."""
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the load ended with {self._process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        """End the process, its context and its memory."""
        self._process.stdin.close()
        self._process.wait()


def load() -> None:
    """Obey commands on stdin: ``steady S``, or ``pulses PERIOD SHARE S``; answer with stretches."""
    import torch

    matrix = torch.randn(MATRIX_SIZE, MATRIX_SIZE, dtype=torch.bfloat16, device="cuda:0")
    held = torch.empty(HELD_BYTES, dtype=torch.uint8, device="cuda:0")

    def work(until_s: float) -> list[float]:
        begin_s = time.monotonic()
        while time.monotonic() < until_s:
            for _ in range(PRODUCTS_PER_WAIT):
                matrix @ matrix
            torch.cuda.synchronize()
        return [begin_s, time.monotonic()]

    work(time.monotonic() + 0.3)
    print(json.dumps([held.nbytes]), flush=True)
    for line in sys.stdin:
        kind, *numbers = json.loads(line)
        begin_s = time.monotonic()
        if kind == "steady":
            done = [work(begin_s + numbers[0])]
        else:
            period_s, share, duration_s = numbers
            done = []
            for pulse in range(round(duration_s / period_s)):
                at_s = begin_s + pulse * period_s
                time.sleep(max(0.0, at_s - time.monotonic()))
                done.append(work(at_s + share * period_s))
        print(json.dumps(done), flush=True)


def idle(gpu: Gpu) -> dict[str, Any]:
    """Poll a GPU that waits."""
    time.sleep(1.0)
    return {"rows": gpu.poll(6.0, 0.02, gpu.row)}


def calls(gpu: Gpu, loader: Loader) -> dict[str, Any]:
    """Time each call, waiting and under load."""
    handle = gpu.handle
    of = {
        "total energy": lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle),
        "field 83": lambda: pynvml.nvmlDeviceGetFieldValues(handle, [ENERGY]),
        "fields 83, 185, 186": gpu.fields,
        "power usage": lambda: pynvml.nvmlDeviceGetPowerUsage(handle),
        "temperature": lambda: pynvml.nvmlDeviceGetTemperature(handle, 0),
        "utilisation": lambda: pynvml.nvmlDeviceGetUtilizationRates(handle),
        "clock": lambda: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
        "clock reasons": lambda: pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle),
        "processes": lambda: pynvml.nvmlDeviceGetComputeRunningProcesses(handle),
    }
    waiting = {name: _times_us(call) for name, call in of.items()}
    loader.begin("steady", 4.0)
    time.sleep(0.5)
    loaded = {name: _times_us(call) for name, call in of.items()}
    loader.wait()
    return {"waiting_us": waiting, "loaded_us": loaded}


def _times_us(call: Callable[[], Any]) -> dict[str, float]:
    times_us = []
    for _ in range(60):
        begin_s = time.perf_counter()
        call()
        times_us.append((time.perf_counter() - begin_s) * 1e6)
        time.sleep(0.002)
    times_us.sort()
    return {"median": statistics.median(times_us), "p95": times_us[56], "max": times_us[-1]}


def steps(gpu: Gpu, loader: Loader) -> dict[str, Any]:
    """Poll at 200 Hz while the load begins and ends four times."""
    time.sleep(2.0)
    loader.begin("pulses", 4.0, 0.5, 16.0)
    rows = gpu.poll(17.0, 0.005, gpu.fields)
    work = loader.wait()
    _, samples = pynvml.nvmlDeviceGetSamples(gpu.handle, pynvml.NVML_TOTAL_POWER_SAMPLES, 0)
    kept = [[sample.timeStamp, sample.sampleValue.uiVal] for sample in samples]
    return {"rows": rows, "work": work, "driver_samples": kept}


def pulses(gpu: Gpu, loader: Loader) -> dict[str, Any]:
    """Poll while the GPU works a quarter of the time, in step with the sensors and out of it."""
    found = {}
    for period_s in (0.1, 0.13):
        time.sleep(2.0)
        loader.begin("pulses", period_s, 0.25, 6.0)
        rows = gpu.poll(7.0, 0.01, gpu.fields)
        found[f"{period_s:g} s"] = {"rows": rows, "work": loader.wait()}
    return found


def _polled(gpu: Gpu, how: str) -> dict[str, Any]:
    """Take the counter's joules over a window in which the GPU is read as ``how`` says."""
    with _sampler(gpu) if how == "10 Hz" else _nothing():
        first = gpu.fields()
        if how == "100 Hz":
            reads = len(gpu.poll(POLLED_S, 0.01, gpu.row))
        else:
            reads = 0
            time.sleep(POLLED_S)
        last = gpu.fields()
    return {"how": how, "first": first, "last": last, "reads": reads}


@contextmanager
def _sampler(gpu: Gpu) -> Iterator[None]:
    """Have the project's own process sample the power."""
    from llm_energy.meter.power_sampling import process

    with tempfile.TemporaryDirectory() as folder:
        running = process.start(Path(folder) / "study.trace.csv.gz", 0.1, [gpu.uuid])
        try:
            yield
        finally:
            running.stop()


@contextmanager
def _nothing() -> Iterator[None]:
    time.sleep(0.5)  # as the start of the sampler takes
    yield


def cooling(gpu: Gpu, loader: Loader) -> dict[str, Any]:
    """Watch the GPU cool down after three loads; hold ways of reading it against none."""
    found: dict[str, Any] = {"polling waiting": [_polled(gpu, how) for how in POLLING]}
    found["cold"] = gpu.poll(4.0, 0.1, gpu.row)
    for load_s, rest_s in ((3.0, 12.0), (10.0, 18.0)):
        loader.begin("steady", load_s)
        work = loader.wait()
        found[f"after {load_s:g} s"] = {
            "work": work,
            "rows": gpu.poll(rest_s, 0.1, gpu.row),
        }
    loader.begin("steady", 40.0)
    time.sleep(2.0)
    found["polling loaded"] = [_polled(gpu, how) for how in POLLING]
    work = loader.wait()
    found["after 40 s"] = {"work": work, "rows": gpu.poll(35.0, 0.1, gpu.row)}
    return found


def others(gpu: Gpu, loader: Loader) -> dict[str, Any]:
    """Take the same windows by the counter, by Zeus and by CodeCarbon."""
    from codecarbon import OfflineEmissionsTracker
    from zeus.monitor import ZeusMonitor

    zeus = ZeusMonitor(gpu_indices=[0], approx_instant_energy=False)
    found = []
    for name in ("waiting", "loaded", "loaded", "waiting"):
        carbon = OfflineEmissionsTracker(
            country_iso_code="DEU",
            measure_power_secs=1,
            save_to_file=False,
            log_level="error",
            allow_multiple_runs=True,
        )
        if name == "loaded":
            loader.begin("steady", 12.0)
            time.sleep(2.0)
        carbon.start()
        zeus.begin_window("study", sync_execution=False)
        first = gpu.fields()
        first_mj = pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu.handle)
        time.sleep(6.0)
        last_mj = pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu.handle)
        last = gpu.fields()
        window = zeus.end_window("study", sync_execution=False)
        carbon.stop()
        found.append(
            {
                "state": name,
                "first": first,
                "last": last,
                "counter_j": (last_mj - first_mj) / 1e3,
                "zeus_j": window.gpu_energy[0],
                "zeus_s": window.time,
                # Its own sum of GPUs has no public name.
                "codecarbon_j": carbon._total_gpu_energy.kWh * 3.6e6,
            }
        )
        if name == "loaded":
            loader.wait()
    return {"windows": found}


def study(folder: Path) -> None:
    """Run the stages, each saved by itself; one that fails leaves its error in its place."""
    folder.mkdir(parents=True, exist_ok=True)
    gpu = Gpu()

    def stage(name: str, function: Callable[..., dict[str, Any]], *arguments: Any) -> None:
        begin_s = time.monotonic()
        try:
            found = function(*arguments)
        except Exception:
            found = {"error": traceback.format_exc()}
        offset_s = time.time() - time.monotonic()
        found |= {"wall_minus_monotonic_s": offset_s, "columns": COLUMNS}
        (folder / f"{name}.json").write_text(json.dumps(found), encoding="utf-8")
        print(name, f"{time.monotonic() - begin_s:.1f} s", found.get("error", ""), flush=True)

    stage("gpu", describe, gpu)
    stage("idle-bare", idle, gpu)
    loader = Loader()
    try:
        stage("idle-context", idle, gpu)
        stage("calls", calls, gpu, loader)
        stage("steps", steps, gpu, loader)
        stage("pulses", pulses, gpu, loader)
        stage("cooling", cooling, gpu, loader)
        stage("others", others, gpu, loader)
    finally:
        loader.close()


def describe(gpu: Gpu) -> dict[str, Any]:
    """Say which GPU it is, and what the power limit is."""
    return {
        "name": pynvml.nvmlDeviceGetName(gpu.handle),
        "driver": pynvml.nvmlSystemGetDriverVersion(),
        "power_limit_w": pynvml.nvmlDeviceGetEnforcedPowerLimit(gpu.handle) / 1e3,
    }


def main() -> None:
    """Parse the command line; study the GPU, or be the load beside that."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--load", action="store_true", help="only obey commands on stdin")
    arguments = parser.parse_args()
    if arguments.load:
        load()
    else:
        study(arguments.folder)


if __name__ == "__main__":
    main()
