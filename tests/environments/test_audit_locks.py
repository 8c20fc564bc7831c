"""The audit of the locks: what is found; a lock that could not be audited is never called sound."""

from __future__ import annotations

import json

import audit_locks
import pytest
from support.project import ROOT

UV = {"name": "uv", "version": "1"}
FAULT = {"id": "PYSEC-1", "fix_versions": ["2"], "aliases": [], "description": ""}


@pytest.fixture
def tools(tmp_path):
    """Return a function that makes a stand-in for pip-audit, with what it prints."""

    def make(out: str, error: str = "", status: int = 0):
        (tmp_path / "out").write_text(out)
        (tmp_path / "error").write_text(error)
        script = f"#!/bin/sh\ncat {tmp_path}/out\ncat {tmp_path}/error >&2\nexit {status}\n"
        (tmp_path / "pip-audit").write_text(script)
        (tmp_path / "pip-audit").chmod(0o755)
        return str(tmp_path)

    return make


@pytest.fixture(autouse=True)
def no_licences(monkeypatch):
    monkeypatch.setattr(audit_locks, "licences", lambda tools, name: "1 MIT")


def said(*pins: dict) -> str:
    return json.dumps({"dependencies": pins, "fixes": []})


def test_a_sound_lock_and_its_licences_are_told(tools, capsys):
    assert audit_locks.main(["uv", "--tools", tools(said(UV | {"vulns": []}))]) == 0
    assert capsys.readouterr().out.endswith(
        ".venvs/uv: 1 MIT\nenvs/uv.txt: 0 known vulnerabilities\n"
    )


def test_a_vulnerability_is_told_with_the_version_that_mends_it(tools, capsys):
    found = tools(said(UV | {"vulns": [FAULT]}), status=1)
    assert audit_locks.main(["uv", "--tools", found]) == 1
    told = capsys.readouterr()
    assert "envs/uv.txt: 1 known vulnerabilities\n  uv 1: PYSEC-1, mended in 2\n" in told.out
    assert told.err.startswith("error: 1 known vulnerabilities; raise the pins in envs/*.in")


@pytest.mark.parametrize(
    ("out", "error", "why"),
    [
        ("", "Traceback ...\nConnectionError: no such host\n", "ConnectionError: no such host"),
        ("", "", "no answer"),
        (said({"name": "uv", "skip_reason": "not found"}), "", "no answer on uv"),
    ],
    ids=["unreachable", "silent", "passed over"],
)
def test_what_could_not_be_asked_is_one_error(tools, capsys, out, error, why):
    assert audit_locks.main(["uv", "--tools", tools(out, error)]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: envs/uv.txt was not audited: the service osv (https://api.osv.")
    assert f"gave no answer: {why}; run this where it can be reached" in line


def test_licences_are_read_from_the_packages(monkeypatch):
    monkeypatch.undo()
    told = audit_locks.licences(ROOT / ".venvs" / "audit" / "bin", "pytest")
    assert "MIT" in told
    assert sum(int(part.split()[0]) for part in told.split(";")[0].split(", ")) > 3
