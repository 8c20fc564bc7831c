"""Summarise the repeats of every cell and workload of one backend."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from llm_energy.analysis.aggregate import aggregate, planned_batch_sizes
from llm_energy.core.cli import run_stage
from llm_energy.records import MetricsTable, Plan, read_record, write_rows


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and write the aggregate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--metrics", type=Path, nargs="+", required=True, help="the metrics of one backend"
    )
    parser.add_argument("--plan", type=Path, required=True, help="results/<sweep>/plan.json")
    parser.add_argument(
        "--allow-mixed-backends",
        action="store_true",
        help="pool metrics of several backends and mark every number (not recommended)",
    )
    parser.add_argument("--out", type=Path, required=True, help="the aggregate to write")
    arguments = parser.parse_args(argv)

    def write() -> None:
        plan = read_record(Plan, arguments.plan)
        tables = [read_record(MetricsTable, path) for path in arguments.metrics]
        sizes = planned_batch_sizes(plan, tables)
        allow = arguments.allow_mixed_backends
        write_rows(arguments.out, aggregate(tables, plan, sizes, allow))

    return run_stage(write)


if __name__ == "__main__":
    sys.exit(main())
