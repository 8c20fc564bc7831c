"""Latencies of queues whose long run is known, as blocks of timed traffic would give them.

Requests arrive as a Poisson process and are served first come, first served, some at a time, each
for a log-normal time. All times of a repeat have a factor in common, since repeats differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import numpy
from scipy.stats import binom
from support import builders

from llm_energy.analysis.aggregate import aggregate
from llm_energy.analysis.energy.latency import QUANTITIES, quantiles_s
from llm_energy.records import Statistic

SETTLED = 400  # requests, after which a queue has forgotten that it began empty
LONG_RUN, LONG_SEED = (4000, 600), 10**6  # repeats, and requests of each
AT_ONCE = 100  # sweeps
PLAN_OF = ("pytorch", "float32")


@dataclass(frozen=True)
class Queue:
    """A queue with ``slots`` that are busy for a share ``utilisation`` of the time.

    ``sigma`` is that of the log-normal times of service, ``repeat_sd`` that of the logarithm of the
    factor of a repeat, ``correlation`` its correlation with that of the repeat before.
    """

    utilisation: float
    slots: int = 8
    sigma: float = 0.5
    repeat_sd: float = 0.1
    correlation: float = 0.0

    def latencies_s(self, sweeps: int, repeats: int, requests: int, seed: int) -> numpy.ndarray:
        """Draw how long requests take from end to end, by sweep, repeat and request.

        All sweeps at once, one request after the other (Kiefer and Wolfowitz's recursion).
        """
        draw = numpy.random.default_rng(seed)
        shape = (sweeps, repeats)
        found = numpy.empty((*shape, requests))
        free_s, now_s = numpy.zeros((*shape, self.slots)), numpy.zeros(shape)
        for number in range(-SETTLED, requests):
            now_s += draw.exponential(1 / (self.utilisation * self.slots), shape)
            first = free_s.argmin(axis=-1)[..., None]
            begin_s = numpy.maximum(now_s, numpy.take_along_axis(free_s, first, -1)[..., 0])
            end_s = begin_s + draw.lognormal(-(self.sigma**2) / 2, self.sigma, shape)
            numpy.put_along_axis(free_s, first, end_s[..., None], -1)
            if number >= 0:
                found[..., number] = end_s - now_s
        return found * numpy.exp(self.repeat_sd * self._factors(draw, shape))[..., None]

    def long_run_s(self, percent: int) -> float:
        """Return the percentile of all requests of very many repeats."""
        repeats, requests = LONG_RUN
        return float(numpy.percentile(self.latencies_s(repeats, 1, requests, LONG_SEED), percent))

    def _factors(self, draw: numpy.random.Generator, shape: tuple[int, int]) -> numpy.ndarray:
        factors = draw.standard_normal(shape)
        for repeat in range(1, shape[1]):
            fresh = (1 - self.correlation**2) ** 0.5 * factors[:, repeat]
            factors[:, repeat] = self.correlation * factors[:, repeat - 1] + fresh
        return factors


KINDS: Mapping[str, Queue] = {
    "8 at a time, busy for 30 %": Queue(0.3),
    "8 at a time, busy for 80 %": Queue(0.8),
    "the same, each repeat correlated by 0.3 with the one before": Queue(0.8, correlation=0.3),
    "one at a time, busy for 50 %": Queue(0.5, slots=1, sigma=1.0),
    "one at a time, busy for 80 %": Queue(0.8, slots=1, sigma=1.0),
    "one at a time, busy for 80 %, services alike": Queue(0.8, slots=1, sigma=0.1),
    "8 at a time, busy for 80 %, repeats 20 % apart": Queue(0.8, repeat_sd=0.2),
}


def summarised(repeats_s: numpy.ndarray) -> Mapping[str, Statistic]:
    """Summarise the quantiles of repeats as the pipeline does."""
    rows = []
    for number, values in enumerate(repeats_s, 1):
        latencies = dict.fromkeys(QUANTITIES, ()) | {"e2e": values.tolist()}
        quantiles = quantiles_s(SimpleNamespace(inter_token=None), latencies)
        rows.append(
            builders.metrics(
                repeat=number, traffic="poisson", requests=len(values), latencies_s=quantiles
            )
        )
    plan = builders.plan([PLAN_OF], len(rows))
    return aggregate([builders.metrics_table(rows)], plan, {}).rows[0].latencies_s


def share_held(
    queue: Queue, percent: int, requests: int, seeds: Sequence[int], repeats: int = 5
) -> float | None:
    """Return how often the interval of a percentile holds the long run; None where it has none.

    Each seed is ``AT_ONCE`` sweeps.
    """
    true_s = queue.long_run_s(percent)
    found = (
        summarised(one)[f"e2e_p{percent}"]
        for seed in seeds
        for one in queue.latencies_s(AT_ONCE, repeats, requests, seed)
    )
    held = [one.ci_low <= true_s <= one.ci_high for one in found if one.ci_low is not None]
    return sum(held) / len(held) if held else None


def share_held_by_order_statistics(
    queue: Queue, percent: int, requests: int, seeds: Sequence[int], repeats: int = 5
) -> float:
    """Return how often two order statistics of all requests together hold the long run.

    They are those of the binomial distribution, which take requests for independent.
    """
    true_s = queue.long_run_s(percent)
    count = repeats * requests
    low, high = (int(binom.ppf(p, count, percent / 100)) for p in (0.025, 0.975))
    held = []
    for seed in seeds:
        pooled = queue.latencies_s(AT_ONCE, repeats, requests, seed).reshape(AT_ONCE, count)
        pooled.sort(axis=1)
        held.append(((pooled[:, low - 1] <= true_s) & (true_s <= pooled[:, high])).mean())
    return float(numpy.mean(held))
