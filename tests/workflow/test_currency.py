"""A repeat is current by what it holds: after kills, under odd clocks, beside another run."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from plan.test_plan import make
from support import system_tools
from support.project import Project
from support.slurm_project import simulated_sweep

from llm_energy.core import locks
from llm_energy.core.errors import LlmEnergyError, RecordError
from llm_energy.core.files import read_json, write_json
from llm_energy.inputs import currency
from llm_energy.plan import freeze

MEASURED = "results/sim/simulated/measurements/sim--simulated--bfloat16/r01.json"
LOCKS = ".snakemake/locks"
# Most tests look at what is measured, and not at what is made of it.
MEASURE = ("--until", "measure")
SHORTER = {"parameters": {"max_output_tokens": 8, "min_output_tokens": 8}}


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Project:
    """Run a small sweep once; tests work on copies."""
    project = Project(tmp_path_factory.mktemp("project") / "copy")
    project.write_config("other", simulated_sweep("sim", **SHORTER))
    project.snakemake("--configfile", project.write_config("sim", simulated_sweep("sim")))
    return project


@pytest.fixture
def project(measured, tmp_path) -> Project:
    """Return a copy of the measured sweep, times and all."""
    copy = Project(tmp_path / "copy")
    for part in ("results", ".snakemake", "sim.yaml", "other.yaml"):
        subprocess.run(["cp", "-a", measured.folder / part, copy.folder], check=True)
    return copy


def tokens(project: Project, path: str = MEASURED) -> int:
    """Return the output length that a measurement was asked for."""
    [workload] = project.read(path)["spec"]["workloads"]
    return workload["parameters"]["max_output_tokens"]


@contextlib.contextmanager
def waiting_run(project: Project, config: str):
    """Run a sweep whose repeat waits for the host, as it would while another is measured."""
    with locks.exclusive_host():
        run = subprocess.Popen(
            [sys.executable, "-m", "snakemake", "--cores", "1", "--configfile", config],
            cwd=project.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            # Under nohup SIGHUP is ignored, and that would be passed on.
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        )
        try:
            wait_for(lambda: child_of(project))
            yield run
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)
            run.wait()


def wait_for(found, seconds: float = 60):
    """Wait until ``found`` gives something, and return that."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := found():
            return value
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def child_of(project: Project) -> int | None:
    """Return the process that measures in a project, once it has locked its repeat."""
    if not (project.folder / MEASURED).with_name(".r01.lock").exists():
        return None
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if b"scripts/measure.py\0--spec" in path.read_bytes():
                folder = os.readlink(path.with_name("cwd"))
                if Path(folder) == project.folder:
                    return int(path.parent.name)
    return None


@pytest.mark.parametrize("killed", ["group", "child"])
def test_a_changed_config_is_measured_also_after_a_kill(project, killed):
    with waiting_run(project, "other.yaml") as run:
        if killed == "group":
            os.killpg(run.pid, signal.SIGTERM)
        else:
            os.kill(child_of(project), signal.SIGKILL)
        run.wait(timeout=60)
    again = ("--configfile", "other.yaml", *MEASURE)
    assert project.jobs(*again)["measure"] == 1
    assert "1 of its measurements" in project.snakemake(*again).stdout
    assert tokens(project) == 8
    kept = sorted(path.name for path in (project.folder / MEASURED).parent.glob("r01.super*.json"))
    assert kept == ["r01.superseded-1.json"]
    assert tokens(project, MEASURED.replace("r01", "r01.superseded-1")) == 16
    assert project.jobs(*again) == {}


def test_files_of_a_clock_that_was_ahead_hide_no_changed_config(project):
    ahead = time.time() + 86400
    for path in (project.folder / "results").rglob("*"):
        os.utime(path, (ahead, ahead))
    said = project.snakemake("--configfile", "other.yaml", *MEASURE).stdout
    assert "files were dated in the future" in said
    assert tokens(project) == 8


def test_a_project_that_was_moved_makes_nothing_anew_before_the_stages(project, measured):
    assert project.folder != measured.folder
    jobs = project.jobs("--configfile", "sim.yaml")
    assert not {"measure", "prompts", "models", "plan"} & set(jobs)


def test_a_copy_with_other_times_measures_nothing(project):
    shutil.rmtree(project.folder / ".snakemake")
    draw = random.Random(1)
    for path in (project.folder / "results").rglob("*"):
        then = time.time() - draw.uniform(0, 86400)
        os.utime(path, (then, then))
    assert not {"measure", "prompts", "models", "plan"} & set(
        project.jobs("--configfile", "sim.yaml")
    )


def test_prompts_asked_otherwise_are_made_and_measured_also_after_a_kill(project):
    arguments = ("--configfile", "sim.yaml", "--config", "prompts={seed: 9}")
    assert project.jobs(*arguments)["measure"] == 1
    request = project.folder / "results/sim/prompts/sim.request.json"
    asked = read_json(request)
    asked["workloads"]["b8"]["prompts"]["seed"] = 9
    write_json(request, asked)  # as a run leaves it that was killed before its prompts were made
    os.utime(request, (1, 1))
    jobs = project.jobs(*arguments)
    assert (jobs["prompts"], jobs["measure"]) == (1, 1)


def test_a_second_run_with_another_config_is_refused_and_changes_nothing(project):
    with waiting_run(project, "other.yaml"):
        specs = project.read("results/sim/specs/sim--simulated--bfloat16/r01.json")
        project.snakemake("--configfile", "sim.yaml", "--dry-run")
        refused = project.snakemake("--configfile", "sim.yaml", check=False)
        assert project.read("results/sim/specs/sim--simulated--bfloat16/r01.json") == specs
    assert refused.returncode == 1
    [line] = [line for line in refused.stdout.splitlines() if line.startswith("error: ")]
    assert "sweep sim: another run has it (process " in line
    assert "another `name`" in line
    assert "Traceback" not in refused.stdout


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGHUP])
def test_after_a_killed_run_the_same_command_goes_on(project, how):
    with waiting_run(project, "other.yaml") as run:
        os.killpg(run.pid, how)
        run.wait()
    assert list((project.folder / LOCKS).iterdir())
    said = project.snakemake("--configfile", "other.yaml", *MEASURE).stdout
    assert "its last run was killed" in said
    assert tokens(project) == 8


def test_a_lock_of_another_host_is_left_with_words_that_help(tmp_path):
    lock = tmp_path / LOCKS / "0.output.lock"
    lock.parent.mkdir(parents=True)
    lock.write_text("results/other/plan.json\n")
    assert locks.hold_sweep("sim", tmp_path) is None
    owner = tmp_path / ".snakemake/llm-energy/far.lock"
    write_json(owner, {"host": "far", "process": 7, "since": "2026"})
    lock.write_text("results/models/m/files\nresults/far/plan.json\n")
    with pytest.raises(LlmEnergyError, match=r"left by process 7 on far, .*--unlock"):
        locks.hold_sweep("far", tmp_path)
    assert lock.exists()


def test_a_dry_run_of_a_new_sweep_writes_nothing(project):
    shutil.rmtree(project.folder / "results")
    assert project.jobs("--configfile", "sim.yaml")["measure"] == 1
    assert not (project.folder / "results").exists()


# odd hosts


def test_without_room_no_job_is_started(project):
    results = project.folder / "results"
    shutil.rmtree(results)
    results.mkdir()
    with system_tools.file_system(results, "1m"):
        done = project.snakemake("--configfile", "sim.yaml", check=False)
    assert done.returncode == 1
    assert "error: results/sim: no room for 8 MiB (No space left on device)" in done.stdout
    assert "Traceback" not in done.stdout
    assert "steps)" not in done.stdout


def test_an_output_that_lacks_characters_gets_escapes(project):
    (project.folder / "results/sim/tables/energy.csv").unlink()
    said = project.snakemake("--configfile", "sim.yaml", PYTHONIOENCODING="ascii").stdout
    assert "J/output token" in said
    assert "Report: results/sim/report.html" in said


def test_a_checkout_with_a_brace_in_its_path_is_refused_in_one_line(tmp_path):
    project = Project(tmp_path / "a{b}c")
    project.write_config("sim", simulated_sweep("sim"))
    done = project.snakemake("--configfile", "sim.yaml", check=False)
    assert done.returncode == 1
    assert f"error: {project.folder}: the path of the project has a brace" in done.stdout
    assert "Traceback" not in done.stdout


# without Snakemake


@pytest.mark.parametrize(
    ("changed", "count"),
    [
        ({}, 0),
        ({"parameters": {"max_output_tokens": 9, "min_output_tokens": 9}}, 3),
        ({"prompts": {"source": "builtin", "chat_template": False, "seed": 1}}, 3),
        ({"precisions": ["float32", "int8", "bfloat16"]}, 0),
        ({"name": "other", "parameters": {"max_output_tokens": 9}}, 0),
        ({"recommendation": {"max_ttft_s": 1}}, 0),
    ],
)
def test_what_would_be_measured_anew_is_said_before(tmp_path, changed, count):
    before = make(tmp_path, precisions=["float32", "int8"], protocol={"repeats": 2})
    freeze.write_plan(before, tmp_path)
    for repeat in before.plan.repeats()[:3]:
        spec = read_json(tmp_path / repeat.spec)
        spec["notes"] = [
            {"parameter": "x", "status": "hint", "message": "as older versions said it"}
        ]
        write_json(tmp_path / repeat.measurement, {"spec": spec, "effective": {}})
    after = {"precisions": ["float32", "int8"], "protocol": {"repeats": 2}} | changed
    found = freeze.pending(make(tmp_path, **after), {}, tmp_path)
    assert len(found.stale) == count
    line = found.describe()
    assert (line or "Sweep tiny: 0 ").startswith(f"Sweep tiny: {count} ")
    assert "another `name`" in (line or "another `name`")


def test_a_head_is_read_without_what_follows_and_damage_is_said(tmp_path):
    path = tmp_path / "r01.json"
    write_json(path, {"spec": {"a": ', "effective": '}, "effective": {"spec": 1}})
    path.write_text(path.read_text().replace('"spec": 1', '"spec": damaged'))
    assert currency.read_head(path) == {"spec": {"a": ', "effective": '}}
    for content in ("", "[]", '{"spec": {', '{"spec": {\n "effective": '):
        path.write_text(content)
        with pytest.raises(RecordError, match=r"r01\.json"):
            currency.read_head(path)
