"""Compare the cells of a sweep, where they may be compared, and put them in order."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from llm_energy.analysis.compare.stage import comparisons
from llm_energy.core.cli import run_stage
from llm_energy.records import Aggregate, MetricsTable, Plan, read_record, write_rows


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and write the comparisons."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("metrics", "aggregates"):
        parser.add_argument(
            f"--{name}", type=Path, nargs="+", required=True, help="one file per backend"
        )
    parser.add_argument("--plan", type=Path, required=True, help="results/<sweep>/plan.json")
    parser.add_argument("--out", type=Path, required=True, help="the comparisons to write")
    arguments = parser.parse_args(argv)

    def write() -> None:
        tables = [read_record(MetricsTable, path) for path in arguments.metrics]
        aggregates = [read_record(Aggregate, path) for path in arguments.aggregates]
        plan = read_record(Plan, arguments.plan)
        write_rows(arguments.out, comparisons(tables, aggregates, plan))

    return run_stage(write)


if __name__ == "__main__":
    sys.exit(main())
