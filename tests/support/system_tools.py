"""Say which programs of the system a test needs, install them, and skip a test that lacks them.

    python3 tests/support/system_tools.py latex chromium

installs, with apt-get, the packages of the tools that are not there: as root, or through sudo where
the environment variable CI is "true". Elsewhere it prints the command and the tests skip. With
CI=true nothing skips: a tool that is still missing fails its tests.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn


@dataclass(frozen=True)
class Tool:
    """A tool is there when all its commands are; Debian's packages bring it."""

    commands: tuple[str, ...]
    packages: tuple[str, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """Return the commands that are not on the PATH, where daemons lie in /usr/sbin."""
        path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
        return tuple(name for name in self.commands if not shutil.which(name, path=path))


TOOLS = {
    # siunitx is in texlive-science, booktabs in texlive-latex-recommended.
    "latex": Tool(
        ("pdflatex", "pdftotext", "pdftoppm"),
        ("texlive-latex-recommended", "texlive-science", "poppler-utils"),
    ),
    "chromium": Tool(("chromium",), ("chromium", "fonts-dejavu-core")),
    "slurm": Tool(
        ("sbatch", "slurmctld", "slurmd", "munged"),
        ("slurmctld", "slurmd", "slurm-client", "munge"),
    ),
}


def need(*names: str) -> None:
    """Skip the calling test, or fail it under CI, where a tool is missing."""
    if missing := [name for name in names if TOOLS[name].missing]:
        leave_out(f"{', '.join(missing)} not installed: run {_command(_packages(missing))}")


def leave_out(reason: str) -> NoReturn:
    """Skip the calling test for a reason, or fail it under CI, which leaves nothing out."""
    import pytest

    if _in_ci():
        pytest.fail(reason)
    pytest.skip(reason)


@contextlib.contextmanager
def file_system(folder: Path, size: str) -> Iterator[None]:
    """Put a file system of a size on ``folder`` for a test; only root may, as which CI runs."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder],
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        leave_out(f"run the tests as root to mount a file system: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def main(argv: list[str] | None = None) -> int:
    """Install what is missing of the named tools; exit 1 where that fails."""
    names = sys.argv[1:] if argv is None else argv
    if unknown := sorted(set(names) - set(TOOLS)):
        print(f"error: no tool {', '.join(unknown)}: there are {', '.join(TOOLS)}", file=sys.stderr)
        return 2
    missing = [name for name in names if TOOLS[name].missing]
    if not missing:
        return 0
    rights = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if not shutil.which("apt-get") or (rights and not _in_ci()):
        print(
            f"Tests that need {', '.join(missing)} will be skipped here. To run them, install as "
            f"root: {_command(_packages(missing))}",
            file=sys.stderr,
        )
        return int(_in_ci())
    print(f"Installing {', '.join(missing)} for the tests ...", flush=True)
    wait = ["-o", "DPkg::Lock::Timeout=600"]
    for arguments in (["update"], ["install", "-y", "--no-install-recommends"]):
        packages = _packages(missing) if arguments[0] == "install" else []
        done = subprocess.run(
            [*rights, "apt-get", "-qq", *wait, *arguments, *packages],
            env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
            stdout=subprocess.DEVNULL,
        )
    if still := [name for name in missing if TOOLS[name].missing]:
        print(f"error: {', '.join(still)} not installed", file=sys.stderr)
    return done.returncode or int(bool(still))


def _in_ci() -> bool:
    return os.environ.get("CI") == "true"


def _packages(names: list[str]) -> list[str]:
    return [package for name in names for package in TOOLS[name].packages]


def _command(packages: list[str]) -> str:
    return shlex.join(["apt-get", "install", "--no-install-recommends", *packages])


if __name__ == "__main__":
    sys.exit(main())
