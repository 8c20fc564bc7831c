"""Sweeps on a real SLURM of one host, which plays two nodes with stand-in GPUs."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess

import pytest
from support.slurm_project import (
    ClusterProject,
    Job,
    finished,
    jobs,
    running_cluster,
    simulated_sweep,
    wait_until,
)

# Of most sweeps only what is measured is looked at.
MEASURE = ("--until", "measure")
# Measuring processes wait here as long as the file hold-<repeat> is there.
HOLD = """
import os, sys, time
hold = "hold-" + sys.argv[sys.argv.index("--out") + 1][-8:-5]
while os.path.exists(hold):
    time.sleep(0.1)
"""

# A process that has less memory than its sweep needs fails, as one that the kernel kills would.
NEED_8_GB = """
import os, subprocess, sys
job = ["squeue", "--noheader", "--format=%m", "--jobs", os.environ["SLURM_JOB_ID"]]
if subprocess.check_output(job, text=True).strip() != "8000M":
    sys.exit("not enough memory")
"""

# Every measurement says when it begins and ends, by the clock that all processes of a host share.
WATCH = """
import pathlib, time
from llm_energy.measure import run as stage
metered = stage._metered
def watched(blank, *arguments):
    begin_s = time.monotonic()
    time.sleep(1)
    try:
        return metered(blank, *arguments)
    finally:
        with open("{file}", "a") as stream:
            stream.write(f"{{begin_s}} {{time.monotonic()}} {{blank.lock_wait_s}}\\n")
stage._metered = watched
"""


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """Have the cluster for the tests of this module."""
    with running_cluster():
        yield


def begin(folder, sweep, code="", held=(), arguments=MEASURE, **measure):
    """Begin a sweep whose measuring processes first run ``code``, which may hold some repeats."""
    project = ClusterProject(folder, **measure)
    project.insert(code)
    for repeat in held:
        (project.folder / f"hold-{repeat}").touch()
    config = project.write_config("sweep", sweep)
    return project, project.start("--configfile", config, *arguments)


@pytest.fixture(scope="module", autouse=True)
def begun(cluster, tmp_path_factory):
    """Begin all sweeps at once, since SLURM and Snakemake's plugin take their time over each."""
    folder = tmp_path_factory.mktemp("begun")
    two = ("r01", "r02")
    watch = WATCH.format(file=folder / "watch")
    policy = {"same_node_per_block": True}
    blocks = simulated_sweep("blocks", 2, precisions=["bfloat16", "int8"], policy=policy)
    sweeps = {
        "slow": begin(folder / "slow", simulated_sweep("slow", 3), HOLD, two, ("--retries", "0")),
        "head": begin(
            folder / "head",
            simulated_sweep("head", 2),
            HOLD + WATCH.format(file="starts"),
            two,
            gpu=2,
            gpu_model="standin",
        ),
        "memory": begin(
            folder / "memory", simulated_sweep("memory"), NEED_8_GB, mem_mb="attempt * 4000"
        ),
        "blocks": begin(folder / "blocks", blocks, cpus_per_task=9),  # of 16: one block a node
        "one": begin(folder / "one", simulated_sweep("both", 2), watch),
        "other": begin(folder / "other", simulated_sweep("both", 2), watch),
    }
    yield sweeps
    for _, process in sweeps.values():
        if process.poll() is None:  # its test did not come to its end
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="module", autouse=True)
def cut_short(begun):
    """Cancel one of the held jobs of the sweep `slow`, and let the other's time be over soon."""
    project, _ = begun["slow"]
    logs = project.folder / "logs/slow/measure/sim--simulated--bfloat16"
    for repeat in ("r01", "r02"):
        wait_until((logs / f"{repeat}.log").exists, f"the measuring process of {repeat}")
    ids = {job.repeat: job.id for job in jobs(project.folder)}
    subprocess.run(["scancel", ids["r01"]], check=True)
    soon = ["scontrol", "update", f"JobId={ids['r02']}", "EndTime=now+5"]
    subprocess.run(soon, check=True)


def of_r02(project: ClusterProject) -> list[Job]:
    """Return the jobs of a sweep's second repeat."""
    return [job for job in jobs(project.folder) if job.repeat == "r02"]


@pytest.fixture(scope="module")
def restarted(begun):
    """Kill the head of a sweep while its two jobs run, and start it again.

    One job ends while no workflow looks, the other after the new workflow has submitted its own.
    Gives the project, the first two jobs and what the first of them wrote.
    """
    project, head = begun["head"]
    old = wait_until(lambda: _all(jobs(project.folder, "RUNNING"), 2), "two running jobs")
    os.killpg(head.pid, signal.SIGKILL)
    finished(head, -signal.SIGKILL)

    (project.folder / "hold-r01").unlink()
    path = project.folder / "results/head/simulated/measurements/sim--simulated--bfloat16/r01.json"
    wait_until(path.exists, "the measurement of the job that went on")
    first = project.records("head")
    head = project.start("--configfile", "sweep.yaml", *MEASURE)
    second = "the second job of r02, beside the first"
    wait_until(lambda: [job.state for job in of_r02(project)] == ["RUNNING"] * 2, second)
    (project.folder / "hold-r02").unlink()
    finished(head)
    return project, old, first


def test_a_head_that_is_killed_and_started_again_loses_and_repeats_nothing(restarted):
    project, old, first = restarted
    records = project.records("head")
    assert records == records | first
    assert [name[-3:] for name in records] == ["r01", "r02"]
    by = {name[-3:]: record["host"]["batch_job"]["job_id"] for name, record in records.items()}
    assert by["r01"] in {job.id for job in old}
    assert len((project.folder / "starts").read_text().splitlines()) == 2

    def ended():
        states = [job.state for job in of_r02(project)]
        return states if not {"RUNNING", "COMPLETING"} & set(states) else None

    # One of both found the other's measurement.
    assert wait_until(ended, "the end of both jobs of r02") == ["COMPLETED"] * 2
    assert project.jobs("--configfile", "sweep.yaml", *MEASURE) == {}


def test_a_job_gets_its_gpus_for_itself_and_starts_one_measuring_process(restarted):
    project, old, _ = restarted
    assert {job.node for job in old} == {"node1", "node2"}  # each node has two GPUs
    told = [record["host"]["batch_job"] for record in project.records("head").values()]
    assert [job["gpus"] for job in told] == ["0,1", "0,1"]
    assert len((project.folder / "starts").read_text().splitlines()) == 2


def test_a_job_that_lacks_memory_is_retried_as_a_new_job_with_more(begun):
    project, process = begun["memory"]
    finished(process)
    first, second = jobs(project.folder)
    assert (first.state, first.memory) == ("FAILED", "4000M")
    assert (second.state, second.memory) == ("COMPLETED", "8000M")
    [record] = project.records("memory").values()
    assert record["outcome"] == "ok"
    assert record["host"]["batch_job"]["job_id"] == second.id
    assert record["host"]["batch_job"]["node"] == second.node


def test_a_block_stays_on_one_node_where_the_policy_says_so(begun):
    project, process = begun["blocks"]
    finished(process)
    blocks = {"r01": set(), "r02": set()}
    for name, record in project.records("blocks").items():
        job = record["host"]["batch_job"]
        blocks[name[-3:]].add((job["job_id"], job["node"]))
    assert len(project.records("blocks")) == 4
    assert [len(block) for block in blocks.values()] == [1, 1]
    assert len(jobs(project.folder)) == 2


def test_two_sweeps_at_once_on_one_host_never_measure_at_the_same_time(begun):
    for name in ("one", "other"):
        project, process = begun[name]
        finished(process)
    lines = (project.folder.parent / "watch").read_text().splitlines()
    intervals = sorted(tuple(map(float, line.split())) for line in lines)
    assert len(intervals) == 4
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(intervals))
    assert max(wait_s for *_, wait_s in intervals) > 0.5, "no job had to wait: nothing was tried"


def test_jobs_that_run_out_of_time_or_are_cancelled_cost_no_other_and_are_made_up(begun):
    project, process = begun["slow"]
    output = finished(process, 1)
    states = {job.repeat: job.state for job in jobs(project.folder)}
    assert states == {"r01": "CANCELLED", "r02": "TIMEOUT", "r03": "COMPLETED"}
    told = output[output.index("No usable result:") :]
    assert all(repeat in told for repeat in ("r01", "r02"))
    assert "What the batch system said of its jobs is in logs/slurm/." in told
    [row] = project.read("results/slow/simulated/aggregate.json")["rows"]
    assert (row["n"], len(row["excluded"])) == (1, 2)
    records = project.records("slow")
    assert [name[-3:] for name in records] == ["r03"]

    for hold in project.folder.glob("hold-*"):
        hold.unlink()
    project.submit("--configfile", "sweep.yaml", *MEASURE)
    later = project.records("slow")
    assert [name[-3:] for name in later] == ["r01", "r02", "r03"]
    assert later["sim--simulated--bfloat16/r03"] == records["sim--simulated--bfloat16/r03"]


def _all(found: list, number: int) -> list:
    return found if len(found) == number else []
