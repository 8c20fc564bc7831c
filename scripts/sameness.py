"""Write how far the backends of a sweep did the same work."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from llm_energy.analysis.sameness import compare
from llm_energy.core.cli import run_stage
from llm_energy.core.errors import LlmEnergyError
from llm_energy.core.files import read_json, write_text
from llm_energy.publish.tables import files
from llm_energy.publish.tables.sameness import table
from llm_energy.records import Measurement, Plan, read_record


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and write sameness.{csv,md,tex,txt}."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plan", type=Path, required=True, help="names the measurements")
    parser.add_argument("--out-dir", type=Path, required=True, help="the folder of the tables")
    arguments = parser.parse_args(argv)

    def write() -> None:
        plan = read_record(Plan, arguments.plan)
        # A repeat that the plan let a cell do without has no measurement.
        there = [path for path in plan.measurements() if Path(path).exists()]
        try:
            rows = compare(map(read_json, there))
        except (LlmEnergyError, AttributeError, KeyError, TypeError):
            # One of them is no measurement, which is for its verdict to say.
            rows = compare(map(read_json, filter(_is_measurement, there)))
        for name, text in files(table(plan.sweep, rows)).items():
            write_text(arguments.out_dir / name, text)

    return run_stage(write)


def _is_measurement(path: str) -> bool:
    try:
        read_record(Measurement, path)
    except LlmEnergyError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
