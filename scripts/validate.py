"""Check a backend's measurements against their schema and the catalogue of faults."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from llm_energy.analysis.validate import validate
from llm_energy.core.cli import run_stage
from llm_energy.records import Audit, Verdicts, read_record, write_rows


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and write the verdicts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweep", required=True, help="the sweep's name")
    parser.add_argument("--backend", required=True, help="the backend whose windows are judged")
    parser.add_argument("--plan", type=Path, required=True, help="results/<sweep>/plan.json")
    parser.add_argument("--audit", type=Path, required=True, help="the backend's audit.json")
    parser.add_argument("--jobs", type=int, default=1, help="processes that read measurements")
    parser.add_argument("--out", type=Path, required=True, help="the verdicts to write")
    arguments = parser.parse_args(argv)
    return run_stage(lambda: write_rows(arguments.out, _verdicts(arguments)))


def _verdicts(arguments: argparse.Namespace) -> Verdicts:
    asked = (arguments.sweep, arguments.backend, arguments.plan, arguments.jobs)
    return validate(*asked, read_record(Audit, arguments.audit))


if __name__ == "__main__":
    sys.exit(main())
