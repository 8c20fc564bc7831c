"""One module decides every path: the page and the rules say the same, and nobody counts parents."""

from __future__ import annotations

import doctest
import inspect
import re
from pathlib import Path

import pytest
from support.project import ROOT

from llm_energy.records.files import paths, patterns

RULES = "\n".join(p.read_text() for p in sorted((ROOT / "workflow" / "rules").glob("*.smk")))
PAGE = (ROOT / "results" / "README.md").read_text(encoding="utf-8")
FUNCTIONS = {
    name: function
    for name, function in inspect.getmembers(paths, inspect.isfunction)
    if function.__module__ == paths.__name__
}
# Those of a file of a sweep or a model, not of a name or of what lies beside another file.
FILES = {
    name: function
    for name, function in FUNCTIONS.items()
    if next(iter(inspect.signature(function).parameters)) == "folder" and name != "models"
}


OPEN = {"name": "NAME", "suffix": "SUFFIX", "precision": "NAME"}


def decided(mark: str, cell: str) -> set[str]:
    """Return all paths as regular expressions, with their names left open between two marks.

    A table and a figure may be named, and so may their suffix and the precision of a model's files.
    """
    found = set()
    for function in FILES.values():
        opened = {
            name: f"{mark[0]}{name}{mark[1]}" for name in inspect.signature(function).parameters
        }
        opened |= {"folder": Path("results", f"{mark[0]}sweep{mark[1]}")}
        opened |= {name: value for name, value in OPEN.items() if name in opened}
        opened |= {"cell": cell} if "cell" in opened else {}
        pattern = re.escape(str(function(**opened)))
        found.add(pattern.replace("NAME", r"[\w<>{}-]+").replace("SUFFIX", r"(\w+|\*|{suffix})"))
    return found


def on_the_page() -> set[str]:
    """Return the paths of the page's table: of `a.csv`, `.md` and of `a/`, `b.json` each is one."""
    found = set()
    for cell in re.findall(r"^\| (`[^|]*/[^|]*) \|", PAGE, re.M):
        first, *others = (path.rstrip("/") for path in re.findall(r"`([^`]+)`", cell))
        found.add(f"results/{first}")
        for other in others:
            before = first[: first.rindex(".")] if other[0] == "." else f"{Path(first).parent}/"
            found.add(f"results/{before}{other}")
    return found


def in_the_rules() -> set[str]:
    """Return the paths that the rules write in their code."""
    found = re.findall(r'"(results/[^"]+)"', RULES)
    return {path.replace("{{", "{").replace("}}", "}") for path in found}


def test_the_doctests_hold() -> None:
    found = doctest.testmod(paths)
    assert (found.failed, found.attempted >= len(FUNCTIONS)) == (0, True)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_every_path_has_a_doctest(name: str) -> None:
    assert ">>> " in (FUNCTIONS[name].__doc__ or "")


def test_the_page_has_every_path_and_no_other() -> None:
    shapes, shown = decided("<>", "<cell>"), on_the_page()
    assert {path for path in shown if not any(re.fullmatch(s, path) for s in shapes)} == set()
    assert {s for s in shapes if not any(re.fullmatch(s, path) for path in shown)} == set()


def test_the_rules_name_no_other_path() -> None:
    shapes = decided("{}", "{model}--{backend}--{precision}")
    folders = {"results/{sweep}/figures", "results/{sweep}/tables/sameness"}  # of many files
    found = in_the_rules()
    assert len(found) > 15
    assert {p for p in found - folders if not any(re.fullmatch(s, p) for s in shapes)} == set()


def test_what_is_kept_has_the_files_of_a_sweep(tmp_path: Path) -> None:
    cell = "m--vllm--int4"
    one = paths.measurement(tmp_path, "vllm", cell, "r01")
    kept = [paths.spec(tmp_path, cell, "r01"), paths.prompts(tmp_path, "m"), one]
    kept += [paths.plan(tmp_path), paths.prompt_request(tmp_path, "m")]
    kept += [paths.power_trace(one), paths.steps(one)]
    others = [paths.lock(one), paths.verdicts(tmp_path, "vllm"), paths.report(tmp_path)]
    for path in (*kept, *others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert {p for part in patterns.MEASURED for p in tmp_path.glob(part)} == set(kept)


def test_the_root_of_the_checkout_is_found_in_one_place() -> None:
    assert (paths.ROOT / "Snakefile").is_file()
    counted = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "scripts").rglob("*.py")
        if re.search(r"__file__\)[.]resolve\(\)[.]parent", path.read_text(encoding="utf-8"))
    ]
    assert counted == ["scripts/llm_energy/records/files/paths.py"]
