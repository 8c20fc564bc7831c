"""Count how often the 95 % intervals hold the truth, on simulated hosts whose truth is known.

Measures repeats with the real protocol under the real meter, first where the tick of the energy
counter is all that errs, then where whole runs differ by more than that. Prints, for gross and net
energy and for joules per output token, the share of intervals that hold the truth: those of single
repeats, and those of cells of five. Then draws cells with noise that the intervals do not assume,
of one session and of several, and aggregates them as the pipeline does. The exit status says
whether the floors hold, as far as so many draws tell: between 93 and 97 % of independent, normal
repeats, at least 90 % of the harder kinds. Net energy may hold the truth more often where the
counter dominates, and of single repeats, since the slope of the idle power is then a guess that
the interval allows for.

    make bench runs it; it needs no hardware.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]

from support import coverage_runs, simulated_cells

from llm_energy.records.registry.metrics import METRICS, SPEED

CELLS = 5000  # of each kind of noise
LEAST_HELD, MOST_HELD, LEAST_OF_HARDER = 0.93, 0.97, 0.90
NORMAL = ("independent and normal", "one session, about its own mean")


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
        wide = [one.pop("net_energy_j")]
        if truth is coverage_runs.COUNTER_DOMINATES:
            wide.append(five.pop("net_energy_j"))
        shares += [*(min(share, MOST_HELD) for share in wide), *one.values(), *five.values()]
    low = []
    names = [METRICS[name].label for name in (*simulated_cells.TRUTH_J, SPEED)]
    print(f"cells, {CELLS} of each kind".ljust(44), *(name.rjust(28) for name in names))
    for title, kind in simulated_cells.KINDS.items():
        found = list(simulated_cells.held(kind, range(CELLS)).values())
        print(title.ljust(44), *(f"{share:.1%}".rjust(28) for share in found))
        if title in NORMAL:
            shares += found
        else:
            low += found
    print(
        f"{min(shares):.1%} to {max(shares):.1%} (from {LEAST_HELD:.0%} to {MOST_HELD:.0%}); what "
        f"is harder at least {min(low):.1%} ({LEAST_OF_HARDER:.0%})"
    )
    error = 2 * math.sqrt(0.05 * 0.95 / count)  # of a share, two standard deviations
    wrong = min(shares) + error < LEAST_HELD or max(shares) - error > MOST_HELD
    return int(wrong or min(low) + error < LEAST_OF_HARDER)


if __name__ == "__main__":
    sys.exit(main())
