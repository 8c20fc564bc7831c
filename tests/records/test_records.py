"""Records come back from JSON as they were, and nothing else is read as a record."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import builders

from llm_energy.analysis.energy.accounting import sums
from llm_energy.core.errors import RecordError
from llm_energy.core.files import canonical_json, read_json, write_json
from llm_energy.core.serialize import from_dict, to_dict
from llm_energy.records import (
    ComponentEnergy,
    Interval,
    Measurement,
    Metrics,
    Spec,
    Statistic,
    Verdict,
    read_record,
    rows_text,
    write_record,
)
from llm_energy.records.files.storage import problems

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@given(NUMBERS, NUMBERS, st.text(), st.one_of(st.none(), st.text()))
def test_an_interval_survives_json(start_s, energy_j, name, device):
    part = ComponentEnergy("gpu", device, "measured", "nvml", energy_j)
    record = Interval(name, start_s, start_s + 1, (part,))
    assert from_dict(Interval, to_dict(record)) == record
    assert canonical_json(to_dict(from_dict(Interval, to_dict(record)))) == canonical_json(
        to_dict(record)
    )


def test_a_measurement_survives_a_file(tmp_path):
    record = builders.measurement()
    write_record(tmp_path / "r01.json", record)
    assert read_record(Measurement, tmp_path / "r01.json") == record


def test_what_is_read_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        builders.metrics().duration_s = 1.0


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        ("extra", 1, r"Metrics: unknown key 'extra', allowed cell, "),
        ("passes", 1.5, r"Metrics.passes: found 1.5, allowed int"),
        ("passes", True, r"Metrics.passes: found True, allowed int"),
        ("duration_s", "4", r"Metrics.duration_s: found '4', allowed float"),
        ("duration_s", None, r"Metrics.duration_s: found None, allowed float"),
        ("verdict", "good", r"Metrics.verdict: found 'good', allowed 'valid', 'degraded'"),
        ("components", "gpu", r"Metrics.components: found str, allowed a list"),
        ("components", ["gpu", 1], r"Metrics.components\[1\]: found 1, allowed str"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(place, value, told):
    data = to_dict(builders.metrics()) | {place: value}
    with pytest.raises(RecordError, match=told):
        from_dict(Metrics, data)


@pytest.mark.parametrize("key", ["sweep", "cell", "model", "backend", "precision"])
@pytest.mark.parametrize("name", ["../../x", "/x", "..", "", "a/b", "a\0", "a\n", "A", "x" * 300])
def test_a_spec_takes_no_name_that_leads_elsewhere(key, name):
    data = to_dict(builders.spec()) | {key: name}
    with pytest.raises(RecordError, match=rf"Spec: {key}: found "):
        from_dict(Spec, data)
    assert problems(Spec, data)


def test_a_missing_key_is_named():
    data = to_dict(builders.metrics())
    del data["workload"]
    with pytest.raises(RecordError, match="Metrics: missing key 'workload'"):
        from_dict(Metrics, data)


def test_null_is_never_read_as_zero():
    data = to_dict(builders.metrics(net_energy_j=None))
    assert from_dict(Metrics, data).net_energy_j is None


def test_a_whole_number_is_a_float_but_not_the_other_way():
    assert from_dict(Statistic, {"n": 1, "mean": 2, "sd": None, "ci_low": None, "ci_high": None})
    with pytest.raises(RecordError):
        from_dict(Statistic, {"n": 1.0, "mean": 2, "sd": None, "ci_low": None, "ci_high": None})


@pytest.mark.parametrize(
    ("status", "energy_j", "reason"),
    [
        ("unavailable", 0.0, "no sensor"),
        ("unavailable", None, None),
        ("unavailable", None, ""),
        ("measured", None, "no sensor"),
    ],
)
def test_absent_energy_is_null_with_a_reason(status, energy_j, reason):
    with pytest.raises(RecordError):
        ComponentEnergy("cpu", None, status, "rapl", energy_j, reason)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_schema_version_is_refused(tmp_path, version):
    data = to_dict(builders.measurement()) | {"schema_version": version}
    write_json(tmp_path / "r01.json", data)
    with pytest.raises(RecordError, match=r"r01.json: schema_version is .*, this version reads 1"):
        read_record(Measurement, tmp_path / "r01.json")


@pytest.mark.parametrize("text", ["", "{", "[1, 2", "\x00", "null", "[]"])
def test_what_is_no_record_is_an_error_that_names_the_file(tmp_path, text):
    (tmp_path / "r01.json").write_text(text)
    with pytest.raises(RecordError, match=r"r01\.json"):
        read_record(Measurement, tmp_path / "r01.json")


def test_a_verdict_may_be_of_what_is_missing():
    data = to_dict(builders.verdict(outcome="missing"))
    assert from_dict(Verdict, data).outcome == "missing"


def test_not_a_number_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_record(tmp_path / "r01.json", builders.metrics(ttft_s=float("nan")))
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_the_record_and_nothing_else(tmp_path):
    write_record(tmp_path / "r01.json", builders.metrics())
    assert list(read_json(tmp_path / "r01.json")) == [f.name for f in dataclasses.fields(Metrics)]


def test_what_is_remembered_of_a_record_is_not_written():
    record = builders.measurement()
    before = rows_text(record)
    assert sums(record.windows[0].interval)
    assert rows_text(record) == before
