"""Write how the joules of a sweep split over input tokens and output tokens."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from llm_energy.analysis.phases import phases
from llm_energy.core.cli import run_stage
from llm_energy.records import MetricsTable, read_record, write_rows


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and write the split."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--metrics", type=Path, nargs="+", required=True, help="one per backend")
    parser.add_argument("--out", type=Path, required=True, help="the split to write")
    arguments = parser.parse_args(argv)

    def write() -> None:
        tables = [read_record(MetricsTable, path) for path in arguments.metrics]
        write_rows(arguments.out, phases(tables[0].sweep, tables))

    return run_stage(write)


if __name__ == "__main__":
    sys.exit(main())
