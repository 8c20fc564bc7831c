"""Count how often the 95 % intervals hold the truth, on simulated hosts whose truth is known.

Measures repeats with the real protocol under the real meter, first where the tick of the energy
counter is all that errs, then where whole runs differ by more than that. Prints, for gross and net
energy and for joules per output token, the share of intervals that hold the truth: those of single
repeats, and those of cells of five. A right 95 % interval holds it in 95 of 100 cases. The exit
status says whether the floor holds: between 93 and 97 % of each kind; that of the net energy of
single repeats may hold it more often, since each guesses the slope of its own idle power.

    make bench runs it; it needs no hardware.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]

from support import coverage_runs

from llm_energy.analysis.statistics.summary import summarise

LEAST_HELD, MOST_HELD = 0.93, 0.97


def following(random: Random) -> list[float]:
    """Draw five repeats, each correlated by 0.3 with the one before."""
    values = [random.gauss(0, 1)]
    while len(values) < coverage_runs.N:
        values.append(0.3 * values[-1] + math.sqrt(1 - 0.3**2) * random.gauss(0, 1))
    return values


def of_one_session(random: Random) -> list[float]:
    """Draw five repeats of a session that is off by as much as repeats scatter."""
    session = random.gauss(0, 1)
    return [session + random.gauss(0, 1) for _ in range(coverage_runs.N)]


def skewed(random: Random) -> list[float]:
    """Draw five log-normal repeats."""
    return [random.lognormvariate(0, 0.5) for _ in range(coverage_runs.N)]


# What Student's interval doesn't assume, with the true mean; told, and held to no floor.
UNLIKE_THE_METHOD = (
    ("log-normal with a sigma of 0.5", skewed, math.exp(0.125)),
    ("correlated by 0.3 with the repeat before", following, 0.0),
    ("a session off by as much as repeats scatter", of_one_session, 0.0),
)


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark and print it; exit 1 where the floor does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5000, help="repeats of each kind")
    count = parser.parse_args(argv).repeats
    shares: list[float] = []
    for title, truth in (
        ("the counter dominates", coverage_runs.COUNTER_DOMINATES),
        ("repeats dominate", coverage_runs.REPEATS_DOMINATE),
    ):
        known = list(coverage_runs.repeats(truth, range(count)))
        one = coverage_runs.share_of_windows_held(known)
        five = coverage_runs.share_of_cells_held(known, count)
        print(f"{title}, {count} repeats")
        for name in one:
            print(f"  {name:28} single repeats {one[name]:.1%}   cells of five {five[name]:.1%}")
        least = min(one.pop("net_energy_j"), MOST_HELD)
        shares += [least, *one.values(), *five.values()]
    for title, draw, mean in UNLIKE_THE_METHOD:
        random = Random(title)
        cells = [summarise(draw(random)) for _ in range(count)]
        held = sum(cell.ci_low <= mean <= cell.ci_high for cell in cells) / count
        print(f"cells of five, {title}: {held:.1%}")
    print(f"{min(shares):.1%} to {max(shares):.1%} (from {LEAST_HELD:.0%} to {MOST_HELD:.0%})")
    return int(min(shares) < LEAST_HELD or max(shares) > MOST_HELD)


if __name__ == "__main__":
    sys.exit(main())
