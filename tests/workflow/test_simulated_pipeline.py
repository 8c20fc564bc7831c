"""The whole workflow on a simulated host, and what keeps simulated and real joules apart."""

from __future__ import annotations

import copy
import csv
import re
import subprocess
import sys
from pathlib import Path

import pandas
import pytest
from support import simulated_runs
from support.project import ROOT, Deployed, Project, example
from support.shares import assert_shared_out

from llm_energy.core.errors import ConfigError
from llm_energy.environments import registry
from llm_energy.inputs.models.stage import fetch
from llm_energy.inputs.prompts.stage import make_prompt_set
from llm_energy.measure.run import machine_for
from llm_energy.measure.simulation import open_host
from llm_energy.measure.simulation.host import SimulatedHost
from llm_energy.measure.simulation.truth import EngineTruth
from llm_energy.plan import plan
from llm_energy.plan.config.load import load_sweep
from llm_energy.records import (
    AskedPrompts,
    Measurement,
    PromptRequest,
    PromptSet,
    Spec,
    parse_record,
    read_record,
)
from llm_energy.records.registry.engines import SIMULATED_IDS

EXAMPLE = example("simulated")
MEASUREMENTS = "results/simulated/simulated/measurements"
CELL = "simulated-8b--simulated--bfloat16"


SMALL = EXAMPLE | {"precisions": ["bfloat16"], "protocol": {"repeats": 2}}


def sweep(**changes) -> dict:
    return copy.deepcopy(EXAMPLE) | changes


def planned(tmp_path: Path, **changes) -> plan.Planning:
    loaded = load_sweep(sweep(**changes), root=tmp_path)
    return plan.make_plan(loaded, plan.installed_engine(ROOT, loaded.device, provided=False))


# the workflow


@pytest.mark.parametrize(
    ("renamed", "use"),
    [("", "use rule * from energy as my_*"), ('prefix: "a"', "use rule * from energy")],
)
def test_a_module_keeps_the_names_of_its_rules_and_files(tmp_path, renamed, use) -> None:
    (tmp_path / "Snakefile").write_text(
        f'module energy:\n    snakefile: "{ROOT}/Snakefile"\n    config: config\n    {renamed}\n'
        f"\n{use}\n"
    )
    config = ROOT / "config" / "examples" / "simulated.yaml"
    command = [sys.executable, "-m", "snakemake", "--configfile", config, "-n"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "error: module energy: its rules and files keep their names; leave" in done.stderr


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Run a small sweep once, where the project is the module of another; tests only look at it."""
    project = Deployed(tmp_path_factory.mktemp("project") / "user")
    arguments = ("--configfile", project.write_config("simulated", SMALL))
    refused = project.snakemake(*arguments, check=False)
    assert refused.returncode == 1
    project.build_environments(refused.stdout)
    project.output = project.snakemake(*arguments).stdout
    return project


def test_a_config_on_the_command_line_stands_alone_in_a_module_too(swept) -> None:
    assert (swept.folder / "config" / "config.yaml").is_file()  # which the module is handed, too
    assert swept.read("results/simulated/config.json") == SMALL


def test_every_table_says_first_that_it_is_simulated(swept) -> None:
    tables = swept.folder / "results" / "simulated" / "tables"
    for kind in ("txt", "md", "tex"):
        first = (tables / f"energy.{kind}").read_text("utf-8").splitlines()[0]
        assert "SIMULATED" in first
    with open(tables / "energy.csv", newline="") as stream:
        assert {row["simulated"] for row in csv.DictReader(stream)} == {"True"}
    assert "SIMULATED" in swept.output
    times = re.findall(r"^\[\d/2\] .*: ok in (.*)$", swept.output, re.MULTILINE)
    assert len(times) == 2
    assert all(one.endswith(" (simulated)") for one in times)


def test_every_record_says_that_it_is_simulated_and_is_valid(swept) -> None:
    for repeat in ("r01", "r02"):
        record = swept.read(f"{MEASUREMENTS}/{CELL}/{repeat}.json")
        assert record["meter"]["simulated"] is True
        assert record["host"]["hostname"] == "simulated"
        assert "torch" not in record["host"]["packages"]
        tokens, total_nll = (record["quality"][key] for key in ("tokens", "total_nll"))
        assert total_nll == pytest.approx(EngineTruth().nll_per_token * tokens)
    verdicts = swept.read("results/simulated/simulated/verdicts.json")["verdicts"]
    assert len(verdicts) == 6
    assert {verdict["verdict"] for verdict in verdicts} == {"valid"}


def test_the_pipeline_finds_the_truth(swept) -> None:
    """Live through the same repeat again: the same joules, and within a tick those drawn."""
    folder = swept.folder / "results" / "simulated"
    spec = read_record(Spec, folder / "specs" / CELL / "r02.json")
    prompts = read_record(PromptSet, folder / "prompts" / "simulated-8b.json")
    host = open_host(spec)
    again = simulated_runs.run(host, spec, prompts.requests, folder / "again.trace.csv.gz")
    path = f"{MEASUREMENTS}/{CELL}/r02.json"
    written = parse_record(Measurement, swept.read(path), path)
    assert again.windows == written.windows
    for window in again.windows:
        [gpu] = [e for e in window.interval.energy if e.component == "gpu"]
        begin_s, end_s = window.interval.start_s, window.interval.end_s
        truth_j = host.truth_energy_j("gpu", begin_s, end_s)
        assert gpu.energy_j == pytest.approx(truth_j, rel=0.1 / (end_s - begin_s))


def test_every_joule_of_a_window_is_a_request_s_or_was_drawn_while_no_step_ran(swept) -> None:
    folder = swept.folder / "results" / "simulated"
    assert_shared_out(swept.read("results/simulated/simulated/metrics.json"))
    keys = ["workload", "repeat"]
    requests = pandas.read_parquet(folder / "data" / "requests.parquet").groupby(keys)
    windows = pandas.read_parquet(folder / "data" / "windows.parquet")
    windows = windows[windows["energy_status"] == "measured"].set_index(keys)
    given = requests[["attributed_energy_j", "attributed_idle_energy_j"]].sum()
    assert len(given) == len(windows) == 6
    for place, row in windows.iterrows():
        both_j = given.loc[place]
        assert both_j.sum() == pytest.approx(row["gross_energy_j"], rel=1e-9)
        assert both_j["attributed_energy_j"] == pytest.approx(row["attributed_energy_j"])
        assert row["attributed_reason"] is pandas.NA
    with open(folder / "tables" / "requests.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["of"] for row in rows} >= {"mean", "p50", "dearest", "lengths"}
    mean = next(r for r in rows if r["workload"] == "b8" and r["of"] == "mean")
    dearest = next(r for r in rows if r["workload"] == "b8" and r["of"] == "dearest")
    assert float(dearest["attributed_energy_j"]) >= float(mean["attributed_energy_j"])
    index = {one["name"]: one for one in swept.read("results/simulated/figures/index.json")}
    assert len(index["energy_by_request"]["files"]) == 2


def test_a_second_run_does_nothing(swept) -> None:
    assert "Nothing to be done" in swept.snakemake("--configfile", "simulated.yaml").stdout


OTHERS = {
    "dry run": ("--dry-run", "--config", "random_seed=7"),
    "dry run with more": ("--dry-run", "--no-hooks", "--config", "protocol={repeats: 3}"),
    "nothing to do": ("--config", "policy={same_node_per_block: true}"),
    "not a run": ("--list-rules", "--config", "random_seed=7"),
}


@pytest.mark.parametrize("arguments", OTHERS.values(), ids=OTHERS)
def test_a_sweep_with_results_keeps_its_plan_until_a_job_starts(swept, arguments) -> None:
    before = files_of(swept)
    assert before
    shown = swept.snakemake("--configfile", "simulated.yaml", *arguments).stdout
    assert files_of(swept) == before
    if "--dry-run" in arguments:
        assert re.search(r"^measure +[12]$", shown, re.MULTILINE)
    else:
        assert "Nothing to be done" in shown or "--list-rules" in arguments
    assert shown.count("measurements are of another") == ("random_seed=7" in arguments)
    verified(swept)


@pytest.mark.parametrize("hooks", [(), ("--no-hooks",)], ids=["hooks", "no hooks"])
def test_a_run_that_starts_jobs_keeps_the_plan_that_they_obeyed(swept, tmp_path, hooks) -> None:
    project = Project(tmp_path / "copy")
    for part in ("results", ".snakemake", "simulated.yaml"):
        subprocess.run(["cp", "-a", swept.folder / part, project.folder], check=True)
    bounds = f"recommendation={{max_ttft_s: {len(hooks) + 2}}}"
    project.snakemake("--configfile", "simulated.yaml", *hooks, "--config", bounds)
    assert (
        project.read("results/simulated/plan.json")["recommendation"]["max_ttft_s"]
        == len(hooks) + 2
    )
    verified(project)


def files_of(project: Project) -> dict[Path, tuple[bytes, int] | None]:
    """Return the content and the time of every file of the results, and every folder."""
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns) if path.is_file() else None
        for path in (project.folder / "results").rglob("*")
    }


def verified(project: Project) -> None:
    """Verify the sweep as a user does."""
    script = project.root / "scripts" / "lineage.py"
    command = [sys.executable, script, "results/simulated", "--verify"]
    subprocess.run(command, cwd=project.folder, check=True)


def test_the_page_of_the_sweep_is_there_and_named_at_the_end(swept) -> None:
    page = (swept.folder / "results" / "simulated" / "report.html").read_text("utf-8")
    assert "What does a token cost?" in page
    assert "Simulated." in page
    assert "Report: results/simulated/report.html" in swept.output
    index = swept.read("results/simulated/figures/index.json")
    assert "energy_by_backend" in [one["name"] for one in index if one["reason"]]


def test_the_report_of_snakemake_has_figures_tables_and_page_with_captions(swept) -> None:
    swept.snakemake("--configfile", "simulated.yaml", "--report", "snakemake.html")
    report = (swept.folder / "snakemake.html").read_text("utf-8")
    for category in ("Figures", "Tables", "Report"):
        assert f'"{category}": {{' in report
    for caption in ("hollow", "Every value unrounded", "needs no network"):
        assert caption in report
    assert "energy_by_batch.svg" in report
    assert "energy.csv" in report


# plan and config


def test_it_runs_in_the_workflow_environment_and_needs_no_other(tmp_path: Path) -> None:
    assert registry.environment_name("simulated", "cpu") == "workflow"
    assert registry.preparing_name(["simulated"], "auto") == "workflow"
    made = planned(tmp_path)
    assert [cell.outcome for cell in made.plan.cells] == ["planned"] * 2
    assert {s.device for s in made.specs.values()} == {"cuda"}


@pytest.mark.parametrize("id", SIMULATED_IDS)
def test_a_sweep_keeps_the_id_by_which_it_calls_the_simulated_backend(tmp_path, id) -> None:
    made = planned(tmp_path, backends=[id], precisions=["bfloat16"])
    spec = next(iter(made.specs.values()))
    assert (spec.backend, plan.gpus_needed(spec)) == (id, 0)
    assert registry.preparing_name([id], "auto") == "workflow"
    assert isinstance(machine_for(spec), SimulatedHost)
    with pytest.raises(ConfigError, match=f"found '{id}' beside"):
        planned(tmp_path, backends=["pytorch", id])


def test_a_simulated_host_may_have_no_gpus(tmp_path: Path) -> None:
    spec = planned(tmp_path, device="cpu").specs[f"results/simulated/specs/{CELL}/r01.json"]
    assert spec.device == "cpu"
    host = open_host(spec)
    engine = host.create_backend("simulated")
    assert engine.load(spec, tmp_path)["device_uuids"] == []
    assert host.gpus == []


def test_repeats_and_cells_differ_in_noise_and_not_in_hardware(tmp_path: Path) -> None:
    made = planned(tmp_path)
    hosts = [open_host(s) for s in made.specs.values()]
    assert len({repr(host.truth) for host in hosts}) == 1
    assert len({host.gpus[0].counter_mj() for host in hosts}) == len(hosts)


@pytest.mark.parametrize("others", [["pytorch"], ["vllm", "pytorch"]])
def test_simulated_and_real_backends_are_never_in_one_sweep(tmp_path, others) -> None:
    with pytest.raises(ConfigError) as caught:
        planned(tmp_path, backends=[*others, "simulated"])
    [line] = caught.value.problems
    assert "found 'simulated' beside" in line
    assert "allowed alone" in line


def test_simulated_models_and_the_simulated_backend_go_together(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="allowed a kind other than 'simulated'"):
        planned(tmp_path, backends=["pytorch"])
    real = [{"id": "m", "model_name": "someone/model"}]
    with pytest.raises(ConfigError, match="found 'hub', allowed 'simulated'"):
        planned(tmp_path, models=real)
    unsized = [{"id": "m", "model_name": "m", "source": {"kind": "simulated"}}]
    with pytest.raises(ConfigError, match="parameter_count: missing"):
        planned(tmp_path, models=unsized)


# the model


def model(count: int) -> dict:
    source = {"kind": "simulated", "parameter_count": count, "path": None}
    return {"id": "m", "model_name": "simulated/m", "revision": None, "source": source}


def test_a_simulated_model_has_a_manifest_of_its_size(tmp_path: Path) -> None:
    one, two = (fetch(model(count), tmp_path / str(count)) for count in (1000, 2000))
    assert (one.parameter_count, two.parameter_count) == (1000, 2000)
    assert one.weights_sha256 != two.weights_sha256
    assert one.tokenizer_sha256 == two.tokenizer_sha256
    assert one.notes == ("simulated: there are no weights",)


@pytest.mark.parametrize(
    "settings",
    [
        {"source": "builtin", "chat_template": True, "seed": 0},
        {"source": "builtin", "chat_template": False, "seed": 0},
        {"source": "synthetic", "input_tokens": 50, "chat_template": True, "seed": 3},
    ],
)
def test_its_prompts_need_no_tokenizer_library(tmp_path: Path, settings: dict) -> None:
    manifest = fetch(model(1000), tmp_path / "files")
    wanted = PromptRequest(1, "m", {"b1": AskedPrompts(4, settings)})
    made = make_prompt_set(wanted, tmp_path / "files", manifest)
    requests = made.requests["b1"]
    assert len({request.prompt_token_ids for request in requests}) == 4
    if "input_tokens" in settings:
        assert {len(request.prompt_token_ids) for request in requests} == {50}
