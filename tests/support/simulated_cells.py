"""Cells whose true energies are known, as the normalise stage would give their repeats."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from support import builders

from llm_energy.analysis.aggregate import aggregate
from llm_energy.records import AggregateRow, Metrics
from llm_energy.records.registry.metrics import GROSS, NET, SPEED, STEADY_STATE

CV = 0.03  # by which repeats scatter, and by which sessions lie apart
SIGMA = 0.5  # of log-normal noise
CORRELATION = 0.3
TRUTH_J = {GROSS: 0.5, NET: 0.25, STEADY_STATE: 0.45}
SPEED_PER_S = 400.0
DRIFT_W = 0.02  # of the idle power over a window of 100 J/s: a fifth of what net scatters by
TOKENS = builders.REQUESTS * builders.PASSES * builders.OUTPUT_TOKENS
DAY_S = 86_400.0


def normal(draw: random.Random, n: int) -> list[float]:
    """Draw independent noise with a standard deviation of 1."""
    return [draw.gauss(0, 1) for _ in range(n)]


def skewed(draw: random.Random, n: int) -> list[float]:
    """Draw log-normal noise with a mean of 0 and a standard deviation of 1."""
    mean = math.exp(SIGMA**2 / 2)
    sd = mean * math.sqrt(math.expm1(SIGMA**2))
    return [(draw.lognormvariate(0, SIGMA) - mean) / sd for _ in range(n)]


def following(draw: random.Random, n: int) -> list[float]:
    """Draw noise that is correlated with that of the repeat before."""
    values = normal(draw, n)
    for k in range(1, n):
        values[k] = CORRELATION * values[k - 1] + math.sqrt(1 - CORRELATION**2) * values[k]
    return values


@dataclass(frozen=True)
class Kind:
    """How the repeats of a cell are drawn: ``noise`` inside each of the sessions, a day apart.

    The truth of ``one_session`` is its own mean, that of the others what sessions give on average.
    """

    noise: object = normal
    repeats: int = 5
    sessions: int = 1
    session_sd: float = 0.0  # in units of CV

    def cell(self, seed: int) -> tuple[AggregateRow, dict[str, float]]:
        """Draw one cell, aggregate it as the pipeline does, and return it with its truth."""
        draw = random.Random(f"cell {seed}")
        offsets, values = {}, {}
        for name in (*TRUTH_J, SPEED):
            offsets[name] = [self.session_sd * draw.gauss(0, 1) for _ in range(self.sessions)]
            values[name] = [
                1 + CV * (offset + one)
                for offset in offsets[name]
                for one in self.noise(draw, self.repeats // self.sessions)
            ]
        drift_w = DRIFT_W * TRUTH_J[NET] * TOKENS / builders.WINDOW_S
        rows = [
            self._row(k, {name: found[k] for name, found in values.items()}, drift_w)
            for k in range(self.repeats)
        ]
        plan = builders.plan([("pytorch", "float32")], self.repeats)
        (row,) = aggregate([builders.metrics_table(rows)], plan, {"b1": 1}).rows
        own = self.sessions == 1
        truth = {
            name: (TRUTH_J | {SPEED: SPEED_PER_S})[name] * (1 + CV * offsets[name][0] * own)
            for name in values
        }
        # What the idle power held inside the windows, anywhere between its two baselines.
        truth[NET] += draw.uniform(-0.5, 0.5) * drift_w * builders.WINDOW_S / TOKENS
        return row, truth

    def _row(self, k: int, factors: dict[str, float], drift_w: float) -> Metrics:
        session = k * self.sessions // self.repeats
        began_s = 1e9 + DAY_S * session + 60.0 * k
        net_j = factors[NET] * TRUTH_J[NET] * TOKENS
        return builders.metrics(
            factors[GROSS] * TRUTH_J[GROSS],
            k + 1,
            net_energy_j=net_j,
            net_energy_per_output_token_j=net_j / TOKENS,
            steady_state_energy_per_output_token_j=factors[STEADY_STATE] * TRUTH_J[STEADY_STATE],
            output_tokens_per_s=factors[SPEED] * SPEED_PER_S,
            gross_energy_standard_uncertainty_j=1e-3 * TOKENS,
            net_energy_standard_uncertainty_j=1e-3 * TOKENS,
            counter_lag_j=0.0,
            loaded_idle_drift_w=drift_w,
            loaded_idle_excess_w=0.0,
            span_utc_s=(began_s, began_s + 30.0),
            boot_id=f"boot {session}",
        )


KINDS = {
    "independent and normal": Kind(),
    "log-normal with a sigma of 0.5": Kind(skewed),
    "correlated by 0.3 with the repeat before": Kind(following),
    "one session, about its own mean": Kind(session_sd=1.0),
    "five sessions of one repeat": Kind(session_sd=1.0, sessions=5),
    "three sessions of three repeats": Kind(session_sd=1.0, sessions=3, repeats=9),
    "three sessions of three, log-normal": Kind(skewed, session_sd=1.0, sessions=3, repeats=9),
    "three sessions of three, correlated": Kind(following, session_sd=1.0, sessions=3, repeats=9),
}


def held(kind: Kind, seeds: Sequence[int]) -> dict[str, float]:
    """Return, by quantity, the share of cells whose interval holds the truth."""
    hits: dict[str, int] = {}
    for seed in seeds:
        row, truth = kind.cell(seed)
        for name, true in truth.items():
            found = row.statistics[name]
            hits[name] = hits.get(name, 0) + (found.ci_low <= true <= found.ci_high)
    return {name: count / len(seeds) for name, count in hits.items()}
