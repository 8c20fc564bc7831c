"""Fetch or convert one model into a folder and write its manifest."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from llm_energy.core.cli import run
from llm_energy.core.errors import LlmEnergyError
from llm_energy.inputs.models.stage import fetch
from llm_energy.records import write_record


def main(argv: list[str] | None = None) -> int:
    """Run the models stage for one entry of the sweep's models; give the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="the model's config entry, as JSON")
    parser.add_argument("--folder", required=True, type=Path, help="where the files go")
    parser.add_argument("--manifest", required=True, type=Path, help="the manifest to write")
    arguments = parser.parse_args(argv)

    def stage() -> None:
        try:
            model = json.loads(arguments.model)
        except json.JSONDecodeError as error:
            raise LlmEnergyError(f"--model: not valid JSON ({error})") from None
        write_record(arguments.manifest, fetch(model, arguments.folder))

    return run(stage)


if __name__ == "__main__":
    sys.exit(main())
