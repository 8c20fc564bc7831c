"""Write from which files, hashes and environments the results of a sweep were made."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from llm_energy.core.cli import run
from llm_energy.publish.provenance.provenance import trace_back
from llm_energy.records import write_record
from llm_energy.records.files.paths import ROOT


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and write the provenance."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweep", required=True, help="the sweep in results/<sweep>/")
    parser.add_argument("--out", type=Path, required=True, help="the provenance to write")
    arguments = parser.parse_args(argv)
    return run(lambda: write_record(arguments.out, trace_back(arguments.sweep, ROOT)))


if __name__ == "__main__":
    sys.exit(main())
