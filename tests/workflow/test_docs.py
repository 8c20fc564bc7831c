"""The pages that are made from data and code say what those say, and one that does not is found."""

from __future__ import annotations

import ast
import json
import re
import subprocess

import architecture
import pytest
import yaml
from support.project import ROOT

import docs
from llm_energy.environments import registry


def test_the_pages_say_what_code_and_data_say(capsys):
    assert docs.main(["--check"]) == 0, capsys.readouterr().err


@pytest.fixture
def copies(tmp_path, monkeypatch):
    """Return a folder with copies of the pages and of their data, of which the script writes."""
    data = ("tests/backends/parameter_rows.yaml", "tests/recorded/edits.yaml")
    for name in (*docs.PAGES, *data):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((docs.ROOT / name).read_bytes())
    monkeypatch.setattr(docs, "ROOT", tmp_path)
    return tmp_path


def test_pages_that_say_something_else_or_are_missing_are_named_and_made_anew(copies, capsys):
    pages = {copies / name: (copies / name).read_bytes() for name in docs.PAGES}
    missing, *others = pages
    missing.unlink()
    for page in others:
        before, _, after = page.read_text(encoding="utf-8").rpartition("---")  # of the last table
        page.write_text(f"{before}--{after}", encoding="utf-8")
    assert docs.main(["--check"]) == 1
    told = capsys.readouterr().err
    assert f"error: {', '.join(docs.PAGES)}: not what code and data say" in told
    assert docs.main(["--write"]) == 0
    assert {page: page.read_bytes() for page in pages} == pages


def test_the_readme_counts_the_checks():
    assert f"\n{len(docs.CATALOGUE)} named checks " in (ROOT / "README.md").read_text("utf-8")


def test_the_catalogue_of_workflows_finds_what_it_lists():
    """Its page on adding workflows says what; snakedeploy reads the same places."""
    listed = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text("utf-8"))["usage"]
    assert set(listed) == {"mandatory-flags", "software-stack-deployment", "report"}
    assert set(listed["mandatory-flags"]) == {"desc", "flags"}
    assert set(listed["software-stack-deployment"]) == {"conda", "apptainer", "apptainer+conda"}
    assert (ROOT / "workflow" / "Snakefile").is_file()
    assert (ROOT / "config" / "README.md").is_file()


def test_the_citation_is_valid():
    tool = registry.interpreter(ROOT, "publishing").with_name("cffconvert")
    done = subprocess.run([tool, "--validate"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_zenodo_is_told_what_the_citation_says():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    told = json.loads((ROOT / ".zenodo.json").read_text(encoding="utf-8"))
    assert told == {
        "title": cited["title"],
        "description": cited["abstract"],
        "creators": [{"name": author["name"]} for author in cited["authors"]],
        "keywords": cited["keywords"],
        "license": cited["license"],
        "version": cited["version"],
        "upload_type": cited["type"],
        "access_right": "open",
    }


@pytest.mark.parametrize(("asked", "path", "name"), architecture.QUESTIONS)
def test_the_answer_to_each_question_is_where_the_page_says(asked, path, name):
    text = (docs.ROOT / architecture.place(path)).read_text(encoding="utf-8")
    if path.endswith(".py"):
        named = (ast.FunctionDef, ast.ClassDef)
        assert name in {node.name for node in ast.walk(ast.parse(text)) if isinstance(node, named)}
    else:
        assert re.search(rf"^## {name}$" if path.endswith(".md") else rf"\b{name}\b", text, re.M)


def test_no_package_imports_one_that_does_not_lie_below_it():
    seen = []
    for layer in reversed(architecture.layers()):
        for package in layer:
            assert architecture.imported(package) <= set(seen), package
        seen += layer
    packages = (docs.ROOT / "scripts" / architecture.PACKAGE).glob("*/__init__.py")
    assert sorted(seen) == sorted(path.parent.name for path in packages)
