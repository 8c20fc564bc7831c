"""A wall meter beside a sweep: exports of two kinds, its clock, its gaps, and what is refused."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest
import wall_meter as script
from support import builders

from llm_energy.analysis.energy import wall_meter
from llm_energy.core.errors import LlmEnergyError
from llm_energy.records import write_record

UTC_S = 1_767_225_600.0  # of the builders' measurements, at their monotonic second 1000
WINDOW_S = (UTC_S + 20, UTC_S + 60)


def power_w(time_s):
    """The truth: 200 W at idle, 500 W from the window's begin on, rising by 1 W a second."""
    return 500.0 + (time_s - WINDOW_S[0]) if time_s >= WINDOW_S[0] else 200.0


def readings(begin=-5, end=120, without=()):
    return [(UTC_S + k, power_w(UTC_S + k)) for k in range(begin, end) if k not in without]


@pytest.fixture
def export(tmp_path):
    """Write readings as a CSV file, or as an answer of Prometheus."""

    def write(found, name="wall.csv", series=1):
        path = tmp_path / name
        if path.suffix == ".json":
            one = {"metric": {"node": "n1"}, "values": [[t, str(p)] for t, p in found]}
            answer = {
                "status": "success",
                "data": {"resultType": "matrix", "result": [one] * series},
            }
            path.write_text(json.dumps(answer))
        else:
            path.write_text("time,power_w\n" + "".join(f"{t},{p}\n" for t, p in found))
        return path

    return write


def only_row(path, offset_s=0.0, **changes):
    (row,) = wall_meter.rows(wall_meter.read(path, offset_s), builders.measurement(**changes))
    return row


@pytest.mark.parametrize("name", ["wall.csv", "wall.json"])
def test_each_window_has_the_nodes_energy_of_its_own(export, name):
    row = only_row(export(readings(), name))
    assert row.energy_j == pytest.approx(40 * 520)
    assert row.power_w == pytest.approx(520)
    assert row.idle_power_w == pytest.approx(200, abs=16)  # the step lies at its last reading
    assert row.energy_per_output_token_j == pytest.approx(40 * 520 / 32)
    assert row.clock_error_j_per_s == pytest.approx(40)
    assert (row.reason, row.longest_gap_s, row.samples) == ("", 1.0, 41)


def test_the_meters_clock_is_set_right(export):
    ahead = [(t + 30, p) for t, p in readings()]
    assert only_row(export(ahead), 30.0).energy_j == pytest.approx(40 * 520)


def test_times_may_be_written_out(export, tmp_path):
    found = [(f"2026-01-01T01:{k // 60:02d}:{k % 60:02d}+01:00", 500) for k in range(100)]
    assert only_row(export(found)).energy_j == pytest.approx(40 * 500)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (readings(without=range(30, 36)), "a gap of 7.0 s"),
        (readings(begin=25), "do not reach over it"),
        (readings(end=55), "do not reach over it"),
        ([(t, p / 1e3) for t, p in readings()], "less than the 4000 J of its components"),
    ],
)
def test_a_window_that_was_not_seen_whole_has_a_reason_and_no_energy(export, found, said):
    row = only_row(export(found))
    assert (row.energy_j, row.energy_per_output_token_j, row.power_w) == (None, None, None)
    assert said in row.reason


def test_three_late_readings_are_no_gap(export):
    assert only_row(export(readings(without=(30, 31)))).energy_j == pytest.approx(40 * 520)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("time,watts\n1,2\n", "found the columns time, watts, needed time and power_w"),
        ("", "found the columns none"),
        ("time,power_w\n1,2\n", "found 1 readings, needed at least 2"),
        ("time,power_w\n1,2\n1,3\n", "two readings at 1.000 s"),
        ("time,power_w\n2026-01-01T00:00:00,2\n", "line 2: found time '2026-01-01T00:00:00'"),
        ("time,power_w\n1,on\n", "and power 'on'"),
        ("time,power_w\n1,-4\n", "and power '-4'"),
        ("time,power_w\n1\n", "and power None"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_with_the_place(tmp_path, text, said):
    path = tmp_path / "wall.csv"
    path.write_text(text)
    with pytest.raises(LlmEnergyError) as error:
        wall_meter.read(path)
    assert str(path) in str(error.value)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"status": "error"}, "not an answer of Prometheus to query_range"),
        ({"data": {"result": []}}, "found 0 series"),
        ({"data": {"result": [{"metric": {}, "values": [[1, "NaN"]]}]}}, "value 0: found time 1"),
        ({"data": {"result": [{"metric": {}, "values": [7]}]}}, "value 0: found time None"),
    ],
)
def test_an_answer_that_is_none_is_refused(tmp_path, answer, said):
    path = tmp_path / "wall.json"
    path.write_text(json.dumps(answer))
    with pytest.raises(LlmEnergyError, match=said):
        wall_meter.read(path)


def test_several_series_are_never_added_unasked(export):
    with pytest.raises(LlmEnergyError, match=r"found 2 series .*needed one"):
        wall_meter.read(export(readings(), "wall.json", series=2))


def test_a_missing_file_is_one_message(tmp_path, capsys):
    assert script.main([str(tmp_path / "no.csv"), str(tmp_path / "no.json")]) == 1
    assert "no.csv: cannot be read" in capsys.readouterr().err


def test_the_command_prints_a_row_a_window(export, tmp_path, capsys):
    first = builders.measurement()
    failed = replace(first, windows=(replace(first.windows[0], interval=None, outcome="failed"),))
    paths = [tmp_path / "r01.json", tmp_path / "r02.json"]
    for path, measurement in zip(paths, (first, failed), strict=True):
        write_record(path, measurement)
    assert script.main([str(export(readings())), *map(str, paths)]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (row["cell"], row["repeat"], row["workload"]) == (first.spec.cell, "1", "b1")
    assert float(row["energy_j"]) == pytest.approx(40 * 520)


def test_no_text_of_the_printed_table_is_a_formula(export, tmp_path, capsys, monkeypatch):
    found = wall_meter.rows(wall_meter.read(export(readings())), builders.measurement())
    row = replace(next(found), reason="=1+1")
    monkeypatch.setattr(wall_meter, "rows", lambda *_: [row])
    write_record(tmp_path / "r01.json", builders.measurement())
    assert script.main([str(export(readings())), str(tmp_path / "r01.json")]) == 0
    assert capsys.readouterr().out.endswith(",'=1+1\n")
