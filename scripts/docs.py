"""Write the pages that are made from data and code, or check that they say what those say.

docs/architecture.md comes from the packages, docs/checks.md from the catalogue of checks,
docs/compatibility.md from compatibility.yaml, docs/parameter-coverage.md from
tests/backends/parameter_rows.yaml, and the tables of config/README.md from the config's schema.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import architecture

from llm_energy.analysis.checks import CATALOGUE, EXPLAINED, GROUPS, Check
from llm_energy.backends.arguments import ARGUMENTS
from llm_energy.backends.compatibility import matrix
from llm_energy.core.cli import run
from llm_energy.core.errors import LlmEnergyError
from llm_energy.core.files import read_yaml, write_text
from llm_energy.plan.config.messages import allowed
from llm_energy.plan.config.schema import rule, schema
from llm_energy.records.files.paths import ROOT


def main(argv: list[str] | None = None) -> int:
    """Write or check all pages; one that differs from its source ends in exit status 1."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true", help="write the pages")
    what.add_argument("--check", action="store_true", help="fail if a page differs")
    arguments = parser.parse_args(argv)
    return run(lambda: _main(arguments.write))


def _main(write: bool) -> None:
    stale = []
    for name, render in PAGES.items():
        path = ROOT / name
        before = path.read_text(encoding="utf-8") if path.is_file() else ""
        text = render(before)
        if write:
            write_text(path, text)
        elif text != before:
            stale.append(name)
    if stale:
        raise LlmEnergyError(
            f"{', '.join(stale)}: not what code and data say; run: python scripts/docs.py --write"
        )


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    cells = [list(head)]
    cells += [["---"] * len(cells[0]), *map(list, rows)]
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in cells]


# docs/checks.md

CHECKS = """\
# What is checked, and what is not

This page is made from `scripts/llm_energy/analysis/checks/` by `python scripts/docs.py --write`;
change the code, not the page. Ids begin with M for the meter, H for the host and its GPUs, E for
the engine and its work, P for the pipeline, A for the audit (`docs/audit.md`).

The validate stage gives every window a verdict, and its worst flag decides:

- **invalid**: the window enters no mean. It stays in every table, with its reason.
- **warning**: the window is `degraded`: it counts, and is marked.
- **note**: what a reader should know; the window stays `valid`.

A warning says by how many percent the gross energy of the window may be off for it, where that can
be told (`bias_bound_percent` in `verdicts.json`; the verdict has their sum, or else `bias_reason`).
Tables and report print the largest of a row.

The severity below is the usual one; what a check finds may be milder or worse where it says so. A
check sees one window, one file, all windows of a backend that are not invalid already (sweep) or
those as well (host), or what is left of a cell (repeats). The audit's see a repeat's files, read
anew (files), and the windows of all backends of the sweep (spans). One that lacks its evidence, as
in an older measurement, finds nothing. Each has at least one fault that it must find and one
healthy twin that it must pass, in `tests/support/check_pairs_*.py` or `tests/recorded/edits.yaml`.
"""
NOT_CHECKED = """\
## Not checked, and why

These can go wrong in a measurement of this kind, and no check looks for them here.
"""


EDITS = "tests/recorded/edits.yaml"
SCORE = """\
## Edits that were tried

Each line of `tests/recorded/edits.yaml` makes a whole sweep lie, an archived one of an H100 or a
simulated one; a test applies it and audits and judges the sweep. {found} No window of an
archived sweep is accused without an edit. What is `unseen` leaves no trace in any file.
"""


def render_checks() -> str:
    """Return the page: a table for each group of checks, then the failures that need none."""
    lines = [CHECKS]
    for name, module in GROUPS.items():
        about = inspect.getdoc(module).partition("\n\n")[0].rstrip(".")
        place = module.__name__.partition(".checks.")[2].replace(".", "/")
        lines += [f"## {about[0].upper()}{about[1:]}", "", f"`checks/{place}.py`", ""]
        found = sorted((c for c in CATALOGUE.values() if c.group == name), key=lambda c: c.id)
        lines += [
            *_table(("id", "sees", "severity", "what it finds", "advice"), map(_check_row, found)),
            "",
        ]
    lines += [NOT_CHECKED, *_table(("id", "why"), sorted(EXPLAINED.items())), ""]
    lines += _score(read_yaml(ROOT / EDITS))
    return "\n".join(lines) + "\n"


def _score(edits: list[dict[str, Any]]) -> list[str]:
    """Return how many faulty edits of whole sweeps are caught, and which."""
    unseen = [edit for edit in edits if edit["wanted"] == "unseen"]
    rows = [
        (edit["id"], edit["what"], edit["wanted"], edit.get("by") or edit["why"]) for edit in edits
    ]
    found = f"{len(edits) - len(unseen)} of {len(edits)} edits get the verdict that they must get."
    return [SCORE.format(found=found), *_table(("id", "edit", "verdict", "by"), rows)]


def _check_row(check: Check) -> tuple[str, ...]:
    told = re.sub(r"\s+", " ", inspect.getdoc(check.find))
    return (check.id, check.scope, check.severity, f"**{check.title}**. {told}", check.advice)


# docs/compatibility.md and docs/parameter-coverage.md

COMPATIBILITY = """\
# Compatibility of parameters and backends

This page is made from `scripts/llm_energy/backends/compatibility.yaml` by `python scripts/docs.py
--write`; change the data, not the page. The same data translates a sweep's parameters into each
engine's own arguments before anything is loaded.

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

COVERAGE = """\
# Which test holds which row

Each row of the parameter tables of the inference-backends guide, and the tests that hold it. Made
from `tests/backends/parameter_rows.yaml` by `python scripts/docs.py --write`; a test fails
when a row has no test, or when one of these no longer exists.
"""


def render_matrix(data: dict[str, Any]) -> str:
    """Render the compatibility matrix as Markdown: the backends, then a table for each section."""
    backends, citations = data["backends"], data["citations"]
    lines = [COMPATIBILITY, "## Backends", ""]
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
        body = [_matrix_row(row, backends, citations, notes) for row in section["rows"]]
        lines += _table(["parameter", *(f"`{key}`" for key in backends), "notes"], body)
        lines.append("")
        for number, (note, names) in enumerate(notes.items(), 1):
            lines.append(f"{number}. {', '.join(dict.fromkeys(names))}; {note}")
    return "\n".join(lines) + "\n"


def render_coverage(tables: dict[str, dict[str, list[str]]]) -> str:
    """Render the list of rows and their tests as Markdown, one section a table."""
    lines = [COVERAGE]
    for title, rows in tables.items():
        lines += [f"## {title}", ""]
        body = [[f"`{row}`", "<br>".join(f"`{test}`" for test in rows[row])] for row in rows]
        lines += [*_table(["row", "tests"], body), ""]
    return "\n".join(lines)


def _matrix_row(
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
    if "batches" in entry:
        yield f"{entry['batches']} batching"


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


# config/README.md

MARKED = re.compile(r"(<!-- table (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


SINGLE = ("model_name", "backend", "fp_precision", "quantization")


def config_table(section: str) -> str:
    """Return Markdown table of one top-level key; ``sweep`` and ``single`` are the top level.

    ``arguments`` are those of the engines that an entry of ``backends`` may set.
    """
    rows = ["| key | allowed | default | meaning |", "|---|---|---|---|"]
    if section == "arguments":
        rows = ["| argument | engine | allowed |", "|---|---|---|"]
        rows += [
            f"| `{name}` | `{engine}` | {argument.allowed} |"
            for engine, known in ARGUMENTS.items()
            for name, argument in known.items()
        ]
    elif section in ("sweep", "single"):
        for key, value in schema()["properties"].items():
            if (section == "single") == (key in SINGLE or key in _parameters()):
                rows.append(
                    _config_row(key, rule(value), "parameters" if key in _parameters() else "")
                )
    else:
        rows += _config_rows(section, schema()["properties"][section])
    return "\n".join(rows) + "\n"


def _config_rows(path: str, subschema: dict[str, Any]) -> list[str]:
    """Return a row for every key below a subschema, except what another table has."""
    wanted = rule(subschema)
    if "items" in wanted:
        path, wanted = f"{path}[]", rule(wanted["items"])
    rows, below = [], wanted["properties"]
    if len(below) > 1 and len({json.dumps(value) for value in below.values()}) == 1:
        below = {"<name>": next(iter(below.values()))}  # the same keys for each of them
    for key, value in below.items():
        repeated = path == "workloads[]" and key in ("prompts", *_parameters())
        rows.append(
            _config_row(f"{path}.{key}", rule(value), "" if not repeated else _table_of(key))
        )
        if "properties" in rule(value) and not repeated:
            rows += _config_rows(f"{path}.{key}", value)
    return rows


def _parameters() -> dict[str, Any]:
    return schema()["properties"]["parameters"]["properties"]


def _table_of(key: str) -> str:
    return "parameters" if key in _parameters() else "sweep"


def _config_row(path: str, wanted: dict[str, Any], told_in: str = "") -> str:
    """Return one row; a mapping whose keys another table has refers to it by ``told_in``."""
    default = ""
    if wanted.get("default", {}) != {}:
        default = f"`{json.dumps(wanted['default'])}`"
    meaning = wanted["description"].strip()
    if told_in and "properties" in wanted:
        key = path.rsplit(".", 1)[-1]
        meaning += f" Keys as in `{'parameters.' if told_in == 'parameters' else ''}{key}`."
    return f"| `{path}` | {allowed(wanted)} | {default} | {meaning} |"


def render_config(text: str) -> str:
    """Return the README with every marked table made anew."""
    return MARKED.sub(lambda match: match[1] + config_table(match[2]) + match[3], text)


PAGES: dict[str, Callable[[str], str]] = {
    "docs/architecture.md": lambda before: architecture.render(),
    "docs/checks.md": lambda before: render_checks(),
    "docs/compatibility.md": lambda before: render_matrix(matrix()),
    "docs/parameter-coverage.md": lambda before: render_coverage(
        read_yaml(ROOT / "tests" / "backends" / "parameter_rows.yaml")
    ),
    "config/README.md": render_config,
}


if __name__ == "__main__":
    sys.exit(main())
