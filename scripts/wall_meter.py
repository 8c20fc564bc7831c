"""Set a wall meter's readings beside a sweep: the energy of the whole node in each window.

    python scripts/wall_meter.py rack7.csv results/<sweep>/*/measurements/*/r??.json > node.csv

The readings are a CSV file with the columns time and power_w, or what Prometheus answers to
query_range. Nothing of it enters a measurement or a table: a node's energy is never added to that
of its components.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import astuple, fields
from pathlib import Path

from llm_energy.analysis.energy import wall_meter
from llm_energy.core.cli import run
from llm_energy.publish.csv_text import csv_text
from llm_energy.records import Measurement, read_record


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and print one row a window."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("readings", type=Path, help="the wall meter's export: .csv or .json")
    parser.add_argument("measurements", type=Path, nargs="+", help="measurement files")
    parser.add_argument(
        "--clock-offset-s",
        type=float,
        default=0.0,
        help="by how much the meter's clock is ahead of the host's, in seconds",
    )
    return run(lambda: _print(parser.parse_args(argv)))


def _print(arguments: argparse.Namespace) -> None:
    readings = wall_meter.read(arguments.readings, arguments.clock_offset_s)
    rows = [
        row
        for path in arguments.measurements
        for row in wall_meter.rows(readings, read_record(Measurement, path))
    ]
    names = [field.name for field in fields(wall_meter.Row)]
    print(csv_text(names, map(astuple, rows)), end="")


if __name__ == "__main__":
    sys.exit(main())
