"""Repeats on a simulated host with the truth beside them, to see how often intervals hold it."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from support import builders, simulated_runs

from llm_energy.analysis.aggregate import aggregate
from llm_energy.measure.protocol import run_repeat
from llm_energy.measure.simulation.host import SimulatedHost
from llm_energy.measure.simulation.truth import EngineTruth, GpuTruth, Truth
from llm_energy.meter.meter import open_meter
from llm_energy.records import Measurement, Metrics, Request, Spec, Statistic

Prompts = Mapping[str, tuple[Request, ...]]

TICK_S = 0.1
N = 5
# Between two stretches a real host prints, collects and reads sensors, which takes a time of its
# own, longer than a tick. Simulated time stands still there unless it is told to pass.
REST_S = (0.2, 0.4)
SPEED_SPREAD = 0.02  # of whole runs, so that windows are not the same number of ticks long
COUNTER_DOMINATES = Truth(
    gpus=(GpuTruth(tick_s=TICK_S, noise_sd=0.002),), packages=(), repeat_sd=0.0
)
REPEATS_DOMINATE = Truth(
    gpus=(GpuTruth(tick_s=TICK_S, noise_sd=0.02),), packages=(), repeat_sd=0.03
)
SPEC = simulated_runs.simulated_spec(
    simulated_runs.simulated_workload("b8", requests=8, output_tokens=256),
    window_min_duration_s=6.0,  # amid a pass, so that all windows have as many passes
    warmup_min_passes=1,
    warmup_max_passes=1,
    deep_idle_duration_s=0.0,
    hot_idle_duration_s=0.0,
    thermal_policy="none",
)


@dataclass(frozen=True)
class Known:
    """One repeat as it was measured, and its truth in J.

    ``most_missed_j`` are what the GPU drew in the tick before the window and in its last tick.
    """

    row: Metrics
    gross_j: float
    net_j: float
    most_missed_j: tuple[float, float]

    def truths(self) -> dict[str, float]:
        """Return the true values by the names of their metrics."""
        return {
            "gross_energy_j": self.gross_j,
            "net_energy_j": self.net_j,
            "energy_per_output_token_j": self.gross_j / self.row.output_tokens,
        }


def repeats(truth: Truth, seeds: Sequence[int], hot_idle_s: float = 0.0) -> Iterator[Known]:
    """Measure one repeat a seed, under the real meter and protocol."""
    spec = replace(SPEC, protocol=replace(SPEC.protocol, hot_idle_duration_s=hot_idle_s))
    gc.collect()
    gc.freeze()  # the protocol collects before each window, and what tests hold is not its matter
    try:
        for seed in seeds:
            yield _repeat(truth, seed, spec)
    finally:
        gc.unfreeze()


def _repeat(truth: Truth, seed: int, spec: Spec) -> Known:
    host, measured = measure(truth, seed, spec, simulated_runs.prompts_of(spec))
    (row,) = builders.window_metrics(measured, builders.verdict(measured))
    begin_s, end_s = measured.windows[0].interval.start_s, measured.windows[0].interval.end_s
    (gpu,) = host.gpus

    def drawn_j(from_s: float, to_s: float) -> float:
        return host.truth_energy_j("gpu", from_s, to_s, gpu.uuid)

    gross_j = drawn_j(begin_s, end_s)
    idle_j = gpu.history.energy_at_level_j(gpu.loaded_idle_level_w, begin_s, end_s)
    edges_j = (drawn_j(begin_s - TICK_S, begin_s), drawn_j(end_s - TICK_S, end_s))
    return Known(row, gross_j, gross_j - idle_j, edges_j)


def measure(
    truth: Truth, seed: int, spec: Spec, prompts: Prompts
) -> tuple[SimulatedHost, Measurement]:
    """Measure one repeat under the real meter and protocol; the host knows what it truly drew."""
    random = Random(f"run {seed}")
    speed = 1 + random.uniform(-SPEED_SPREAD, SPEED_SPREAD)
    engine = EngineTruth(bandwidth_bytes_per_s=speed * EngineTruth().bandwidth_bytes_per_s)
    host = SimulatedHost(replace(truth, engine=engine), seed)
    meter = open_meter(
        spec.meter,
        clock=host.clock,
        wall_clock=host.wall_clock,
        sleep=host.sleep,
        sysfs=host.sysfs,
        procfs=host.procfs,
        nvml=host.nvml,
        start_sampler=host.start_sampler,
    )
    found = run_repeat(
        spec,
        simulated_runs.NOWHERE,
        prompts,
        host.create_backend("simulated"),
        meter,
        clock=lambda: host.now_s,  # the engine reads no file, so that these need not be renewed
        sleep=host.sleep,
        step=lambda label: host.sleep(random.uniform(*REST_S)),
    )
    measured = replace(
        builders.measurement(spec),
        baselines=found.baselines,
        windows=found.windows,
        meter=meter.report(),
    )
    meter.close()
    host.close()
    return host, measured


def statistics_of(rows: Sequence[Metrics]) -> dict[str, Statistic]:
    """Summarise repeats as the pipeline does."""
    rows = [replace(row, repeat=number) for number, row in enumerate(rows, 1)]
    plan = builders.plan([(rows[0].backend, rows[0].precision)], len(rows), [rows[0].workload])
    return aggregate([builders.metrics_table(rows)], plan, {}).rows[0].statistics


def share_of_windows_held(known: Sequence[Known]) -> dict[str, float]:
    """Return how often the interval of a single repeat holds what that repeat truly used."""
    return _shares((statistics_of([one.row]), one.truths()) for one in known)


def share_of_cells_held(known: Sequence[Known], draws: int) -> dict[str, float]:
    """Return how often the interval of five repeats holds the mean of them all."""
    random = Random("cells")
    truths = [one.truths() for one in known]
    mean = {name: sum(truth[name] for truth in truths) / len(truths) for name in truths[0]}
    cells = (random.sample(known, N) for _ in range(draws))
    return _shares((statistics_of([one.row for one in cell]), mean) for cell in cells)


def _shares(cases: Iterator[tuple[dict[str, Statistic], dict[str, float]]]) -> dict[str, float]:
    held: dict[str, list[bool]] = {}
    for found, truths in cases:
        for name, true in truths.items():
            interval = found[name]
            held.setdefault(name, []).append(interval.ci_low <= true <= interval.ci_high)
    return {name: sum(hits) / len(hits) for name, hits in held.items()}
