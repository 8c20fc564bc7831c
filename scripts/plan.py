"""Write the plan of a sweep: the expected grid, the specs and the prompt requests."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from llm_energy.cli import run
from llm_energy.config import load_sweep
from llm_energy.plan import installed_engine, make_plan, write_plan


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and write the plan below the current folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, help="the sweep config as JSON")
    parser.add_argument(
        "--environments-provided",
        action="store_true",
        help="conda or containers provide the environments, so none has to be installed",
    )
    arguments = parser.parse_args(argv)
    root = Path(__file__).resolve().parent.parent

    def write() -> None:
        sweep = load_sweep(json.loads(arguments.config))
        engine = installed_engine(root, sweep.device, arguments.environments_provided)
        write_plan(make_plan(sweep, engine), Path("."))

    return run(write)


if __name__ == "__main__":
    sys.exit(main())
