"""The whole workflow on a real engine: what a user runs, and what a change makes it run again."""

from __future__ import annotations

import csv
import json
import math
import shutil

import pytest
import yaml
from support.host_faults import is_measured
from support.project import ROOT, Project, example, tiny_sweep
from support.shares import assert_shared_out

from llm_energy.environments import registry

PRECISIONS = example("precisions")["precisions"]
STAGES = (
    *("audit", "validate", "normalise", "aggregate", "compare", "load_curve", "phases"),
    "sameness",
)
SHOWN = ("tables", "data", "figures", "report", "provenance")
CHEAP = dict.fromkeys((*STAGES, *SHOWN, "all"), 1)

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Run all precisions, as in their example, on one backend and a tiny model.

    Tests undo what they change.
    """
    project = Project(tmp_path_factory.mktemp("project") / "copy")
    axes = {axis: example("precisions")[axis] for axis in ("precisions", "workloads")}
    sweep = tiny_sweep(project.tiny_model("tiny", "llama"), **axes)
    config = project.write_config("tiny", sweep)
    project.output = project.snakemake("--configfile", config).stdout
    project.sweep = sweep
    return project


def test_every_precision_and_workload_has_finite_joules_per_output_token(swept):
    rows = _rows(swept, "tiny", "energy")
    assert {row["precision"] for row in rows} == set(PRECISIONS)
    assert {row["workload"] for row in rows} == {"b1", "b4"}
    for row in rows:
        if is_measured(swept, row):
            assert 0 < float(row["energy_per_output_token_j_mean"]) < math.inf


def test_quantised_cells_are_really_quantised(swept):
    weight_bytes = {
        precision: swept.read(
            f"results/tiny/pytorch/measurements/tiny--pytorch--{precision}/r01.json"
        )["effective"]["weight_bytes"]
        for precision in PRECISIONS
    }
    assert weight_bytes["float16"] == weight_bytes["bfloat16"] < weight_bytes["float32"]
    assert weight_bytes["int4"] < weight_bytes["int8"] < weight_bytes["float16"]


def test_tokens_are_counted_from_the_ids_that_the_engine_gave(swept):
    path = "results/tiny/pytorch/measurements/tiny--pytorch--float32/r01.json"
    for window in swept.read(path)["windows"]:
        assert set(window["requests"]["output_tokens"]) == {8}
        assert {len(ids) for ids in window["output_token_ids"].values()} == {8}
        assert len(window["requests"]["request_id"]) == 4 * window["passes"]


def test_every_joule_is_a_request_s_or_was_drawn_while_no_step_ran(swept):
    assert_shared_out(swept.read("results/tiny/pytorch/metrics.json"))


def test_without_a_sensor_every_joule_says_that_it_is_estimated(swept):
    measurement = swept.read("results/tiny/pytorch/measurements/tiny--pytorch--float32/r01.json")
    statuses = {
        energy["status"] for w in measurement["windows"] for energy in w["interval"]["energy"]
    }
    labels = {row["energy_status"] for row in _rows(swept, "tiny", "energy")}
    assert labels == statuses - {"unavailable"}
    if "measured" not in statuses:
        assert "estimated" in swept.output.splitlines()[-3:][0] or "estimated" in swept.output


def test_one_line_a_repeat_says_what_is_on_and_what_is_left(swept):
    for position in range(1, 6):
        assert f"[{position}/5] tiny--pytorch--" in swept.output
    assert "left" in swept.output


def test_a_second_run_does_nothing(swept):
    assert "Nothing to be done" in swept.snakemake("--configfile", "tiny.yaml").stdout


def test_a_new_precision_runs_only_its_own_cells(swept):
    records = [{"id": "int4-float32", "precision": "int4", "compute_precision": "float32"}]
    config = swept.write_config("more", swept.sweep | {"precisions": PRECISIONS + records})
    assert swept.jobs("--configfile", config) == {"plan": 1, "measure": 1, **CHEAP}


def test_a_new_repeat_runs_only_that_repeat_of_each_cell(swept):
    protocol = swept.sweep["protocol"] | {"repeats": 2}
    config = swept.write_config("twice", swept.sweep | {"protocol": protocol})
    assert swept.jobs("--configfile", config) == {"plan": 1, "measure": 5, **CHEAP}


def test_a_changed_parameter_measures_every_cell_again(swept):
    parameters = swept.sweep["parameters"] | {"max_output_tokens": 9, "min_output_tokens": 9}
    config = swept.write_config("longer", swept.sweep | {"parameters": parameters})
    assert swept.jobs("--configfile", config) == {"plan": 1, "measure": 5, **CHEAP}


AFTER_METRICS = dict.fromkeys((*STAGES[2:-1], *SHOWN, "all"), 1)


@pytest.mark.parametrize(
    ("name", "jobs"),
    [
        ("tables.py", {"tables": 1, "provenance": 1, "all": 1}),
        ("llm_energy/publish/report/report.css", {"report": 1, "all": 1}),
        ("llm_energy/analysis/normalise.py", AFTER_METRICS),
        ("llm_energy/records/window.py", CHEAP),
    ],
)
def test_an_edited_file_makes_again_what_it_decides_and_measures_nothing(swept, name, jobs):
    path = swept.folder / "scripts" / name
    text = path.read_text(encoding="utf-8")
    path.write_text(text + "\n", encoding="utf-8")
    try:
        assert swept.jobs("--configfile", "tiny.yaml") == jobs
    finally:
        path.write_text(text, encoding="utf-8")


def test_an_edited_measuring_script_measures_nothing_again(swept):
    for name in (
        "measure.py",
        "llm_energy/measure/protocol.py",
        "llm_energy/backends/pytorch/backend.py",
    ):
        (swept.folder / "scripts" / name).touch()
    assert swept.jobs("--configfile", "tiny.yaml") == {}


def test_a_deleted_measurement_is_the_only_one_measured_again(swept):
    path = swept.folder / "results/tiny/pytorch/measurements/tiny--pytorch--float32/r01.json"
    kept = path.with_suffix(".kept")
    path.rename(kept)
    try:
        assert swept.jobs("--configfile", "tiny.yaml") == {"measure": 1, **CHEAP}
    finally:
        kept.rename(path)


@pytest.fixture(scope="module")
def other(swept):
    """Run the example of two backends on a model of another architecture, and on a broken one.

    Instead of its second engine it has one that needs a GPU. Gives that sweep and its tables.
    """
    tiny = tiny_sweep(swept.tiny_model("other", "gpt2"))
    model = tiny["models"][0] | {"id": "other"}
    broken = {"id": "broken", "model_name": "broken"}
    broken["source"] = {"kind": "folder", "path": str(_broken_model(swept))}
    sweep = example("backends") | {key: tiny[key] for key in ("device", "protocol")}
    sweep |= {"name": "other", "models": [model, broken]}
    sweep["backends"] = ["pytorch", "tensorrt"]
    swept.snakemake("--configfile", swept.write_config("other", sweep))
    return sweep, {name: _rows(swept, "other", name) for name in ("energy", "failures")}


def test_a_model_of_another_architecture_runs_by_config_alone_beside_cells_that_cannot(
    swept, other
):
    sweep, tables = other
    rows = [row for row in tables["energy"] if row["cell"] == "other--pytorch--float32"]
    assert {row["workload"] for row in rows} == {work["id"] for work in sweep["workloads"]}
    assert {row["outcome"] for row in rows} == {"ok"}
    assert all(float(row["duration_s_mean"]) > 0 for row in rows if is_measured(swept, row))


def test_a_cell_that_the_engine_cannot_load_is_a_row_with_its_reason(other):
    sweep, tables = other
    cell = "broken--pytorch--float32"
    rows = [row for row in tables["energy"] if row["cell"] == cell]
    assert {(row["outcome"], row["n"]) for row in rows} == {("unsupported", "0")}
    reasons = [row["reason"] for row in tables["failures"] if row["cell"] == cell]
    assert len(reasons) == len(sweep["workloads"])
    assert all("no-such-architecture" in reason for reason in reasons)


def test_cells_that_need_a_gpu_are_rows_with_their_reason(other):
    sweep, tables = other
    outcomes = {row["outcome"] for row in tables["energy"] if row["backend"] == "tensorrt"}
    assert outcomes == {"unsupported"}
    reasons = [row["reason"] for row in tables["failures"] if row["backend"] == "tensorrt"]
    assert len(reasons) == len(sweep["models"]) * len(sweep["workloads"])
    assert all("NVIDIA GPU" in reason for reason in reasons)


def test_a_second_engine_is_measured_on_the_same_work_and_stands_apart(swept, other):
    name = registry.environment_name("vllm", "cpu")
    if not registry.is_installed(ROOT, name):
        pytest.skip(f"environment {name} is not built here")
    sweep, _ = other
    backends = example("backends")["backends"]
    sweep = sweep | {"models": sweep["models"][:1], "backends": backends}
    arguments = ("--configfile", swept.write_config("both", sweep))
    assert swept.jobs(*arguments)["measure"] == 1
    swept.snakemake(*arguments)

    for backend in ("pytorch", "vllm"):
        aggregate = swept.read(f"results/other/{backend}/aggregate.json")
        assert {(row["backend"], row["outcome"]) for row in aggregate["rows"]} == {(backend, "ok")}
    ours, theirs = (
        swept.read(f"results/other/{backend}/measurements/other--{backend}--float32/r01.json")
        for backend in ("pytorch", "vllm")
    )
    for key in ("prompts_sha256", "weights_sha256", "tokenizer_sha256"):
        assert ours[key] == theirs[key]
    rows = _rows(swept, "other", "sameness")
    assert {row["workload"] for row in rows} == {work["id"] for work in sweep["workloads"]}
    for row in rows:
        assert (row["backends"], row["same_prompts"]) == ("pytorch vllm", "True")
        assert float(row["identical_requests"]) == 1.0


def _broken_model(project):
    """Return a model of an architecture that no engine knows."""
    folder = project.folder / "local-models" / "broken"
    shutil.copytree(project.folder / "local-models" / "tiny", folder)
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = "no-such-architecture"
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def _rows(project, sweep, table):
    with open(project.folder / f"results/{sweep}/tables/{table}.csv", newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_backend_that_is_not_installed_is_a_row_and_the_other_cells_run(swept):
    (swept.folder / ".venvs").unlink()
    try:
        shown = swept.snakemake("--dry-run", "--configfile", "tiny.yaml").stdout
    finally:
        (swept.folder / ".venvs").symlink_to(ROOT / ".venvs")
    assert "tiny--pytorch--float32: unsupported" in shown
    assert "make envs BACKENDS=pytorch" in shown


def test_the_example_of_one_experiment_on_a_real_language_model(swept):
    few = {key: tiny_sweep("")[key] for key in ("device", "protocol")}
    few |= {"max_output_tokens": 2, "min_output_tokens": 2}
    default = yaml.safe_load((swept.folder / "config/config.yaml").read_text())
    sweep = example("single") | few | {"models": default["models"]}
    swept.snakemake("--configfile", swept.write_config("single", sweep))
    (row,) = swept.read("results/single/pytorch/aggregate.json")["rows"]
    assert (row["outcome"], row["precision"], row["workload"]) == ("ok", "float16", "default")
    manifest = swept.read("results/models/smollm2-135m/manifest.json")
    assert 130e6 < manifest["parameter_count"] < 180e6
    assert any("dequantised" in note for note in manifest["notes"])
