"""Prove from the files of a sweep alone that nothing was changed or lost since it was measured.

Power traces are hashed and integrated anew, the parts of each repeat are added up, and the windows
of the sweep are compared. With --out it is the workflow's stage of one backend; else it prints what
it finds in a sweep of results/, or in an archive, and exits 1 where a window is invalid.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from pathlib import Path

from llm_energy.analysis.audit import audit, findings
from llm_energy.core.cli import run, run_stage
from llm_energy.core.errors import LlmEnergyError
from llm_energy.publish.provenance.archive import unpack
from llm_energy.records import read_plan, write_rows
from llm_energy.records.files import paths


def main(argv: list[str] | None = None) -> int:
    """Parse the command line, and write or print the audit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--sweep", help="the sweep in results/<sweep>/")
    which.add_argument("--archive", type=Path, help="a folder, tar or zip file of measurements")
    parser.add_argument("--backend", help="the backend whose windows are audited (with --out)")
    parser.add_argument("--plan", type=Path, help="results/<sweep>/plan.json (with --out)")
    parser.add_argument("--jobs", type=int, default=1, help="processes that read files")
    parser.add_argument("--out", type=Path, help="the audit of one backend to write")
    arguments = parser.parse_args(argv)
    if arguments.out is None:
        return run(lambda: _answer(arguments))
    if not (arguments.sweep and arguments.backend and arguments.plan):
        parser.error("--out needs --sweep, --backend and --plan")
    asked = (arguments.sweep, arguments.backend, arguments.plan, arguments.jobs)
    return run_stage(lambda: write_rows(arguments.out, audit(*asked)))


def _answer(arguments: argparse.Namespace) -> None:
    if arguments.archive is None:
        _tell(arguments.sweep, arguments.jobs)
        return
    with tempfile.TemporaryDirectory() as place:
        sweep = unpack(arguments.archive, Path(place))
        with contextlib.chdir(place):
            _tell(sweep, arguments.jobs)


def _tell(sweep: str, jobs: int) -> None:
    """Print what is found, or raise LlmEnergyError with it where a window is invalid."""
    plan = read_plan(sweep)
    path = paths.plan(plan.folder)
    audits = [audit(sweep, backend, path, jobs) for backend in plan.backends]
    windows = [window for one in audits for window in one.windows]
    found = list(findings(audits))
    text = "\n".join(text for _, text in found)
    if any(severity == "invalid" for severity, _ in found):
        raise LlmEnergyError(f"sweep {sweep} does not prove its numbers\n{text}")
    if text:
        print(text)
    traces = len({w.power_trace_sha256 for w in windows} - {None})
    print(
        f"Audited: {len(windows)} windows, {traces} power traces integrated anew; "
        "none contradicts itself."
    )


if __name__ == "__main__":
    sys.exit(main())
