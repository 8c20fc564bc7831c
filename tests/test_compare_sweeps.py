"""Two sweeps: a change is told from noise, and what may have caused it is named."""

from __future__ import annotations

from dataclasses import replace

import compare_sweeps as script
import pytest
from simulated_sweeps import Sweep, usual

from llm_energy.errors import LlmEnergyError
from llm_energy.records import write_record
from llm_energy.sweeps import compare_sweeps

GROSS = "energy_per_output_token_j"
SMALL = {"backends": ("pytorch",), "batch_sizes": (1, 8)}


def rows(later, **options):
    found = compare_sweeps(Sweep(**SMALL).measured(1), later.measured(2))
    return [row for row in found if row.metric == options.get("metric", GROSS)]


def test_the_same_cells_on_another_day_did_not_change():
    assert [row.beyond_noise for row in rows(Sweep(**SMALL))] == [False] * 6


def test_a_change_of_one_cell_is_found_and_its_ratio_given():
    def slower(cell):
        return usual(cell) * (1.2 if cell[1:] == ("int8", 8) else 1.0)

    found = {(row.cell, row.workload): row for row in rows(Sweep(truth=slower, **SMALL))}
    changed = found.pop(("m--pytorch--int8", "b8"))
    assert changed.beyond_noise
    assert changed.ci_low < 1.2 < changed.ci_high
    assert not any(row.beyond_noise for row in found.values())


def test_another_version_is_named_as_what_else_changed():
    found = rows(Sweep(conditions={"engine": "pytorch 2"}, **SMALL))
    assert {row.remark for row in found} == {"engine and its version: pytorch 1, then pytorch 2"}


def test_other_work_is_not_compared():
    (first, *_) = rows(Sweep(conditions={"output_lengths": "64"}, **SMALL))
    assert (first.ratio, first.beyond_noise) == (None, None)
    assert first.remark == "not comparable: output tokens a request: not recorded and 64"


def test_one_repeat_gives_a_ratio_and_no_verdict():
    (first, *_) = rows(Sweep(n=1, **SMALL))
    assert first.ratio is not None
    assert (first.ci_low, first.beyond_noise, first.n) == (None, None, (5, 1))


def test_sweeps_without_a_common_cell_are_an_error():
    with pytest.raises(LlmEnergyError, match="have no cell, workload and kind of joules in common"):
        rows(Sweep(backends=("vllm",), batch_sizes=(1,)))


def test_the_command_prints_a_table_and_one_sentence(tmp_path, capsys):
    for name, seed in (("monday", 1), ("tuesday", 2)):
        for table in Sweep(**SMALL).measured(seed):
            folder = tmp_path / name / table.backend
            write_record(folder / "metrics.json", replace(table, sweep=name))
    assert script.main([str(tmp_path / "monday"), str(tmp_path / "tuesday")]) == 0
    out = capsys.readouterr().out
    assert "m--pytorch--int4" in out
    assert "0 of 12 changed beyond noise" in out
    assert script.main([str(tmp_path / "monday"), str(tmp_path)]) == 1
    assert "no <backend>/metrics.json" in capsys.readouterr().err
