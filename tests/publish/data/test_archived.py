"""The tidy tables of a sweep on a real GPU give every number of its energy table in a few lines."""

from __future__ import annotations

import io
import re
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path

import pandas
import pytest
from support.archived import archived

from llm_energy.analysis.statistics.format import ABSENT
from llm_energy.publish.data import render
from llm_energy.publish.tables import Results, make
from llm_energy.publish.tables.energy import MEASURES
from llm_energy.publish.tables.writers.table import Table

SHOWN = {one.name: one.statistic for one in MEASURES if one.name != "absolute"}


@pytest.fixture(params=["h100-llama-3.1-8b-vllm", "h100-llama-3.1-8b-quantised"])
def energy(request, tmp_path, monkeypatch) -> Table:
    """Make the data of an archived sweep in the working directory, and give its energy table."""
    monkeypatch.chdir(tmp_path)
    sweep = archived(f"{request.param}.tar.gz")
    for name, content in render(sweep):
        Path(name).write_bytes(content)
    return make(Results(tuple(sweep.aggregates), sweep.comparisons), ["energy"])["energy"]


def in_pandas() -> pandas.DataFrame:
    """Make the energy table of the tidy tables."""
    cells = pandas.read_parquet("cells.parquet").query("n > 0").set_index(["cell", "workload"])
    table = pandas.DataFrame({"n": cells["n"], "n ±": 0})
    for name, metric in SHOWN.items():
        table[name] = cells[f"{metric}_mean"]
        table[f"{name} ±"] = (cells[f"{metric}_ci_high"] - cells[f"{metric}_ci_low"]) / 2
    high, low = (cells[f"{SHOWN['gross']}_absolute_ci_{end}"] for end in ("high", "low"))
    table["absolute"], table["absolute ±"] = table["gross"], (high - low) / 2
    return table


def agrees(shown: str, value: float) -> bool:
    """Tell whether a number is what is shown, once it has no more digits than that."""
    last = Decimal(shown).normalize()
    return Decimal(float(value)).quantize(last, ROUND_HALF_EVEN) == last


def test_ten_lines_of_pandas_give_every_number_of_the_energy_table(energy):
    table = in_pandas()
    columns = [column.name for column in energy.sheet.columns if column.kind == "number"]
    seen, cells = 0, {f"{cell}/{workload}": (cell, workload) for cell, workload in table.index}
    for line in energy.sheet.lines:
        for name in columns:
            numbers = re.findall(r"[\d.]+", line.cells[name])
            if line.id not in cells:
                assert name == "n" or not numbers
                continue
            for number, column in zip(numbers, (name, f"{name} ±"), strict=False):
                assert agrees(number, table.loc[cells[line.id], column]), (line.id, column)
                seen += 1
            assert bool(numbers) != (line.cells[name] == ABSENT)
    assert seen >= 8 * len(cells) > 0


def test_the_means_over_the_windows_are_those_of_the_cells(energy):
    windows, table = pandas.read_parquet("windows.parquet"), in_pandas()
    means = windows.groupby(["cell", "workload"], observed=True)[SHOWN["gross"]].mean().dropna()
    pandas.testing.assert_series_equal(
        means, table["gross"], check_names=False, check_index_type=False, check_like=True
    )


def test_the_csv_of_the_energy_table_is_a_view_of_the_cells(energy):
    cells, table = (pandas.read_csv(t, dtype=str) for t in ("cells.csv", io.StringIO(energy.csv)))
    table["not_needed"] = cells["not_needed"]  # there a count
    pandas.testing.assert_frame_equal(cells[table.columns], table)
