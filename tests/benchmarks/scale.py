"""Time the stages from validation to tables on generated measurements, and weigh them in memory.

Makes sweeps of 1,000 and of 10,000 healthy measurements (two backends, five repeats, one window
each), runs all rules from ``validate`` to ``tables`` as Snakemake does with ``--cores all``, and
compares the whole with one Python process that reads and ``json.loads``-es the same files. Jobs
come in the order of the workflow: one that takes several processes gets every core, those that need
one core and do not wait for each other run side by side.

A window has as many requests as the mean window of a sweep that was measured on an H100: 308 in
``docs/measurements/h100-llama-3.1-8b.tar.gz``, where that number is read (some 9 at batch size 1,
some 900 at 128). Passes are of two requests each; ``--passes`` makes other windows. What a window
takes whatever its size weighs more in small ones, so their whole takes more readings.

The exit status says whether the floors hold: at most 5 times reading, growth with an exponent of at
most 1.05 from the smaller to the larger sweep, and never more than 600 MB in one stage.

    .venvs/workflow/bin/python tests/benchmarks/scale.py [--passes 24]
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from statistics import fmean

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]

from support import builders

from llm_energy.core.files import sha256_json
from llm_energy.core.serialize import to_dict

BACKENDS, REPEATS, WORKLOADS = ("pytorch", "vllm"), 5, ("b1",)
MOST_TIMES, MOST_EXPONENT, MOST_MB = 5.0, 1.05, 600
FOLDER = Path("results/test")
ARCHIVE = ROOT / "docs/measurements/h100-llama-3.1-8b.tar.gz"
CORES = len(os.sched_getaffinity(0))
READ = """
import json, sys
for path in open(sys.argv[1], encoding="utf-8").read().splitlines():
    with open(path, encoding="utf-8") as stream:
        json.loads(stream.read())
"""


def archived_requests() -> Iterator[int]:
    """Return how many requests each measured window of the archived sweep has."""
    with tarfile.open(ARCHIVE) as files:
        for file in files:
            if "/measurements/" in file.name and file.name.endswith(".json"):
                for window in json.load(files.extractfile(file))["windows"]:
                    if window["outcome"] == "ok":
                        yield len(window["requests"]["request_id"])


def set_passes(passes: int | None = None) -> None:
    """Make windows of so many passes, or else of as many requests as archived ones have."""
    passes = passes or round(fmean(archived_requests()) / builders.REQUESTS)
    builders.PASSES = passes
    print(f"windows of {passes} passes, {passes * builders.REQUESTS} requests")


def generate(count: int) -> int:
    """Write a sweep of so many measurements below the working directory; give their mean size."""
    precisions = [f"p{k:04d}" for k in range(count // (len(BACKENDS) * REPEATS))]
    cells = [(backend, precision) for precision in precisions for backend in BACKENDS]
    grid = builders.plan(cells, REPEATS, WORKLOADS)
    workloads = [builders.workload(name) for name in WORKLOADS]
    asked = {b: builders.spec(backend=b, workloads=workloads) for b in BACKENDS}
    templates = {b: to_dict(builders.measurement(spec, 0.0)) for b, spec in asked.items()}
    builders.write_sweep(Path(), [builders.measurement(asked["pytorch"])], grid)
    size = 0
    for place, (backend, precision) in enumerate(cells):
        cell = f"m--{backend}--{precision}"
        for repeat in range(1, REPEATS + 1):
            data = copy.deepcopy(templates[backend])
            data["spec"] |= {"cell": cell, "precision": precision, "repeat": repeat}
            data["spec_sha256"] = sha256_json(data["spec"])
            # No two have the same joules and durations, or the audit takes them for copies.
            number = place * REPEATS + repeat
            _shift(data, 1000.0 * number, 1 + 1e-7 * number)
            utc = datetime.fromisoformat(data["clock"]["utc"]) + timedelta(seconds=1000.0 * number)
            data["clock"]["utc"] = utc.isoformat()
            for window in data["windows"]:
                part = window["interval"]["energy"][0]
                part["energy_j"] *= 1 + 0.01 * ((place * 7 + repeat * 3) % 5) + 1e-7 * number
                window["interval"]["trace"][0]["energy_j"] = part["energy_j"]
            _write(FOLDER / "specs" / cell / f"r{repeat:02d}.json", data["spec"])
            name = FOLDER / backend / "measurements" / cell / f"r{repeat:02d}.json"
            size += _write(name, data)
    return size // count


def _shift(value: object, by_s: float, stretch: float) -> None:
    """Move and stretch all times on the monotonic clock, so that no two measurements overlap."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if key in ("start_s", "end_s", "monotonic_s"):
            value[key] = inner * stretch + by_s
        elif key in ("arrival_s", "first_token_s", "last_token_s"):
            value[key] = [moment * stretch + by_s for moment in inner]
        elif isinstance(inner, (dict, list)):
            _shift(inner, by_s, stretch)


def _write(path: Path, value: object) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def rounds() -> Iterator[list[tuple[str, list[object]]]]:
    """Return names and arguments of the commands after measuring, those together that may be."""
    plan, out_dir = ["--plan", FOLDER / "plan.json"], ["--out-dir", FOLDER / "tables"]
    files = {n: [FOLDER / b / f"{n}.json" for b in BACKENDS] for n in ("metrics", "aggregate")}
    both = ["--metrics", *files["metrics"], "--aggregates", *files["aggregate"]]
    of_each = [(FOLDER / backend, backend) for backend in BACKENDS]
    for out, backend in of_each:
        asked = ["--sweep", "test", "--backend", backend, *plan, "--jobs", CORES]
        yield [("audit", [*asked, "--out", out / "audit.json"])]
        audited = ["--audit", out / "audit.json"]
        yield [("validate", [*asked, *audited, "--out", out / "verdicts.json"])]
    for out, _ in of_each:
        asked = ["--verdicts", out / "verdicts.json", "--jobs", CORES]
        yield [("normalise", [*asked, "--out", out / "metrics.json"])]
    yield [
        ("aggregate", ["--metrics", metrics, *plan, "--out", out])
        for metrics, out in zip(*files.values(), strict=True)
    ]
    yield [
        ("compare", [*both, *plan, "--out", FOLDER / "comparisons.json"]),
        ("load_curve", [*both, "--out", FOLDER / "load.json"]),
        ("phases", ["--metrics", *files["metrics"], "--out", FOLDER / "phases.json"]),
        ("sameness", [*plan, *out_dir]),
    ]
    given = ["--comparisons", FOLDER / "comparisons.json", "--load", FOLDER / "load.json"]
    given += ["--phases", FOLDER / "phases.json", "--jobs", CORES]
    yield [("tables", ["--aggregates", *files["aggregate"], *given, *out_dir])]


def run(*commands: list[object]) -> tuple[float, float]:
    """Run commands, one a core at a time; give the seconds of all and the most MB of one."""

    def run_one(command: list[object]) -> float:
        line = [sys.executable, *map(str, command)]
        _, status, usage = os.wait4(os.spawnv(os.P_NOWAIT, sys.executable, line), 0)
        if status:
            sys.exit(f"error: {line} failed")
        return usage.ru_maxrss / 1024

    begin = time.monotonic()
    with ThreadPoolExecutor(CORES) as pool:
        most_mb = max(pool.map(run_one, commands))
    return time.monotonic() - begin, most_mb


def measure(count: int) -> tuple[float, float, float]:
    """Return the seconds of all stages, those of reading alone, and the peak memory in MB."""
    size = generate(count)
    paths = sorted(map(str, FOLDER.glob("*/measurements/*/*.json")))
    Path("paths.txt").write_text("\n".join(paths), encoding="utf-8")
    reading = ["-c", READ, "paths.txt"]
    run(reading)  # so that every file is in memory for all alike
    read_s = min(run(reading)[0] for _ in range(3))
    print(f"{len(paths)} measurements of {size} bytes; reading them takes {read_s:.2f} s")
    total_s = peak_mb = 0.0
    for jobs in rounds():
        taken_s, used_mb = run(*([ROOT / "scripts" / f"{name}.py", *given] for name, given in jobs))
        names = ", ".join(name for name, _ in jobs)
        print(f"  {names:24} {taken_s:6.2f} s {used_mb:5.0f} MB")
        total_s, peak_mb = total_s + taken_s, max(peak_mb, used_mb)
    if wrong := invalid():
        sys.exit(f"error: {len(wrong)} generated windows are invalid: {wrong[0]}")
    print(f"  {'all':24} {total_s:6.2f} s {peak_mb:5.0f} MB, {total_s / read_s:.1f} times reading")
    return total_s, read_s, peak_mb


def invalid() -> list[dict[str, object]]:
    """Return the verdicts of every backend by which a generated window is invalid."""
    files = [FOLDER / backend / "verdicts.json" for backend in BACKENDS]
    verdicts = [v for file in files for v in json.loads(file.read_text())["verdicts"]]
    return [v for v in verdicts if v["verdict"] == "invalid"]


def main() -> int:
    """Run the benchmark; exit 1 where a floor does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs=2, default=[1000, 10000])
    parser.add_argument("--passes", type=int, help="a window's, instead of as many as archived")
    arguments = parser.parse_args()
    set_passes(arguments.passes)
    found = []
    for count in arguments.counts:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            found.append(measure(count))
            os.chdir(ROOT)
    (small_s, _, _), (large_s, read_s, peak_mb) = found
    exponent = math.log(large_s / small_s) / math.log(arguments.counts[1] / arguments.counts[0])
    times = large_s / read_s
    print(f"{times:.2f} times reading (at most {MOST_TIMES:g}), ", end="")
    print(f"exponent {exponent:.2f} (at most {MOST_EXPONENT}), ", end="")
    print(f"peak {peak_mb:.0f} MB (at most {MOST_MB})")
    return int(times > MOST_TIMES or exponent > MOST_EXPONENT or peak_mb > MOST_MB)


if __name__ == "__main__":
    sys.exit(main())
