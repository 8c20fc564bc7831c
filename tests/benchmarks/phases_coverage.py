"""Count how often the 95 % intervals of what input and output tokens cost hold the truth.

Draws sweeps over lengths whose joules are known, with noise of several kinds, and splits them as
the pipeline does, by the fit and by differences. Prints the share of intervals that hold the truth,
and how many are given. The exit status says whether they do in at least 93 % where repeats are
independent and normal and in 90 % elsewhere, as far as so many draws tell, and whether the fit
keeps its intervals back where its form is wrong.

    make bench runs it; it needs no hardware.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]

from support.simulated_phases import (
    BENT,
    NOISE,
    SHAPES,
    Lengthy,
    Shares,
    held,
    held_on_simulated_hosts,
)

LEAST_NORMAL, LEAST_OF_HARDER, LEAST_REFUSED = 0.93, 0.90, 0.93
NORMAL = "independent and normal"


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark and print it; exit 1 where a share misses its floor."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweeps", type=int, default=300, help="sweeps of each kind")
    count = parser.parse_args(argv).sweeps
    error = 2 * math.sqrt(0.1 * 0.9 / count)
    wrong = False
    print(f"{count} sweeps of each kind: the least and the most held of input, output and context")
    for shape, truth in {**SHAPES, BENT: {"bent": True}}.items():
        print(shape)
        for title, noise in NOISE.items():
            shares = held(Lengthy(**truth, **noise), range(count))
            print(f"  {title:42}{_told(shares)}", flush=True)
            if shape == BENT:
                wrong = wrong or (title == NORMAL and _given(shares) > 1 - LEAST_REFUSED + error)
                shares = {key: one for key, one in shares.items() if key[0] != "fit"}
            least = LEAST_NORMAL if title == NORMAL else LEAST_OF_HARDER
            wrong = wrong or min(share for share, _ in shares.values()) + error < least
    shares = held_on_simulated_hosts(count)
    print(f"{'measured on simulated hosts':44}{_told(shares)}")
    wrong = wrong or min(share for share, _ in shares.values()) + error < LEAST_NORMAL
    return int(wrong)


def _told(shares: Shares) -> str:
    parts = []
    for method in ("fit", "difference"):
        own = [share for (of, _), (share, given) in shares.items() if of == method and given]
        told = f"{min(own):.1%} to {max(own):.1%}" if own else "none"
        parts.append(f"{method} {told}" + (f" ({_given(shares):.0%} given)" * (method == "fit")))
    return ", ".join(parts)


def _given(shares: Shares) -> float:
    """Return how often the fit has intervals."""
    return max(given for (method, _), (_, given) in shares.items() if method == "fit")


if __name__ == "__main__":
    sys.exit(main())
