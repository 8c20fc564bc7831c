"""Every known way to make a sweep lie gets its verdict, and no healthy window is accused."""

from __future__ import annotations

import shutil
from pathlib import Path

import audit as command
import pytest
from support.corpus import ARCHIVES, EDITS, Sweep, lay_out
from support.project import ROOT

from llm_energy.analysis.audit import audit
from llm_energy.analysis.checks import CATALOGUE
from llm_energy.analysis.validate import validate
from llm_energy.core.errors import LlmEnergyError
from llm_energy.core.files import read_json

AUDITS = {id for id, check in CATALOGUE.items() if check.scope in ("files", "spans")}
# This archive was packed without the power traces that its records name.
WITHOUT_TRACES = "h100-llama-3.1-8b-quantised"


@pytest.fixture(scope="session")
def bases(tmp_path_factory):
    """Return the bases of the edits, each laid out once, with the flags that it has unedited."""
    made: dict[str, tuple[Path, set]] = {}

    def base(name: str) -> tuple[Path, set]:
        if name not in made:
            plan = lay_out(name, tmp_path_factory.mktemp(name))
            made[name] = (plan, flags_of(plan))
        return made[name]

    return base


def flags_of(plan: Path) -> set:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(plan.parents[2])
        verdicts = Sweep(plan.relative_to(plan.parents[2])).verdicts()
    return {(v.repeat, v.workload, f.id, f.severity) for v in verdicts for f in v.flags}


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit["id"])
def test_every_edit_gets_its_verdict(edit, bases, tmp_path, monkeypatch):
    plan, before = bases(edit["base"])
    shutil.copytree(plan.parents[2], tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    sweep = Sweep(plan.relative_to(plan.parents[2]))
    for operation in edit["edit"]:
        sweep.apply(operation)
    # of a cell that is edited, a repeat; the prompts are those of all
    edited = {int(one["file"][1:]) for one in edit["edit"] if one["file"] != "prompts"} or {1, 2, 3}
    found = [v for v in sweep.verdicts() if v.repeat in edited and v.cell == sweep.cell["cell"]]
    found = [v for v in found if v.workload in edit.get("workloads", sweep.cell["workloads"])]
    new = {
        (v.repeat, v.workload): {
            f.id for f in v.flags if (v.repeat, v.workload, f.id, f.severity) not in before
        }
        for v in found
    }
    assert found
    if edit["wanted"] == "unseen":
        assert set().union(*new.values()) == set(), edit["why"]
        return
    assert {v.verdict if v.outcome == "ok" else v.outcome for v in found} == {edit["wanted"]}, new
    assert all(edit["by"] in ids for ids in new.values()), new


def test_every_check_of_the_audit_is_wanted_by_an_edit():
    assert {edit["by"] for edit in EDITS if "by" in edit} >= AUDITS


@pytest.mark.parametrize(
    "archive", sorted(ARCHIVES.glob("*-llama-*.tar.*")), ids=lambda p: p.name[:-7]
)
def test_no_archived_window_is_accused(archive, tmp_path, monkeypatch):
    import tarfile

    with tarfile.open(archive) as content:
        content.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    (plan,) = Path().glob("results/*/plan.json")
    sweep = read_json(plan)
    for backend in {cell["backend"] for cell in sweep["cells"]}:
        found = audit(sweep["sweep"], backend, plan)
        assert found.windows
        lost = {f.id for w in found.windows for f in w.flags}
        assert lost == ({"A01"} if archive.name.startswith(WITHOUT_TRACES) else set())
        before = validate(sweep["sweep"], backend, plan)
        after = validate(sweep["sweep"], backend, plan, audit=found)
        assert [v.verdict for v in after.verdicts] == [v.verdict for v in before.verdicts]


@pytest.mark.parametrize("base", ["simulated", "free"])
def test_no_simulated_window_is_accused(base, bases):
    _, found = bases(base)
    assert {id for *_, id, severity in found if severity != "note"} == set()
    assert {id for *_, id, _ in found} & AUDITS == set()


def test_every_integral_of_a_power_trace_is_made_again(bases, monkeypatch):
    plan, _ = bases("vllm")
    monkeypatch.chdir(plan.parents[2])
    found = audit("h100-vllm", "vllm", plan.relative_to(plan.parents[2]))
    # a window, the load and three baselines each; those of a repeat count for each window
    assert [window.integrals for window in found.windows] == [5] * 12


def test_a_measurement_that_changed_after_its_audit_is_not_judged(bases, tmp_path, monkeypatch):
    plan, _ = bases("vllm")
    shutil.copytree(plan.parents[2], tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    sweep = Sweep(plan.relative_to(plan.parents[2]))
    found = audit("h100-vllm", "vllm", sweep.plan_path)
    sweep.apply({"file": "r01", "at": "lock_wait_s", "set": 1.0})
    with pytest.raises(LlmEnergyError, match="changed after it was audited"):
        validate("h100-vllm", "vllm", sweep.plan_path, audit=found)


def test_the_page_scores_the_edits():
    page = (ROOT / "docs" / "checks.md").read_text(encoding="utf-8")
    seen = sum(edit["wanted"] != "unseen" for edit in EDITS)
    assert f"{seen} of {len(EDITS)} edits" in page


COMMAND = {"08b": "A02", "04e": "A09", "13f": "A04"}


@pytest.mark.parametrize("id", COMMAND)
def test_the_command_refuses_an_archive_that_lies(id, bases, tmp_path, monkeypatch, capsys):
    (edit,) = (one for one in EDITS if one["id"] == id)
    plan, _ = bases(edit["base"])
    shutil.copytree(plan.parents[2], tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    sweep = Sweep(plan.relative_to(plan.parents[2]))
    for operation in edit["edit"]:
        sweep.apply(operation)
    assert command.main(["--archive", str(tmp_path / "copy")]) == 1
    said = capsys.readouterr().err
    assert "does not prove its numbers" in said
    assert f"invalid {COMMAND[id]} " in said
    assert " r02/" in said


def test_the_command_says_how_much_it_proved(bases, monkeypatch, capsys):
    plan, _ = bases("compiled")
    monkeypatch.chdir(plan.parents[2])
    assert command.main(["--sweep", "h100-compiled"]) == 0
    said = capsys.readouterr().out
    assert "Audited: 12 windows, 3 power traces integrated anew; none contradicts itself." in said


def test_the_command_needs_all_that_the_stage_needs(capsys):
    with pytest.raises(SystemExit):
        command.main(["--sweep", "demo", "--out", "audit.json"])
    assert "--out needs --sweep, --backend and --plan" in capsys.readouterr().err
