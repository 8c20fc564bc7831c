"""Make the report of a sweep: one HTML file that needs no network."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from llm_energy.core.cli import run
from llm_energy.core.files import read_json, write_text
from llm_energy.publish.report import read_sources, render


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plan", type=Path, required=True, help="the plan of the sweep")
    for name in ("aggregates", "metrics", "verdicts"):
        parser.add_argument(
            f"--{name}", type=Path, nargs="+", required=True, help=f"{name}, one file per backend"
        )
    parser.add_argument("--comparisons", type=Path, required=True, help="what was compared")
    parser.add_argument("--phases", type=Path, help="what the phases stage found")
    parser.add_argument("--figures", type=Path, required=True, help="the folder of the figures")
    parser.add_argument("--out", type=Path, required=True, help="the HTML file to write")
    arguments = parser.parse_args(argv)

    def write() -> None:
        sources = read_sources(
            arguments.plan,
            arguments.aggregates,
            arguments.metrics,
            arguments.verdicts,
            arguments.comparisons,
            phases=arguments.phases,
        )
        figures = read_json(arguments.figures / "index.json")
        write_text(arguments.out, render(sources, figures))

    return run(write)


if __name__ == "__main__":
    sys.exit(main())
