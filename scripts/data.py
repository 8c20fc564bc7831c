"""Write what a sweep found as tidy tables in Parquet and CSV, and what columns mean."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from llm_energy.core.cli import run_stage
from llm_energy.core.files import write_bytes
from llm_energy.publish.data import Sweep, render
from llm_energy.records import Aggregate, MetricsTable, Plan, Verdicts, read_record
from llm_energy.records.comparison import Comparisons


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and write <table>.{parquet,csv}, README.md and datapackage.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plan", type=Path, required=True, help="the cells, in their order")
    parser.add_argument("--verdicts", type=Path, nargs="+", required=True, help="one per backend")
    parser.add_argument("--metrics", type=Path, nargs="+", required=True, help="one per backend")
    parser.add_argument("--aggregates", type=Path, nargs="+", required=True, help="one per backend")
    parser.add_argument("--comparisons", type=Path, required=True, help="what was compared")
    parser.add_argument("--jobs", type=int, default=1, help="processes that read measurements")
    parser.add_argument("--out-dir", type=Path, required=True, help="the folder of the tables")
    arguments = parser.parse_args(argv)

    def write() -> None:
        sweep = Sweep(
            read_record(Plan, arguments.plan),
            [read_record(Verdicts, path) for path in arguments.verdicts],
            [read_record(MetricsTable, path) for path in arguments.metrics],
            [read_record(Aggregate, path) for path in arguments.aggregates],
            read_record(Comparisons, arguments.comparisons),
        )
        for name, content in render(sweep, arguments.jobs):
            write_bytes(arguments.out_dir / name, content)

    return run_stage(write)


if __name__ == "__main__":
    sys.exit(main())
