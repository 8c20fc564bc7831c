"""Quantise one fetched model to 8 bits into a folder and write its manifest."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from llm_energy.core.cli import run
from llm_energy.inputs.models.stage import quantise
from llm_energy.records import ModelManifest, read_record, write_record


def main(argv: list[str] | None = None) -> int:
    """Run the stage for one model; give the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", required=True, type=Path, help="the fetched model")
    parser.add_argument("--manifest", required=True, type=Path, help="its manifest")
    parser.add_argument("--folder", required=True, type=Path, help="where the 8-bit files go")
    parser.add_argument("--out", required=True, type=Path, help="the manifest to write")
    arguments = parser.parse_args(argv)

    def stage() -> None:
        manifest = read_record(ModelManifest, arguments.manifest)
        write_record(arguments.out, quantise(manifest, arguments.files, arguments.folder))

    return run(stage)


if __name__ == "__main__":
    sys.exit(main())
