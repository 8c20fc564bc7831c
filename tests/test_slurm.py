"""Sweeps on a real SLURM of one host, which plays two nodes with stand-in GPUs."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess

import pytest
from slurm_project import (
    ClusterProject,
    finished,
    jobs,
    running_cluster,
    simulated_sweep,
    wait_until,
)

pytestmark = pytest.mark.engine

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
from llm_energy import measure as stage
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


@pytest.fixture(scope="module", autouse=True)
def begun(cluster, tmp_path_factory):
    """Begin the sweeps that nobody has to attend to, since SLURM takes its time over each.

    Two jobs of the sweep `slow` never end by themselves; one of them is given a minute, the least
    that SLURM knows.
    """
    folder = tmp_path_factory.mktemp("begun")
    slow = ClusterProject(folder / "slow")
    slow.insert(HOLD)
    for repeat in ("r01", "r02"):
        (slow.folder / f"hold-{repeat}").touch()
    config = slow.write_config("slow", simulated_sweep("slow", repeats=3))
    processes = {slow: slow.start("--configfile", config, "--retries", "0")}

    memory = ClusterProject(folder / "memory", mem_mb="attempt * 4000")
    memory.insert(NEED_8_GB)
    config = memory.write_config("memory", simulated_sweep("memory"))
    processes[memory] = memory.start("--configfile", config)

    blocks = ClusterProject(folder / "blocks", cpus_per_task=9)  # of 16: one block a node
    policy = {"same_node_per_block": True}
    sweep = simulated_sweep("blocks", 2, precisions=["bfloat16", "int8"], policy=policy)
    processes[blocks] = blocks.start("--configfile", blocks.write_config("blocks", sweep))

    [job] = wait_until(lambda: [j for j in jobs(slow.folder) if j.repeat == "r02"], "slow's r02")
    subprocess.run(["scontrol", "update", f"JobId={job.id}", "TimeLimit=1"], check=True)
    yield {project.folder.name: (project, process) for project, process in processes.items()}
    for process in processes.values():
        if process.poll() is None:  # its test did not come to its end
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


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


def test_a_job_gets_its_gpus_for_itself_and_starts_one_measuring_process(tmp_path):
    project = ClusterProject(tmp_path / "copy", gpu=2, gpu_model="standin")
    project.insert(HOLD + WATCH.format(file="starts"))
    for repeat in ("r01", "r02"):
        (project.folder / f"hold-{repeat}").touch()
    config = project.write_config("gpus", simulated_sweep("gpus", repeats=2))
    process = project.start("--configfile", config)
    running = wait_until(lambda: _all(jobs(project.folder, "RUNNING"), 2), "two running jobs")
    assert {job.node for job in running} == {"node1", "node2"}  # each node has two GPUs
    for hold in project.folder.glob("hold-*"):
        hold.unlink()
    finished(process)
    told = [record["host"]["batch_job"] for record in project.records("gpus").values()]
    assert [job["gpus"] for job in told] == ["0,1", "0,1"]
    assert len((project.folder / "starts").read_text().splitlines()) == 2


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


def test_a_head_that_is_killed_and_started_again_loses_and_repeats_nothing(tmp_path):
    project = ClusterProject(tmp_path / "copy")
    project.insert(HOLD + WATCH.format(file="starts"))
    for repeat in ("r01", "r02"):
        (project.folder / f"hold-{repeat}").touch()
    config = project.write_config("head", simulated_sweep("head", repeats=2))
    head = project.start("--configfile", config)
    old = wait_until(lambda: _all(jobs(project.folder, "RUNNING"), 2), "two running jobs")
    os.killpg(head.pid, signal.SIGKILL)
    finished(head, -signal.SIGKILL)

    # One job ends while no workflow looks, the other after the new workflow has submitted its own.
    (project.folder / "hold-r01").unlink()
    path = project.folder / "results/head/replay/measurements/sim--replay--bfloat16/r01.json"
    wait_until(path.exists, "the measurement of the job that went on")
    first = path.read_bytes()
    project.submit("--configfile", config, "--unlock")
    head = project.start("--configfile", config)
    wait_until(lambda: _all(jobs(project.folder, "RUNNING"), 2), "the second job of r02")
    (project.folder / "hold-r02").unlink()
    finished(head)

    assert path.read_bytes() == first
    by = {
        name[-3:]: r["host"]["batch_job"]["job_id"] for name, r in project.records("head").items()
    }
    assert by["r01"] in {job.id for job in old}
    assert len((project.folder / "starts").read_text().splitlines()) == 2
    ended = [job.repeat for job in jobs(project.folder, "COMPLETED")]
    assert ended.count("r02") == 2  # of which one found the other's measurement
    assert "Nothing to be done" in project.submit("--configfile", config)


def test_two_sweeps_at_once_on_one_host_never_measure_at_the_same_time(tmp_path):
    projects = [ClusterProject(tmp_path / name) for name in ("one", "two")]
    watch, processes = WATCH.format(file=tmp_path / "watch"), []
    for project in projects:
        project.insert(watch)
        config = project.write_config("both", simulated_sweep("both", repeats=3))
        processes.append(project.start("--configfile", config))
    for process in processes:
        finished(process)
    lines = (tmp_path / "watch").read_text().splitlines()
    intervals = sorted(tuple(map(float, line.split())) for line in lines)
    assert len(intervals) == 6
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(intervals))
    assert max(wait_s for *_, wait_s in intervals) > 0.5, "no job had to wait: nothing was tried"


def test_jobs_that_run_out_of_time_or_are_cancelled_cost_no_other_and_are_made_up(begun):
    project, process = begun["slow"]
    waiting = wait_until(
        lambda: [j for j in jobs(project.folder) if j.repeat == "r01"], "the job of r01"
    )
    subprocess.run(["scancel", waiting[0].id], check=True)
    output = finished(process, 1)
    states = {job.repeat: job.state for job in jobs(project.folder)}
    assert states == {"r01": "CANCELLED", "r02": "TIMEOUT", "r03": "COMPLETED"}
    assert "Not measured: 2 of 3 repeats." in output
    assert all(f"sim--replay--bfloat16/{repeat}.json" in output for repeat in ("r01", "r02"))
    records = project.records("slow")
    assert [name[-3:] for name in records] == ["r03"]

    for hold in project.folder.glob("hold-*"):
        hold.unlink()
    project.submit("--configfile", "slow.yaml")
    later = project.records("slow")
    assert [name[-3:] for name in later] == ["r01", "r02", "r03"]
    assert later["sim--replay--bfloat16/r03"] == records["sim--replay--bfloat16/r03"]


def _all(found: list, number: int) -> list:
    return found if len(found) == number else []
