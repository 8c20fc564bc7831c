"""The computer that a repeat runs on: what it is, how fast its memory is, and how it is reached.

There are two kinds of Machine: the real one, and a simulated host with a known truth
(``simulation/``), under which the same meter and the same protocol run.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import socket
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from llm_energy.backends import base
from llm_energy.core.git import git_state
from llm_energy.core.packages import installed_packages
from llm_energy.meter.power_sampling.recorder import StartSampler
from llm_energy.records import Host

SYSFS, PROCFS = Path("/sys"), Path("/proc")

# How container runtimes show in the paths of the first process's control group.
CONTAINER_RUNTIMES = ("kubepods", "docker", "libpod", "containerd", "lxc")

# What batch systems tell their jobs (sbatch(1), srun(1); AWS Batch, job environment variables). The
# first variable of each system tells whether this is one of its jobs.
BATCH_SYSTEMS = {
    "slurm": {
        "job_id": "SLURM_JOB_ID",
        "array_task_id": "SLURM_ARRAY_TASK_ID",
        "restarts": "SLURM_RESTART_COUNT",
        "cluster": "SLURM_CLUSTER_NAME",
        "partition": "SLURM_JOB_PARTITION",
        "node": "SLURMD_NODENAME",
        "cpus": "SLURM_CPUS_ON_NODE",
        "gpus": "SLURM_STEP_GPUS",
    },
    "aws_batch": {"job_id": "AWS_BATCH_JOB_ID", "attempt": "AWS_BATCH_JOB_ATTEMPT"},
}


def describe(repository: Path, gpus: tuple[dict[str, Any], ...]) -> Host:
    """Describe this host, with None for what cannot be read; ``repository`` holds the code."""
    commit, dirty = git_state(repository)
    return Host(
        hostname=socket.gethostname(),
        boot_id=_first_line("/proc/sys/kernel/random/boot_id"),
        os=_os_name(),
        kernel=platform.release(),
        cpu_model=_cpu_model(),
        cpu_count=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        gpus=gpus,
        python=platform.python_version(),
        packages=installed_packages(),
        git_commit=commit,
        git_dirty=dirty,
        settings=settings(),
        batch_job=batch_job(os.environ),
    )


def batch_job(environment: Mapping[str, str]) -> dict[str, str]:
    """Say which batch system's job this is, by what the system put into the environment.

    >>> batch_job({"SLURM_JOB_ID": "17", "SLURMD_NODENAME": "node3", "HOME": "/home/me"})
    {'system': 'slurm', 'job_id': '17', 'node': 'node3'}
    """
    for system, names in BATCH_SYSTEMS.items():
        if next(iter(names.values())) in environment:
            told = {key: environment[name] for key, name in names.items() if name in environment}
            return {"system": system, **told}
    return {}


def settings(sysfs: Path = SYSFS, procfs: Path = PROCFS) -> dict[str, Any]:
    """Say what the kernel is set to where it bears on energy; None for what cannot be read.

    ``governor`` is one name, or several where processors differ; ``cpu_limit`` (processors) and
    ``memory_limit_bytes`` are the tightest of this process's control groups, None without one.
    """
    cpu = sysfs / "devices" / "system" / "cpu"
    groups = _control_groups(sysfs, procfs)
    return {
        "governor": _governor(cpu),
        "smt": _flag(cpu / "smt" / "active"),
        "turbo": _turbo(cpu),
        "swap_bytes": _swap_bytes(procfs),
        "container": _container(procfs),
        "cpu_limit": min(filter(None, map(_cpu_limit, groups)), default=None),
        "memory_limit_bytes": min(filter(None, map(_memory_limit_bytes, groups)), default=None),
    }


def _governor(cpu: Path) -> str | None:
    """Return the frequency governors in use (docs.kernel.org/admin-guide/pm/cpufreq.html)."""
    found = {_first_line(path) for path in cpu.glob("cpu[0-9]*/cpufreq/scaling_governor")}
    return ", ".join(sorted(filter(None, found))) or None


def _turbo(cpu: Path) -> bool | None:
    """Return whether processors may exceed their base frequency, by either driver's switch."""
    off = _flag(cpu / "intel_pstate" / "no_turbo")
    return _flag(cpu / "cpufreq" / "boost") if off is None else not off


def _swap_bytes(procfs: Path) -> int | None:
    try:
        text = (procfs / "meminfo").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"^SwapTotal:\s+(\d+) kB$", text, re.MULTILINE)
    return 1024 * int(found[1]) if found else None


def _container(procfs: Path) -> str | None:
    """Name the container runtime that this process seems to run under, None for no sign of one."""
    root = procfs / "self" / "root"
    for sign, name in ((".dockerenv", "docker"), ("run/.containerenv", "podman")):
        if (root / sign).exists():
            return name
    try:
        groups = (procfs / "1" / "cgroup").read_text(encoding="utf-8")
        mounts = (procfs / "self" / "mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    # The fifth field is where, what follows the dash which file system (proc(5)).
    fields = (line.partition(" - ") for line in mounts)
    layered = any(
        first.split()[4:5] == ["/"] and last.startswith("overlay ") for first, _, last in fields
    )
    named = next((name for name in CONTAINER_RUNTIMES if name in groups), None)
    return named or ("unnamed" if layered else None)


def _control_groups(sysfs: Path, procfs: Path) -> list[Path]:
    """Return this process's control group and those around it, by version 2 of control groups."""
    root = sysfs / "fs" / "cgroup"
    try:
        lines = (procfs / "self" / "cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    for line in lines:
        if line.startswith("0::/"):
            group = root / line.removeprefix("0::/")
            return [group, *(parent for parent in group.parents if parent.is_relative_to(root))]
    return []


def _cpu_limit(group: Path) -> float | None:
    """Return how many processors a group may use (docs.kernel.org/admin-guide/cgroup-v2.html)."""
    quota, _, period = (_first_line(group / "cpu.max") or "").partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def _flag(path: Path) -> bool | None:
    return {"0": False, "1": True}.get(_first_line(path) or "")


def _memory_limit_bytes(group: Path) -> int | None:
    text = _first_line(group / "memory.max") or ""
    return int(text) if text.isdigit() else None


def _first_line(path: str | Path) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()[0].strip()
    except (OSError, IndexError):
        return None


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


TOTAL_BYTES = 512 * 2**20  # copied at once by all threads; several times most last-level caches
MOST_THREADS = 32  # a socket's memory is busy long before
ROUNDS = 3


def copy_bytes_per_s(total_bytes: int = TOTAL_BYTES) -> float | None:
    """Return the best of three copies, by all processors at once, in bytes read per second.

    A copy reads each byte and writes it; McCalpin's STREAM counts both, this counts the reads,
    doubled, so that the figure is STREAM's (J. D. McCalpin, Memory Bandwidth and Machine Balance,
    IEEE TCCA Newsletter, 1995). Takes some tenths of a second, and is called before anything is
    metered. None where memory does not suffice or the C library has no ``memcpy``.
    """
    threads = min(MOST_THREADS, len(os.sched_getaffinity(0)))
    size = total_bytes // threads // 2
    try:
        # Through ctypes, since that releases the interpreter's lock while memory is copied.
        copy = ctypes.CDLL(None).memcpy
        copy.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
        copy.restype = ctypes.c_void_p
        buffers = [(ctypes.create_string_buffer(size), bytearray(size)) for _ in range(threads)]
    except (AttributeError, MemoryError, OSError):
        return None
    pairs = [(ctypes.addressof(a), (ctypes.c_char * size).from_buffer(b)) for a, b in buffers]

    def once(pair: tuple[int, ctypes.Array]) -> None:
        copy(pair[0], ctypes.addressof(pair[1]), size)

    best_s = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(once, pairs))  # the first copy finds pages that are not there yet
        for _ in range(ROUNDS):
            begin_s = time.perf_counter()
            list(pool.map(once, pairs))
            best_s = min(best_s, time.perf_counter() - begin_s)
    return 2 * size * threads / best_s


class Machine(Protocol):
    """A computer as the measuring process meets it; times are seconds.

    ``nvml`` is the module to read GPUs through and ``start_sampler`` what writes their power
    trace, both None for the meter's own.
    """

    sysfs: Path
    procfs: Path
    nvml: Any
    start_sampler: StartSampler | None

    def clock(self) -> float:
        """Return the monotonic time, the one that completions and intervals are stamped with."""

    def wall_clock(self) -> float:
        """Return the seconds since 1970-01-01 UTC."""

    def sleep(self, duration_s: float) -> None:
        """Let time pass."""

    def create_backend(self, name: str, flow: str | None = None) -> base.Backend:
        """Make the backend for a flow; BackendUnavailable where its engine is not installed."""

    def describe(self, repository: Path, gpus: tuple[dict[str, Any], ...]) -> Host:
        """Describe the hardware and the software; ``repository`` holds the code."""

    def copy_bytes_per_s(self) -> float | None:
        """Time how fast memory is copied; None where that means nothing."""


class RealMachine:
    """The computer that this process runs on."""

    sysfs = Path("/sys")
    procfs = Path("/proc")
    nvml = None
    start_sampler = None

    clock = staticmethod(time.monotonic)
    wall_clock = staticmethod(time.time)
    sleep = staticmethod(time.sleep)
    create_backend = staticmethod(base.create)
    describe = staticmethod(describe)
    copy_bytes_per_s = staticmethod(copy_bytes_per_s)
