"""Find the files that decide what a script writes: a change in one of them makes it run again."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

from llm_energy.records.files.paths import SCRIPTS


def modules_behind(script: str) -> list[str]:
    """Return the paths of all modules that a script imports, however far, and of their data files.

    ``script`` is a file name in ``scripts/``. A data file lies beside the module that names it.
    Each file is read once a process.
    """
    found: dict[Path, None] = {}
    ahead = list(_named_in(SCRIPTS / script))
    while ahead:
        path = ahead.pop()
        if path not in found:
            found[path] = None
            ahead += _named_in(path) if path.suffix == ".py" else ()
    return sorted(map(str, found))


@cache
def _named_in(path: Path) -> tuple[Path, ...]:
    """Return the modules that one module imports, anywhere in it, and the data files it names."""
    beside = {p.name: p for p in path.parent.iterdir() if p.is_file() and p.suffix != ".py"}
    found: list[Path] = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        match node:
            case ast.Import(names):
                for name in names:
                    found += _modules(name.name)
            case ast.ImportFrom(str(module), names, 0):
                for name in names:
                    found += _modules(f"{module}.{name.name}")
            case ast.Constant(str(text)) if text in beside:
                found.append(beside[text])
    return tuple(found)


@cache
def _modules(name: str) -> list[Path]:
    """Return the files that importing a dotted name runs: those of its packages, then its own."""
    parts = name.split(".")
    places = [SCRIPTS.joinpath(*parts[: n + 1]) for n in range(len(parts))]
    found = (path for p in places for path in (p / "__init__.py", p.with_suffix(".py")))
    return [path for path in found if path.is_file()]
