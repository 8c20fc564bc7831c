"""Say how long a sweep will take, what energy it will need, and how many repeats it should have."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from llm_energy.analysis import cost
from llm_energy.core.cli import run
from llm_energy.records import MetricsTable, Plan, read_record

TARGET_PERCENT = 2.0


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and print the cost of what is left."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plan", type=Path, required=True, help="results/<sweep>/plan.json")
    parser.add_argument(
        "--power-w", type=float, metavar="WATT", help="power of a busy host, where none is measured"
    )
    parser.add_argument(
        "--target-percent",
        type=float,
        default=TARGET_PERCENT,
        help="wanted half of the 95 %% interval, in percent of the mean (default %(default)s)",
    )
    arguments = parser.parse_args(argv)
    return run(lambda: print("\n".join(_report(arguments))))


def _report(arguments: argparse.Namespace) -> Iterator[str]:
    plan = read_record(Plan, arguments.plan)
    yield cost.report(cost.sweep_costs(plan, arguments.power_w), plan.sweep)
    found = sorted(arguments.plan.parent.glob("*/metrics.json"))
    if found:
        target = f"\u00b1{arguments.target_percent:g} %"
        yield f"Repeats for a 95 % interval of {target}, by the spread so far:"
    for path in found:
        yield from cost.needed_lines(read_record(MetricsTable, path), arguments.target_percent)


if __name__ == "__main__":
    sys.exit(main())
