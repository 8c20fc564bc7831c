"""Count how often the 95 % intervals of timed traffic hold its cost in the long run.

Draws sweeps of five blocks of Poisson arrivals on a simulated host, measures them with the real
protocol under the real meter, and aggregates them as the pipeline does. The truth is the joules
over the tokens of many other blocks. Prints, for each load, the share of intervals that hold it,
with the exact 95 % interval of that share. The exit status says whether every share may be one of
93 to 97 %: 500 sweeps tell that well, fewer tell it roughly.

    .venvs/dev/bin/python tests/benchmarks/traffic_coverage.py --sweeps 500
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]

from scipy.stats import binomtest
from support import builders, simulated_runs

from llm_energy.analysis.aggregate import aggregate
from llm_energy.core.files import sha256_json
from llm_energy.core.serialize import to_dict
from llm_energy.inputs.traffic.arrivals import complete, make_arrivals
from llm_energy.measure.simulation.host import SimulatedHost
from llm_energy.measure.simulation.truth import GpuTruth, Truth
from llm_energy.records import Metrics, Plan
from llm_energy.records.files import paths
from llm_energy.records.registry.metrics import GROSS

BLOCKS, LEAST_HELD, MOST_HELD = 5, 0.93, 0.97
RATES_PER_S, HORIZON_S = (0.5, 2.0, 6.0), 30.0
TRUTH = Truth(gpus=(GpuTruth(),), packages=())
REPEATS = [paths.repeat_name(number) for number in range(1, BLOCKS + 1)]
CELL = builders.planned_cell(("m", "simulated", "bfloat16"), REPEATS, ["b8"])
PLAN = Plan(sweep="test", cells=(CELL,))


def measured(rate_per_s: float, block: int) -> Metrics:
    """Return the metrics of one block of a rate, on a host of its own."""
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
    measurement = simulated_runs.run(SimulatedHost(TRUTH, block), spec, arrivals={"b8": arrivals})
    [row] = [
        row
        for row in builders.window_metrics(measurement, builders.verdict(measurement))
        if row.energy_status == "measured"
    ]
    return row


def held(rows: Sequence[Metrics], truth_j: float) -> int:
    """Return in how many sweeps of the rows, five blocks each, the interval holds the truth."""
    count = 0
    for begin in range(0, len(rows), BLOCKS):
        table = builders.metrics_table(rows[begin : begin + BLOCKS], backend=rows[0].backend)
        [row] = aggregate([table], PLAN, {"b8": 8}).rows
        found = row.statistics[GROSS]
        count += found.ci_low <= truth_j <= found.ci_high
    return count


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark and print it; exit 1 where a share can't be one of 93 to 97 %."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweeps", type=int, default=500, help="sweeps of each load")
    count = parser.parse_args(argv).sweeps
    wrong = False
    for rate_per_s in RATES_PER_S:
        blocks = range(1, 2 * BLOCKS * count + 1)  # one half to judge, the other for the truth
        rows = [measured(rate_per_s, block) for block in blocks]
        sweeps, others = rows[: BLOCKS * count], rows[BLOCKS * count :]
        joules, tokens = (
            [getattr(r, n) for r in others] for n in ("gross_energy_j", "output_tokens")
        )
        truth_j = math.fsum(joules) / sum(tokens)
        found = binomtest(held(sweeps, truth_j), count)
        low, high = found.proportion_ci()
        wrong = wrong or low > MOST_HELD or high < LEAST_HELD
        print(
            f"{rate_per_s:g}/s over {HORIZON_S:g} s, {count} sweeps: {found.k / count:.1%} hold "
            f"{truth_j:.4g} J per output token (95 % interval of the share {low:.1%} to {high:.1%})"
        )
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
