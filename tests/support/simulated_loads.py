"""Sweeps over load whose true powers are known, as the normalise stage would give their windows."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from support import builders
from support.simulated_cells import DAY_S, following, normal, skewed

from llm_energy.analysis.load_curve import marginals
from llm_energy.records import Metrics, MetricsTable, Statistic

RATES_PER_S = (0.5, 1.0, 2.0, 4.0)
RAMP_S, HORIZON_S = 10.0, 30.0
OUTPUT_TOKENS = 128
IDLE_W, AWAKE_W, PER_TOKEN_J = 120.0, 90.0, 0.3
REPEAT_CV, WINDOW_SD_W = 0.02, 1.0
LONG_RUN = range(10**6, 10**6 + 500)  # seeds


@dataclass(frozen=True)
class Load:
    """A sweep over load, and its truth.

    An engine draws ``IDLE_W``, ``awake_w`` more while it serves anything, and ``PER_TOKEN_J`` for
    each token, with an ``economy`` the less the more of them come. A request takes ``request_s``
    and one of so many ``slots``. Whole repeats draw more or less by ``noise``, idle and awake, and
    whole sessions as well, as far apart.
    """

    awake_w: float = AWAKE_W
    request_s: float = 1.0
    slots: int = 64
    noise: Callable[[random.Random, int], list[float]] = normal
    repeats: int = 5
    sessions: int = 1
    economy: float = 0.0

    def rows(self, seed: int) -> Iterator[Metrics]:
        """Draw the windows of one sweep."""
        draw = random.Random(f"load {seed}")
        sessions = [draw.gauss(0, 1) if self.sessions > 1 else 0.0 for _ in range(self.sessions)]
        factors = [
            1 + REPEAT_CV * (session + one)
            for session in sessions
            for one in self.noise(draw, self.repeats // self.sessions)
        ]
        most = int(2 * (RAMP_S + HORIZON_S) * max(RATES_PER_S))
        for repeat, factor in enumerate(factors, 1):
            gaps = [draw.expovariate(1.0) for _ in range(most)]  # one pattern at all rates
            errors = self.noise(draw, len(RATES_PER_S))
            for rate_per_s, error in zip(RATES_PER_S, errors, strict=True):
                yield self._row(repeat, rate_per_s, gaps, factor, WINDOW_SD_W * error)

    def _row(
        self, repeat: int, rate_per_s: float, gaps: Sequence[float], factor: float, error_w: float
    ) -> Metrics:
        """Serve requests in their order: how long any was served, and the tokens that came."""
        now_s = busy_to_s = busy_s = served_s = 0.0
        free_s = [0.0] * self.slots
        latencies_s = []
        for gap in gaps:
            now_s += gap / rate_per_s
            if now_s >= RAMP_S + HORIZON_S:
                break
            started_s = max(now_s, free_s[0])  # of a heap, so that it is the earliest
            ended_s = started_s + self.request_s
            heapq.heapreplace(free_s, ended_s)
            begin_s, end_s = max(started_s, RAMP_S), min(ended_s, RAMP_S + HORIZON_S)
            if end_s > begin_s:
                served_s += end_s - begin_s
                busy_s += max(0.0, end_s - max(begin_s, busy_to_s))
                busy_to_s = max(busy_to_s, end_s)
            if now_s >= RAMP_S:
                latencies_s.append(ended_s - now_s)
        tokens_per_s = OUTPUT_TOKENS * served_s / self.request_s / HORIZON_S
        per_token_j = PER_TOKEN_J * max(1.0, tokens_per_s / OUTPUT_TOKENS) ** -self.economy
        drawn_w = self.awake_w * busy_s / HORIZON_S + per_token_j * tokens_per_s
        session = (repeat - 1) * self.sessions // self.repeats
        began_s = 1e9 + DAY_S * session + 60.0 * repeat
        return builders.metrics(
            repeat=repeat,
            workload=_workload(rate_per_s),
            traffic="poisson",
            series="s",
            requested_rate_per_s=rate_per_s,
            arrival_rate_per_s=len(latencies_s) / HORIZON_S,
            e2e_latency_s=fmean(latencies_s) if latencies_s else None,
            output_tokens_per_s=tokens_per_s,
            mean_power_w=factor * (IDLE_W + drawn_w) + error_w,
            loaded_idle_power_w=factor * IDLE_W,
            span_utc_s=(began_s, began_s + 30.0),
            boot_id=f"boot {session}",
        )

    def marginals_j(self, seed: int) -> list[Statistic]:
        """Draw one sweep, and say what one more token costs from rate to rate, as the pipeline."""
        found = {place[1]: one for place, one in marginals([self._table(seed)]).items()}
        return [found[_workload(rate_per_s)] for rate_per_s in RATES_PER_S[1:]]

    def long_run_j(self) -> list[float]:
        """Return what one more token costs from rate to rate in very many sweeps."""
        alike = replace(self, noise=normal, repeats=5, sessions=1)
        powers_w: dict[str, list[float]] = {}
        per_s: dict[str, list[float]] = {}
        for row in (row for seed in LONG_RUN for row in alike.rows(seed)):
            powers_w.setdefault(row.workload, []).append(row.mean_power_w)
            per_s.setdefault(row.workload, []).append(row.output_tokens_per_s)
        names = [_workload(rate_per_s) for rate_per_s in RATES_PER_S]
        return [
            (fmean(powers_w[b]) - fmean(powers_w[a])) / (fmean(per_s[b]) - fmean(per_s[a]))
            for a, b in itertools.pairwise(names)
        ]

    def _table(self, seed: int) -> MetricsTable:
        return builders.metrics_table(self.rows(seed))


def _workload(rate_per_s: float) -> str:
    return f"r{rate_per_s:g}"


SHAPES = {
    "requests overlap": {},
    "they overlap hardly": {"request_s": 0.3},
    "they overlap always": {"request_s": 4.0},
    "2 at a time, busy for 80 %": {"request_s": 0.4, "slots": 2},
    "tokens cost less in larger batches": {"economy": 0.5},
    "waking takes nothing, a straight line": {"awake_w": 0.0},
}
NOISE = {
    "independent and normal": {},
    "log-normal with a sigma of 0.5": {"noise": skewed},
    "correlated by 0.3 with the repeat before": {"noise": following},
    "five sessions of one repeat": {"sessions": 5},
    "three sessions of three repeats": {"sessions": 3, "repeats": 9},
}


def held(load: Load, seeds: Sequence[int]) -> list[float]:
    """Return how often the interval of one more token holds the long run, from rate to rate."""
    truths_j = load.long_run_j()
    hits = [
        [one.ci_low <= true <= one.ci_high for one, true in zip(found, truths_j, strict=True)]
        for found in map(load.marginals_j, seeds)
    ]
    return [sum(column) / len(hits) for column in zip(*hits, strict=True)]
