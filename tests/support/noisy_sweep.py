"""Sweeps of a few repeats whose joules scatter as widely as those of a busy laptop."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from support import builders

from llm_energy.analysis.aggregate import aggregate, planned_batch_sizes
from llm_energy.analysis.compare.stage import comparisons
from llm_energy.publish.report import Sources
from llm_energy.publish.tables import Results
from llm_energy.records import SCHEMA_VERSION, Metrics, MetricsTable, Verdicts
from llm_energy.records.registry.metrics import OF_COMPONENT

FACTORS = {"bfloat16": 1.0, "int8": 0.9, "int4": 0.7}
CONDITIONS = {
    "boards": "GPU-1",
    "energy_status": "measured",
    "prompt_lengths": "4",
    "output_lengths": "8",
}


@dataclass(frozen=True)
class NoisySweep:
    """A sweep on two backends whose joules, times and net joules scatter by ``scatter``.

    ``scatter`` is the standard deviation of a logarithm: at 1 repeats differ by factors.
    """

    repeats: int = 2
    scatter: float = 1.0
    backends: Sequence[str] = ("pytorch", "vllm")
    batch_sizes: Sequence[int] = (1, 2, 16, 128)
    seed: int = 1

    @property
    def plan(self) -> dict:
        """Return the plan of the sweep."""
        cells = [(backend, precision) for backend in self.backends for precision in FACTORS]
        return builders.plan(cells, self.repeats, [f"b{size}" for size in self.batch_sizes])

    def tables(self) -> list[MetricsTable]:
        """Return the metrics of each backend."""
        draw = random.Random(self.seed)
        return [self._table(backend, draw) for backend in self.backends]

    def results(self) -> Results:
        """Return what tables are made from."""
        tables = self.tables()
        sizes = planned_batch_sizes(self.plan, tables)
        aggregates = tuple(aggregate([table], self.plan, sizes) for table in tables)
        return Results(aggregates, comparisons(tables, aggregates, self.plan))

    def sources(self) -> Sources:
        """Return what the report is made from, without the raw measurements."""
        results = self.results()
        judged = [Verdicts(SCHEMA_VERSION, "test", backend, ()) for backend in self.backends]
        return Sources(self.plan, results.aggregates, self.tables(), judged, results.comparisons)

    def _table(self, backend: str, draw: random.Random) -> MetricsTable:
        rows: list[Metrics] = []
        conditions: dict[str, dict[str, str]] = {}
        for repeat in range(1, self.repeats + 1):
            for precision in FACTORS:
                for size in self.batch_sizes:
                    key = f"c{len(conditions) + 1}"
                    rows.append(self._row(backend, precision, size, repeat, key, draw))
                    conditions[key] = CONDITIONS | {
                        "precision": precision,
                        "batch_size": str(size),
                        "engine": f"{backend} 1",
                    }
        return builders.metrics_table(rows, conditions=conditions)

    def _row(
        self, backend: str, precision: str, size: int, repeat: int, key: str, draw: random.Random
    ) -> Metrics:
        value_j = FACTORS[precision] / size**0.7 * math.exp(draw.gauss(0, self.scatter))
        slower = math.exp(draw.gauss(0, self.scatter))
        time_s = 0.02 * slower
        perplexity = 14.2 * {"bfloat16": 1.0, "int8": 1.003, "int4": 1.04}[precision]
        row = builders.metrics(
            value_j,
            repeat,
            backend,
            precision=precision,
            workload=f"b{size}",
            batch_size=size,
            conditions=key,
            output_tokens_per_s=size / time_s,
            tpot_s=time_s,
            ttft_s=5 * time_s,
            service_ttft_s=4 * time_s,
            e2e_latency_s=50 * time_s,
            latencies_s={"ttft_p50": 5 * time_s, "tpot_p50": time_s, "e2e_p50": 50 * time_s},
            perplexity=perplexity,
            nll_per_token=math.log(perplexity),
            energy_per_utf8_byte_j=value_j / 4,
            gross_energy_standard_uncertainty_j=0.2 * value_j,
            net_energy_standard_uncertainty_j=0.3 * value_j,
            counter_lag_j=0.02 * value_j,
            limited_energy_per_output_token_j=value_j,
            floor_energy_per_output_token_j=value_j / 9 / slower,
            mbu=0.3,
        )
        return replace(row, **{OF_COMPONENT["gpu"]: value_j})
