"""One command collects what an issue about a backend needs, also where parts of it fail."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pytest
from support import collect_report
from support.project import ROOT

from llm_energy.environments import registry


@pytest.fixture
def python(tmp_path: Path, monkeypatch) -> Path:
    """Return the place where the backend's Python is looked for, and work in an empty folder."""
    place = tmp_path / "environment" / "bin" / "python"
    monkeypatch.setattr(registry, "interpreter", lambda root, name: place)
    monkeypatch.chdir(tmp_path)
    return place


def test_a_backend_that_is_not_installed_names_the_command(python: Path, capsys) -> None:
    assert collect_report.main(["tensorrt"]) == 1
    assert f"make -C {ROOT} envs BACKENDS=tensorrt" in capsys.readouterr().err
    assert not Path("report-tensorrt.zip").exists()


def test_every_part_is_kept_and_a_failing_one_costs_no_other(
    python: Path, monkeypatch, capsys
) -> None:
    python.parent.mkdir(parents=True)
    python.touch()
    failing = "import sys; print('3 failed'); sys.exit('no GPU')"
    parts = [
        ("conformance.txt", [sys.executable, "-c", failing]),
        ("contract.txt", [sys.executable, "-c", "print('as written down')"]),
        ("doctor.json", [python.with_name("no-such-program")]),
    ]
    monkeypatch.setattr(collect_report, "commands", lambda backend, place: iter(parts))
    assert collect_report.main(["tensorrt"]) == 0
    with zipfile.ZipFile("report-tensorrt.zip") as archive:
        found = {name: archive.read(name).decode().strip() for name in archive.namelist()}
    assert found.pop("doctor.json.errors").startswith("it does not start")
    assert found == {
        "conformance.txt": "3 failed",
        "conformance.txt.errors": "no GPU",
        "contract.txt": "as written down",
        "doctor.json": "",
    }
    assert "exit status 1" in capsys.readouterr().out


def test_the_package_is_compared_before_the_suite_runs(python: Path) -> None:
    parts = dict(collect_report.commands("tensorrt", python))
    assert list(parts) == ["doctor.json", "packages.txt", "contract.txt", "conformance.txt"]
    assert "--json" in parts["doctor.json"]
    assert Path(parts["contract.txt"][1]).is_file()
    assert parts["conformance.txt"][-2:] == ["-k", "tensorrt"]
    assert "contract.txt" not in dict(collect_report.commands("vllm", python))
