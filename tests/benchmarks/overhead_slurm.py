"""Measure what a measuring job costs on top of measuring, through SLURM, and whose that is.

    .venvs/dev/bin/python tests/benchmarks/overhead_slurm.py [REPEATS]

A job is Snakemake in an allocation, which starts Snakemake in a job step, which starts the
measuring process. Each job notes when it gets where. The same is done with a workflow of one rule
whose job sleeps instead: that much is Snakemake's and its plugin's, the rest is this project's. The
exit status says whether that stays below 2 s. As root, on the tests' cluster.
"""

from __future__ import annotations

import itertools
import os
import statistics
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "scripts")]

from support import system_tools
from support.slurm_project import ClusterProject, running_cluster, simulated_sweep

from llm_energy.environments.registry import interpreter

MOST_S = 2
PYTHON = interpreter(ROOT, "workflow")  # the tests' environment has other packages too

# By one clock that counts from the start of the host, as the kernel counts the start of a process.
STAMP = """
import atexit, os, time
def stamp(at_s=None):
    if job := os.environ.get("SLURM_JOB_ID"):
        with open(f"stamps-{job}", "a") as stream:
            print(at_s or time.clock_gettime(time.CLOCK_BOOTTIME), file=stream)
def begun_s(process):
    with open(f"/proc/{process}/stat") as stream:
        ticks = stream.read().rpartition(")")[2].split()[19]
    return int(ticks) / os.sysconf("SC_CLK_TCK")
"""
READING = """
if not os.path.exists(f"stamps-{os.environ.get('SLURM_JOB_ID')}"):
    stamp(begun_s(os.getppid()))  # of the shell that SLURM starts first
stamp()
atexit.register(stamp)
"""
MEASURING = "stamp()\natexit.register(stamp)\n"
SLEEPING = "time.sleep(2)\n"
BARE = """
rule all:
    input:
        [f"done-{number}" for number in range(REPEATS)],
rule measure:
    output:
        "done-{number}",
    shell:
        "PYTHON measure.py && touch {output}"
"""
PARTS = (
    "Snakemake starts in the allocation",
    "it reads the workflow",
    "Snakemake starts in the job step",
    "it reads the workflow",
    "the measuring process starts",
    None,  # measuring
    "Snakemake ends in the job step",
    "Snakemake ends in the allocation",
)


def parts_s(folder: Path) -> list[float]:
    """Return how long each part took, as the median over the jobs that ran in a folder."""
    jobs = []
    for path in folder.glob("stamps-*"):
        stamps = [float(line) for line in path.read_text().splitlines()]
        jobs.append([end_s - begin_s for begin_s, end_s in itertools.pairwise(stamps)])
    return [statistics.median(part) for part in zip(*jobs, strict=True)]


def stamp_reading(project: ClusterProject, workflow: str) -> None:
    """Let the project's Snakefile be a workflow that notes when it is read, from where to where."""
    (project.folder / "Snakefile").write_text(f"{STAMP}{READING}{workflow}\nstamp()\n")


def main() -> int:
    """Run both workflows one job at a time; exit 1 if a job of this one costs too much more."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    if system_tools.TOOLS["slurm"].missing or os.geteuid():
        sys.exit(
            "error: no SLURM: as root, python3 tests/support/system_tools.py slurm installs it"
        )
    with running_cluster(), tempfile.TemporaryDirectory() as folder:
        ours, bare = (ClusterProject(Path(folder, name).resolve()) for name in ("ours", "bare"))
        ours.python = bare.python = PYTHON
        ours.insert(STAMP + MEASURING)
        stamp_reading(ours, (ROOT / "Snakefile").read_text())
        config = ours.write_config("overhead", simulated_sweep("overhead", repeats))
        ours.submit("--configfile", config, "--jobs", "1")

        (bare.folder / "measure.py").write_text(STAMP + MEASURING + SLEEPING)
        workflow = BARE.replace("REPEATS", str(repeats)).replace("PYTHON", str(PYTHON))
        stamp_reading(bare, workflow)
        bare.submit("--jobs", "1")
        both = parts_s(ours.folder), parts_s(bare.folder)

    rows = [row for row in zip(PARTS, *both, strict=True) if row[0]]
    _, *columns = zip(*rows, strict=True)
    totals_s = [sum(column) for column in columns]
    rows.append(("beside measuring", *totals_s))
    print(f"{f'seconds, medians of {repeats} jobs':<34}  this workflow  sleeping job  ours alone")
    for name, whole_s, bare_s in rows:
        print(f"{name:<34}  {whole_s:13.2f}  {bare_s:12.2f}  {whole_s - bare_s:10.2f}")
    return int(totals_s[0] - totals_s[1] >= MOST_S)


if __name__ == "__main__":
    sys.exit(main())
