"""Write the tables of a sweep for spreadsheets, for people and for papers."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from llm_energy.core.cli import run_stage
from llm_energy.core.files import write_text
from llm_energy.publish.tables import Results, render
from llm_energy.records import Aggregate, Verdicts, check_titles, read_record
from llm_energy.records.comparison import Comparisons
from llm_energy.records.load_curve import LoadCurves
from llm_energy.records.phases import Phases


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and write <table>.{csv,md,tex} and {energy,phases,summary}.txt."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--aggregates", type=Path, nargs="+", required=True, help="one aggregate per backend"
    )
    parser.add_argument(
        "--verdicts", type=Path, nargs="*", default=[], help="the verdicts: the checks' titles"
    )
    parser.add_argument("--comparisons", type=Path, help="what the compare stage found")
    parser.add_argument("--load", type=Path, help="what the load_curve stage found")
    parser.add_argument("--phases", type=Path, help="what the phases stage found")
    parser.add_argument("--jobs", type=int, default=1, help="processes that make tables")
    parser.add_argument("--out-dir", type=Path, required=True, help="the folder of the tables")
    arguments = parser.parse_args(argv)

    def write() -> None:
        aggregates = tuple(read_record(Aggregate, path) for path in arguments.aggregates)
        compared = arguments.comparisons and read_record(Comparisons, arguments.comparisons)
        load = arguments.load and read_record(LoadCurves, arguments.load)
        split = arguments.phases and read_record(Phases, arguments.phases)
        titles = check_titles(read_record(Verdicts, path) for path in arguments.verdicts)
        results = Results(aggregates, compared, load, split, titles)
        for name, text in render(results, arguments.jobs):
            write_text(arguments.out_dir / name, text)

    return run_stage(write)


if __name__ == "__main__":
    sys.exit(main())
