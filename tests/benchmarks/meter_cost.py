"""Measure what the meter itself takes: of the measured process, and in the sampler's own process.

    python tests/benchmarks/meter_cost.py [--window SECONDS] [--pairs N]

The same busy loop runs in metered windows and in bare ones, in random order within each pair. What
the meter takes of the measured process is the CPU time of that whole process, the window's edges
included, without what the loop itself used: a thread of the meter would be in it. Asked for is less
than 0.2 % of one core, averaged over the window, and no thread. The sampler's share of one core is
given beside it, and so is the ratio of the loop's CPU time (metered over bare), which says whether
the two disturb each other.

On a host without NVIDIA GPUs a stand-in for NVML takes their place in both processes.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent.parent
STAND_IN = TESTS / "support" / "fake_pynvml"
sys.path[:0] = [str(TESTS.parent / "scripts"), str(TESTS)]

from support.fake_nvml import FakeGpu, make_nvml

from llm_energy.meter.meter import Meter, open_meter
from llm_energy.meter.nvidia.devices import NvmlGpus
from llm_energy.meter.power_sampling.process import Sampler, start
from llm_energy.records import Interval, MeterSettings, Protocol

MOST = 0.002
CHUNK = 100_000


@dataclass(frozen=True)
class Run:
    """One window: its length, CPU seconds of the loop, of all else in this process, of the sampler.

    ``inside_s`` is what of all else lies between the two moments that the meter takes for the
    window's edges. ``threads`` are Python's, and ``tasks`` all of this process, after the loop.
    """

    duration_s: float
    loop_s: float
    beside_s: float
    inside_s: float
    sampler_s: float
    threads: int
    tasks: int


def work(chunks: int) -> None:
    """Keep the interpreter busy, without allocating."""
    for _ in range(chunks):
        for _ in range(CHUNK):
            pass


def calibrate(window_s: float) -> int:
    """Return how many chunks of work last for about ``window_s``."""
    begin_s = time.perf_counter()
    work(100)
    return max(1, round(100 * window_s / (time.perf_counter() - begin_s)))


def count_tasks() -> int:
    """Count this process's threads, those of native libraries included."""
    return len(os.listdir("/proc/self/task"))


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process of one thread, in s (proc_pid_schedstat, in ns)."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


class Clock:
    """The meter's clock, which remembers how much CPU time the process had used at each reading."""

    def __init__(self) -> None:
        self.process_s: dict[float, float] = {}

    def __call__(self) -> float:
        now_s = time.monotonic()
        self.process_s[now_s] = time.process_time()
        return now_s

    def used_s(self, interval: Interval) -> float:
        """Return the CPU time that the process used between an interval's edges."""
        return self.process_s[interval.end_s] - self.process_s[interval.start_s]


def run(window: Any, clock: Clock, chunks: int, sampler_pid: int) -> Run:
    """Do the work inside ``window`` and account for every CPU second of this process."""
    sampler_s, begin_s, process_s = cpu_s(sampler_pid), time.monotonic(), time.process_time()
    with window as metered:
        thread_s = time.thread_time()
        work(chunks)
        loop_s = time.thread_time() - thread_s
        threads, tasks = threading.active_count(), count_tasks()
    process_s = time.process_time() - process_s
    duration_s = time.monotonic() - begin_s
    inside_s = clock.used_s(metered.record) - loop_s if metered else 0.0
    sampler_s = cpu_s(sampler_pid) - sampler_s
    return Run(duration_s, loop_s, process_s - loop_s, inside_s, sampler_s, threads, tasks)


def quartiles(values: Sequence[float], form: str) -> str:
    """Write median and quartiles."""
    low, median, high = statistics.quantiles(values, n=4)
    return f"{median:{form}} (quartiles {low:{form}} to {high:{form}})"


def run_pairs(
    meter: Meter, clock: Clock, window_s: float, pairs: int, sampler_pid: int
) -> list[list[Run]]:
    """Return the metered runs and the bare ones, taken in turns, random within each pair."""
    chunks = calibrate(window_s)
    windows = [lambda: meter.interval("window"), nullcontext]
    for window in windows:
        run(window(), clock, chunks, sampler_pid)
    runs: list[list[Run]] = [[], []]
    order = random.Random(1)
    gc.collect()
    gc.disable()
    for _ in range(pairs):
        for kind in order.sample((0, 1), 2):
            runs[kind].append(run(windows[kind](), clock, chunks, sampler_pid))
    gc.enable()
    return runs


def report(metered: Sequence[Run], bare: Sequence[Run]) -> float:
    """Print the costs and give that in the measured process, as a share of one core."""
    pairs = list(zip(metered, bare, strict=True))
    costs = [(ours.beside_s - theirs.beside_s) / ours.duration_s for ours, theirs in pairs]
    edges_s = [ours.beside_s - theirs.beside_s for ours, theirs in pairs]
    print(f"{len(pairs)} pairs of windows of {metered[0].duration_s:.1f} s")
    print(f"measured process: {quartiles(costs, '.4%')} of one core, averaged over a window")
    print(
        f"  that is {quartiles([1e3 * cost for cost in edges_s], '.2f')} ms of CPU time a window,"
    )
    default_s = Protocol().window_min_duration_s
    print(f"  {statistics.median(edges_s) / default_s:.4%} of one of {default_s:g} s, the default")
    inside = [ours.inside_s / ours.duration_s for ours in metered]
    print(f"  between the window's edges alone: {quartiles(inside, '.4%')}")
    ratios = [ours.loop_s / theirs.loop_s for ours, theirs in pairs]
    print(f"the loop's CPU time, metered over bare: {quartiles(ratios, '.4f')}")
    shares = [each.sampler_s / each.duration_s for pair in pairs for each in pair]
    print(f"sampler process: {quartiles(shares, '.4%')} of one core")
    return statistics.median(costs)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit 1 if the measured process pays more than MOST, or runs a thread for the meter."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--window", type=float, default=10.0, help="length of a window in s")
    parser.add_argument("--pairs", type=int, default=12, help="pairs of windows")
    arguments = parser.parse_args(argv)
    gpus = [gpu["uuid"] for gpu in NvmlGpus().gpus()]
    if not gpus:
        gpus = ["GPU-a", "GPU-b"]
        sys.modules["pynvml"] = make_nvml([FakeGpu(uuid) for uuid in gpus], time.monotonic)
        os.environ["PYTHONPATH"] = str(STAND_IN)
        print("NVML shows no GPU here: stand-ins take their place")
    print(f"GPUs: {', '.join(gpus)}")

    samplers: list[Sampler] = []

    def start_sampler(*arguments: Any) -> Sampler:
        samplers.append(start(*arguments))
        return samplers[-1]

    clock, threads = Clock(), threading.active_count()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cost.trace.csv.gz"
        meter = open_meter(
            MeterSettings(), clock=clock, trace_path=path, start_sampler=start_sampler
        )
        try:
            tasks = count_tasks()
            pid = samplers[0]._process.pid
            metered, bare = run_pairs(meter, clock, arguments.window, arguments.pairs, pid)
            if problem := samplers[0].problem:
                print(f"error: {problem}", file=sys.stderr)
                return 1
        finally:
            meter.close()
    cost = report(metered, bare)
    most_threads = max(each.threads for each in metered)
    most_tasks = max(each.tasks for each in metered)
    print(
        f"threads: {threads} of Python before the meter was opened, {most_threads} in its windows; "
        f"{tasks} of the kernel before the windows, {most_tasks} in them"
    )
    return 0 if cost < MOST and most_threads <= threads and most_tasks <= tasks else 1


if __name__ == "__main__":
    sys.exit(main())
