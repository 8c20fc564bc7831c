"""A stand-in for apptainer: it notes image and command, and runs the command on the host itself."""

from __future__ import annotations

import os
import shlex
import stat
import sys
from pathlib import Path


def install(folder: Path, python: Path) -> Path:
    """Write the command ``apptainer`` below ``folder``; "in a container", python is ``python``."""
    binaries = folder / "bin"
    binaries.mkdir(parents=True)
    command = shlex.join([sys.executable, __file__, str(folder / "log"), str(python.parent)])
    apptainer = binaries / "apptainer"
    apptainer.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    apptainer.chmod(apptainer.stat().st_mode | stat.S_IXUSR)
    return binaries


def main(log: Path, binaries: str, arguments: list[str]) -> None:
    """Answer --version, and run what `exec [options] IMAGE COMMAND` says."""
    if arguments == ["--version"]:
        print("apptainer version 1.4.0")
        return
    at = next(i for i, word in enumerate(arguments) if word.endswith(".sif"))
    with open(log, "a") as stream:
        stream.write(f"{arguments[at]}\n")
    os.environ["PATH"] = os.pathsep.join([binaries, os.environ["PATH"]])
    os.execvp(arguments[at + 1], arguments[at + 1 :])


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
