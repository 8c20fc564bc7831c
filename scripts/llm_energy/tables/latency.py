"""Latencies and throughput beside the joules."""

from __future__ import annotations

from llm_energy.tables.by_cell import Measure, statistics_table
from llm_energy.tables.sheet import Results, Table

MEASURES = (
    Measure("ttft", "TTFT (s)", "ttft_s", optional=True),
    Measure("tpot", "TPOT (s)", "tpot_s", optional=True),
    Measure("e2e", "end-to-end (s)", "e2e_latency_s", optional=True),
    Measure("tokens_per_s", "tok/s", "output_tokens_per_s"),
    Measure("gross", "J/output token", "energy_per_output_token_j"),
)


def table(results: Results) -> Table:
    """Give the table."""
    return statistics_table(
        results,
        "latency",
        "Latency and throughput",
        "Means over n repeats ± half the 95 % interval; in a repeat the latency is the mean over "
        "requests. TTFT is the time to first token, queueing included; TPOT the time per output "
        "token after the first; end-to-end the time from arrival to last token.",
        MEASURES,
    )
