"""A stand-in for conda, whose channels tests cannot reach: it builds a file's pip pins as a venv.

It answers what Snakemake asks (``info``, ``--version``, ``config --get``, ``env create`` and
``clean``). Of an environment file it makes what conda's pip step would: the pins under ``pip:``, by
the same settings of pip (``PIP_NO_DEPS``, ``PIP_FIND_LINKS``), with uv because its cache makes that
quick. The Python is the one that uv finds for ``python=``. Conda itself is not tested by it.
"""

from __future__ import annotations

import json
import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
UV = ROOT / ".venvs" / "uv" / "bin" / "uv"

# What `source activate ENVIRONMENT` has to bring about.
ACTIVATE = 'export CONDA_PREFIX="$1" PATH="$1/bin:$PATH"\n'


def install(folder: Path) -> Path:
    """Write the commands ``conda`` and ``activate`` below ``folder``; give the folder for PATH."""
    binaries = folder / "bin"
    binaries.mkdir(parents=True)
    (binaries / "activate").write_text(ACTIVATE)
    conda = binaries / "conda"
    command = shlex.join([sys.executable, __file__, str(folder)])
    conda.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    conda.chmod(conda.stat().st_mode | stat.S_IXUSR)
    return binaries


def create(file: Path, prefix: Path) -> None:
    """Build the environment that an environment file describes."""
    *plain, last = yaml.safe_load(file.read_text(encoding="utf-8"))["dependencies"]
    python = next(text for text in plain if text.startswith("python=")).removeprefix("python=")
    environment = os.environ | {"UV_FIND_LINKS": os.environ.get("PIP_FIND_LINKS", "")}
    requirements = prefix.with_suffix(".requirements.txt")
    requirements.write_text("\n".join(last["pip"]) + "\n")
    alone = ["--no-deps"] if os.environ.get("PIP_NO_DEPS") == "1" else []
    for command in (
        ["venv", "--quiet", "--python", python, prefix],
        ["pip", "install", "--quiet", "--python", prefix, *alone, "--requirements", requirements],
    ):
        subprocess.run([UV, *command], env=environment, check=True)


def main(prefix: str, arguments: list[str]) -> None:
    """Answer one command as conda would; any other is an error."""
    match [text for text in arguments if text not in ("--quiet", "--no-default-packages")]:
        case ["info", "--json"]:
            print(json.dumps({"conda_prefix": prefix, "platform": "linux-64"}))
        case ["--version"]:
            print("conda 24.7.1")
        case ["config", "--get", "channel_priority", "--json"]:
            print(json.dumps({"get": {"channel_priority": "strict"}}))
        case ["clean", *_]:  # it keeps no archives
            pass
        case ["env", "create", "--file", file, "--prefix", environment]:
            create(Path(file), Path(environment))
        case other:
            raise SystemExit(f"the stand-in for conda does not know: conda {shlex.join(other)}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
