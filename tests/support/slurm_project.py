"""A copy of the project as a user has adapted it to the tests' cluster (slurm_cluster.py)."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from support import system_tools
from support.project import ROOT, Project

from llm_energy.core import locks

CLUSTER = ROOT / "tests" / "support" / "slurm_cluster.py"
LIMIT_S = 280  # how long a test waits for what must come


@contextlib.contextmanager
def running_cluster() -> Iterator[None]:
    """Start the cluster and stop it, once no other test process has it.

    The calling test is skipped where that cannot be, and fails in CI.
    """
    system_tools.need("slurm")
    if os.geteuid():
        system_tools.leave_out("SLURM's daemons need root: run the tests as root")
    with locks.exclusive_host("llm-energy-test-slurm"):
        subprocess.run([sys.executable, CLUSTER, "start"], check=True)
        try:
            yield
        finally:
            subprocess.run([sys.executable, CLUSTER, "stop"], check=True)


class ClusterProject(Project):
    """A copy of the project with an adapted profile; keywords are resources of `measure`."""

    python: str | Path = sys.executable

    def __init__(self, folder: Path, **measure) -> None:
        super().__init__(folder)
        path = self.folder / "profiles" / "slurm" / "profile.yaml"
        profile = yaml.safe_load(path.read_text())
        profile["set-resources"]["measure"] |= {"cpus_per_task": 1, "mem_mb": 4000} | measure
        profile["slurm-init-seconds-before-status-checks"] = 2
        path.write_text(yaml.safe_dump(profile, sort_keys=False))

    def start(self, *arguments: str) -> subprocess.Popen:
        """Begin a sweep in a process group of its own."""
        command = [self.python, "-m", "snakemake", "--profile", "profiles/slurm"]
        return subprocess.Popen(
            [*command, *arguments],
            cwd=self.folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"},
            start_new_session=True,
        )

    def submit(self, *arguments: str) -> str:
        """Run a sweep to its successful end and give what it said."""
        return finished(self.start(*arguments))

    def insert(self, code: str) -> None:
        """Have every measuring process run ``code`` before it begins."""
        script = self.folder / "scripts" / "measure.py"
        text = script.read_text()
        script.write_text(text.replace("\n\nif __name__", f"\n\n{code}\n\nif __name__"))

    def records(self, sweep: str) -> dict[str, dict]:
        """Return every measurement of a sweep by its cell and repeat."""
        paths = (self.folder / "results" / sweep).glob("*/measurements/*/r??.json")
        return {f"{path.parent.name}/{path.stem}": self.read(path) for path in sorted(paths)}


@dataclass(frozen=True)
class Job:
    """A job as squeue shows it."""

    id: str
    state: str
    about: str
    node: str
    memory: str
    gpus: str

    @property
    def repeat(self) -> str:
        """Return the repeat that a measuring job is for."""
        return self.about[-3:]


def jobs(folder: Path, *states: str) -> list[Job]:
    """Return the jobs that were submitted from a folder, oldest first, or those in a state."""
    command = ["squeue", "--noheader", "--states=all", "--sort=i", "--format=%i|%T|%k|%N|%m|%b|%Z"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = [line.split("|") for line in shown.splitlines()]
    found = [Job(*fields) for *fields, where in lines if where == str(folder)]
    return [job for job in found if not states or job.state in states]


def finished(process: subprocess.Popen, status: int = 0) -> str:
    """Wait until a started sweep ends with ``status`` and give what it said."""
    with process:
        output = process.communicate(timeout=LIMIT_S)[0]
    assert process.returncode == status, output
    return output


def wait_until(condition, what: str):
    """Return the first true value of ``condition``; the test fails where none comes."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.2)
    pytest.fail(f"not seen within {LIMIT_S} s: {what}")


def simulated_sweep(name: str, repeats: int = 1, **changes) -> dict:
    """Return a sweep on the simulated host, where the engine is not what a test is about."""
    source = {"kind": "simulated", "parameter_count": 8_000_000_000}
    settings = {"window_min_duration_s": 2, "warmup_min_passes": 1, "warmup_max_passes": 1}
    return {
        "name": name,
        "models": [{"id": "sim", "model_name": "simulated", "source": source}],
        "backends": ["simulated"],
        "workloads": [{"id": "b8", "requests": 8, "batching": {"batch_size": 8}}],
        "parameters": {"max_output_tokens": 16, "min_output_tokens": 16},
        "protocol": {"repeats": repeats, **settings},
        **changes,
    }
