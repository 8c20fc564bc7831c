"""Count how often the 95 % intervals of latency quantiles hold what all requests wait.

Simulates queues of Poisson arrivals whose long run is known, as blocks of timed traffic would give
them, and summarises their quantiles as the pipeline does. Each percentile is asked of as few
requests in a repeat as have an interval. Prints, for sweeps of three and of five repeats, the share
of intervals that hold the truth. Then it does so for what is harder than is asked for: a queue that
is nearly full, and repeats that lie far apart. The exit status says whether all but these hold the
truth in at least 90 %, as far as so many draws tell.

    make bench runs it; it needs no hardware.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]

from support import simulated_queues
from support.simulated_queues import AT_ONCE, Queue

from llm_energy.analysis.energy.latency import OUTERMOST, PERCENTILES, least_requests

LEAST_HELD = 0.90
FEWEST = 16  # requests of a repeat
REPEATS = (3, 5)
TOO_HARD = {
    "8 at a time, busy for 90 %": Queue(0.9),
    "8 at a time, busy for 80 %, repeats 30 % apart": Queue(0.8, repeat_sd=0.3),
}


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark and print it; exit 1 where a share misses its floor."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweeps", type=int, default=1000, help="sweeps of each kind")
    count = max(1, parser.parse_args(argv).sweeps // AT_ONCE)
    error = 2 * math.sqrt(LEAST_HELD * (1 - LEAST_HELD) / (count * AT_ONCE))
    asked = {p: max(FEWEST, int(least_requests(p))) for p in PERCENTILES if p <= OUTERMOST}
    heads = [f"p{percent} of {requests}" for percent, requests in asked.items()]
    print(f"{count * AT_ONCE} sweeps".ljust(60), *(head.rjust(16) for head in heads))
    least = 1.0
    for title, queue in (simulated_queues.KINDS | TOO_HARD).items():
        texts = []
        for percent, requests in asked.items():
            shares = [
                simulated_queues.share_held(queue, percent, requests, range(count), repeats)
                for repeats in REPEATS
            ]
            texts.append(", ".join(f"{share:.1%}" for share in shares).rjust(16))
            if title not in TOO_HARD:
                least = min(least, *shares)
        print(title.ljust(60), *texts, flush=True)
    pooled = [
        simulated_queues.share_held_by_order_statistics(queue, percent, requests, range(count))
        for queue in simulated_queues.KINDS.values()
        for percent, requests in asked.items()
    ]
    shares = f"{min(pooled):.1%} to {max(pooled):.1%}"
    print(f"order statistics of the requests of five repeats together, as if independent: {shares}")
    print(f"at least {least:.1%} of the {len(simulated_queues.KINDS)} first ({LEAST_HELD:.0%})")
    return int(least + error < LEAST_HELD)


if __name__ == "__main__":
    sys.exit(main())
