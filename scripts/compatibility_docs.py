"""Write docs/compatibility.md and docs/parameter-coverage.md from their data, or check them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from llm_energy.cli import run
from llm_energy.compatibility import matrix
from llm_energy.errors import LlmEnergyError
from llm_energy.files import write_text

ROOT = Path(__file__).resolve().parent.parent
MATRIX_PAGE = ROOT / "docs" / "compatibility.md"
COVERAGE_PAGE = ROOT / "docs" / "parameter-coverage.md"
COVERAGE_DATA = ROOT / "tests" / "parameter_rows.yaml"

INTRODUCTION = """\
# Compatibility of parameters and backends

This page is made from `scripts/llm_energy/compatibility.yaml` by `python
scripts/compatibility_docs.py --write`; change the data, not the page. The same data translates a
sweep's parameters into each engine's own arguments before anything is loaded.

- **supported**: does the same on this backend; the engine's own argument stands beside it where
  there is one.
- **mapped**: does the same under another form, by the conversion that the note gives.
- **hint**: passed on, but the engine decides.
- **implicit**: has no argument here; the engine behaves one way, or another argument stands for it.
- **unsupported**: an error at plan time that names the remedy. `policy.ignore_backend_warnings`
  turns it into a recorded warning and leaves the parameter at its neutral value. For precision,
  sharding and traffic there is no such way out: the cell becomes a row `unsupported: reason`.
- **planned**: the engine could, this release does not yet; the cell becomes a row `unsupported`.

A parameter that has no effect, such as `decoder.top_p` under greedy decoding, is never an error: it
is recorded as a note.
"""

COVERAGE_INTRODUCTION = """\
# Which test holds which row

Each row of the parameter tables of the inference-backends guide, and the tests that hold it. Made
from `tests/parameter_rows.yaml` by `python scripts/compatibility_docs.py --write`; a test fails
when a row has no test, or when one of these no longer exists.
"""


def main(argv: list[str] | None = None) -> int:
    """Print, write or check the pages; a page that differs from its data ends in exit status 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--write", action="store_true", help="write both pages")
    what.add_argument("--check", action="store_true", help="fail if a page differs from its data")
    arguments = parser.parse_args(argv)
    return run(lambda: _main(arguments.write, arguments.check))


def _main(write: bool, check: bool) -> None:
    rows = yaml.safe_load(COVERAGE_DATA.read_text(encoding="utf-8"))
    pages = {MATRIX_PAGE: render_matrix(matrix()), COVERAGE_PAGE: render_coverage(rows)}
    if write:
        for path, text in pages.items():
            write_text(path, text)
    elif check:
        stale = [
            str(path.relative_to(ROOT))
            for path, text in pages.items()
            if not path.is_file() or path.read_text(encoding="utf-8") != text
        ]
        if stale:
            raise LlmEnergyError(
                f"{', '.join(stale)}: not what the data says; run: "
                "python scripts/compatibility_docs.py --write"
            )
    else:
        print(pages[MATRIX_PAGE], end="")


def render_matrix(data: dict[str, Any]) -> str:
    """Render the compatibility matrix as Markdown: the backends, then a table for each section."""
    backends, citations = data["backends"], data["citations"]
    lines = [INTRODUCTION, "## Backends", ""]
    lines += _table(
        ["backend", "name", "checked version", "state"],
        [
            [
                f"`{key}`",
                about["name"],
                f"`{about['engine']}` {about['checked']}",
                _state(about, citations),
            ]
            for key, about in backends.items()
        ],
    )
    for section in data["sections"]:
        lines += ["", f"## {section['title']}", ""]
        notes: dict[str, list[str]] = {}
        body = [_row(row, backends, citations, notes) for row in section["rows"]]
        lines += _table(["parameter", *(f"`{key}`" for key in backends), "notes"], body)
        lines.append("")
        for number, (note, names) in enumerate(notes.items(), 1):
            lines.append(f"{number}. {', '.join(dict.fromkeys(names))}; {note}")
    return "\n".join(lines) + "\n"


def render_coverage(tables: dict[str, dict[str, list[str]]]) -> str:
    """Render the list of rows and their tests as Markdown, one section a table."""
    lines = [COVERAGE_INTRODUCTION]
    for title, rows in tables.items():
        lines += [f"## {title}", ""]
        body = [[f"`{row}`", "<br>".join(f"`{test}`" for test in rows[row])] for row in rows]
        lines += [*_table(["row", "tests"], body), ""]
    return "\n".join(lines)


def _row(
    row: dict[str, Any],
    backends: dict[str, Any],
    citations: dict[str, Any],
    notes: dict[str, list[str]],
) -> list[str]:
    """Render one row of a table; entries with one and the same note share it in ``notes``."""
    name = row.get("feature") or f"`{row['parameter']}`"
    name += f" = `{row['value']}`" if "value" in row else ""
    details = [row.get("alias"), row.get("meaning")]
    details += [f"neutral: `{json.dumps(row['neutral'])}`"] if "neutral" in row else []
    cells, numbers = [], []
    for backend, about in backends.items():
        cells.append("<br>".join(_status(entry) for entry in row[backend]))
        for entry in row[backend]:
            note = _note(about, entry, citations)
            notes.setdefault(note, []).append(name)
            numbers.append(list(notes).index(note) + 1)
    named = "<br>".join([name, *(detail for detail in details if detail)])
    return [named, *cells, ", ".join(str(number) for number in sorted(numbers))]


def _status(entry: dict[str, Any]) -> str:
    """Render one entry's status, its native arguments, and what it holds for."""
    arguments = dict.fromkeys([*entry.get("load", {}), *entry.get("generate", {})])
    text = "planned" if "planned" in entry else entry["status"]
    text += " " + ", ".join(f"`{argument}`" for argument in arguments) if arguments else ""
    scope = ", ".join(_scope(entry))
    return f"{text} ({scope})" if scope else text


def _scope(entry: dict[str, Any]) -> Iterator[str]:
    if "since" in entry:
        yield f"since {entry['since']}"
    if "until" in entry:
        yield f"before {entry['until']}"
    if "computes_in" in entry:
        yield f"computing in {' or '.join(entry['computes_in'])}"
    if "device" in entry:
        yield {"cuda": "CUDA only", "cpu": "CPU only"}[entry["device"]]
    if "flow" in entry:
        yield f"flow {entry['flow']}"


def _note(about: dict[str, Any], entry: dict[str, Any], citations: dict[str, Any]) -> str:
    """Render what one entry says: engine and version, what to know, the remedy, the sources."""
    scope = ", ".join(_scope(entry))
    scope = scope if "since" in entry or "until" in entry else f"{about['checked']} {scope}".strip()
    parts = [f"Planned: {entry['planned']}."] if "planned" in entry else []
    parts += [entry[key] for key in ("note", "remedy") if key in entry]
    limits = {"above": "above", "least": "at least", "most": "at most"}
    bounds = [f"{word} {entry[key]}" for key, word in limits.items() if key in entry]
    parts += [f"Allowed: {' and '.join(bounds)}."] if bounds else []
    return f"`{about['engine']}` {scope}: {' '.join([*parts, _sources(entry, citations)])}."


def _sources(entry: dict[str, Any], citations: dict[str, Any]) -> str:
    return ", ".join(
        f"[{citations[key]['title']}]({citations[key]['url']})" for key in entry["cite"]
    )


def _state(about: dict[str, Any], citations: dict[str, Any]) -> str:
    parts = [about.get("unrun", "available")]
    parts += ["needs an NVIDIA GPU"] if about.get("device") == "cuda" else []
    flows = [
        f"`{flow}`" + (" (needs an NVIDIA GPU)" if only.get("device") == "cuda" else "")
        for flow, only in about.get("flows", {}).items()
    ]
    parts += [f"`flow` is {' or '.join(flows)}"] if flows else []
    parts += [
        f"`{flow}` is gone since {removed['since']} ({_sources(removed, citations)})"
        for flow, removed in about.get("removed_flows", {}).items()
    ]
    return "; ".join(parts)


def _table(head: list[str], body: list[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *body]
    return [f"| {' | '.join(cells)} |" for cells in lines]


if __name__ == "__main__":
    sys.exit(main())
