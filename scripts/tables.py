"""Write the energy table for spreadsheets, for people, for papers and for the terminal."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from llm_energy.cli import run
from llm_energy.files import write_text
from llm_energy.records import Aggregate, read_record
from llm_energy.tables import render


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and write energy.{csv,md,tex,txt}."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--aggregates", type=Path, nargs="+", required=True, help="one aggregate per backend"
    )
    parser.add_argument("--out-dir", type=Path, required=True, help="the folder of the tables")
    arguments = parser.parse_args(argv)

    def write() -> None:
        aggregates = [read_record(Aggregate, path) for path in arguments.aggregates]
        for suffix, text in render(aggregates).items():
            write_text(arguments.out_dir / f"energy.{suffix}", text)

    return run(write)


if __name__ == "__main__":
    sys.exit(main())
