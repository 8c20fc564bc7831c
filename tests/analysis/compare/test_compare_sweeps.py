"""Two sweeps: a change is told from noise, and what may have caused it is named."""

from __future__ import annotations

import math
from dataclasses import replace

import compare_sweeps as script
import pytest
from scipy.stats import ttest_ind
from support.simulated_sweeps import Sweep, usual

from llm_energy.analysis.compare import sweeps
from llm_energy.analysis.compare.sweeps import compare_sweeps
from llm_energy.core.errors import LlmEnergyError
from llm_energy.records import write_record

GROSS = "energy_per_output_token_j"
NET = "net_energy_per_output_token_j"
SPEED = "output_tokens_per_s"
SMALL = {"backends": ("pytorch",), "batch_sizes": (1, 8)}
ONE_CELL = Sweep(backends=("pytorch",), precisions=("int8",), batch_sizes=(8,))


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
    assert {row.remarks for row in found} == {
        ("engine and its version: pytorch 1, then pytorch 2",)
    }


def test_other_work_is_not_compared():
    (first, *_) = rows(Sweep(conditions={"output_lengths": "64"}, **SMALL))
    assert (first.ratio, first.beyond_noise) == (None, None)
    assert first.remarks == ("not comparable: output tokens a request: not recorded and 64",)


def test_one_repeat_gives_a_ratio_and_no_verdict():
    (first, *_) = rows(Sweep(n=1, **SMALL))
    assert first.ratio is not None
    assert (first.ci_low, first.beyond_noise, first.n) == (None, None, (5, 1))


def test_net_energy_is_compared_beside_gross():
    gross, net = rows(Sweep(**SMALL)), rows(Sweep(**SMALL), metric=NET)
    assert [row.ratio for row in net] == pytest.approx([row.ratio for row in gross])


def test_the_interval_on_one_gpu_is_that_of_welchs_test(monkeypatch):
    monkeypatch.setattr(sweeps, "serial_guard", lambda n: 1.0)
    first, second = (
        [math.log(row.energy_per_output_token_j) for row in sweep.measured(seed)[0].rows]
        for sweep, seed in ((ONE_CELL, 1), (ONE_CELL, 2))
    )
    test = ttest_ind(second, first, equal_var=False)
    row, *_ = compare_sweeps(ONE_CELL.measured(1), ONE_CELL.measured(2))
    low, high = map(math.exp, test.confidence_interval())
    assert (row.ci_low, row.ci_high, row.p_adjusted) == pytest.approx((low, high, test.pvalue))


def test_on_another_gpu_the_error_of_both_sensors_counts_as_noise():
    """A tenth less is a finding on one GPU, and within what two GPUs' sensors differ by."""

    def less(share):
        return {"truth": lambda cell: usual(cell) * share, **SMALL}

    other = {"conditions": {"boards": "GPU-2"}}
    assert all(row.beyond_noise for row in rows(Sweep(**less(0.9))))
    for metric in (GROSS, NET):
        found = rows(Sweep(**less(0.9), **other), metric=metric)
        assert not any(row.beyond_noise for row in found)
        assert found[0].remarks == (
            "the GPUs differ: the absolute error of each one's sensors, about 5 %, counts as noise",
            "GPUs: GPU-1, then GPU-2",
        )
        assert all(
            row.ci_high / row.ci_low > math.exp(2 * 1.96 * math.hypot(0.05, 0.05)) for row in found
        )
    assert all(row.beyond_noise for row in rows(Sweep(**less(0.7), **other)))
    assert rows(Sweep(**less(0.9), **other), metric=SPEED)[0].remarks == (
        "GPUs: GPU-1, then GPU-2",
    )


def test_sensors_of_a_processor_differ_with_the_host_and_estimates_have_none():
    def of(host, **changes):
        (table,) = Sweep(conditions={"host": host}, **SMALL).measured(1)
        return [replace(table, rows=tuple(replace(row, **changes) for row in table.rows))]

    for changes, told in (
        ({"components": ("cpu",)}, True),
        ({"components": ("gpu",)}, False),
        ({"components": ("cpu",), "energy_status": "estimated"}, False),
    ):
        remarks = compare_sweeps(of("a", **changes), of("b", **changes))[0].remarks
        assert any("the hosts differ" in remark for remark in remarks) == told


def test_what_the_idle_power_drifted_by_is_part_of_net_energy_s_interval():
    """The mean drift is shared by all repeats, so no scatter shows it."""

    def ratios(drift_w):
        (table,) = ONE_CELL.measured(1)
        drifted = tuple(replace(row, loaded_idle_drift_w=drift_w) for row in table.rows)
        found = compare_sweeps(ONE_CELL.measured(2), [replace(table, rows=drifted)])
        return {row.metric: row.ci_high / row.ci_low for row in found}

    power_w = ONE_CELL.measured(1)[0].rows[0].mean_power_w
    still, drifted = ratios(0.0), ratios(power_w / 5)
    assert drifted[NET] > 1.1 * still[NET]
    assert drifted[GROSS] == still[GROSS]


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
    assert "0 of 18 changed beyond noise" in out
    assert script.main([str(tmp_path / "monday"), str(tmp_path)]) == 1
    assert "no <backend>/metrics.json" in capsys.readouterr().err


def test_the_table_fits_a_terminal_whatever_else_changed(tmp_path, capsys):
    """GPUs are named by UUIDs of 40 characters, folders and engines at any length."""
    for name, letter in (("monday", "a"), ("tuesday", "b")):
        gpus = ", ".join(f"GPU-{letter * 36}" for _ in range(4))
        conditions = {"boards": gpus, "engine": f"pytorch {letter * 40}", "host": letter * 60}
        for table in Sweep(conditions=conditions, **SMALL).measured(1):
            write_record(tmp_path / name / table.backend / "metrics.json", table)
    assert script.main([str(tmp_path / "monday"), str(tmp_path / "tuesday")]) == 0
    earlier, later, *lines = capsys.readouterr().out.splitlines()
    assert (earlier, later) == (
        f"Earlier: {tmp_path / 'monday'}",
        f"Later:   {tmp_path / 'tuesday'}",
    )
    assert max(map(len, lines)) <= 100
    assert any(line.startswith("b8        net J/output token  5, 5  ") for line in lines)
