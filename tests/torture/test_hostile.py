"""No input of hostile.yaml breaks out, takes more than its bound or ends in a traceback."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from torture import hostile

CHEAP = hostile.entries(*hostile.HERE, big=False)


@pytest.fixture(scope="module", autouse=True)
def loaded():
    """Import once what the processes of the inputs would each import."""
    hostile.load()


@pytest.mark.parametrize("entry", CHEAP, ids=[entry["id"] for entry in CHEAP])
def test_an_input_is_refused_in_one_message_or_does_no_harm(entry, tmp_path):
    assert hostile.fault(entry, hostile.attempt(entry, tmp_path)) is None


def test_every_input_has_a_name_of_its_own():
    names = [entry["id"] for entry in hostile.entries(*hostile.READERS)]
    assert len(set(names)) == len(names) >= 60


@pytest.mark.parametrize(
    ("into", "told"),
    [
        (lambda entry: None, "harmless, not refused"),
        (lambda entry: 1 / 0, "traceback, not refused: .*ZeroDivisionError"),
        (lambda entry: Path("ran").touch(), "harm, not refused: code ran"),
        (lambda entry: Path("../x").touch(), "harm, not refused: a file where none may be"),
        (lambda entry: Path("x").write_text(hostile.SECRET), "harm, not refused: a secret in"),
        (lambda entry: bytearray(10**8).count(1), "harm, not refused: .* MB of memory"),
        (lambda entry: os._exit(0), "endless, not refused"),
    ],
)
def test_what_an_input_must_not_do_is_seen(into, told, tmp_path, monkeypatch):
    monkeypatch.setitem(hostile.READERS, "config", into)
    monkeypatch.setattr(hostile, "MOST_MEMORY_MB", 50)
    entry = {"into": "config", "expect": "refused", "says": ""}
    found = hostile.fault(entry, hostile.attempt(entry, tmp_path))
    assert re.search(told, found, re.DOTALL)
