"""Files are whole or absent, and hashes are stable."""

from __future__ import annotations

import errno
import json
import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_energy.core import files
from llm_energy.core.errors import LlmEnergyError, RecordError


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "record.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, {"a": float("nan")})
    assert files.read_json(path) == {"a": 1}
    assert os.listdir(tmp_path) == ["record.json"]


@pytest.mark.parametrize("taken", ["results", "results/sweep"])
def test_a_folder_that_cannot_be_written_is_named_with_the_remedy(tmp_path, taken):
    (tmp_path / taken).parent.mkdir(exist_ok=True)
    (tmp_path / taken).write_text("a file in the place of the folder")
    folder = tmp_path / "results" / "sweep"
    with pytest.raises(LlmEnergyError) as caught:
        files.write_json(folder / "plan.json", {})
    said = str(caught.value)
    assert said.startswith(f"{folder}: cannot write plan.json there (")
    assert said.endswith("make it a folder that you may write to, with space left")
    with pytest.raises(RecordError, match="cannot be read"):
        files.read_json(folder / "plan.json")


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_what_the_system_refuses_is_in_the_message(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(LlmEnergyError, match=re.escape(f"({os.strerror(number)})")):
        files.write_text(tmp_path / "energy.txt", "text")
    assert os.listdir(tmp_path) == []


def test_reading_names_the_file_that_is_missing_or_broken(tmp_path):
    with pytest.raises(RecordError, match=r"gone\.json: no such file"):
        files.read_json(tmp_path / "gone.json")
    half = tmp_path / "half.json"
    half.write_text('{"a": ')
    with pytest.raises(RecordError, match=r"half\.json: not valid JSON"):
        files.read_json(half)


@given(st.dictionaries(st.text(), st.integers() | st.floats(allow_nan=False) | st.none()))
def test_the_hash_of_a_value_does_not_depend_on_the_order_of_its_keys(value):
    backwards = dict(reversed(list(value.items())))
    if any(isinstance(v, float) and abs(v) == float("inf") for v in value.values()):
        with pytest.raises(ValueError, match="not JSON compliant"):
            files.sha256_json(value)
    else:
        assert files.sha256_json(value) == files.sha256_json(backwards)


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"abc")
    assert files.sha256_file(path) == files.sha256_bytes(b"abc")
    assert files.sha256_bytes(b"abc").startswith("ba7816bf")


TEXTS = [
    *("-0", "-0.0", "5e-325", "1.7976931348623157e308", "9007199254740993.0", "01", "1_0"),
    *("inf", "1" * 30, '"\\ud83d\\ude00"', '"\t"'),
    *('{"a": 1, "b": 2, "a": 3}', "[1,]", "1 2", "\ufeff1", "", " 1 ", "[" * 150 + "]" * 150),
]


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: ascii(text[:20]))
def test_json_is_read_as_the_standard_library_reads_it(text):
    try:
        expected = json.loads(text)
    except json.JSONDecodeError as error:
        with pytest.raises(RecordError, match=f"^x: not valid JSON {re.escape(f'({error})')}$"):
            files.parse_json(text.encode(), "x")
    else:
        assert repr(files.parse_json(text.encode(), "x")) == repr(expected)


def test_json_in_another_encoding_is_refused():
    with pytest.raises(RecordError, match="not valid JSON"):
        files.parse_json('{"a": 1}'.encode("utf-16"), "x")


parse_json = files.parse_json
NUMBER = "allowed a finite number of at most 308 digits"
TEXT = "allowed Unicode text without lone surrogates"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"a": NaN}', rf"\.a: found NaN, {NUMBER}"),
        ('{"a": [1, {"b": Infinity}]}', rf"\.a\[1\]\.b: found Infinity, {NUMBER}"),
        ('{"a": -Infinity}', rf"\.a: found -Infinity, {NUMBER}"),
        ('{"a": 1e999}', rf"\.a: found 1e999, {NUMBER}"),
        ('{"a": -1.5E+400}', rf"\.a: found -1.5E\+400, {NUMBER}"),
        ("[1,2e309]", rf"\[1\]: found 2e309, {NUMBER}"),
        ("[" + "9" * 250 + "e99]", rf"\[0\]: found 9+e?9*, {NUMBER}"),
        ("1e999", rf": found 1e999, {NUMBER}"),
        ('{"a": 1' + "0" * 400 + "}", rf"\.a: found 10+, {NUMBER}"),
        ('{"a": 1' + "0" * 6000 + "}", rf"\.a: found 10+, {NUMBER}"),
        ('{"a": "\\ud800"}', rf"\.a: found '\\ud800', {TEXT}"),
        ('{"\\udfff": 1}', rf": found '\\udfff', {TEXT}"),
        ("[" * 100_000, "nested too deep"),
        ("[" * 5000 + "]" * 5000, "nested too deep"),
    ],
)
@pytest.mark.parametrize("fast", [True, False])
def test_numbers_that_are_none_and_texts_that_are_none_are_refused(monkeypatch, text, told, fast):
    if not fast:
        monkeypatch.setattr(files, "_fast_parser", lambda: None)
    with pytest.raises(RecordError, match=rf"^a\.json.*{told}"):
        parse_json(text.encode(), "a.json")


@pytest.mark.parametrize(
    "text", ['{"a": "1e999", "b": 1e308, "c": 5e-324, "d": 1e-999}', '["\\ud83d\\ude00", "e0001"]']
)
@pytest.mark.parametrize("fast", [True, False])
def test_texts_and_numbers_of_any_other_size_are_taken(monkeypatch, text, fast):
    if not fast:
        monkeypatch.setattr(files, "_fast_parser", lambda: None)
    assert parse_json(text.encode(), "a.json") == json.loads(text)


def test_a_file_in_a_folders_place_and_a_folder_that_takes_nothing_are_one_message(tmp_path):
    taken = tmp_path / "results"
    taken.write_text("a file")
    for check in (files.require_folder, files.require_room):
        with pytest.raises(LlmEnergyError, match=r"cannot write \(.*\); make it a folder that you"):
            check(taken / "sweep")
    files.require_folder(tmp_path / "new" / "sweep")
    assert not (tmp_path / "new").exists()
