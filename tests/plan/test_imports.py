"""A stage runs again when a file changes that decides what it writes; no list is kept by hand."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from support.project import ROOT

from llm_energy.environments import registry
from llm_energy.plan import imports
from llm_energy.plan.imports import modules_behind

RULES = {path.stem: path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk")}
# What the rules that run again with their script take in. Those that measure take it as `runner`.
INPUTS = {
    script: text
    for rules in RULES.values()
    for text in re.findall(r"^    input:\n(.*?)^    output:", rules, re.M | re.S)
    for script in re.findall(r'script=f"{SCRIPTS}/(\w+\.py)"', text)
}


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a small tree of scripts, and search that one."""
    files = {
        "stage.py": "from pack.first import f\nimport json\n",
        "pack/__init__.py": "",
        "pack/first.py": "def f():\n    import pack.deep.third\n    return 'notes.md'\n",
        "pack/unused.py": "from pack import first\n",
        "pack/notes.md": "",
        "pack/table.yaml": "",
        "pack/deep/__init__.py": "from pack import shared\n",
        "pack/deep/third.py": "from pack import first\nNAME = 'table.yaml'\n",
        "pack/deep/table.yaml": "",
        "pack/shared.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.setattr(imports, "SCRIPTS", tmp_path)
    return tmp_path


def test_what_a_script_imports_is_found_however_far_with_its_data(tree: Path) -> None:
    assert [str(Path(path).relative_to(tree)) for path in modules_behind("stage.py")] == [
        "pack/__init__.py",
        "pack/deep/__init__.py",
        "pack/deep/table.yaml",
        "pack/deep/third.py",
        "pack/first.py",
        "pack/notes.md",
        "pack/shared.py",
    ]


@pytest.mark.parametrize(
    ("script", "needed"),
    [
        ("normalise.py", "llm_energy/analysis/sameness.py"),
        ("figures.py", "llm_energy/records/power_trace.py"),
        ("audit.py", "llm_energy/records/power_trace.py"),
        ("validate.py", "llm_energy/analysis/energy/hardware.json"),
        ("validate.py", "llm_energy/analysis/checks/sessions.py"),
        ("validate.py", "llm_energy/records/measurement.py"),
        ("report.py", "llm_energy/publish/report/report.html.j2"),
        ("load_curve.py", "llm_energy/records/window.py"),
    ],
)
def test_a_file_where_numbers_or_words_are_made_is_behind_its_stage(script, needed) -> None:
    assert any(path.endswith(needed) for path in modules_behind(script))


@pytest.mark.parametrize("script", sorted(INPUTS))
def test_nothing_that_a_stage_loads_is_missed(script: str) -> None:
    code = (
        "import runpy, sys\n"
        "runpy.run_path(sys.argv[1])\n"
        "print(*(m.__file__ for n, m in sys.modules.items() if n.startswith('llm_energy')))\n"
    )
    place = registry.interpreter(ROOT, "workflow")
    command = [place, "-c", code, ROOT / "scripts" / script]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT / "scripts")
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.split()
    assert len(loaded) > 3
    assert set(loaded) <= set(modules_behind(script))


@pytest.mark.parametrize("script", sorted(INPUTS))
def test_a_rule_asks_what_is_behind_its_script(script: str) -> None:
    assert f'modules=modules_behind("{script}"),' in INPUTS[script]


@pytest.mark.parametrize("name", sorted(RULES))
def test_no_rule_lists_modules_by_hand(name: str) -> None:
    assert "llm_energy/" not in RULES[name]
    assert "glob_wildcards" not in RULES[name]


def test_every_cheap_stage_was_looked_at() -> None:
    stages = (
        "validate normalise aggregate compare load_curve phases sameness tables figures report "
        "provenance"
    )
    assert {f"{stage}.py" for stage in stages.split()} <= set(INPUTS)
