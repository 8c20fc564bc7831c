"""Read and write records as JSON files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llm_energy.core.errors import LlmEnergyError, RecordError
from llm_energy.core.files import read_json, write_json, write_text
from llm_energy.core.serialize import Record, from_dict, to_dict

SCHEMA_VERSION = 1


def read_record(cls: type[Record], path: str | Path) -> Record:
    """Read one record of type ``cls`` from a JSON file; errors name the file and the key."""
    return parse_record(cls, read_json(path), path)


def parse_record(cls: type[Record], data: Any, path: str | Path) -> Record:
    """Build a record from the JSON values that were read from ``path``."""
    found = data.get("schema_version") if isinstance(data, dict) else None
    if found != SCHEMA_VERSION:
        raise RecordError(
            f"{path}: schema_version is {found!r}, this version reads {SCHEMA_VERSION}"
        )
    return from_dict(cls, data, str(path))


def holds_already(path: str | Path, record: Any) -> bool:
    """Return whether a file says what ``record`` says, also where an older version wrote it.

    A key that was added since, and that has its default in ``record``, says nothing new.
    """
    try:
        return read_record(type(record), path) == record
    except LlmEnergyError:
        return False


def write_record(path: str | Path, record: Any) -> None:
    """Write a record as JSON, atomically."""
    write_json(path, to_dict(record))


def write_rows(path: str | Path, record: Any) -> None:
    """Write a record that holds many others as JSON, atomically, each of them on a line."""
    write_text(path, rows_text(record))


def rows_text(record: Any) -> str:
    """Return the JSON text of a record that holds many others.

    The encoder takes records as they are, and is the fast one, since it indents nothing.
    """
    fields = []
    for name, value in _fields(record).items():
        if isinstance(value, tuple) and value:
            text = "[\n" + ",\n".join(map(_ENCODE, value)) + "\n]"
        else:
            text = _ENCODE(value)
        fields.append(f'"{name}": {text}')
    return "{\n" + ",\n".join(fields) + "\n}\n"


def _fields(record: Any) -> dict[str, Any]:
    """Return a record's own fields; what is remembered of it stands beside them, underlined."""
    return {name: value for name, value in vars(record).items() if name[0] != "_"}


_ENCODE = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=_fields).encode
