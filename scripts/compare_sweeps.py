"""Say what changed between two sweeps, such as yesterday's and today's, beyond noise or not."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from llm_energy.analysis.compare.sweeps import compare_sweeps
from llm_energy.core.cli import run
from llm_energy.core.errors import LlmEnergyError
from llm_energy.publish.tables.sweeps import to_text
from llm_energy.records import MetricsTable, read_record


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("earlier", type=Path, help="folder of a sweep, such as results/monday")
    parser.add_argument("later", type=Path, help="folder of the sweep to compare it with")
    arguments = parser.parse_args(argv)

    def show() -> None:
        rows = compare_sweeps(_metrics(arguments.earlier), _metrics(arguments.later))
        print(to_text(rows, str(arguments.earlier), str(arguments.later)), end="")

    return run(show)


def _metrics(folder: Path) -> list[MetricsTable]:
    paths = sorted(folder.glob("*/metrics.json"))
    if not paths:
        raise LlmEnergyError(
            f"{folder}: no <backend>/metrics.json; give the folder of a sweep that was run"
        )
    return [read_record(MetricsTable, path) for path in paths]


if __name__ == "__main__":
    sys.exit(main())
