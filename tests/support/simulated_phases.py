"""Sweeps over lengths whose true joules are known, as the normalise stage gives their windows."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from support import builders, coverage_runs, simulated_runs
from support.simulated_cells import DAY_S, following, normal, skewed

from llm_energy.analysis.phases import phases
from llm_energy.analysis.phases.windows import TERMS, Lengths, contrasts
from llm_energy.records import Metrics, MetricsTable, Request
from llm_energy.records.phases import PhaseSplit

Shares = dict[tuple[str, str], tuple[float, float]]  # held, given

GRID = (
    *(Lengths(p, m) for p in (32, 1024, 4096) for m in (1, 64, 512)),
    Lengths(2048, 1),
)
SHORT_GRID = (
    *(Lengths(p, m) for p in (32, 256, 1024) for m in (1, 16, 128)),
    Lengths(512, 1),
)
TRUTH_J = (0.4, 0.012, 0.35, 2e-5, 3e-7)  # of the terms
REPEAT_CV, WINDOW_CV = 0.02, 0.005
REQUESTS = 80
WEIGHTS_J = 3.0  # what reading the weights once takes a request of ``bent`` prompts


@dataclass(frozen=True)
class Lengthy:
    """A sweep over lengths, and its truth.

    ``bent`` prompts cost no less than one reading of the weights, which no term describes. Whole
    repeats take more or less by ``noise``, and so does each window.
    """

    terms_j: tuple[float, ...] = TRUTH_J
    bent: bool = False
    noise: Callable[[random.Random, int], list[float]] = normal
    repeats: int = 5
    sessions: int = 1
    grid: tuple[Lengths, ...] = GRID
    window_cv: float = WINDOW_CV

    def energy_j(self, lengths: Lengths) -> float:
        """Return what a request of these lengths takes on average."""
        parts = dict(zip(TERMS, map(float.__mul__, self.terms_j, lengths.row), strict=True))
        prefill = ("request", "input_token", "input_squared")
        prefill_j = sum(parts[name] for name in prefill)
        if self.bent:
            prefill_j = max(prefill_j, WEIGHTS_J)
        return prefill_j + parts["output_token"] + parts["context"]

    def truths_j(self) -> dict[str, float]:
        """Return by quantity what a token truly costs between the lengths that are looked at."""
        return {
            quantity: sum(per * self.energy_j(one) for one, per in contrast.items())
            for quantity, contrast in contrasts(self.grid).items()
        }

    def rows(self, seed: int) -> Iterator[Metrics]:
        """Draw the windows of one sweep."""
        draw = random.Random(f"phases {seed}")
        offsets = [draw.gauss(0, 1) if self.sessions > 1 else 0.0 for _ in range(self.sessions)]
        each = self.repeats // self.sessions
        factors = [
            1 + REPEAT_CV * (offset + one) for offset in offsets for one in self.noise(draw, each)
        ]
        for repeat, factor in enumerate(factors, 1):
            errors = self.noise(draw, len(self.grid))
            session = (repeat - 1) // each
            began_s = 1e9 + DAY_S * session + 600.0 * repeat
            for one, error in zip(self.grid, errors, strict=True):
                taken_j = factor * self.energy_j(one) * (1 + self.window_cv * error)
                yield builders.metrics(
                    repeat=repeat,
                    workload=f"p{one.prompt}-o{one.output}",
                    batch_size=8,
                    batching="static",
                    requests=REQUESTS,
                    prompt_tokens=REQUESTS * one.prompt,
                    output_tokens=REQUESTS * one.output,
                    gross_energy_j=REQUESTS * taken_j,
                    conditions=f"{one.prompt}-{one.output}",
                    span_utc_s=(began_s, began_s + 300.0),
                    boot_id=f"boot {session}",
                )

    def table(self, rows: Sequence[Metrics]) -> MetricsTable:
        """Return the windows with the lengths of their requests."""
        conditions = {
            f"{one.prompt}-{one.output}": {
                "prompt_lengths": str(one.prompt),
                "output_lengths": str(one.output),
            }
            for one in self.grid
        }
        return builders.metrics_table(rows, conditions=conditions)

    def split(self, seed: int) -> PhaseSplit:
        """Draw one sweep, and split it as the pipeline does."""
        (split,) = phases("test", [self.table([*self.rows(seed)])]).splits
        return split


SHAPES = {
    "all five terms": {},
    "prompts and outputs alone, no context, no square": {"terms_j": (0.0, 0.012, 0.35, 0.0, 0.0)},
    "a prompt costs nothing": {"terms_j": (0.4, 0.0, 0.35, 2e-5, 0.0)},
    "the context is half of an output token": {"terms_j": (0.4, 0.012, 0.1, 1e-4, 3e-7)},
}
BENT = "short prompts cost as much as one reading of the weights"
NOISE = {
    "independent and normal": {},
    "log-normal with a sigma of 0.5": {"noise": skewed},
    "correlated by 0.3 with the repeat before": {"noise": following},
    "five sessions of one repeat": {"sessions": 5},
    "three sessions of three repeats": {"sessions": 3, "repeats": 9},
}


def held(lengthy: Lengthy, seeds: Sequence[int]) -> Shares:
    """Return by method and quantity how often an interval holds the truth, and is given at all."""
    return _held([lengthy.split(seed) for seed in seeds], lengthy.truths_j())


def _held(splits: Sequence[PhaseSplit], truths_j: Mapping[str, float]) -> Shares:
    hits: dict[tuple[str, str], list[bool]] = {}
    for cost in (cost for split in splits for cost in split.costs):
        own, found = hits.setdefault((cost.method, cost.quantity), []), cost.cost_j
        if found.ci_low is not None:
            own.append(found.ci_low <= truths_j[cost.quantity] <= found.ci_high)
    return {
        key: (sum(own) / len(own) if own else 1.0, len(own) / len(splits))
        for key, own in hits.items()
    }


def held_on_simulated_hosts(sweeps: int, repeats: int = 5) -> Shares:
    """Measure sweeps on simulated hosts, and return the same shares as ``held``.

    The hosts have one GPU whose counter moves every 0.1 s. What a token truly costs there is taken
    from the mean of what all their GPUs truly drew in the windows, and not from any form.
    """
    lengthy = Lengthy(grid=SHORT_GRID)
    workloads = [
        replace(
            simulated_runs.simulated_workload("b8", requests=8, output_tokens=one.output),
            id=f"p{one.prompt}-o{one.output}",
        )
        for one in SHORT_GRID
    ]
    spec = replace(coverage_runs.SPEC, workloads=tuple(workloads))
    prompts = {
        workload.id: tuple(Request(f"q{k}", tuple(range(8, 8 + one.prompt))) for k in range(8))
        for workload, one in zip(workloads, SHORT_GRID, strict=True)
    }
    splits, drawn_j = [], dict.fromkeys(SHORT_GRID, 0.0)
    for sweep in range(sweeps):
        rows = []
        for repeat in range(1, repeats + 1):
            host, measured = coverage_runs.measure(
                coverage_runs.COUNTER_DOMINATES, sweep * repeats + repeat, spec, prompts
            )
            for window, one in zip(measured.windows, SHORT_GRID, strict=True):
                verdict = replace(builders.verdict(measured), workload=window.workload)
                (row,) = builders.window_metrics(measured, verdict)
                held_fixed = f"{one.prompt}-{one.output}"
                rows.append(replace(row, repeat=repeat, conditions=held_fixed))
                span_s = window.interval.start_s, window.interval.end_s
                true_j = host.truth_energy_j("gpu", *span_s, host.gpus[0].uuid)
                drawn_j[one] += true_j / row.requests / (sweeps * repeats)
        (split,) = phases("test", [lengthy.table(rows)]).splits
        splits.append(split)
    truths_j = {
        quantity: sum(per * drawn_j[one] for one, per in contrast.items())
        for quantity, contrast in contrasts(SHORT_GRID).items()
    }
    return _held(splits, truths_j)
