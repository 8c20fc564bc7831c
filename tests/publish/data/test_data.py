"""The tidy tables: types and nulls right, the same bytes, and every column explained."""

from __future__ import annotations

import contextlib
import io
import json
import re
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import data as script
import duckdb
import pandas
import pytest
from support import report_sweep
from support.comparison_example import example

from llm_energy.publish.data import Sweep, not_reproduced, render
from llm_energy.records import write_record

TABLES = ("windows", "cells", "comparisons", "requests")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Return the folder that the paths of the sweep are relative to."""
    return tmp_path_factory.mktemp("sweep")


@pytest.fixture(autouse=True)
def _where_the_sweep_lies(root, monkeypatch):
    monkeypatch.chdir(root)


@pytest.fixture(scope="module")
def sweep(root) -> Sweep:
    """Give a sweep with an unsupported cell and a window without memory; some pairs compared."""
    found = report_sweep.sources(root, example())
    return Sweep(found.plan, found.verdicts, found.metrics, found.aggregates, found.comparisons)


@pytest.fixture(scope="module")
def folder(root, sweep, tmp_path_factory) -> Path:
    """Write the data of the sweep and give its folder, below that of the sweep."""
    place = tmp_path_factory.mktemp("made") / "data"
    place.mkdir()
    with contextlib.chdir(root):
        for name, content in render(sweep):
            (place / name).write_bytes(content)
    return place


def frame(folder: Path, name: str) -> pandas.DataFrame:
    return pandas.read_parquet(folder / f"{name}.parquet")


def test_a_window_without_joules_is_a_row_with_its_reason(folder, sweep):
    windows = frame(folder, "windows")
    verdicts = [one for table in sweep.verdicts for one in table.verdicts]
    keys = ["cell", "workload", "repeat"]
    assert len(windows.drop_duplicates(keys)) == len(verdicts)
    lost = windows[windows["energy_status"].isna()]
    assert set(lost["outcome"]) == {"oom", "unsupported"}
    assert lost["reason"].notna().all()
    assert lost["gross_energy_j"].isna().all()
    assert lost.loc[lost["outcome"] == "unsupported", "repeat"].isna().all()
    assert set(lost["precision"]) == {"int8", "int4"}


def test_numbers_are_those_of_the_records(folder, sweep):
    windows, cells = frame(folder, "windows"), frame(folder, "cells")
    rows = [row for table in sweep.metrics for row in table.rows]
    assert [*windows["gross_energy_j"].dropna()] == [row.gross_energy_j for row in rows]
    assert [*windows["ttft_p50_s"].dropna()] == [row.latencies_s["ttft_p50"] for row in rows]
    ends = windows[["repeat_begin_utc_s", "repeat_end_utc_s"]].dropna()
    assert [*map(tuple, ends.to_numpy())] == [row.span_utc_s for row in rows if row.span_utc_s]
    assert {*windows["condition_engine"].dropna()} == {
        one["engine"] for table in sweep.metrics for one in table.conditions.values()
    }
    means = [row.statistics["ttft_s"].mean for one in sweep.aggregates for row in one.rows if row.n]
    assert [*cells["ttft_s_mean"].dropna()] == means
    ratios = [one.ratio for one in sweep.comparisons.comparisons if one.ratio is not None]
    assert [*frame(folder, "comparisons")["ratio"].dropna()] == ratios
    assert frame(folder, "comparisons")["reference_mean"].notna().all()
    keys = ["cell", "workload", "repeat"]
    tokens = frame(folder, "requests").groupby(keys, observed=True)["output_tokens"].sum()
    once = windows.dropna(subset="output_tokens").drop_duplicates(keys).set_index(keys)
    assert dict(tokens) == dict(once["output_tokens"])


def test_types_hold_without_a_single_value(folder):
    windows = frame(folder, "windows")
    assert windows["repeat"].dtype == "Int64"
    assert windows["net_energy_j"].dtype == "Float64"
    assert windows["simulated"].dtype == "boolean"
    assert windows["perplexity"].isna().all()
    assert windows["perplexity"].dtype == "Float64"
    assert "object" not in {str(dtype) for name in TABLES for dtype in frame(folder, name).dtypes}


def test_categories_have_the_order_of_the_config(folder, sweep):
    cells = frame(folder, "cells")
    precision = cells["precision"].cat
    assert (precision.ordered, [*precision.categories]) == (True, ["float32", "int8", "int4"])
    assert [*cells["workload"].cat.categories] == ["b1", "b8"]
    shown = duckdb.read_parquet(str(folder / "cells.parquet")).select("precision").fetchall()
    assert {one for (one,) in shown} == {"float32", "int8", "int4"}


def test_a_csv_says_what_the_parquet_file_says(folder):
    for name in TABLES:
        whole = frame(folder, name)
        types = {
            c: "string" if isinstance(t, pandas.CategoricalDtype) else t
            for c, t in whole.dtypes.items()
        }
        read = pandas.read_csv(
            folder / f"{name}.csv",
            dtype=types,
            keep_default_na=False,
            na_values=[""],
        )
        pandas.testing.assert_frame_equal(read, whole.astype(types))


def test_no_text_of_a_csv_is_a_formula(sweep):
    aggregates = [
        replace(one, rows=tuple(replace(row, reason="=1+1") for row in one.rows))
        for one in sweep.aggregates
    ]
    made = dict(render(replace(sweep, aggregates=aggregates)))
    assert b",'=1+1," in made["cells.csv"]
    assert set(pandas.read_parquet(io.BytesIO(made["cells.parquet"]))["reason"]) == {"=1+1"}


def test_every_column_is_explained_on_the_page_and_in_the_package(folder, sweep):
    package = json.loads((folder / "datapackage.json").read_text())
    assert [r["path"] for r in package["resources"]] == [
        f"{name}.{suffix}" for name in TABLES for suffix in ("csv", "parquet")
    ]
    page = (folder / "README.md").read_text()
    for resource in package["resources"]:
        found = resource["schema"]["fields"]
        read = frame(folder, resource["path"].partition(".")[0])
        assert [field["name"] for field in found] == [*read.columns]
        assert [field["name"] for field in found if not field["description"]] == []
        assert {"string", "integer", "number", "boolean"} >= {field["type"] for field in found}
    named = re.findall(r"^\| `([^`]+)` \|", page, re.M)
    names = {c for name in TABLES for c in frame(folder, name).columns}
    patterns = [re.escape(name).replace(r"\*", r"[a-z_]+") for name in named]
    assert [n for n in names if not any(re.fullmatch(p, n) for p in patterns)] == []
    assert "| `gross_energy_j` | number | J | gross energy." in page


@pytest.mark.parametrize("language", ["pandas", "polars", "DuckDB"])
def test_three_lines_read_a_table(folder, language, monkeypatch):
    page = (folder / "README.md").read_text()
    (lines,) = re.findall(rf"^{language}:\n\n```python\n(.*?)```", page, re.M | re.S)
    assert lines.count("\n") == 3
    monkeypatch.chdir(folder)
    with redirect_stdout(io.StringIO()) as said:
        exec(lines, {})
    expected = frame(folder, "cells")["energy_per_output_token_j_mean"].dropna().iloc[0]
    assert f"{expected:.3f}"[:4] in said.getvalue()


def test_the_stage_writes_the_same_bytes_each_time(folder, sweep, tmp_path, monkeypatch):
    found = {"plan.json": [sweep.plan], "comparisons.json": [sweep.comparisons]}
    found |= {"verdicts": sweep.verdicts, "metrics": sweep.metrics, "aggregates": sweep.aggregates}
    arguments = ["--out-dir", str(tmp_path / "data"), "--jobs", "2"]
    for name, records in found.items():
        arguments.append(f"--{name.removesuffix('.json')}")
        for number, record in enumerate(records):
            arguments.append(str(tmp_path / f"{name}-{number}"))
            write_record(tmp_path / f"{name}-{number}", record)
    assert script.main(arguments) == 0
    written = {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()}
    assert written == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_not_made_of_the_records_is_found(folder, sweep, tmp_path):
    for name, content in render(sweep):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / name).write_bytes(content)
    assert [*not_reproduced(sweep, tmp_path)] == []
    altered = frame(folder, "cells")
    altered.loc[0, "n"] = 99
    altered.to_parquet(tmp_path / "data" / "cells.parquet", index=False)
    (tmp_path / "data" / "windows.parquet").write_bytes(b"nothing")
    (tmp_path / "data" / "requests.csv").unlink()
    # Bytes that another version wrote, and the same table.
    frame(folder, "comparisons").to_parquet(
        tmp_path / "data" / "comparisons.parquet", index=False, compression="gzip"
    )
    found = [path.name for path in not_reproduced(sweep, tmp_path)]
    assert found == ["windows.parquet", "cells.parquet", "requests.csv"]
