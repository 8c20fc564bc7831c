"""Compile the engine of one cell before it is measured, or take the one that is there."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from llm_energy.cli import run
from llm_energy.engine_build import build


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and build."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spec", type=Path, required=True, help="the spec of any repeat")
    parser.add_argument(
        "--manifest", type=Path, required=True, help="the model's manifest, beside its files/"
    )
    parser.add_argument("--prompts", type=Path, required=True, help="the tokenised prompt set")
    parser.add_argument("--out", type=Path, required=True, help="the record to write")
    arguments = parser.parse_args(argv)
    return run(lambda: build(arguments.spec, arguments.manifest, arguments.prompts, arguments.out))


if __name__ == "__main__":
    sys.exit(main())
