"""Say which machine and which software measure, from inside the measuring process."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import socket
import subprocess
from pathlib import Path
from typing import Any

from llm_energy.records import Host


def describe(repository: Path, gpus: tuple[dict[str, Any], ...]) -> Host:
    """Describe this host, with None for what cannot be read; ``repository`` holds the code."""
    commit, dirty = _git(repository)
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
    )


def installed_packages() -> dict[str, str]:
    """Give name and version of every package that this process could import."""
    found = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    return dict(sorted(found.items()))


def _first_line(path: str) -> str | None:
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


def _git(repository: Path) -> tuple[str | None, bool | None]:
    """Give the commit and whether tracked files differ from it; (None, None) outside git."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(repository), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return None, None
