"""From a table's row back to its files, and what an altered file is found to feed."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import aggregate
import audit
import compare
import data
import lineage
import normalise
import provenance
import pytest
import tables
import validate
from support import builders

from llm_energy.core.errors import LlmEnergyError
from llm_energy.core.files import read_json, sha256_file, write_json
from llm_energy.publish.provenance.provenance import Provenance, fed_by, trace_back
from llm_energy.records import read_plan, read_record

ROOT = Path(__file__).resolve().parents[3]
FOLDER = "results/test"
FLOAT, INT4 = "m--pytorch--float32", "m--pytorch--int4"


def run_stages(root: Path) -> None:
    """Run what the workflow runs after measuring, as its rules do."""
    plan, out = f"{FOLDER}/plan.json", f"{FOLDER}/pytorch"
    place = ["--sweep", "test", "--backend", "pytorch", "--plan", plan]
    audited = f"{out}/audit.json"
    assert audit.main([*place, "--out", audited]) == 0
    judged = [*place, "--audit", audited, "--out", f"{out}/verdicts.json"]
    assert validate.main(judged) == 0
    judged = ["--verdicts", f"{out}/verdicts.json", "--out", f"{out}/metrics.json"]
    assert normalise.main(judged) == 0
    metrics = ["--metrics", f"{out}/metrics.json", "--plan", plan]
    assert aggregate.main([*metrics, "--out", f"{out}/aggregate.json"]) == 0
    records = [*metrics, "--aggregates", f"{out}/aggregate.json"]
    compared = ["--comparisons", f"{FOLDER}/comparisons.json"]
    assert compare.main([*records, "--out", compared[1]]) == 0
    judged = ["--verdicts", f"{out}/verdicts.json", *compared]
    assert tables.main([*records[4:], *judged, "--out-dir", f"{FOLDER}/tables"]) == 0
    assert data.main([*records, *judged, "--out-dir", f"{FOLDER}/data"]) == 0
    assert provenance.main(["--sweep", "test", "--out", f"{FOLDER}/provenance.json"]) == 0


def alone(spec, start_s: float):
    """Return a repeat from ``start_s`` on whose joules and durations no other one has."""
    windows = []
    for number, workload in enumerate(spec.workloads):
        window = builders.window(workload.id, start_s + 20 + 60 * number, order=number)
        parts = builders.energy(builders.WINDOW_S, builders.GPU_W + start_s / 1e5 + number)
        end_s = window.interval.end_s + start_s / 1e9
        windows.append(
            replace(window, interval=replace(window.interval, energy=parts, end_s=end_s))
        )
    return builders.measurement(spec, start_s, windows=tuple(windows))


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Make a sweep of two cells with two workloads and two repeats, up to its provenance."""
    root = tmp_path_factory.mktemp("sweep")
    before = os.getcwd()
    os.chdir(root)
    try:
        workloads = [builders.workload(name) for name in ("b1", "b4")]
        cells = [("pytorch", "float32"), ("pytorch", "int4"), ("pytorch", "int8!")]
        measured = [
            alone(builders.spec(precision, repeat, workloads=workloads), 1000.0 * number)
            for number, (precision, repeat) in enumerate(
                [("float32", 1), ("int4", 1), ("float32", 2), ("int4", 2)], 1
            )
        ]
        grid = builders.plan(cells, 2, ("b1", "b4"))
        builders.write_sweep(Path(), measured, grid)
        run_stages(root)
    finally:
        os.chdir(before)
    return root


@pytest.fixture
def sweep(original, tmp_path, monkeypatch):
    """Return a copy of the sweep that a test may spoil, as the working directory."""
    shutil.copytree(original, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def alter(path: Path, old: bytes, new: bytes) -> None:
    """Put one byte for another, once."""
    assert len(old) == len(new)
    text = path.read_bytes()
    assert old in text
    path.write_bytes(text.replace(old, new, 1))


def verdict_of(capsys) -> tuple[int, str]:
    """Verify the sweep; give the exit status and what was printed."""
    status = lineage.main([FOLDER, "--verify"])
    return status, "".join(capsys.readouterr())


def test_an_untouched_sweep_is_verified(sweep, capsys):
    status, said = verdict_of(capsys)
    assert (status, said.startswith("Verified: ")) == (0, True)


@pytest.mark.parametrize(("old", "new"), [(b'"torch": "2', b'"torch": "3'), (b"\n", b" ")])
def test_one_altered_byte_names_the_file_and_the_rows_that_it_feeds(sweep, capsys, old, new):
    path = f"{FOLDER}/pytorch/measurements/{INT4}/r02.json"
    alter(sweep / path, old, new)
    status, said = verdict_of(capsys)
    assert status == 1
    assert f"{path}: its SHA-256 is " in said
    for row in (f"{INT4}/b1", f"{INT4}/b4"):
        assert f"feeds energy: {row}" in said
    assert f"feeds energy: {FLOAT}" not in said
    assert "int8" not in said


@pytest.mark.parametrize(
    ("path", "fed"),
    [
        (f"specs/{FLOAT}/r01.json", {FLOAT}),
        ("prompts/m.json", {FLOAT, INT4, "m--pytorch--int8"}),
        ("pytorch/metrics.json", {FLOAT, INT4, "m--pytorch--int8"}),
        ("../models/m/manifest.json", {FLOAT, INT4, "m--pytorch--int8"}),
    ],
)
def test_every_kind_of_file_is_covered_and_feeds_its_rows(sweep, capsys, path, fed):
    place = os.path.normpath(f"{FOLDER}/{path}")
    alter(sweep / place, b"\n", b" ")
    status, said = verdict_of(capsys)
    assert status == 1
    assert f"{place}: its SHA-256" in said
    assert {cell for cell in (FLOAT, INT4, "m--pytorch--int8") if f"energy: {cell}/" in said} == fed


def test_an_edited_table_names_its_own_rows(sweep, capsys):
    alter(sweep / FOLDER / "tables" / "energy.md", b"float32", b"float16")
    _, said = verdict_of(capsys)
    assert "tables/energy.md: its SHA-256" in said
    assert f"feeds energy: {FLOAT}/b1" in said
    assert "feeds components" not in said


def test_a_file_that_is_gone_is_named(sweep, capsys):
    (sweep / FOLDER / "specs" / FLOAT / "r01.json").unlink()
    assert f"specs/{FLOAT}/r01.json: it is gone" in verdict_of(capsys)[1]


@pytest.mark.parametrize("name", ["tables/energy.csv", "data/windows.csv"])
def test_a_table_that_was_edited_together_with_its_hash_is_found(sweep, capsys, name):
    alter(sweep / FOLDER / name, b"float32", b"float16")
    assert provenance.main(["--sweep", "test", "--out", f"{FOLDER}/provenance.json"]) == 0
    status, said = verdict_of(capsys)
    assert status == 1
    assert f"{name}: this software makes something else" in said


def test_a_measurement_that_changed_after_its_verdict_gets_no_provenance(sweep):
    alter(sweep / FOLDER / "pytorch/measurements" / INT4 / "r01.json", b"2.13.0", b"2.14.0")
    with pytest.raises(LlmEnergyError, match=r"r01\.json: it changed after it was judged"):
        trace_back("test", ROOT)


def test_a_row_leads_to_its_measurements_specs_environment_and_commit(sweep, capsys):
    assert lineage.main([FOLDER, "--table", "energy", "--row", f"{INT4}/b4"]) == 0
    said = capsys.readouterr().out
    known = read_record(Provenance, f"{FOLDER}/provenance.json")
    for repeat in ("r01", "r02"):
        for path in (f"{FOLDER}/pytorch/measurements/{INT4}/{repeat}.json",):
            assert f"{path} sha256 {known.files[path]}" in said
        assert f"spec {FOLDER}/specs/{INT4}/{repeat}.json sha256" in said
    lock = known.environments["pytorch"]
    assert f"environment pytorch: envs/pytorch.txt sha256 {lock.sha256}" in said
    assert f"by commit {'0' * 40}" in said
    assert "J/output token: " in said
    assert f"feeds energy: {FLOAT}" not in said


def test_a_row_of_weights_quantised_before_leads_to_their_manifest(sweep, capsys):
    path = Path(f"{FOLDER}/pytorch/measurements/{INT4}/r01.json")
    measured = json.loads(path.read_text())
    measured["spec"]["engine"]["load_in_8bit"] = True
    path.write_text(json.dumps(measured))
    assert lineage.main([FOLDER, "--table", "energy", "--row", f"{INT4}/b4"]) == 0

    assert capsys.readouterr().out.count("    weights results/models/m/manifest-int8.json") == 1


def test_a_row_of_a_backend_without_an_environment_here_says_so(sweep, capsys):
    path = Path(FOLDER, "provenance.json")
    write_json(path, read_json(path) | {"environments": {}})
    assert lineage.main([FOLDER, "--row", f"{INT4}/b4"]) == 0
    told = "environment: none of this checkout is that of backend pytorch"
    assert told in capsys.readouterr().out


def test_a_cell_that_could_not_run_leads_to_its_reason(sweep, capsys):
    assert lineage.main([FOLDER, "--row", "m--pytorch--int8/b1"]) == 0
    assert "unsupported: pytorch has no int8" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--row", "m--pytorch--int4/b5"], "a row is named cell/workload, such as"),
        (["--table", "nothing", "--row", "x"], "no table 'nothing': there are energy"),
    ],
)
def test_an_unknown_row_or_table_is_told_with_what_there_is(sweep, capsys, arguments, told):
    assert lineage.main([FOLDER, *arguments]) == 1
    assert told in capsys.readouterr().err


def test_a_pooled_cell_is_fed_by_the_measurements_of_each_of_its_backends(sweep):
    known = read_record(Provenance, f"{FOLDER}/provenance.json")
    pooled = {"energy": {"m--pytorch+vllm--int4/b1": (("m--pytorch+vllm--int4", "b1"),)}}
    other = Provenance(**(vars(known) | {"tables": pooled}))
    plan = read_plan("test")
    fed = fed_by(other, plan, f"{FOLDER}/pytorch/measurements/{INT4}/r01.json")
    assert fed == {"energy": ["m--pytorch+vllm--int4/b1"]}
    assert fed_by(other, plan, f"{FOLDER}/pytorch/measurements/{FLOAT}/r01.json") == {}


def test_the_provenance_is_the_same_each_time_and_needs_no_clock(sweep):
    first = (sweep / FOLDER / "provenance.json").read_bytes()
    run_stages(sweep)
    assert (sweep / FOLDER / "provenance.json").read_bytes() == first


def test_provenance_makes_no_table_but_takes_the_sources_that_the_tables_stage_wrote(sweep):
    path = f"{FOLDER}/tables/sources.json"
    known = read_json(path)
    known["tables"] = {"energy": {"its own": [[INT4, "b1"]]}}
    write_json(path, known)
    found = trace_back("test", ROOT)
    assert found.tables == {"energy": {"its own": ((INT4, "b1"),)}}
    assert found.files[path] == sha256_file(path)
    Path(path).unlink()
    with pytest.raises(
        LlmEnergyError, match=r"sources\.json: no such file; .* make paper SWEEP=test"
    ):
        trace_back("test", ROOT)


def test_altered_sources_feed_every_row(sweep, capsys):
    alter(sweep / FOLDER / "tables" / "sources.json", INT4.encode(), INT4.upper().encode())
    said = verdict_of(capsys)[1]
    assert "tables/sources.json: its SHA-256" in said
    assert f"feeds energy: {FLOAT}/b1" in said


def test_a_table_that_this_version_does_not_make_still_leads_to_its_measurements(sweep, capsys):
    known = read_json(f"{FOLDER}/provenance.json")
    known["tables"]["former"] = known["tables"].pop("energy")
    write_json(f"{FOLDER}/provenance.json", known)
    assert lineage.main([FOLDER, "--table", "former", "--row", f"{INT4}/b4"]) == 0
    assert "measured " in capsys.readouterr().out


def test_a_renamed_sweep_is_told_how_it_must_be_named(sweep, capsys):
    (sweep / FOLDER).rename(sweep / "results/other")
    assert lineage.main(["results/other", "--verify"]) == 1
    assert "must be named .../results/test" in capsys.readouterr().err


def test_a_plan_edited_by_hand_is_named_and_feeds_every_row(sweep, capsys):
    plan = read_json(f"{FOLDER}/plan.json")
    write_json(f"{FOLDER}/plan.json", plan | {"allow_mixed_backends": True})
    said = verdict_of(capsys)[1]
    assert f"{FOLDER}/plan.json: its SHA-256" in said
    assert f"energy: {FLOAT}/b1" in said


def stretch(measurement):
    """Let a window last longer than its passes."""
    window = measurement["windows"][0]
    window["interval"]["end_s"] += 30.0


def copy_joules(measurement):
    """Give the windows the joules and durations of the first repeat."""
    other = read_json(f"{FOLDER}/pytorch/measurements/{FLOAT}/r01.json")
    for window, copied in zip(measurement["windows"], other["windows"], strict=True):
        window["interval"]["energy"] = copied["interval"]["energy"]


@pytest.mark.parametrize(("edit", "id"), [(stretch, "A04"), (copy_joules, "A09")])
def test_a_lie_that_all_hashes_agree_with_is_refused(sweep, capsys, edit, id):
    path = Path(f"{FOLDER}/pytorch/measurements/{FLOAT}/r02.json")
    measurement = read_json(path)
    edit(measurement)
    write_json(path, measurement)
    run_stages(sweep)  # all that is made, and all hashes, follow the edited file
    status, said = verdict_of(capsys)
    assert status == 1
    assert "measurements do not prove their numbers" in said
    assert f"invalid {id} " in said
