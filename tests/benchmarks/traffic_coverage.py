"""Count how often the 95 % intervals of timed traffic hold its long-run cost and latencies.

Measures many blocks of Poisson arrivals on a simulated host, with the real protocol under the real
meter. These blocks are all the traffic that there is: the truth is the joules over the tokens of
them all, and the quantiles of all their requests. Sweeps of five blocks, drawn with replacement,
are aggregated as the pipeline does. Prints, for each load, the share of intervals that hold the
truth; "-" is what has no interval. The exit status says whether those of joules do in 93 to 97 %,
as far as the exact 95 % interval of the share tells, and those of latencies in at least 90 %.

    .venvs/dev/bin/python tests/benchmarks/traffic_coverage.py
"""

from __future__ import annotations

import argparse
import gc
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]

from scipy.stats import binomtest
from support import builders, simulated_runs

from llm_energy.analysis.aggregate import aggregate
from llm_energy.analysis.energy.latency import PERCENTILES, latencies_s, quantile
from llm_energy.core.files import sha256_json
from llm_energy.core.serialize import to_dict
from llm_energy.inputs.traffic.arrivals import complete, make_arrivals
from llm_energy.measure.simulation.host import SimulatedHost
from llm_energy.measure.simulation.truth import GpuTruth, Truth
from llm_energy.records import Metrics, Plan
from llm_energy.records.files import paths
from llm_energy.records.registry.metrics import GROSS, NET

BLOCKS, LEAST_HELD, MOST_HELD, LEAST_OF_LATENCIES = 5, 0.93, 0.97, 0.90
SHOWN = ("ttft", "tpot", "e2e")
RATES_PER_S, HORIZON_S = (0.5, 2.0, 6.0), 30.0
TRUTH = Truth(gpus=(GpuTruth(),), packages=())
REPEATS = [paths.repeat_name(number) for number in range(1, BLOCKS + 1)]
CELL = builders.planned_cell(("m", "simulated", "bfloat16"), REPEATS, ["b8"])
PLAN = Plan(sweep="test", cells=(CELL,))


def measured(rate_per_s: float, block: int) -> tuple[Metrics, dict[str, list[float]]]:
    """Return the metrics of one block of a rate, on a host of its own, and all its latencies."""
    traffic = complete({"mode": "poisson", "rate_per_s": rate_per_s}, HORIZON_S)
    arrivals = make_arrivals(traffic, block=block)
    digest = sha256_json(to_dict(arrivals))
    workload = simulated_runs.simulated_workload(
        "b8", 64, 64, "dynamic", traffic_simulation=traffic
    )
    workload = replace(workload, arrivals_sha256=digest)
    spec = simulated_runs.simulated_spec(
        workload,
        repeat=(block - 1) % BLOCKS + 1,
        deep_idle_duration_s=0.0,
        warmup_min_passes=1,
        warmup_max_passes=1,
        thermal_policy="none",
    )
    gc.freeze()  # the protocol collects before each window, and earlier blocks are not its matter
    host = SimulatedHost(TRUTH, block)
    measurement = simulated_runs.run(host, spec, arrivals={"b8": arrivals})
    host.close()
    [row] = [
        row
        for row in builders.window_metrics(measurement, builders.verdict(measurement))
        if row.energy_status == "measured"
    ]
    return row, latencies_s(measurement.windows[0])


def truths(
    known: Sequence[tuple[Metrics, Mapping[str, Sequence[float]]]],
) -> dict[str, float]:
    """Return what all blocks together took for a token, and the quantiles of all their requests."""
    tokens = sum(row.output_tokens for row, _ in known)
    found = {
        GROSS: math.fsum(row.gross_energy_j for row, _ in known) / tokens,
        NET: math.fsum(row.net_energy_j for row, _ in known) / tokens,
    }
    for name in SHOWN:
        times_s = sorted(value for _, latencies in known for value in latencies[name])
        for percent in PERCENTILES:
            found[f"{name}_p{percent}"] = quantile(times_s, percent / 100)
    return found


def shares(
    rows: Sequence[Metrics], truth: Mapping[str, float], sweeps: int
) -> dict[str, tuple[int, int]]:
    """Return by quantity how many intervals hold the truth, and how many there are."""
    draw = Random(0)
    found = {name: (0, 0) for name in truth}
    for _ in range(sweeps):
        blocks = [
            replace(row, repeat=number, measurement=f"r{number}")
            for number, row in enumerate(draw.choices(rows, k=BLOCKS), 1)
        ]
        table = builders.metrics_table(blocks, backend=rows[0].backend)
        [row] = aggregate([table], PLAN, {"b8": 8}).rows
        for name, true in truth.items():
            one = row.statistics.get(name) or row.latencies_s.get(name)
            if one is not None and one.ci_low is not None:
                held, count = found[name]
                found[name] = held + (one.ci_low <= true <= one.ci_high), count + 1
    return found


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark and print it; exit 1 where a share misses its floor."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweeps", type=int, default=2000, help="sweeps of each load")
    parser.add_argument(
        "--blocks", type=int, default=1000, help="blocks that sweeps are drawn from"
    )
    arguments = parser.parse_args(argv)
    wrong = False
    for rate_per_s in RATES_PER_S:
        known = [measured(rate_per_s, block) for block in range(1, arguments.blocks + 1)]
        truth = truths(known)
        print(f"{rate_per_s:g}/s over {HORIZON_S:g} s, {arguments.sweeps} sweeps")
        for name, (held, count) in shares(
            [row for row, _ in known], truth, arguments.sweeps
        ).items():
            print(f"  {name:32} {truth[name]:8.4g}  {f'{held / count:.1%}' if count else '-'}")
            if count:
                low, high = binomtest(held, count).proportion_ci()
                if name in (GROSS, NET):
                    wrong = wrong or low > MOST_HELD or high < LEAST_HELD
                else:
                    wrong = wrong or high < LEAST_OF_LATENCIES
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
