"""A mistake in the config ends ``snakemake`` with exit status 1 and one message, no traceback."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from plan.test_config_mistakes import BASE, MISTAKES, line_of, text_with
from support import builders
from support.project import Project

# What every mistake says is tested without Snakemake.
SOME = MISTAKES[::8]
# Starting Snakemake takes seconds, most of them for imports, and parsing a config little. So one
# process imports what a run imports, and each config gets a fork of it: the real command line and
# the real exit status from there on, but without taking a whole interpreter down each time.
DRIVER = """
import contextlib, importlib, json, os, sys
import snakemake.cli

def run(name):
    if os.fork() == 0:
        output = os.open(f"{name}.out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        status = 0
        try:
            snakemake.cli.main(["--dry-run", "--cores", "1", "--configfile", f"{name}.yaml"])
        except SystemExit as end:
            status = end.code or 0
        sys.stdout.flush()
        sys.stderr.flush()
        with open("modules.json", "w") as stream:
            json.dump(list(sys.modules), stream)
        os._exit(status)
    return os.waitstatus_to_exitcode(os.wait()[1])

run(sys.argv[1])
for module in json.load(open("modules.json")):
    with contextlib.suppress(Exception):
        importlib.import_module(module)
for name in sys.argv[1:]:
    print(json.dumps([name, run(name), open(f"{name}.out").read()]))
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, tuple[int, str]]:
    """Return the exit status and the output of a dry run on each config."""
    folder = tmp_path_factory.mktemp("mistakes")
    Project(folder)
    builders.model_folder(folder / "model")
    texts = {mistake["id"]: text_with(mistake) for mistake in SOME}
    texts |= {"valid": BASE, "no-yaml": "models: [\n", "no-mapping": "- models\n"}
    texts["taken"] = BASE.replace("name: base", "name: taken")
    (folder / "results").mkdir()
    (folder / "results" / "taken").write_text("a file in the place of the folder")
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "-c", DRIVER, *texts],
        cwd=folder,
        text=True,
        capture_output=True,
        check=True,
    )
    shown = [json.loads(line) for line in result.stdout.splitlines()]
    return {name: (status, output) for name, status, output in shown}


@pytest.mark.parametrize("mistake", SOME, ids=[mistake["id"] for mistake in SOME])
def test_mistake_ends_in_one_message_and_status_1(mistake, runs):
    status, output = runs[mistake["id"]]
    assert status == 1
    assert f"{mistake['id']}.yaml:{line_of(mistake)}: {mistake['says'][0]}" in output
    assert "Traceback" not in output
    assert ".smk" not in output


@pytest.mark.parametrize("name", ["no-yaml", "no-mapping"])
def test_file_that_is_no_config_ends_in_status_1(name, runs):
    status, output = runs[name]
    assert status == 1
    assert "Config file" in output
    assert "Traceback" not in output


def test_results_that_cannot_be_written_end_in_one_message_and_status_1(runs):
    status, output = runs["taken"]
    assert status == 1
    [line] = [line for line in output.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: results/taken")
    assert "cannot write" in line
    assert "make it a folder that you may write to" in line
    for trace in ("Traceback", ".smk", "NotADirectoryError"):
        assert trace not in output


def test_valid_config_is_planned(runs):
    status, output = runs["valid"]
    assert status == 0, output
