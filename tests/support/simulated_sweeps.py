"""Sweeps whose true joules are known, as the normalise stage would give them, and what is found."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from support import builders

from llm_energy.analysis.compare.crossovers import crossovers
from llm_energy.analysis.compare.families import compare
from llm_energy.analysis.compare.pairs import pairs_of
from llm_energy.analysis.compare.series import Pair, collect
from llm_energy.records import Metrics, MetricsTable, Plan
from llm_energy.records.comparison import Comparison
from llm_energy.records.registry.metrics import GROSS

BACKENDS = ("pytorch", "vllm")
PRECISIONS = ("bfloat16", "int8", "int4")
BATCH_SIZES = (1, 8, 32, 128)
N = 5
CV = 0.015
SIGMA = 0.5  # of skewed noise, before it is scaled
SKEWED_MEAN = math.exp(SIGMA**2 / 2)
SKEWED_SD = SKEWED_MEAN * math.sqrt(math.expm1(SIGMA**2))
BLOCK_SD = 0.02  # what whole blocks differ by: temperature, time of day

Cell = tuple[str, str, int]  # backend, precision, batch size


CROSSING = 16  # the batch size at which int4 stops to save


def no_difference(cell: Cell) -> float:
    """Return the same true joules per output token for every cell."""
    return 1.0


def usual(cell: Cell) -> float:
    """Return joules as engines take: fewer with the batch, int8 4 % below bfloat16, int4 less."""
    backend, precision, batch_size = cell
    factor = {"bfloat16": 1.0, "int8": 0.96, "int4": 0.7}[precision]
    return factor * (0.8 if backend == "vllm" else 1.0) * 5 / batch_size**0.8


def only_one(cell: Cell) -> float:
    """Let one cell alone use 4 % less than all others."""
    return 0.96 if cell == ("pytorch", "int8", 8) else 1.0


def crossing(cell: Cell) -> float:
    """Let int4 save at small batches and cost at large ones: its ratio is 1 at batch size 16."""
    _, precision, batch_size = cell
    factor = 1.0 if precision != "int4" else math.exp(0.1 * math.log2(batch_size / CROSSING))
    return factor * 5 / batch_size**0.8


@dataclass(frozen=True)
class Sweep:
    """A sweep and its truth: joules per output token by cell, and how noisy each cell is."""

    truth: Callable[[Cell], float] = usual
    cv: Callable[[Cell], float] = lambda cell: CV
    backends: Sequence[str] = BACKENDS
    precisions: Sequence[str] = PRECISIONS
    batch_sizes: Sequence[int] = BATCH_SIZES
    n: int = N
    correlation: float = 0.0  # of a cell's noise with that of its repeat before
    together: float = 0.0  # the share of it that all batch sizes of a repeat have in common
    skewed: bool = False  # noise as a log-normal with a sigma of 0.5 has it, else normal
    sessions: int = 1  # a day apart, into which the blocks are divided
    session_sd: float = 0.0  # by which cells lie apart between sessions
    conditions: Mapping[str, str] = field(default_factory=dict)

    def plan(self) -> Plan:
        """Return the plan of the sweep."""
        cells = [(backend, p) for backend in self.backends for p in self.precisions]
        return builders.plan(cells, self.n, [f"b{b}" for b in self.batch_sizes])

    def measured(self, seed: int) -> list[MetricsTable]:
        """Draw one sweep: log-normal joules, with what a whole block has in common."""
        draw = random.Random(seed)
        blocks = {repeat: draw.gauss(0, BLOCK_SD) for repeat in range(1, self.n + 1)}
        return [self._table(backend, blocks, draw) for backend in self.backends]

    def _table(
        self, backend: str, blocks: Mapping[int, float], draw: random.Random
    ) -> MetricsTable:
        rows: list[Metrics] = []
        conditions: dict[str, dict[str, str]] = {}
        before: dict[Cell, float] = {}
        fresh = math.sqrt(1 - self.correlation**2)
        alone, common = math.sqrt(1 - self.together), math.sqrt(self.together)
        offsets: dict[tuple, float] = {}
        for repeat, block in blocks.items():
            session = (repeat - 1) * self.sessions // self.n
            for precision in self.precisions:
                process = self._noise(draw, 1.0) if self.together else 0.0
                for batch_size in self.batch_sizes:
                    cell = (backend, precision, batch_size)
                    spread = self._noise(draw, self.cv(cell))
                    if self.together:
                        spread = alone * spread + common * self.cv(cell) * process
                    if cell in before:
                        spread = self.correlation * before[cell] + fresh * spread
                    before[cell] = spread
                    offset = 0.0
                    if self.session_sd:
                        if (cell, session) not in offsets:
                            offsets[cell, session] = draw.gauss(0, self.session_sd)
                        offset = offsets[cell, session]
                    value_j = self.truth(cell) * math.exp(block + offset + spread)
                    speed = batch_size * 30 * math.exp(draw.gauss(0, 0.005))
                    key = f"c{len(conditions) + 1}"
                    rows.append(
                        builders.metrics(
                            value_j,
                            repeat,
                            backend,
                            precision=precision,
                            workload=f"b{batch_size}",
                            batch_size=batch_size,
                            output_tokens_per_s=speed,
                            tpot_s=batch_size / speed,
                            conditions=key,
                            **self._when(repeat, session),
                        )
                    )
                    conditions[key] = {
                        "precision": precision,
                        "batch_size": str(batch_size),
                        "engine": f"{backend} 1",
                        "boards": "GPU-1",
                        "energy_status": "measured",
                        **self.conditions,
                    }
        return builders.metrics_table(rows, conditions=conditions)

    def _noise(self, draw: random.Random, sd: float) -> float:
        """Draw the noise of a window, with a mean of 0 and so large a standard deviation."""
        if not self.skewed:
            return draw.gauss(0, sd)
        return sd * (draw.lognormvariate(0, SIGMA) - SKEWED_MEAN) / SKEWED_SD

    def _when(self, repeat: int, session: int) -> dict:
        """Return when a repeat was measured; of one session nobody asks."""
        if self.sessions == 1:
            return {}
        began_s = 1e9 + 86_400.0 * session + 60.0 * repeat
        return {"span_utc_s": (began_s, began_s + 1), "boot_id": str(session)}

    def pairs(self, seed: int) -> list[Pair]:
        """Draw one sweep and pair its cells in joules per output token."""
        pairs = pairs_of(collect(self.measured(seed)), self.plan())
        return [pair for pair in pairs if pair.metric.name == GROSS]

    def compared(self, seed: int) -> list[Comparison]:
        """Draw one sweep and compare its cells in joules per output token."""
        return compare(self.pairs(seed))[0]

    def true_ratio(self, found: Comparison) -> float:
        """Return the ratio that a comparison should find."""
        ends = (found.other, found.reference)
        other, reference = ((e.backend, e.precision, e.batch_size) for e in ends)
        return self.truth(other) / self.truth(reference)


@dataclass(frozen=True)
class Score:
    """How often intervals hold the truth, true differences are found, and families find false ones.

    ``found`` is None where no difference of the asked size is there to be found, ``false`` where no
    family has a pair without a difference.
    """

    covered: float
    found: float | None
    false: float | None


def score(sweep: Sweep, seeds: Sequence[int], size: float = 0.96) -> Score:
    """Compare many sweeps and hold what is found against the truth.

    ``size`` is the true ratio (or its inverse) whose findings are counted.
    """
    covered: list[bool] = []
    found: list[bool] = []
    false: dict[tuple[int, str], bool] = {}
    for seed in seeds:
        for one in sweep.compared(seed):
            true = sweep.true_ratio(one)
            covered.append(one.ci_low <= true <= one.ci_high)
            beyond = one.outcome in ("less", "more")
            if math.isclose(true, 1):
                family = (seed, one.family)
                false[family] = false.get(family, False) or beyond
            elif math.isclose(true, size) or math.isclose(true, 1 / size):
                found.append(beyond and (one.ratio < 1) == (true < 1))
    return Score(_mean(covered), _mean(found), _mean(false.values()))


def crossovers_held(together: float, seeds: Sequence[int], **noise: Any) -> float:
    """Return how often the interval of a crossover holds the true one, of those that are found."""
    precisions = ("bfloat16", "int4")
    sweep = Sweep(
        crossing, backends=BACKENDS[:1], precisions=precisions, together=together, **noise
    )
    held = []
    for seed in seeds:
        pairs = sweep.pairs(seed)
        (found,) = crossovers(compare(pairs)[0], pairs)
        if found.batch_size is not None:
            low, high = found.ci_low or 0.0, found.ci_high or math.inf
            held.append(low <= CROSSING <= high)
    return _mean(held)


def _mean(values: Collection[bool]) -> float | None:
    return sum(values) / len(values) if values else None
