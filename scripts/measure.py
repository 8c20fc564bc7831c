"""Measure one repeat of one cell in its backend's own environment."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from llm_energy.core.cli import run
from llm_energy.measure.run import measure
from llm_energy.records.files.paths import ROOT


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spec", type=Path, required=True, help="the frozen spec to obey")
    parser.add_argument(
        "--manifest", type=Path, required=True, help="the model's manifest, beside its files/"
    )
    parser.add_argument("--prompts", type=Path, required=True, help="the tokenised prompt set")
    parser.add_argument("--plan", type=Path, required=True, help="the plan, to show progress by")
    parser.add_argument("--arrivals", type=Path, help="when the requests of timed traffic arrive")
    parser.add_argument("--out", type=Path, required=True, help="the measurement to write")
    arguments = parser.parse_args(argv)
    return run(
        lambda: measure(
            arguments.spec,
            arguments.manifest,
            arguments.prompts,
            arguments.plan,
            arguments.out,
            ROOT,
            arguments.arrivals,
        )
    )


if __name__ == "__main__":
    sys.exit(main())
