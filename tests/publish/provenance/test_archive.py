"""Tables from measurements alone: from an archive, without an engine, the same bytes each time."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from support import builders
from support.project import ROOT, Project

from llm_energy.core.errors import LlmEnergyError
from llm_energy.core.files import read_json, write_json
from llm_energy.publish.provenance import packed as reader
from llm_energy.publish.provenance.archive import unpack
from llm_energy.records import Plan, read_plan, write_record

ARCHIVE = ROOT / "docs" / "measurements" / "h100-llama-3.1-8b-bfloat16.tar.gz"
SWEEP = "h100-first"


def paper(folder: Path, *arguments: str, status: int = 0) -> str:
    """Run scripts/paper.py in a project until it ends with ``status``, and give what it said."""
    done = subprocess.run(
        [sys.executable, "scripts/paper.py", *arguments],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == status, done.stdout
    return done.stdout


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder by its path."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Return a copy of the project that has no environment but the workflow's."""
    made = Project(tmp_path_factory.mktemp("paper") / "copy")
    (made.folder / ".venvs").unlink()
    (made.folder / ".venvs").mkdir()
    (made.folder / ".venvs" / "workflow").symlink_to(ROOT / ".venvs" / "workflow")
    return made.folder


def test_an_archive_gives_its_tables_twice_with_the_same_bytes(project):
    said = paper(project, "--archive", str(ARCHIVE))
    made = project / "paper" / ARCHIVE.name.removesuffix(".tar.gz") / "results" / SWEEP
    told = re.findall(r"^(?:Files|Report|Tables and figures): (.+)", said, re.MULTILINE)
    assert [project / path for path in told] == [made, made / "report.html"]
    # Its third repeat is of another GPU, so no interval stands beside the mean.
    assert re.search(r"b128 \(128, static\) +0\.11 +3500", said)
    assert "| b128 (128, static) | 0.11 |" in (made / "tables" / "energy.md").read_text("utf-8")
    first = contents(made)
    assert {"provenance.json", "tables/energy.tex"} <= set(first)
    paper(project, "--archive", str(ARCHIVE))
    assert contents(made) == first


def test_a_sweep_in_place_is_made_again_whatever_is_out_of_date(project):
    """Lay the sweep out as if it had been measured here, with a measurement less."""
    unpack(ARCHIVE, project)
    place = project / "results" / SWEEP
    lost = next(place.glob("*/measurements/*/r03.json"))
    lost.unlink()
    (place / "tables").mkdir()
    (place / "tables" / "energy.md").write_text("old")
    paper(project, "--sweep", SWEEP)
    table = (place / "tables" / "failures.md").read_text(encoding="utf-8")
    assert "missing | r03 | there is no such file" in table
    assert "0.1" in (place / "tables" / "energy.md").read_text(encoding="utf-8")


def test_a_stage_that_fails_ends_with_where_the_reason_stands(project):
    unpack(ARCHIVE, project)
    stage = project / "scripts" / "validate.py"
    text = stage.read_text(encoding="utf-8")
    stage.write_text("raise SystemExit('broken')\n", encoding="utf-8")
    try:
        said = paper(project, "--sweep", SWEEP, status=1)
    finally:
        stage.write_text(text, encoding="utf-8")
    assert f"validate: broken\n    see logs/{SWEEP}/validate/pytorch.log" in said
    assert "Traceback" not in said


def test_make_hands_the_path_of_an_archive_on_as_it_is(tmp_path):
    python = tmp_path / ".venvs" / "workflow" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    built = (".venvs/workflow/.installed", "--file", str(ROOT / "Makefile"))
    told = subprocess.run(
        ["make", "--silent", "paper", "ARCHIVE=it's here/a.tar", "--assume-old", *built],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        text=True,
        capture_output=True,
        check=True,
    ).stdout
    assert told.splitlines() == ["scripts/paper.py", "--archive", "it's here/a.tar"]


# the archive


@pytest.fixture
def archived(tmp_path):
    """Return a folder with one sweep as results/<sweep> lies in a project."""
    grid = builders.plan([("pytorch", "float32")], 1)
    builders.write_sweep(tmp_path / "there", [builders.measurement()], grid)
    return tmp_path / "there"


def packed(folder: Path, path: Path) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as file:
            for name in contents(folder):
                file.write(folder / name, name)
    else:
        with tarfile.open(path, "w:gz") as file:
            file.add(folder, arcname=".")
    return path


@pytest.mark.parametrize("name", ["folder", "a.zip", "a.tar.gz", "results/test"])
def test_a_folder_a_tar_and_a_zip_file_are_taken_alike(archived, tmp_path, monkeypatch, name):
    source = archived / name if name.startswith("results") else archived
    if name.startswith("a."):
        source = packed(archived, tmp_path / name)
    assert unpack(source, tmp_path / "here") == "test"
    monkeypatch.chdir(tmp_path / "here")
    known = read_plan("test")
    assert known.backends == ("pytorch",)
    assert known.measurements("pytorch") == known.measurements()
    assert [os.path.basename(path) for path in known.measurements()] == ["r01.json"]
    assert Path("results/models/m/manifest.json").is_file()


def test_what_lay_there_before_is_not_mixed_with_it(archived, tmp_path):
    stale = tmp_path / "here/results/test/pytorch/measurements/old/r01.json"
    write_json(stale, {})
    unpack(archived, tmp_path / "here")
    assert not stale.exists()


def test_what_is_no_archive_is_told(tmp_path, archived):
    with pytest.raises(LlmEnergyError, match="no such archive"):
        unpack(tmp_path / "nothing.tar", tmp_path / "here")
    (tmp_path / "text.tar.gz").write_text("text")
    with pytest.raises(LlmEnergyError, match="neither a folder nor a readable tar or zip file"):
        unpack(tmp_path / "text.tar.gz", tmp_path / "here")
    (tmp_path / "empty").mkdir()
    with pytest.raises(LlmEnergyError, match=r"exactly one plan\.json.* found none"):
        unpack(tmp_path / "empty", tmp_path / "here")
    shutil.copytree(archived / "results/test", archived / "results/other")
    with pytest.raises(LlmEnergyError, match=r"found results/other/plan\.json, results/test"):
        unpack(archived, tmp_path / "here")


def test_a_plan_of_another_sweep_or_shape_is_told(archived, monkeypatch):
    monkeypatch.chdir(archived)
    path = Path("results/test/plan.json")
    write_record(path, Plan(sweep="other", cells=()))
    with pytest.raises(LlmEnergyError, match="it is the plan of sweep 'other', not of 'test'"):
        read_plan("test")
    write_json(path, {"sweep": "test"})
    with pytest.raises(LlmEnergyError, match=r"plan\.json: missing key 'cells'"):
        read_plan("test")


CELL = {"model": "m", "backend": "pytorch", "precision": "float32"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        # names that lead out of the sweep's folder, or over what lies beside it
        *(({"sweep": name}, "sweep: found") for name in ["..", ".", "models", "a/b", "", "a\0b"]),
        *(({"sweep": name}, "sweep: found") for name in [{"a": 1}, 123, None, "a\n", "x" * 65]),
        *(({key: "../../x"}, rf"cells\[0\]: {key}: found '\.\./\.\./x'") for key in CELL),
        ({"cell": "m--pytorch--../x"}, r"cells\[0\]: cell: found 'm--pytorch--\.\./x', allowed"),
        ({"cell": "no-dashes"}, r"cells\[0\]: cell: found 'no-dashes', allowed 'm--pytorch--"),
        ({"repeats": ["rXX"]}, r"cells\[0\]: repeats: found 'rXX', allowed r01, r02"),
        ({"repeats": ["../r01"]}, r"cells\[0\]: repeats: found"),
        # files that are no measurement of the sweep
        ({"measurements": ["/etc/passwd"]}, r"cells\[0\]\.measurements: found \('/etc/passwd',\)"),
        ({"measurements": [5]}, r"cells\[0\]\.measurements\[0\]: found 5, allowed str"),
        ({"measurements": []}, r"cells\[0\]\.measurements: found \(\), allowed"),
        ({"specs": ["/etc/passwd"]}, r"cells\[0\]\.specs: found"),
        # other shapes
        ({"cells": 5}, r"plan\.json\.cells: found int, allowed a list"),
        ({"cells": [5]}, r"cells\[0\]: found int, allowed a mapping"),
        ({"repeats": 5}, r"cells\[0\]\.repeats: found int, allowed a list"),
    ],
)
def test_a_plan_names_no_other_files(archived, tmp_path, change, told):
    path = archived / "results/test/plan.json"
    plan = read_json(path)
    for key, value in change.items():
        (plan if key in ("sweep", "cells") else plan["cells"][0])[key] = value
    write_json(path, plan)
    with pytest.raises(LlmEnergyError, match=told):
        unpack(archived, tmp_path / "here")
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize("text", ["[]", "5", "null", '"plan"'])
def test_a_plan_that_is_no_mapping_is_told(archived, tmp_path, text):
    (archived / "results/test/plan.json").write_text(text, encoding="utf-8")
    with pytest.raises(LlmEnergyError, match=r"plan\.json: found .*, allowed a mapping"):
        unpack(archived, tmp_path / "here")


def tarball(folder: Path) -> bytes:
    """Return a folder as an uncompressed tar file."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as file:
        file.add(folder, arcname=".")
    return made.getvalue()


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def second_header(content: bytes) -> int:
    """Return where the header of the second member of a tar file with a file in it begins."""
    with tarfile.open(fileobj=io.BytesIO(content)) as file:
        return [one.offset for one in file if one.isreg()][1]


def zipped(folder: Path, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as file:
        for name in contents(folder):
            file.write(folder / name, name)
    return made.getvalue()


def marked(content: bytes, offset: int, value: int) -> bytes:
    """Change two bytes of every header in a zip file, in front of the files and in the index."""
    value = struct.pack("<H", value)
    for magic, shift in ((b"PK\3\4", 0), (b"PK\1\2", 2)):
        at = -1
        while (at := content.find(magic, at + 1)) >= 0:
            place = at + offset + shift
            content = content[:place] + value + content[place + 2 :]
    return content


DAMAGED = {
    # by the checksum alone one can tell it
    "gzip with a flipped checksum": lambda f: flipped(gzip.compress(tarball(f)), -6),
    "gzip cut in the middle": lambda f: gzip.compress(tarball(f))[:-900],
    "gzip cut before its checksum": lambda f: gzip.compress(tarball(f))[:-8],
    "gzip with a changed digit": lambda f: (
        gzip.compress(tarball(f).replace(b"float32", b"float33"), 0)[:-8]
        + gzip.compress(tarball(f), 0)[-8:]
    ),
    "xz that is corrupt": lambda f: flipped(lzma.compress(tarball(f)), 400),
    "xz that is cut": lambda f: lzma.compress(tarball(f))[:-40],
    "bzip2 that is corrupt": lambda f: flipped(bz2.compress(tarball(f)), 400),
    "tar with a damaged header": lambda f: flipped(tarball(f), second_header(tarball(f)) + 3),
    "tar that ends at a header": lambda f: tarball(f)[: second_header(tarball(f))],
    "tar that is cut": lambda f: tarball(f)[: second_header(tarball(f)) + 600],
    "zip with a changed byte": lambda f: flipped(zipped(f, zipfile.ZIP_STORED), 100),
    "zip that is encrypted": lambda f: marked(zipped(f), 6, 1),
    "zip of an unknown method": lambda f: marked(zipped(f), 8, 99),
    "zip that is cut": lambda f: zipped(f)[:-100],
    "nothing": lambda f: b"",
    "zeros": lambda f: bytes(10240) + b"x",
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_archive_is_told_and_changes_nothing(archived, tmp_path, kind):
    before = tmp_path / "here/results/test/pytorch/measurements/old/r01.json"
    write_json(before, {})
    (tmp_path / "a").write_bytes(DAMAGED[kind](archived))
    with pytest.raises(LlmEnergyError, match="neither a folder nor a readable tar or zip file"):
        unpack(tmp_path / "a", tmp_path / "here")
    assert before.exists()


@pytest.mark.parametrize("kind", [tarball, zipped, lambda f: lzma.compress(tarball(f))])
def test_a_sound_archive_of_each_format_is_taken(archived, tmp_path, kind):
    (tmp_path / "a").write_bytes(kind(archived))
    assert unpack(tmp_path / "a", tmp_path / "here") == "test"
    assert set(contents(archived)) == set(contents(tmp_path / "here"))


@pytest.mark.parametrize("name", ["mine", "mine/results", "mine/results/test", "."])
def test_an_archive_is_never_deleted_for_its_own_tables(archived, tmp_path, name):
    shutil.move(archived, tmp_path / "paper/mine")
    before = contents(tmp_path)
    with pytest.raises(LlmEnergyError, match="which would replace it"):
        unpack(tmp_path / "paper" / name, tmp_path / "paper" / "mine")
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("results/test/pytorch/measurements/m--pytorch--float32/r02.json", "/etc/passwd"),
        ("results/test/pytorch/measurements/m--pytorch--float16", "/etc"),
        ("results/test/specs/m--pytorch--float16", ".."),
        ("results/test/specs/m--pytorch--float32/r02.json", "r02.json"),
    ],
)
@pytest.mark.parametrize("name", ["", "a.tar.gz"])
def test_links_are_not_followed(archived, tmp_path, link, target, name):
    (archived / link).symlink_to(target)
    source = packed(archived, tmp_path / name) if name else archived
    with pytest.raises(LlmEnergyError, match="is a link or no plain file"):
        unpack(source, tmp_path / "here")


def test_what_an_archive_may_unpack_to_is_bounded(archived, tmp_path, monkeypatch):
    source = packed(archived, tmp_path / "a.tar.gz")
    monkeypatch.setattr(reader, "MOST_BYTES", 1000)
    for one in (source, archived):
        with pytest.raises(LlmEnergyError, match="it unpacks to more than"):
            unpack(one, tmp_path / "here")
    monkeypatch.setattr(reader, "MOST_FILES", 3)
    monkeypatch.setattr(reader, "MOST_BYTES", 1 << 30)
    with pytest.raises(LlmEnergyError, match="it holds more than 3 files"):
        unpack(source, tmp_path / "here")


@pytest.mark.parametrize("sweep", [[1], 5, True, "..", "models", "../x", "a\0b", {"a": 1}])
def test_the_name_of_a_measured_sweep_is_a_name(sweep):
    with pytest.raises(LlmEnergyError, match="the sweep that is measured: found"):
        read_plan(sweep)
