"""What vLLM's CPU build preloads is preloaded from any path."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llm_energy.backends.vllm.environment import preload
from llm_energy.core.libraries import loaded_libraries


def a_library() -> Path:
    """Return a library that this process has mapped."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return next(Path(line.split(maxsplit=5)[5]) for line in lines if "libm.so" in line)


@pytest.fixture
def packages(tmp_path):
    folder = tmp_path / "with a blank"
    (folder / "torch" / "lib").mkdir(parents=True)
    shutil.copyfile(a_library(), folder / "torch" / "lib" / "libgomp.so.1")
    return folder


def run(value: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", "print(open('/proc/self/maps').read())"]
    env = os.environ | {"LD_PRELOAD": value}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True)


def test_a_path_with_a_blank_is_preloaded_by_a_link(packages, tmp_path):
    plain = run(str(packages / "torch" / "lib" / "libgomp.so.1"))
    assert "cannot be preloaded" in plain.stderr

    linked = run(preload(packages))
    assert linked.stderr == ""
    (tmp_path / "maps").write_text(linked.stdout)
    assert loaded_libraries(tmp_path / "maps")["openmp"] == "libgomp.so.1"


def test_any_other_path_and_a_gpu_build_are_left_to_vllm(packages, tmp_path):
    assert preload(packages.rename(tmp_path / "plain")) is None
    (tmp_path / "no torch").mkdir()
    assert preload(tmp_path / "no torch") is None
    library = tmp_path / "on gpus" / "torch" / "lib"
    library.mkdir(parents=True)
    for name in ("libgomp.so.1", "libtorch_cuda.so"):
        (library / name).touch()
    assert preload(tmp_path / "on gpus") is None
