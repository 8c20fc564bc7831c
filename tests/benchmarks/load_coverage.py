"""Count how often the 95 % intervals of what one more token costs at a load hold the truth.

Serves Poisson arrivals at four rates by engines whose power is known, with curves of several
shapes, draws sweeps with noise of several kinds, and looks at them as the pipeline does. Prints the
share of intervals that hold the long run, between each two neighbouring rates. The exit status says
whether they do in at least 93 % where repeats are independent and normal, and in 90 % elsewhere, as
far as so many draws tell.

    make bench runs it; it needs no hardware.
"""

from __future__ import annotations

import argparse
import math
import sys
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]

from support.simulated_loads import NOISE, RATES_PER_S, SHAPES, Load, held

LEAST_NORMAL, LEAST_OF_HARDER = 0.93, 0.90
NORMAL = "independent and normal"


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark and print it; exit 1 where a share misses its floor."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweeps", type=int, default=1000, help="sweeps of each kind")
    count = parser.parse_args(argv).sweeps
    print("from rate to rate:", *(f"{a:g} to {b:g}/s" for a, b in pairwise(RATES_PER_S)))
    error = 2 * math.sqrt(0.1 * 0.9 / count)
    wrong = False
    for shape, engine in SHAPES.items():
        print(f"{shape}, {count} sweeps of each kind")
        for title, noise in NOISE.items():
            shares = held(Load(**engine, **noise), range(count))
            least = LEAST_NORMAL if title == NORMAL else LEAST_OF_HARDER
            wrong = wrong or min(shares) + error < least
            print(f"  {title:44}", *(f"{share:.1%}" for share in shares), flush=True)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
