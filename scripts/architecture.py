"""Render docs/architecture.md: the packages, what each may import and does, and where things are.

What a package is comes from its docstring, what it may import from the contracts in pyproject.toml
(`make lint` holds the code to them), what it does import from the code itself.
"""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

from llm_energy.records.files.paths import ROOT

PACKAGE = "llm_energy"
HEAD = """\
# Architecture

This page is made from the code and `pyproject.toml` by `python scripts/docs.py --write`; change
those, not the page. [Extending](extending.md) says how to add to each part.

A measurement goes through the packages of `scripts/llm_energy` from the bottom of this table to its
top: a config is planned, a cell is measured, what was measured is judged and compared, and the
conclusion is published. Each stage is a rule in `workflow/rules/`, which calls a script in
`scripts/`, a thin command line over one function of a package. Stages hand each other files alone:
records with a schema, in places that `records/files/paths.py` decides.

A package imports only from rows below its own; the last column has what it does import. The engines
do not know each other, nor do the tables, the figures and the report. What measures needs the
standard library alone, since it runs inside the environment of each engine.
"""
# The question, the file in which a reader finds the answer, and the name to look for there.
QUESTIONS = (
    ("Where is a joule read from NVML?", "meter/nvidia/energy_counter.py", "_read"),
    ("Where is it decided what int4 means to vLLM?", "backends/compatibility.yaml", "int4"),
    ("Where is a window judged?", "analysis/validate.py", "validate"),
    ("Where is an interval computed?", "analysis/statistics/intervals.py", "half_width"),
    ("Where is LaTeX written?", "publish/tables/writers/latex.py", "to_latex"),
    ("Where is time to first token computed?", "analysis/energy/latency.py", "latencies_s"),
    ("Where is net energy computed?", "analysis/normalise.py", "_of_joules"),
    ("How is a check added?", "docs/extending.md", "A check"),
    ("How is an engine added?", "docs/extending.md", "An engine"),
    ("How is a table added?", "docs/extending.md", "A table"),
    ("Where is the order of a plan drawn by lot?", "records/registry/order.py", "block_rank"),
    ("Where is a path below `results/` decided?", "records/files/paths.py", "measurement"),
)


def place(path: str) -> Path:
    """Return where a path of QUESTIONS lies, relative to the root of the checkout.

    >>> str(place("records/files/paths.py")), str(place("docs/extending.md"))
    ('scripts/llm_energy/records/files/paths.py', 'docs/extending.md')
    """
    return Path(path) if path.startswith("docs/") else Path("scripts", PACKAGE, path)


def layers() -> list[list[str]]:
    """Return the packages by layer, the highest first; those of one layer do not know each other.

    >>> layers()[0], layers()[-1]
    (['publish'], ['core'])
    """
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    (order,) = (c["layers"] for c in contracts if c.get("containers") == [PACKAGE])
    return [[name.strip() for name in layer.split("|")] for layer in order]


def imported(package: str) -> set[str]:
    """Return the other packages that one imports, wherever in its modules."""
    found = set()
    for path in (ROOT / "scripts" / PACKAGE / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE):
                parts = [*(node.module or "").split(".")[1:], *(a.name for a in node.names)]
                found.add(parts[0])
    return found - {package, "__version__"}


def render() -> str:
    """Return the page."""
    lines = [HEAD, "| package | what it is | parts | imports |", "|---|---|---|---|"]
    names = [name for layer in layers() for name in layer]
    for name in names:
        folder = ROOT / "scripts" / PACKAGE / name
        module = ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))
        about = (ast.get_docstring(module) or "").partition("\n")[0]
        parts = sorted(
            path.stem
            for path in folder.iterdir()
            if (path.suffix == ".py" and path.stem != "__init__") or (path / "__init__.py").exists()
        )
        used = imported(name)
        below = ", ".join(f"`{other}`" for other in names if other in used) or "nothing of ours"
        lines.append(f"| `{name}` | {about} | {', '.join(parts)} | {below} |")
    lines += ["", "## Where to look", "", "| question | file | name |", "|---|---|---|"]
    lines += [f"| {asked} | `{place(path)}` | `{name}` |" for asked, path, name in QUESTIONS]
    return "\n".join(lines) + "\n"
