"""An environment is made around the engine that a user has, or the user is told what to do."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from support.project import ROOT

from llm_energy.core.errors import LlmEnergyError
from llm_energy.core.files import sha256_file
from llm_energy.environments import external, registry

PACKAGES = {"tensorrt_llm": "1.3.0rc26", "torch": "2.12.0", "Requests": "2.32.5"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a folder with the locks that an environment is made from."""
    (tmp_path / "envs").mkdir()
    for name in ("tensorrt.txt", "sensors.in"):
        (tmp_path / "envs" / name).write_bytes((ROOT / "envs" / name).read_bytes())
    return tmp_path


def python_with(folder: Path, packages: dict[str, str], version: tuple[int, int] = (3, 12)) -> str:
    """Return a program that says of itself what a Python with these packages says."""
    program = folder / "python"
    told = json.dumps({"python": version, "packages": packages})
    program.write_text(f"#!/bin/sh\necho '{told}'\n")
    program.chmod(0o755)
    return str(program)


def uv_noting(folder: Path) -> str:
    """Return a program that notes what uv is asked for, and the requirements it is given."""
    program = folder / "uv"
    program.write_text(
        "#!/bin/sh\n"
        f'echo "$@" >> {folder}/asked\n'
        f'for last; do :; done\n[ -f "$last" ] && cat "$last" > {folder}/requirements\nexit 0\n'
    )
    program.chmod(0o755)
    return str(program)


def test_a_python_that_has_the_engine_gets_what_measuring_lacks(project: Path) -> None:
    python = python_with(project, PACKAGES)
    external.adopt(project, "tensorrt", python, uv_noting(project))

    venv, install = (project / "asked").read_text().splitlines()
    assert "--system-site-packages" in venv
    assert f"--python {python}" in venv
    assert "--require-hashes" in install
    wanted = (project / "requirements").read_text()
    names = set(re.findall(r"^([a-z0-9-]+)==", wanted, re.M))
    assert {"nvidia-ml-py", "codecarbon"} <= names
    assert not {"requests", "torch", "tensorrt-llm"} & names
    assert wanted.count("--hash=sha256:") >= len(names)
    assert registry.is_installed(project, "tensorrt")


@pytest.mark.parametrize(
    ("packages", "version", "holds"),
    [
        ({}, (3, 12), "Python 3.12 with no tensorrt-llm"),
        (PACKAGES | {"tensorrt_llm": "1.1.0"}, (3, 12), "Python 3.12 with tensorrt-llm 1.1.0"),
        (PACKAGES, (3, 10), "Python 3.10 with tensorrt-llm 1.3.0rc26"),
    ],
)
def test_another_python_is_refused_with_what_it_has(
    project: Path, packages: dict[str, str], version: tuple[int, int], holds: str
) -> None:
    python = python_with(project, packages, version)
    with pytest.raises(LlmEnergyError) as refused:
        external.adopt(project, "tensorrt", python, uv_noting(project))
    message = str(refused.value)
    assert holds in message
    assert "needs a Python 3.12 with tensorrt-llm 1.3.0rc26" in message
    assert "docs/tensorrt.md" in message
    assert not (project / "asked").exists()
    assert not registry.is_installed(project, "tensorrt")


def test_a_python_that_does_not_run_is_named(project: Path) -> None:
    with pytest.raises(LlmEnergyError, match="/no/such/python does not run"):
        external.adopt(project, "tensorrt", "/no/such/python", uv_noting(project))


def test_what_needs_a_package_is_found_in_the_lock() -> None:
    found = external.needed(ROOT, "tensorrt", {"codecarbon"})
    assert {"codecarbon", "psutil", "requests", "urllib3"} <= found
    assert "tensorrt-llm" not in found


def test_without_a_gpu_make_is_told_in_one_message(capsys, monkeypatch) -> None:
    monkeypatch.setattr(registry, "variant", lambda *given, **named: "cpu")
    assert registry.main(["pytorch", "tensorrt"]) == 1
    shown = capsys.readouterr()
    (message,) = shown.err.splitlines()
    assert message.startswith("error: backend 'tensorrt' needs an NVIDIA GPU")
    assert "docs/tensorrt.md" in message


def test_the_lock_is_the_one_that_the_stamp_names(project: Path) -> None:
    external.adopt(project, "tensorrt", python_with(project, PACKAGES), uv_noting(project))
    stamp = registry.stamp_path(project, "tensorrt").read_text().strip()
    assert stamp == sha256_file(ROOT / "envs" / "tensorrt.txt")
