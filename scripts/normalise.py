"""Turn the joules, tokens and times of usable windows into joules per token and latencies."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from llm_energy.analysis.normalise import normalise
from llm_energy.core.cli import run_stage
from llm_energy.records import Verdicts, read_record, write_rows


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and write the metrics."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--verdicts", type=Path, required=True, help="a backend's verdicts")
    parser.add_argument("--jobs", type=int, default=1, help="processes that read measurements")
    parser.add_argument("--out", type=Path, required=True, help="the metrics to write")
    arguments = parser.parse_args(argv)

    def write() -> None:
        verdicts = read_record(Verdicts, arguments.verdicts)
        write_rows(arguments.out, normalise(verdicts, arguments.jobs))

    return run_stage(write)


if __name__ == "__main__":
    sys.exit(main())
