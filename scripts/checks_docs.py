"""Write docs/checks.md from the catalogue of checks, or check it."""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from llm_energy.checks import CATALOGUE, EXPLAINED, GROUPS, Check
from llm_energy.cli import run
from llm_energy.errors import LlmEnergyError
from llm_energy.files import write_text

PAGE = Path(__file__).resolve().parent.parent / "docs" / "checks.md"

INTRODUCTION = """\
# What is checked, and what is not

This page is made from `scripts/llm_energy/checks/` by `python scripts/checks_docs.py --write`;
change the code, not the page. Ids begin with M for the meter, H for the host and its boards, E for
the engine and its work, P for the pipeline.

The validate stage gives every window a verdict, and its worst flag decides:

- **invalid**: the window enters no mean. It stays in every table, with its reason.
- **warning**: the window is `degraded`: it counts, and is marked.
- **note**: what a reader should know; the window stays `valid`.

The severity below is the usual one; what a check finds may be milder or worse where it says so. A
check sees one window, one file, all windows of a backend that are not invalid already (sweep) or
those as well (host), or what is left of a cell (repeats). One that lacks its evidence, as in an
older measurement, finds nothing. Each has at least one fault that it must find and one healthy twin
that it must pass, in `tests/check_pairs_*.py`.
"""
NOT_CHECKED = """\
## Not checked, and why

These can go wrong in a measurement of this kind, and no check looks for them here.
"""


def render() -> str:
    """Give the page: a table for each group of checks, then the failures that need none."""
    lines = [INTRODUCTION]
    for name, module in GROUPS.items():
        about = inspect.getdoc(module).partition("\n\n")[0].rstrip(".")
        lines += [f"## {about[0].upper()}{about[1:]}", "", f"`checks/{name}.py`", ""]
        found = sorted((c for c in CATALOGUE.values() if c.group == name), key=lambda c: c.id)
        lines += [
            *_table(("id", "sees", "severity", "what it finds", "advice"), map(_row, found)),
            "",
        ]
    lines += [NOT_CHECKED, *_table(("id", "why"), sorted(EXPLAINED.items()))]
    return "\n".join(lines) + "\n"


def _row(check: Check) -> tuple[str, ...]:
    told = re.sub(r"\s+", " ", inspect.getdoc(check.find))
    return (check.id, check.scope, check.severity, f"**{check.title}**. {told}", check.advice)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    cells = [head, ("---",) * len(head), *rows]
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in cells]


def main(argv: list[str] | None = None) -> int:
    """Print, write or check the page; one that differs from the code ends in exit status 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--write", action="store_true", help="write the page")
    what.add_argument("--check", action="store_true", help="fail if the page differs from the code")
    arguments = parser.parse_args(argv)
    return run(lambda: _main(arguments.write, arguments.check))


def _main(write: bool, check: bool) -> None:
    if write:
        write_text(PAGE, render())
    elif not check:
        print(render(), end="")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != render():
        raise LlmEnergyError(
            "docs/checks.md: not what the code says; run: python scripts/checks_docs.py --write"
        )


if __name__ == "__main__":
    sys.exit(main())
