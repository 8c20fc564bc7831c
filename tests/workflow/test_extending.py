"""The steps of docs/extending.md do what the page says, on a copy of the project."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.project import ROOT

PAGE = (ROOT / "docs" / "extending.md").read_text("utf-8")
STEP = re.compile(
    r"(?:(?P<how>New file|At the end of|at the end of|In|in)\s+`(?P<path>[^`\n]+\.py)`"
    r"|(?P<there>and there)),?\s*(?:(?P<where>below|instead of) `(?P<line>[^`]+)`)?:\n\n"
    r"```(?:python|text)\n(?P<code>.*?)```",
    re.DOTALL,
)
# By the section's title: what shows that the new part is at work, run in the copy.
PROOFS = {
    "A check": """
import subprocess, sys
test = "tests/analysis/checks/test_catalogue.py"
command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test, "-k", "H99"]
done = subprocess.run(command, capture_output=True, text=True)
assert "1 passed" in done.stdout, done.stdout + done.stderr
""",
    "A table": """
from support import builders
from llm_energy.publish.tables import Results, render
made = dict(render(Results((builders.aggregate([builders.aggregate_row()]),))))
assert {"speed.csv", "speed.md", "speed.tex"} <= set(made), set(made)
assert "83" in made["speed.md"]
""",
    "A figure": """
from support import builders
from llm_energy.publish.figures import FROM_PLOTS, energy
from llm_energy.publish.plots import describe
plots = describe([builders.aggregate_row()], [], ())
names, draw = FROM_PLOTS["energy_by_first_token"]
(axes,) = draw(energy.panels_of([plots[name] for name in names])).axes
assert "time to first token" in axes.get_xlabel() or axes.figure.get_supxlabel()
""",
    "A metric": """
from support import builders
from llm_energy.analysis.energy.accounting import work
from llm_energy.analysis.normalise import _of_window
from llm_energy.records import Metrics
from llm_energy.records.registry.metrics import METRICS, SUMMARISED
measured = builders.measurement()
(window, *_), (workload, *_) = measured.windows, measured.spec.workloads
found = _of_window(measured, window, workload, builders.verdict(), work(window))
assert found["prompt_tokens_per_s"] > 0
assert "prompt_tokens_per_s" in {*SUMMARISED} & {*METRICS} & {*Metrics.__dataclass_fields__}
""",
    "A sensor": """
from pathlib import Path
from llm_energy.meter.meter import open_meter
from llm_energy.records import MeterSettings
counter = Path("sys/class/hwmon/hwmon0/energy1_input")
counter.parent.mkdir(parents=True)
counter.write_text("1000000")
settings = MeterSettings(codecarbon=False, sampling_period_s=None)
meter = open_meter(settings, sysfs=Path("sys"))
with meter.interval("window") as interval:
    counter.write_text("3500000")
(part,) = [p for p in interval.record.energy if p.method == "hwmon"]
assert (part.component, part.status, part.energy_j) == ("cpu", "measured", 2.5), part
""",
}


def sections() -> dict[str, str]:
    """Return the text of each section by its title."""
    _, *found = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    return dict(section.split("\n", 1) for section in found)


def follow(text: str, folder: Path) -> int:
    """Make the changes that a section asks for, and say how many."""
    steps = list(STEP.finditer(text))
    path = folder
    for step in steps:
        path = path if step["there"] else folder / step["path"]
        if step["how"] == "New file":
            assert not path.exists()
            path.write_text(step["code"], "utf-8")
            continue
        before = path.read_text("utf-8")
        if step["line"] is None:
            path.write_text(before + step["code"], "utf-8")
            continue
        line = f"{step['line']}\n"
        assert before.count(f"\n{line}") == 1, f"{path}: {line}"
        kept = line if step["where"] == "below" else ""
        path.write_text(before.replace(f"\n{line}", f"\n{kept}{step['code']}"), "utf-8")
    return len(steps)


def test_every_section_has_its_proof_and_the_engine_its_page() -> None:
    assert list(sections()) == [*PROOFS, "An engine"]
    assert "(adding-a-backend.md)" in sections()["An engine"]


@pytest.mark.parametrize("title", PROOFS)
def test_the_steps_add_the_part(title: str, tmp_path: Path) -> None:
    ignore = shutil.ignore_patterns("__pycache__", "recorded")
    for part in ("scripts", "tests", "workflow"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=ignore)
    for part in ("Snakefile", "pyproject.toml"):
        shutil.copy2(ROOT / part, tmp_path / part)
    text = sections()[title]
    assert follow(text, tmp_path) == text.count("```") // 2
    paths = f"import sys; sys.path[:0] = ['scripts', 'tests']\n{PROOFS[title]}"
    done = subprocess.run(
        [sys.executable, "-c", paths], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
