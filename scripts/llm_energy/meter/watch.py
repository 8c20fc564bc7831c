"""Look between the edges of an interval, every few seconds, from a process of its own.

Two things can pass unseen between two edges: a RAPL counter that goes round more than once, and a
process that comes to a GPU and leaves again. Reading them in the measured process would take time
from it. One look is a few files and three driver calls a GPU, on the last core, at low priority. On
an H200 the calls took 0.4 ms, and neither the speed of a full load nor its power differed with it.
Times are comparable as those of the sampler are (see ``process.py``).
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llm_energy.meter import own_process
from llm_energy.meter.host.processes import read_processes
from llm_energy.meter.host.snapshot import Look, Tenants
from llm_energy.meter.nvidia.devices import import_pynvml
from llm_energy.meter.nvidia.state import processes, users_of

# A counter of 65 kJ, the smallest range of RAPL, takes a minute to go round at 1 kW.
PERIOD_S = 5.0
END_TIMEOUT_S = 5.0
MODULE = "llm_energy.meter.watch"


class Watch:
    """Hold the process that looks, and what it has seen; without ``start`` it has seen nothing.

    No failure of the process is an exception here: the looks then end.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._seen: int | None = None  # a file, which fills though nobody reads
        self._looks: list[Look] = []
        self._read_bytes = 0

    def start(
        self,
        zones: Mapping[str, Path],
        devices: Sequence[str] = (),
        procfs: Path = Path("/proc"),
        period_s: float = PERIOD_S,
    ) -> None:
        """Look at these counters and GPUs from now on, until ``stop`` or this process's end."""
        files = {device: str(path) for device, path in zones.items()}
        with contextlib.suppress(OSError):
            self._seen, name = tempfile.mkstemp()
            os.unlink(name)  # so that nobody has to clean it up
            self._process = own_process.start(
                MODULE,
                (str(os.getpid()), str(period_s), str(procfs), json.dumps(files), *devices),
                stdin=subprocess.DEVNULL,
                stdout=self._seen,
                stderr=subprocess.DEVNULL,
            )

    def looks(self, start_s: float, end_s: float) -> Sequence[Look]:
        """Return the looks between two times, in their order; call it outside windows."""
        if self._seen is not None:
            size = os.fstat(self._seen).st_size
            text = os.pread(self._seen, size - self._read_bytes, self._read_bytes)
            text = text[: text.rfind(b"\n") + 1]
            self._read_bytes += len(text)
            self._looks += map(_parse, text.splitlines())
        return [look for look in self._looks if start_s < look.time_s < end_s]

    def stop(self) -> None:
        """End the process; a second time does nothing."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()  # it holds nothing that is worth an orderly end
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(END_TIMEOUT_S)
        if self._seen is not None:
            os.close(self._seen)
            self._seen = None


def _parse(line: bytes) -> Look:
    found = json.loads(line)
    tenants = {
        device: Tenants(*map(tuple, groups)) for device, groups in found.pop("tenants").items()
    }
    return Look(**found, tenants=tenants)


# from here on: inside the watching process


def main(argv: Sequence[str]) -> None:
    """Look until the parent has ended.

    The arguments are its id, the period in s, the folder of procfs, the counters' files and UUIDs.
    """
    parent, period_s, procfs, zones, *devices = argv
    own_process.give_way()
    nvml, handles = _open_gpus(devices)
    while os.getppid() == int(parent):
        time_s, energy_uj = time.monotonic(), _counters(json.loads(zones))
        tenants = _tenants(nvml, handles, Path(procfs), parent)
        print(json.dumps(asdict(Look(time_s, energy_uj, tenants))), flush=True)
        time.sleep(float(period_s))


def _open_gpus(devices: Sequence[str]) -> tuple[Any, dict[str, Any]]:
    """Return NVML and its handles; none where it cannot be used."""
    nvml = import_pynvml() if devices else None
    if nvml is None:
        return None, {}
    try:
        nvml.nvmlInit()
        return nvml, {device: nvml.nvmlDeviceGetHandleByUUID(device) for device in devices}
    except nvml.NVMLError:
        return None, {}


def _counters(zones: Mapping[str, str]) -> dict[str, int]:
    found = {}
    for device, path in zones.items():
        with contextlib.suppress(OSError, ValueError):
            found[device] = int(Path(path).read_text())
    return found


def _tenants(
    nvml: Any, handles: Mapping[str, Any], procfs: Path, parent: str
) -> dict[str, Tenants]:
    # First the GPUs, then the table: so a child of ours that has just begun is known for one.
    shown = {device: processes(nvml, handle) for device, handle in handles.items()}
    table = read_processes(procfs, parent) if shown else None
    users = {device: users_of(on_gpu, table) for device, on_gpu in shown.items()}
    return {device: user.others for device, user in users.items() if user is not None}


if __name__ == "__main__":
    main(sys.argv[1:])
