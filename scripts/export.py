"""Pack a sweep as an RO-Crate zip file: data, tables, environments' locks, config, provenance.

    python scripts/export.py results/demo --author "A. Name" --license CC-BY-4.0

The file can be given to an archive such as Zenodo as it is, and to `make paper ARCHIVE=`.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path

from llm_energy.core.cli import run
from llm_energy.publish.provenance.provenance import Provenance
from llm_energy.publish.provenance.ro_crate import NO_LICENSE, About, export
from llm_energy.records import read_record
from llm_energy.records.files import paths


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and write the crate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="the sweep's folder: .../results/<sweep>")
    parser.add_argument("--author", action="append", default=[], help="may be given several times")
    parser.add_argument("--license", default=NO_LICENSE, help="of the data: an SPDX id or an URL")
    parser.add_argument("--out", type=Path, help="default: <folder>/<sweep>.crate.zip")
    arguments = parser.parse_args(argv)
    return run(lambda: _write(arguments))


def _write(arguments: argparse.Namespace) -> None:
    folder = arguments.folder.resolve()
    out = (arguments.out or folder / f"{folder.name}.crate.zip").resolve()
    with contextlib.chdir(folder.parents[1]):
        provenance = read_record(Provenance, paths.provenance(folder))
        export(provenance, out, paths.ROOT, About(tuple(arguments.author), arguments.license))
    print(f"{out}: {len(provenance.files)} files, as an RO-Crate")


if __name__ == "__main__":
    sys.exit(main())
