"""Make the tables and figures of a sweep from its measurements alone: no engine, no config.

The sweep is one of this folder's (--sweep), or an archived one (--archive), which is laid out below
paper/. Every stage after measuring runs again, and gives the same bytes each time.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from llm_energy.core.cli import run
from llm_energy.core.errors import LlmEnergyError
from llm_energy.publish import closing
from llm_energy.publish.provenance.archive import make_paper, unpack
from llm_energy.records import read_plan

SUFFIXES = (".tar.gz", ".tar.xz", ".tgz", ".tar", ".zip")


def main(argv: list[str] | None = None) -> int:
    """Parse the command line, prepare the folder and run Snakemake in it."""
    parser = argparse.ArgumentParser(description=__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--sweep", help="the sweep in results/<sweep>/")
    which.add_argument("--archive", type=Path, help="a folder, tar or zip file of measurements")
    arguments = parser.parse_args(argv)
    return run(lambda: _make(arguments.sweep, arguments.archive))


def _make(sweep: str | None, archive: Path | None) -> None:
    folder = Path()
    if archive:
        folder = Path("paper", _stem(archive))
        sweep = unpack(archive, folder)
    else:
        read_plan(sweep)
    if not make_paper(sweep, folder, "--forceall"):
        raise LlmEnergyError(f"sweep {sweep}: see above; logs are in {folder / 'logs' / sweep}")
    made = folder / "results" / sweep
    print((made / "tables" / "energy.txt").read_text(encoding="utf-8"))
    if told := closing.answers(made):
        print("\n".join(told))
    print(f"Tables and figures: {made}\nReport: {made / 'report.html'}")


def _stem(archive: Path) -> str:
    name = archive.resolve().name
    return next((name.removesuffix(s) for s in SUFFIXES if name.endswith(s)), name)


if __name__ == "__main__":
    sys.exit(main())
