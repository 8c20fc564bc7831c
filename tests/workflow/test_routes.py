"""One sweep by every route: venvs, conda (a stand-in for it), and a real SLURM of one host."""

from __future__ import annotations

import csv
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from support import fake_conda
from support.host_faults import is_measured
from support.project import ROOT, Project, tiny_sweep
from support.slurm_project import ClusterProject, jobs, running_cluster

from llm_energy.environments import registry

pytestmark = pytest.mark.engine

BACKENDS = [
    backend
    for backend in ("pytorch", "vllm")
    if registry.is_installed(ROOT, registry.environment_name(backend, "cpu"))
]
ROUTES = ("venvs", "conda", "slurm")


def measurements(project: Project) -> dict[str, dict]:
    return {
        backend: project.read(
            f"results/tiny/{backend}/measurements/tiny--{backend}--float32/r01.json"
        )
        for backend in BACKENDS
    }


def table(project: Project) -> list[dict[str, str]]:
    with open(project.folder / "results/tiny/tables/energy.csv", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def routes(tmp_path_factory):
    """Run the sweep of both engines by all routes at once, on the same model.

    They share a host, so that each repeat is measured alone nevertheless.
    """
    folder = tmp_path_factory.mktemp("routes")
    venvs, conda = Project(folder / "venvs"), Project(folder / "conda")
    slurm = ClusterProject(folder / "slurm")
    sweep = tiny_sweep(
        venvs.tiny_model("tiny", "llama"),
        backends=BACKENDS,
        workloads=[{"id": "b2", "requests": 4, "batching": {"batch_size": 2}}],
    )
    binaries = fake_conda.install(folder / "stand-in-conda")
    path = f"{binaries}{os.pathsep}{os.environ['PATH']}"
    (conda.folder / ".venvs").unlink()
    for project in (venvs, conda, slurm):
        project.write_config("tiny", sweep)
    arguments = ("--configfile", "tiny.yaml", "--until", "tables")
    with running_cluster(), ThreadPoolExecutor() as pool:
        ends = [
            pool.submit(conda.snakemake, "--use-conda", *arguments, PATH=path),
            pool.submit(slurm.submit, *arguments),
            pool.submit(venvs.snakemake, *arguments),
        ]
        for end in ends:
            end.result()
        slurm.jobs_seen = jobs(slurm.folder)
    return dict(zip(ROUTES, (venvs, conda, slurm), strict=True))


def test_every_route_gives_the_same_table_of_the_same_work(routes):
    hashes = ("weights_sha256", "tokenizer_sha256", "prompts_sha256", "arrivals_sha256")
    keys = ("backend", "model", "precision", "workload", "outcome")
    seen = {}
    for route, project in routes.items():
        rows = table(project)
        seen[route] = {
            "columns": list(rows[0]),
            "rows": [{key: row[key] for key in keys} for row in rows],
            "work": {
                backend: {key: record[key] for key in hashes if key in record}
                for backend, record in measurements(project).items()
            },
        }
    assert seen["venvs"] == seen["conda"] == seen["slurm"]
    assert set(seen["venvs"]["work"]) == set(BACKENDS)
    measured = [r for p in routes.values() for r in table(p) if is_measured(p, r)]
    assert len({(row["energy_status"], row["components"]) for row in measured}) == 1


def test_conda_and_venvs_hold_the_same_packages_by_the_word_of_the_running_process(routes):
    for backend in BACKENDS:
        venv, conda = (measurements(routes[route])[backend]["host"] for route in ("venvs", "conda"))
        beside = {"uv": registry.pins(ROOT, "uv")["uv"]}  # for torch's CPU build
        assert conda["packages"] == dict(sorted((venv["packages"] | beside).items()))
        assert conda["python"].rpartition(".")[0] == venv["python"].rpartition(".")[0]


def test_conda_builds_one_environment_a_backend_and_takes_nothing_from_outside(routes):
    built = sorted((routes["conda"].folder / ".snakemake" / "conda").glob("*.yaml"))
    files = {path.read_text() for path in built}
    used = {"workflow", *(registry.environment_name(b, "cpu") for b in BACKENDS)}
    used.add(registry.environment_name("pytorch", "cpu"))
    assert files == {(ROOT / "envs" / f"{name}.yaml").read_text() for name in used}


def test_each_measurement_says_which_job_on_which_node_made_it(routes):
    assert {job.state for job in routes["slurm"].jobs_seen} == {"COMPLETED"}
    for record in measurements(routes["slurm"]).values():
        told = record["host"]["batch_job"]
        assert told["system"] == "slurm"
        assert (told["job_id"], told["node"]) in {
            (job.id, job.node) for job in routes["slurm"].jobs_seen
        }
    assert all(not r["host"].get("batch_job") for r in measurements(routes["venvs"]).values())
