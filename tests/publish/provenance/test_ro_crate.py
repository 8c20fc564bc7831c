"""A sweep as an RO-Crate: another library opens it, its hashes hold, its bytes never change."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import export as script
import lineage
import pytest
import rocrate
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from publish.provenance.test_lineage import FOLDER, run_stages
from rocrate.rocrate import ROCrate
from support import builders, system_tools

from llm_energy.core.files import sha256_bytes, write_json
from llm_energy.environments import registry
from llm_energy.publish.provenance.archive import unpack
from llm_energy.publish.provenance.provenance import Provenance
from llm_energy.records import read_record
from llm_energy.records.files import paths


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Make a sweep of one cell, up to its provenance."""
    root = tmp_path_factory.mktemp("made")
    with contextlib.chdir(root):
        grid = builders.plan([("pytorch", "float32")], 1)
        builders.write_sweep(Path(), [builders.measurement()], grid)
        write_json(f"{FOLDER}/config.json", {"name": "test"})
        run_stages(root)
    return root


@pytest.fixture
def sweep(made, tmp_path, monkeypatch):
    """Return a copy of the sweep, in the working directory."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def packed(*arguments: str) -> Path:
    assert script.main([FOLDER, *arguments]) == 0
    return Path(FOLDER, "test.crate.zip")


def test_another_library_reads_every_file_with_its_hash(sweep, tmp_path):
    path = packed("--author", "A. Name", "--license", "CC-BY-4.0")
    crate = ROCrate(path)
    assert crate.name == "Energy of language model inference: sweep test"
    assert (crate.license.id, crate.license["name"]) == (
        "https://spdx.org/licenses/CC-BY-4.0",
        "CC-BY-4.0",
    )
    assert crate.root_dataset["author"]["name"] == "A. Name"
    assert str(crate.root_dataset["datePublished"]).startswith("2026-01-01")
    with zipfile.ZipFile(path) as file:
        names = set(file.namelist())
        described = {entity.id: entity for entity in crate.data_entities}
        assert names - {"ro-crate-metadata.json"} == set(described)
        for name, entity in described.items():
            assert entity["sha256"] == sha256_bytes(file.read(name)), name
    known = read_record(Provenance, f"{FOLDER}/provenance.json")
    assert set(known.files) < names
    wanted = {"envs/pytorch.txt", "envs/workflow.txt", f"{FOLDER}/config.json", "CITATION.cff"}
    assert wanted < names


def test_it_says_what_was_made_from_what_by_which_software(sweep):
    crate = ROCrate(packed())
    action = crate.dereference("#tables")
    assert action["object"].id == f"{FOLDER}/pytorch/measurements/m--pytorch--float32/r01.json"
    assert f"{FOLDER}/tables/energy.tex" in {one.id for one in action["result"]}
    known = read_record(Provenance, f"{FOLDER}/provenance.json")
    assert action["instrument"]["version"] == known.git_commit
    assert "Not stated" in crate.license


def test_a_public_validator_misses_nothing_but_what_only_authors_know(sweep, tmp_path):
    path = packed("--author", "A. Name", "--license", "CC-BY-4.0")
    context = Path(rocrate.__file__).with_name("data") / "ro-crate.jsonld"
    script = Path(system_tools.__file__).with_name("validate_crate.py")
    python = registry.interpreter(paths.ROOT, "publishing")
    command = [python, script, path, context, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    faults = done.stdout.splitlines()
    assert (done.returncode, len(faults)) == (0, 5), done.stdout + done.stderr
    for fault, told in zip(
        faults, ("publisher", "affiliation", "affiliation", "ORCID", "contactPoint"), strict=True
    ):
        assert fault.startswith("RECOMMENDED ro-crate-1.")
        assert told in fault


def test_it_lists_the_packages_of_each_environment(sweep):
    with zipfile.ZipFile(packed()) as file:
        for name in ("pytorch", "workflow"):
            told = file.read(f"envs/{name}.cdx.json").decode("utf-8")
            assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(told) is None
            bill = json.loads(told)
            pins = registry.pins(paths.ROOT, name)
            assert {one["name"]: one["version"] for one in bill["components"]} == pins
            files = [f for one in bill["components"] for f in one["externalReferences"]]
            assert len(files) == (paths.ROOT / "envs" / f"{name}.txt").read_text().count("--hash=")


def test_it_has_the_same_bytes_each_time(sweep):
    first = packed().read_bytes()
    os.utime(f"{FOLDER}/plan.json", (0, 0))
    assert packed().read_bytes() == first


def test_it_is_verified_elsewhere_and_gives_its_tables_again(sweep, tmp_path, capsys):
    path = packed()
    with zipfile.ZipFile(path) as file:
        file.extractall(tmp_path / "elsewhere")
    assert lineage.main([str(tmp_path / "elsewhere" / FOLDER), "--verify"]) == 0
    assert "nothing changed" in capsys.readouterr().out
    assert unpack(path, tmp_path / "paper") == "test"


def test_an_altered_file_is_not_packed(sweep, capsys):
    with open(f"{FOLDER}/plan.json", "a", encoding="utf-8") as stream:
        stream.write("\n")
    assert script.main([FOLDER]) == 1
    assert f"{FOLDER}/plan.json: it changed after the tables were made" in capsys.readouterr().err
    assert not Path(FOLDER, "test.crate.zip").exists()
