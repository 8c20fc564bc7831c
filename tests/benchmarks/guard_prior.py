"""Show what the prior of the guard against correlated repeats does to cells and to ratios.

For each prior it prints how often the 95 % intervals of five repeats hold the truth, of a cell
(independent, normal repeats: by Student's distribution alone) and of the ratios of simulated sweeps
whose repeats are independent, and correlated by 0.3. All priors see the same sweeps. Choose a
prior on one range of seeds, and report it on another.

    .venvs/dev/bin/python tests/benchmarks/guard_prior.py --first 10000 --priors 0.36 0.45 0.5
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from statistics import fmean, stdev

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]

from scipy.special import stdtr
from support.simulated_sweeps import N, Sweep

from llm_energy.analysis.compare.families import compare
from llm_energy.analysis.statistics import intervals, paired, summary

KINDS = {"independent": Sweep(), "correlated by 0.3": Sweep(correlation=intervals.CORRELATION)}


def take(prior: float) -> None:
    """Let everything that has the prior as its default take this one."""
    intervals.CORRELATED = prior
    intervals.serial_guard.__wrapped__.__defaults__ = (prior,)
    paired.Noise.__init__.__defaults__ = (prior,)
    for cached in (intervals.serial_guard, summary._summary):
        cached.cache_clear()


def cells_held(n: int = N) -> float:
    """Return how often the interval of a cell of independent, normal repeats holds the truth."""
    widened = intervals.t_quantile(n - 1) * intervals.serial_guard(n)
    return 1 - 2 * float(stdtr(n - 1, -widened))


def main(argv: list[str] | None = None) -> None:
    """Print one row a prior."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--sweeps", type=int, default=1500, help="sweeps of each kind")
    parser.add_argument("--priors", type=float, nargs="+", default=[intervals.CORRELATED])
    arguments = parser.parse_args(argv)
    shares = {(prior, title): [] for prior in arguments.priors for title in KINDS}
    for title, sweep in KINDS.items():
        for seed in range(arguments.first, arguments.first + arguments.sweeps):
            pairs = sweep.pairs(seed)
            for prior in arguments.priors:
                take(prior)
                found = compare(pairs)[0]
                held = (one.ci_low <= sweep.true_ratio(one) <= one.ci_high for one in found)
                shares[prior, title].append(fmean(held))
    last = arguments.first + arguments.sweeps - 1
    print(f"seeds {arguments.first} to {last}: prior, cells, ratios", ", ".join(KINDS))
    for prior in arguments.priors:
        take(prior)
        texts = []
        for title in KINDS:
            found = shares[prior, title]
            error = stdev(found) / math.sqrt(len(found))  # between sweeps, whose pairs share cells
            texts.append(f"{fmean(found):.2%} ± {1.96 * error:.2%}")
        print(f"{prior:5.2f}  {cells_held():.2%} ", *texts)


if __name__ == "__main__":
    main()
