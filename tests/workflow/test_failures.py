"""What a failed job costs, and what the last lines on the terminal say of it."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from support import builders
from support.project import Project, example

from llm_energy.analysis.evidence import failures
from llm_energy.core.files import write_json
from llm_energy.publish import closing
from llm_energy.records import Failure, write_record

# What a stage does when the file `fault` is there and the model's id is among its arguments.
FAULTS = {
    "measure": ("killed", "os.kill(os.getpid(), signal.SIGKILL)"),
    "models": ("unfetched", "sys.exit('error: huggingface.co cannot be reached')"),
    "prompts": ("untokenised", "raise TypeError('the template raises')"),
}
INSERTED = """
import os, signal, sys
if os.path.exists("fault") and any("{model}" in argument for argument in sys.argv):
    {fault}
"""
WELL = "well--simulated--bfloat16"


def run(project: Project, status: int, *arguments: str) -> str:
    done = project.snakemake("--configfile", "simulated.yaml", *arguments, check=False)
    assert done.returncode == status, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    """Run a sweep of which each model but one fails in a stage of its own."""
    project = Project(tmp_path_factory.mktemp("project") / "copy")
    models = ["well"]
    for name, (model, fault) in FAULTS.items():
        models.append(model)
        script = project.folder / "scripts" / f"{name}.py"
        code = INSERTED.format(model=model, fault=fault)
        script.write_text(
            script.read_text().replace("\n\nif __name__", f"\n\n{code}\n\nif __name__")
        )
    base = example("simulated")
    one = base["models"][0]
    sweep = base | {
        "models": [one | {"id": id, "model_name": f"simulated/{id}"} for id in models],
        "precisions": ["bfloat16"],
        "workloads": base["workloads"][:1],
        "protocol": {"repeats": 2},
    }
    project.write_config("simulated", sweep)
    (project.folder / "fault").touch()
    project.output = run(project, 1)
    return project


REASONS = {
    "killed": ("oom", "signal 9 (SIGKILL)", "simulated/measure/killed--simulated--bfloat16/r01"),
    "unfetched": ("failed", "huggingface.co cannot be reached", "models/unfetched"),
    "untokenised": ("failed", "TypeError: the template raises", "simulated/prompts/untokenised"),
}


@pytest.mark.parametrize("model", REASONS)
def test_a_failed_cell_is_a_row_with_its_reason_beside_those_that_went_well(failed, model):
    outcome, reason, log = REASONS[model]
    with open(failed.folder / "results/simulated/tables/failures.csv", newline="") as stream:
        [row] = [row for row in csv.DictReader(stream) if row["model"] == model]
    assert row["outcome"] == outcome
    assert reason in row["reason"]
    rows = failed.read("results/simulated/simulated/aggregate.json")["rows"]
    assert {row["n"] for row in rows if row["model"] == "well"} == {2}
    kept = failed.read(
        f"results/simulated/simulated/measurements/{model}--simulated--bfloat16/r01.failed.json"
    )
    assert kept["log"] == f"logs/{log}.log"
    assert (
        (failed.folder / kept["log"]).read_text().endswith(f"exit status {kept['exit_status']}\n")
    )


def test_the_last_lines_name_each_failed_cell_its_reason_and_its_log(failed):
    last = failed.output[failed.output.index("No usable result:") :]
    for model, (outcome, reason, log) in REASONS.items():
        told = re.sub(r"\s+", " ", last)
        assert f"{model}--simulated--bfloat16 r01 r02: {outcome}: " in told
        assert reason in told
        assert f"see logs/{log}.log" in last
    assert "The same command tries again" in last
    assert "logs/slurm" not in failed.output
    assert "report.html" in failed.output
    assert max(map(len, last.splitlines())) <= closing.WIDTH


def test_the_same_command_measures_what_failed_and_nothing_else(failed):
    (failed.folder / "fault").unlink()
    assert failed.jobs("--configfile", "simulated.yaml")["measure"] == 6
    well = failed.folder / f"results/simulated/simulated/measurements/{WELL}/r01.json"
    before = well.read_bytes()
    said = run(failed, 0)
    assert "No usable result" not in said
    assert well.read_bytes() == before
    assert {
        row["n"] for row in failed.read("results/simulated/simulated/aggregate.json")["rows"]
    } == {2}
    assert not list(failed.folder.rglob("*.failed.json"))
    assert "Nothing to be done" in run(failed, 0)


def test_what_came_to_nothing_is_measured_again_where_the_policy_says_so(failed):
    path = failed.folder / "results/simulated/simulated/verdicts.json"
    judged = failed.read("results/simulated/simulated/verdicts.json")
    judged["verdicts"][0]["verdict"] = "invalid"
    judged["verdicts"][1]["outcome"] = "failed"
    write_json(path, judged)
    first = failed.folder / judged["verdicts"][0]["measurement"]
    before = first.read_bytes()
    invalid = ("--config", "policy={measure_again: [invalid]}")
    both = ("--config", "policy={measure_again: [invalid, failed]}")
    assert "measure" not in failed.jobs("--configfile", "simulated.yaml")
    assert failed.jobs("--configfile", "simulated.yaml", *both)["measure"] == 2
    assert failed.jobs("--configfile", "simulated.yaml", *invalid)["measure"] == 1
    assert "1 of its measurements are taken again" in run(failed, 0, *invalid)
    assert first.with_name("r01.superseded-1.json").read_bytes() == before
    assert "Nothing to be done" in run(failed, 0, *invalid)


def test_an_interrupted_run_makes_no_tables_and_says_how_to_go_on(failed):
    (failed.folder / "results/simulated/simulated/measurements" / WELL / "r01.json").unlink()
    script = failed.folder / "scripts" / "measure.py"
    text = script.read_text()
    code = "import time\nopen('begun', 'w').close()\ntime.sleep(600)"
    script.write_text(text.replace("\n\nif __name__", f"\n\n{code}\n\nif __name__"))
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--configfile", "simulated.yaml"]
    with subprocess.Popen(
        command,
        cwd=failed.folder,
        start_new_session=True,
        # In the background SIGINT is ignored, and that would be passed on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        while not (failed.folder / "begun").exists():
            assert process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        said = process.communicate()[0]
    assert process.returncode == 1
    assert said.endswith(
        "Not measured: 1 of 8 repeats. The same command goes on with sweep simulated.\n"
    )
    assert not list(failed.folder.rglob("*.failed.json"))
    script.write_text(text)


def test_a_failure_is_told_also_where_an_older_measurement_stands(failed):
    (failed.folder / "fault").touch()
    told = re.sub(r"\s+", " ", run(failed, 1, "--config", "random_seed=7"))
    assert "killed--simulated--bfloat16 r01 r02: oom: " in told
    assert "what was measured before is of another config" in told
    rows = failed.read("results/simulated/simulated/aggregate.json")["rows"]
    assert {row["model"]: row["n"] for row in rows}["well"] == 2
    assert {row["model"]: row["n"] for row in rows}["killed"] == 0


def test_a_model_alone_that_fails_is_told_and_no_cell_is_said_to_have(failed):
    (failed.folder / "results/models/unfetched/manifest.json").unlink()
    (failed.folder / "fault").touch()
    before = set(failed.folder.rglob("*.failed.json"))
    told = run(failed, 1, "--until", "models")
    assert "models: huggingface.co cannot be reached\n    see logs/models/unfetched.log" in told
    assert set(failed.folder.rglob("*.failed.json")) == before


LOGS = {
    "": (None, "failed", "ended without a word"),
    "exit status 1\n": (1, "failed", "exit status 1 and no message"),
    "exit status 137\n": (137, "oom", "signal 9 (SIGKILL)"),
    "noise\nexit status 139\n": (139, "failed", "signal 11 (SIGSEGV); its last words: noise"),
    "exit status 250\n": (250, "failed", "signal 122 (unknown)"),
    "warning: slow\nerror: no such file:\n  x.gguf\nexit status 1\n": (
        1,
        "failed",
        "no such file: x.gguf",
    ),
    'Traceback (most recent call last):\n  File "x"\nKeyError: 1\nexit status 1\n': (
        1,
        "failed",
        "KeyError: 1",
    ),
}


@pytest.mark.parametrize("text", LOGS)
def test_a_log_says_how_its_job_ended(tmp_path, text):
    log = tmp_path / "r01.log"
    log.write_text(text)
    status, outcome, reason = LOGS[text]
    found = failures.failure_of(log)
    assert (found.exit_status, found.outcome) == (status, outcome)
    assert reason in found.reason


def test_a_run_that_went_well_ends_with_its_invalid_and_failed_cells(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Path("results/s/pytorch")
    reason = "the driver says " + "much " * 40
    told = [
        ("c1", 1, "b1", "ok", "M09 energy that cannot be", "invalid"),
        ("c1", 2, "b1", "ok", "M09 energy that cannot be", "invalid"),
        ("c2", 1, "b1", "failed", reason, "invalid"),
        ("c3", 1, "b1", "missing", "there is no such file", "invalid"),
        ("c4", 0, "b1", "unsupported", "planned so", "invalid"),
        ("c5", 1, "b1", "ok", None, "valid"),
        ("c6", 1, "b1", "not_needed", "known well enough", "valid"),
    ]
    names = ("cell", "repeat", "workload", "outcome", "reason", "verdict")
    verdicts = [dict(zip(names, values, strict=True)) for values in told]
    write_json(folder / "verdicts.json", {"verdicts": verdicts})
    for cell in ("c1", "c2"):
        write_json(folder / "measurements" / cell / "r01.json", {})
    gone = Failure(1, "failed", "x", 1, "logs/s/measure/c3/r01.log")
    write_record(folder / "measurements" / "c3" / "r01.failed.json", gone)
    lines = closing.closing_message("s", ["pytorch", "vllm"]).splitlines()
    assert max(map(len, lines)) <= closing.WIDTH
    said = re.sub(r"\s+", " ", " ".join(lines))
    assert "c1 r01 r02 (b1): invalid: M09 energy that cannot be" in said
    assert "see results/s/pytorch/measurements/c1/r01.json" in said
    assert f"c2 r01 (b1): failed: {reason.strip()}" in said
    assert "c3 r01: failed: x" in said
    assert "see logs/s/measure/c3/r01.log" in said
    assert not any(cell in said for cell in ("c4", "c5", "c6"))
    assert "--config 'policy={measure_again: [failed, oom, invalid]}'" in said
    assert "The same command tries again" in said


@pytest.mark.parametrize(("shared", "told"), [(0, False), (2, False), (3, True), (9, True)])
def test_a_run_on_a_busy_host_says_so_in_one_sentence(tmp_path, shared, told):
    flags = [[{"id": "H07"}] if number < shared else [{"id": "M22"}] for number in range(9)]
    verdicts = [{"repeat": 1, "flags": one} for one in flags]
    write_json(tmp_path / "pytorch" / "verdicts.json", {"verdicts": verdicts})
    said = " ".join(closing.noise(tmp_path, ["pytorch", "vllm"]))
    assert (f"other work during {shared} of 9 windows (H07)" in said) is told
    assert bool(said) is told


def test_a_run_ends_with_what_each_choice_changed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tables = Path("results/s/tables")
    tables.mkdir(parents=True)
    (tables / "energy.txt").write_text("THE TABLE\n")
    told = [f"On pytorch at b{k}, int8 used 12 % less, in words" for k in range(8)]
    rows = "".join(f'{metric},"{text}"\n' for text in told for metric in ("energy", "speed"))
    (tables / "summary.csv").write_text(f"metric,statement\n{rows}")
    said = closing.closing_message("s", [])
    assert said.index("THE TABLE") < said.index("In short:") < said.index("Files: ")
    assert [said.count(text) for text in told] == [1] * closing.ANSWERS + [0, 0]
    assert "and 2 more: results/s/tables/summary.md has all" in said


def test_an_interrupted_run_counts_what_was_measured_for_another_config_as_missing(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    plan = builders.plan([("pytorch", "float32")], repeats=3, sweep="s")
    for planned in plan.repeats():
        spec = builders.spec(repeat=planned.number, sweep="s")
        measured = spec if planned.number == 1 else replace(spec, seed=2)
        write_record(planned.spec, spec)
        if planned.number < 3:
            write_record(planned.measurement, builders.measurement(measured))
    told = closing.stopped_message(plan)
    assert told == "Not measured: 2 of 3 repeats. The same command goes on with sweep s."
