"""Draw the figures of a sweep as SVG and PDF, with an index of what was drawn and what was not."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from llm_energy.core.cli import run
from llm_energy.publish.figures import write_figures
from llm_energy.records import Aggregate, read_record
from llm_energy.records.comparison import Comparisons
from llm_energy.records.phases import Phases


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and write the figures and index.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--aggregates", type=Path, nargs="+", required=True, help="one aggregate per backend"
    )
    parser.add_argument("--comparisons", type=Path, required=True, help="what was compared")
    parser.add_argument("--phases", type=Path, help="what the phases stage found")
    parser.add_argument("--out-dir", type=Path, required=True, help="the folder of the figures")
    arguments = parser.parse_args(argv)

    def write() -> None:
        aggregates = [read_record(Aggregate, path) for path in arguments.aggregates]
        compared = read_record(Comparisons, arguments.comparisons)
        phases = read_record(Phases, arguments.phases) if arguments.phases else None
        write_figures(aggregates, compared.pareto, arguments.out_dir, phases=phases)

    return run(write)


if __name__ == "__main__":
    sys.exit(main())
