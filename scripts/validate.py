"""Check a backend's measurements against their schema and the catalogue of faults."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from llm_energy.analysis.validate import validate
from llm_energy.core.cli import run_stage
from llm_energy.records import write_rows


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and write the verdicts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweep", required=True, help="the sweep's name")
    parser.add_argument("--backend", required=True, help="the backend whose windows are judged")
    parser.add_argument("--plan", type=Path, required=True, help="results/<sweep>/plan.json")
    parser.add_argument("--jobs", type=int, default=1, help="processes that read measurements")
    parser.add_argument("--out", type=Path, required=True, help="the verdicts to write")
    arguments = parser.parse_args(argv)
    asked = (arguments.sweep, arguments.backend, arguments.plan, arguments.jobs)
    return run_stage(lambda: write_rows(arguments.out, validate(*asked)))


if __name__ == "__main__":
    sys.exit(main())
