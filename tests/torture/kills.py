"""Disturb a small sweep at random instants, run the same command again, and count what that cost.

    .venvs/dev/bin/python tests/torture/kills.py --kills 300
    .venvs/dev/bin/python tests/torture/kills.py --kills 100 --engine pytorch

After each chain of disturbances the same command runs to its end. Then each repeat must be there
once and current, what was finished before must have the same bytes, no half file may stay, and the
tables must be those of an undisturbed run: of another one on the simulated engine, and of the same
measurements on a real one. The exit status is 1 where one of that fails.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]

from support.project import Project, tiny_sweep
from support.slurm_project import simulated_sweep

from llm_energy.core.errors import LlmEnergyError
from llm_energy.core.files import read_json, sha256_file
from llm_energy.inputs import currency
from llm_energy.records import read_plan

SWEEP = "kills"
REPEATS = 4
IN_A_CHAIN = 5
LIMIT_S = 600
SIZE = "size=20g"  # of what takes memory for its files alone; a small disk is told in the tables
BEGUN = re.compile(r"begun [-{}0-9]+ [:0-9]+ UTC")
SIGNALS = {"all": signal.SIGKILL, "Ctrl-C": signal.SIGINT, "SIGTERM": signal.SIGTERM}
KILLS = ("all", "child", "snakemake")
FIRST = ("SIGTERM", "Ctrl-C", "full", "read-only", "vanishing", "two")


class Sweep:
    """A copy of the project whose sweep is disturbed; ``finished`` has the hashes to be kept."""

    def __init__(self, folder: Path, engine: str) -> None:
        self.project = Project(folder)
        self.results = folder / "results"
        self.results.mkdir()
        asked = simulated_sweep(SWEEP, repeats=REPEATS)
        if engine == "pytorch":
            asked = tiny_sweep(self.project.tiny_model("tiny", "llama"), name=SWEEP)
            asked["protocol"]["repeats"] = REPEATS
        self.config = self.project.write_config(SWEEP, asked)
        self.finished: dict[str, str] = {}

    def start(self) -> subprocess.Popen:
        """Start the command in a process group of its own; what it says is in ``said.txt``."""
        command = [sys.executable, "-m", "snakemake", "--cores", "1", "--configfile", self.config]
        with open(self.project.folder / "said.txt", "w", encoding="utf-8") as said:
            return subprocess.Popen(
                command,
                cwd=self.project.folder,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def said(self) -> str:
        """Return what the last command said."""
        return (self.project.folder / "said.txt").read_text(encoding="utf-8", errors="replace")

    def has_begun(self, run: subprocess.Popen) -> bool:
        """Return whether a run has taken its sweep, or has ended."""
        lock = self.project.folder / f".snakemake/llm-energy/{SWEEP}.lock"
        with contextlib.suppress(OSError, ValueError):
            return json.loads(lock.read_text())["process"] == run.pid
        return run.poll() is not None

    def measuring(self) -> list[int]:
        """Return the processes that measure in this project now."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                ours = os.readlink(path.with_name("cwd")) == str(self.project.folder)
                if ours and b"scripts/measure.py\0--spec" in path.read_bytes():
                    found.append(int(path.parent.name))
        return found

    def current(self) -> dict[str, str]:
        """Return the hashes of the repeats that are there, whole and current, by their paths."""
        with contextlib.chdir(self.project.folder):
            try:
                plan = read_plan(SWEEP)
                found = currency.current((one.measurement, one.spec) for one in plan.repeats())
                whole = [path for path in found if read_json(path)["outcome"] == "ok"]
            except LlmEnergyError:  # killed before it was planned, or there is no folder just now
                return {}
            return {str(path): sha256_file(path) for path in whole}

    def tables(self) -> dict[str, str]:
        """Return the text of every table by its name, but the time at which a session began."""
        folder = self.results / SWEEP / "tables"
        return {path.name: BEGUN.sub("", path.read_text("utf-8")) for path in folder.iterdir()}

    def run(self, tries: int = 3) -> int:
        """Run the command until it succeeds; return how often it was refused or failed."""
        for failed in range(tries):
            run = self.start()
            if run.wait(timeout=LIMIT_S) == 0:
                return failed
            while self.measuring():  # of a run whose Snakemake alone was killed
                time.sleep(0.2)
        return tries

    def clear(self) -> None:
        """Forget the sweep, so that a next chain begins at nothing."""
        self.finished = {}
        for path in [*self.results.iterdir(), self.project.folder / "logs"]:
            shutil.rmtree(path, ignore_errors=True)
        shutil.rmtree(self.project.folder / ".snakemake", ignore_errors=True)


def kill(sweep: Sweep, run: subprocess.Popen, way: str) -> bool:
    """Send the signal of a way to whom it is for; return whether there was somebody."""
    if way == "child":
        for process in (found := sweep.measuring()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        return bool(found)
    try:
        if way == "snakemake":
            os.kill(run.pid, signal.SIGKILL)
        else:
            os.killpg(run.pid, SIGNALS[way])
    except ProcessLookupError:
        return False
    return True


def system(*command: str | Path) -> bool:
    """Run a command of the system; return whether it worked."""
    return subprocess.run(command, capture_output=True).returncode == 0


@contextlib.contextmanager
def own_disk(sweep: Sweep) -> Iterator[bool]:
    """Put the results on a file system of their own; yield whether this host lets us."""
    mounted = system("mount", "-t", "tmpfs", "-o", SIZE, "tmpfs", sweep.results)
    try:
        yield mounted
    finally:
        if mounted and not system("umount", "-l", sweep.results):
            raise SystemExit(f"{sweep.results}: cannot be unmounted; do that by hand")


def remount(sweep: Sweep, options: Callable[[], str]) -> None:
    """Change the file system of the results, as soon as nothing that is written prevents it."""
    while not system("mount", "-o", f"remount,{options()}", sweep.results):
        time.sleep(0.01)


def full(sweep: Sweep, run: subprocess.Popen) -> None:
    """Leave no space on the file system of the results until the run has ended."""
    remount(sweep, lambda: f"size={shutil.disk_usage(sweep.results).used}")
    run.wait(timeout=LIMIT_S)
    remount(sweep, lambda: SIZE)


def read_only(sweep: Sweep, run: subprocess.Popen) -> None:
    """Let nothing be written below the results until the run has ended."""
    remount(sweep, lambda: "ro")
    run.wait(timeout=LIMIT_S)
    remount(sweep, lambda: "rw")


def vanishing(sweep: Sweep, run: subprocess.Popen) -> None:
    """Take the results away until the run has ended, as a lost network mount does."""
    away = sweep.results.with_name("away")
    sweep.results.rename(away)
    run.wait(timeout=LIMIT_S)
    shutil.rmtree(sweep.results, ignore_errors=True)
    away.rename(sweep.results)


def two(sweep: Sweep, run: subprocess.Popen) -> None:
    """Start the same command while it runs, and wait for both."""
    sweep.start().wait(timeout=LIMIT_S)
    run.wait(timeout=LIMIT_S)


MOUNTED: dict[str, Callable[[Sweep, subprocess.Popen], None]] = {
    "full": full,
    "read-only": read_only,
}
WHOLE = {**MOUNTED, "vanishing": vanishing, "two": two}


def disturb(sweep: Sweep, way: str, after_s: float) -> bool:
    """Start the command, disturb it some time after it began, and wait for its end."""
    run = sweep.start()
    while not sweep.has_begun(run):
        time.sleep(0.02)
    end_s = time.monotonic() + after_s
    while time.monotonic() < end_s and run.poll() is None:
        time.sleep(0.005)
    if way == "child":  # it lives for a part of the run only
        while run.poll() is None and not sweep.measuring():
            time.sleep(0.01)
    if run.poll() is not None:
        return False
    if way in WHOLE:
        sweep.finished |= sweep.current()
        WHOLE[way](sweep, run)
        done = True
    else:
        done = kill(sweep, run, way)
        run.wait(timeout=LIMIT_S)
    sweep.finished |= {p: h for p, h in sweep.current().items() if p not in sweep.finished}
    return done


def faults(sweep: Sweep, tables: dict[str, str] | None) -> list[str]:
    """Say what is lost, changed, half or other than undisturbed after the last command."""
    found = [f"the same command fails: {sweep.said()[-600:]}"] if sweep.run() == 3 else []
    current = sweep.current()
    there = sorted(sweep.results.glob(f"{SWEEP}/*/measurements/*/r??.json"))
    if len(current) != REPEATS or len(there) != REPEATS:
        found.append(f"{len(there)} repeats are there and {len(current)} current, not {REPEATS}")
    for path, digest in sweep.finished.items():
        if current.get(path) != digest:
            found.append(f"{path}: finished, and then lost or changed")
    for path in sorted(sweep.results.rglob("*")):
        if path.name.endswith(".tmp") or ".partial." in path.name:
            found.append(f"{path}: a half file")
        elif not is_whole(path):
            found.append(f"{path}: cannot be read")
    made = sweep.tables()
    if tables is None:
        shutil.rmtree(sweep.results / SWEEP / "tables")
        sweep.run()
        tables = sweep.tables()
    for name in sorted({name for name, _ in tables.items() ^ made.items()}):
        lines = zip_longest(*(one.get(name, "").splitlines() for one in (tables, made)))
        differing = next((pair for pair in lines if pair[0] != pair[1]), None)
        found.append(f"{name}: another table than undisturbed: {differing}")
    return found


def is_whole(path: Path) -> bool:
    """Return whether a file of JSON or of gzip can be read to its end."""
    try:
        if path.name.endswith(".gz"):
            gzip.decompress(path.read_bytes())
        elif path.suffix == ".json":
            json.loads(path.read_bytes())
    except (ValueError, OSError, EOFError):
        return False
    return True


def chains(first: Sequence[str], kills: int, draw: random.Random) -> Iterator[list[str]]:
    """Yield the ways of each chain: first some that are no kill, each alone, then so many kills."""
    yield from ([way] for way in first)
    ways = [draw.choices(KILLS, (2, 1, 1))[0] for _ in range(kills)]
    for begin in range(0, kills, IN_A_CHAIN):
        yield ways[begin : begin + IN_A_CHAIN]


def main(argv: list[str] | None = None) -> int:
    """Parse the command line, disturb the sweep, print the counts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--engine", choices=["simulated", "pytorch"], default="simulated")
    parser.add_argument("--ways", nargs="*", choices=FIRST, default=FIRST, help="beside the kills")
    parser.add_argument("--seed", type=int, default=20260101)
    arguments = parser.parse_args(argv)
    draw = random.Random(arguments.seed)
    tried: Counter[str] = Counter()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        sweep = Sweep(Path(name).resolve() / "project", arguments.engine)
        begin_s = time.monotonic()
        if sweep.run(1):
            raise SystemExit(f"the undisturbed run failed: {sweep.said()}")
        whole_s = time.monotonic() - begin_s
        tables = sweep.tables() if arguments.engine == "simulated" else None
        kept = 0
        for ways in chains(arguments.ways, arguments.kills, draw):
            sweep.clear()
            mounts = any(way in MOUNTED for way in ways)
            with own_disk(sweep) if mounts else contextlib.nullcontext(True) as possible:
                if not possible:
                    tried[f"{ways[0]}: not tried, since only root mounts a file system"] += 1
                    continue
                found = []
                for way in ways:
                    while not disturb(sweep, way, draw.uniform(0, whole_s / 2)):
                        found += faults(sweep, tables)  # it had ended before
                        kept += len(sweep.finished)
                        sweep.clear()
                    tried[way] += 1
                kept += len(sweep.finished)
                found += faults(sweep, tables)
            wrong += [f"after {', '.join(ways)}: {one}" for one in found]
            print(f"{', '.join(ways)}: {'; '.join(found) or 'held'}", flush=True)
    for way, count in tried.items():
        print(f"{count:5d}  {way}")
    print(f"{kept:5d}  finished repeats held against their bytes")
    print(f"{len(wrong):5d}  faults")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
