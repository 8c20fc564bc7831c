"""Write what compiling the engines of a sweep took."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from llm_energy.cli import run
from llm_energy.engine_build import EngineBuild
from llm_energy.files import write_text
from llm_energy.records import read_record
from llm_energy.tables.builds import table
from llm_energy.tables.markdown import to_markdown


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and write builds.{csv,md}."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweep", required=True, help="the sweep's name")
    parser.add_argument(
        "--builds", type=Path, nargs="+", required=True, help="one record per cell, <cell>.json"
    )
    parser.add_argument("--out-dir", type=Path, required=True, help="the folder of the tables")
    arguments = parser.parse_args(argv)

    def write() -> None:
        records = [(path.stem, read_record(EngineBuild, path)) for path in arguments.builds]
        made = table(arguments.sweep, records)
        write_text(arguments.out_dir / "builds.csv", made.csv)
        write_text(arguments.out_dir / "builds.md", to_markdown(made.sheet))

    return run(write)


if __name__ == "__main__":
    sys.exit(main())
