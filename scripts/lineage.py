"""Follow a table's row back to its measurements, or verify everything that the tables rest on.

    python scripts/lineage.py results/demo --table energy --row smollm2-135m--pytorch--int4/b4
    python scripts/lineage.py results/demo --verify

Works wherever the sweep's folder lies, an unpacked export included.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path

from llm_energy.core.cli import run
from llm_energy.core.errors import LlmEnergyError
from llm_energy.publish.provenance.lineage import describe, verify
from llm_energy.publish.provenance.provenance import Provenance
from llm_energy.records import read_record
from llm_energy.records.files import paths


def main(argv: list[str] | None = None) -> int:
    """Parse the command line; exit 1 where a file is not what it was."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="the sweep's folder: .../results/<sweep>")
    parser.add_argument("--table", default="energy", help="a table's name (default: energy)")
    parser.add_argument("--row", help="a row's name: cell/workload")
    parser.add_argument("--verify", action="store_true", help="verify hashes, links and stages")
    arguments = parser.parse_args(argv)
    if not (arguments.row or arguments.verify):
        parser.error("give --row or --verify")
    return run(lambda: _answer(arguments))


def _answer(arguments: argparse.Namespace) -> None:
    folder = arguments.folder.resolve()
    with contextlib.chdir(folder.parents[1]):
        provenance = read_record(Provenance, paths.provenance(folder))
        if provenance.folder.resolve() != folder:
            raise LlmEnergyError(
                f"{folder}: it holds sweep '{provenance.sweep}', so it must be named "
                f".../{provenance.folder}"
            )
        if arguments.row:
            print(describe(provenance, arguments.table, arguments.row, paths.ROOT))
        if arguments.verify:
            if faults := verify(provenance):
                raise LlmEnergyError("\n".join(map(str, faults)))
            rows = sum(map(len, provenance.tables.values()))
            print(f"Verified: {len(provenance.files)} files, {rows} table rows; nothing changed.")


if __name__ == "__main__":
    sys.exit(main())
