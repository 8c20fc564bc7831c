"""What a host says of itself: its settings over made trees, and this real one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from llm_energy.core import packages
from llm_energy.measure import host

ROOT = Path(__file__).resolve().parents[2]
CPU = "sys/devices/system/cpu"


@pytest.fixture
def write(tmp_path):
    def write_one(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    return write_one


def settings(folder):
    return host.settings(folder / "sys", folder / "proc")


def test_a_host_that_shows_nothing_has_every_key_and_no_value(tmp_path):
    assert settings(tmp_path) == dict.fromkeys(
        ("governor", "smt", "turbo", "swap_bytes", "container", "cpu_limit", "memory_limit_bytes")
    )


def test_a_job_of_a_batch_system_is_told_by_its_environment():
    assert host.batch_job({"HOME": "/home/me"}) == {}
    slurm = {"SLURM_JOB_ID": "17", "SLURMD_NODENAME": "node3", "SLURM_STEP_GPUS": "0,1"}
    told = {"system": "slurm", "job_id": "17", "node": "node3", "gpus": "0,1"}
    assert host.batch_job(slurm) == told
    assert host.batch_job({"AWS_BATCH_JOB_ID": "a"}) == {"system": "aws_batch", "job_id": "a"}


def test_governors_are_named_once_each(tmp_path, write):
    for cpu, governor in ((0, "performance"), (1, "powersave"), (2, "performance")):
        write(f"{CPU}/cpu{cpu}/cpufreq/scaling_governor", f"{governor}\n")
    assert settings(tmp_path)["governor"] == "performance, powersave"


@pytest.mark.parametrize(("text", "value"), [("1\n", True), ("0\n", False), ("?\n", None)])
def test_multithreading_is_what_the_kernel_says(tmp_path, write, text, value):
    write(f"{CPU}/smt/active", text)
    assert settings(tmp_path)["smt"] is value


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("intel_pstate/no_turbo", "1", False),
        ("intel_pstate/no_turbo", "0", True),
        ("cpufreq/boost", "1", True),
        ("cpufreq/boost", "0", False),
    ],
)
def test_turbo_is_read_from_either_drivers_switch(tmp_path, write, name, text, value):
    write(f"{CPU}/{name}", text)
    assert settings(tmp_path)["turbo"] is value


def test_swap_is_in_bytes(tmp_path, write):
    write("proc/meminfo", "MemTotal:  9 kB\nSwapTotal:       2097148 kB\nSwapFree: 1 kB\n")
    assert settings(tmp_path)["swap_bytes"] == 2097148 * 1024


MOUNTS = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 22 0:5 / /data rw - overlay overlay rw\n"
LAYERED = "500 400 0:52 / / rw,relatime master:1 - overlay overlay rw\n"


@pytest.mark.parametrize(
    ("sign", "group", "mounts", "value"),
    [
        (None, "0::/init.scope\n", MOUNTS, None),
        ("proc/self/root/.dockerenv", "0::/\n", LAYERED, "docker"),
        ("proc/self/root/run/.containerenv", "0::/\n", LAYERED, "podman"),
        (None, "1:cpu:/kubepods/burstable/pod1\n", LAYERED, "kubepods"),
        (None, "0::/\n", LAYERED, "unnamed"),
    ],
)
def test_a_container_is_known_by_its_traces(tmp_path, write, sign, group, mounts, value):
    write("proc/1/cgroup", group)
    write("proc/self/mountinfo", mounts)
    if sign:
        write(sign, "")
    assert settings(tmp_path)["container"] == value


def test_the_tightest_limit_of_the_groups_around_this_process_counts(tmp_path, write):
    write("proc/self/cgroup", "1:name=systemd:/other\n0::/jobs/step\n")
    write("sys/fs/cgroup/jobs/cpu.max", "150000 100000\n")
    write("sys/fs/cgroup/jobs/memory.max", "max\n")
    write("sys/fs/cgroup/jobs/step/cpu.max", "max 100000\n")
    write("sys/fs/cgroup/jobs/step/memory.max", "4294967296\n")
    write("sys/fs/cgroup/memory.max", "8589934592\n")
    found = settings(tmp_path)
    assert (found["cpu_limit"], found["memory_limit_bytes"]) == (1.5, 2**32)


def test_a_package_without_its_metadata_is_none(tmp_path, monkeypatch):
    (tmp_path / "codecarbon-1.0.dist-info").mkdir()
    whole = tmp_path / "six-1.17.0.dist-info"
    whole.mkdir()
    (whole / "METADATA").write_text("Metadata-Version: 2.1\nName: six\nVersion: 1.17.0\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert packages.installed_packages() == {"six": "1.17.0"}
    assert packages.versions(["codecarbon", "six"]) == {"six": "1.17.0"}


def test_this_host_describes_itself():
    found = host.describe(ROOT, ())
    assert found.settings == host.settings()
    assert found.cpu_count >= 1
    assert found.memory_bytes > 0
