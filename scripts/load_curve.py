"""Write how the energy of a sweep depends on its load."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from llm_energy.analysis.load_curve import load_curves
from llm_energy.core.cli import run_stage
from llm_energy.records import Aggregate, MetricsTable, read_record, write_rows


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and write the curves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--metrics", type=Path, nargs="+", required=True, help="one per backend")
    parser.add_argument("--aggregates", type=Path, nargs="+", required=True, help="one per backend")
    parser.add_argument("--out", type=Path, required=True, help="the curves to write")
    arguments = parser.parse_args(argv)

    def write() -> None:
        aggregates = [read_record(Aggregate, path) for path in arguments.aggregates]
        metrics = (read_record(MetricsTable, path) for path in arguments.metrics)
        write_rows(arguments.out, load_curves(aggregates, metrics))

    return run_stage(write)


if __name__ == "__main__":
    sys.exit(main())
