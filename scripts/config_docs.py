"""Write the tables of config/README.md from the schema, or check them."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm_energy.cli import run
from llm_energy.config_errors import allowed
from llm_energy.config_schema import rule, schema
from llm_energy.errors import LlmEnergyError
from llm_energy.files import write_text

README = Path(__file__).resolve().parent.parent / "config" / "README.md"
MARKED = re.compile(r"(<!-- table (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


SINGLE = ("model_name", "backend", "fp_precision", "quantization")


def table(section: str) -> str:
    """Give the Markdown table of one top-level key; ``sweep`` and ``single`` are the top level."""
    rows = ["| key | allowed | default | meaning |", "|---|---|---|---|"]
    if section in ("sweep", "single"):
        for key, value in schema()["properties"].items():
            if (section == "single") == (key in SINGLE or key in _parameters()):
                rows.append(_row(key, rule(value), "parameters" if key in _parameters() else ""))
    else:
        rows += _rows(section, schema()["properties"][section])
    return "\n".join(rows) + "\n"


def _rows(path: str, subschema: dict[str, Any]) -> list[str]:
    """Give a row for every key below a subschema, except what another table has."""
    wanted = rule(subschema)
    if "items" in wanted:
        path, wanted = f"{path}[]", rule(wanted["items"])
    rows = []
    for key, value in wanted["properties"].items():
        repeated = path == "workloads[]" and key in ("prompts", *_parameters())
        rows.append(_row(f"{path}.{key}", rule(value), "" if not repeated else _table_of(key)))
        if "properties" in rule(value) and not repeated:
            rows += _rows(f"{path}.{key}", value)
    return rows


def _parameters() -> dict[str, Any]:
    return schema()["properties"]["parameters"]["properties"]


def _table_of(key: str) -> str:
    return "parameters" if key in _parameters() else "sweep"


def _row(path: str, wanted: dict[str, Any], told_in: str = "") -> str:
    """Give one row; a mapping whose keys another table has refers to it by ``told_in``."""
    default = ""
    if wanted.get("default", {}) != {}:
        default = f"`{json.dumps(wanted['default'])}`"
    meaning = wanted["description"].strip()
    if told_in and "properties" in wanted:
        key = path.rsplit(".", 1)[-1]
        meaning += f" Keys as in `{'parameters.' if told_in == 'parameters' else ''}{key}`."
    return f"| `{path}` | {allowed(wanted)} | {default} | {meaning} |"


def render(text: str) -> str:
    """Give the README with every marked table made anew."""
    return MARKED.sub(lambda match: match[1] + table(match[2]) + match[3], text)


def main(argv: Sequence[str] | None = None) -> int:
    """Write or check the page; a page that differs from the schema ends in exit status 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true", help="write the tables")
    what.add_argument("--check", action="store_true", help="fail if a table differs")
    arguments = parser.parse_args(argv)
    return run(lambda: _main(arguments.write))


def _main(write: bool) -> None:
    text = README.read_text(encoding="utf-8")
    if write:
        write_text(README, render(text))
    elif render(text) != text:
        raise LlmEnergyError(
            "config/README.md: not what the schema says; run: python scripts/config_docs.py --write"
        )


if __name__ == "__main__":
    sys.exit(main())
