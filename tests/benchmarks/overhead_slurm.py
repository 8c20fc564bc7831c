"""Measure what a measuring job costs on top of measuring, through SLURM.

    python3 tests/slurm_cluster.py start
    .venvs/dev/bin/python tests/benchmarks/overhead_slurm.py [REPEATS]

A job is Snakemake in an allocation, which starts Snakemake in a job step, which starts the
measuring process. Told is the time of a job beside that process, by SLURM's word (whole seconds);
what of it Snakemake takes to start without a workflow, and to read this one, twice each.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "scripts")]

from slurm_project import ClusterProject, jobs, simulated_sweep  # noqa: E402

STAMP = """
import atexit, os, time
def stamp(begin_s=time.time()):
    with open(f"job-{os.environ['SLURM_JOB_ID']}", "w") as stream:
        stream.write(f"{begin_s} {time.time()}")
atexit.register(stamp)
"""
STARTS = 5


def seconds(*arguments: str, folder: Path) -> float:
    """Give how long Snakemake takes with some arguments, as the median of a few starts."""
    taken = []
    for _ in range(STARTS):
        begin_s = time.monotonic()
        command = [sys.executable, "-m", "snakemake", *arguments]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        taken.append(time.monotonic() - begin_s)
    return statistics.median(taken)


def main() -> None:
    """Run a sweep one job at a time, and print what each job took beside measuring."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as folder:
        project = ClusterProject(Path(folder, "copy").resolve())
        project.insert(STAMP)
        config = project.write_config("overhead", simulated_sweep("overhead", repeats))
        project.submit("--configfile", config, "--jobs", "1")
        shown = subprocess.run(
            ["squeue", "--json", "--states=all"], capture_output=True, check=True
        )
        times = {
            str(j["job_id"]): (j["start_time"], j["end_time"])
            for j in json.loads(shown.stdout)["jobs"]
        }
        beside = []
        for job in jobs(project.folder):
            begin_s, end_s = map(float, (project.folder / f"job-{job.id}").read_text().split())
            beside.append(times[job.id][1] - times[job.id][0] - (end_s - begin_s))
        start_s = seconds("--version", folder=project.folder)
        read_s = seconds("--list-rules", "--configfile", config, folder=project.folder) - start_s
    whole_s = statistics.median(beside)
    print(f"beside measuring, of the median of {repeats} jobs: {whole_s:.1f} s")
    print(f"  starting Snakemake, twice: {2 * start_s:.1f} s")
    print(f"  reading this workflow, twice: {2 * read_s:.1f} s")
    print(f"  the rest, with SLURM's rounding: {whole_s - 2 * start_s - 2 * read_s:.1f} s")


if __name__ == "__main__":
    main()
