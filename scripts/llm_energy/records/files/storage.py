"""Read and write records as JSON files, and make the JSON Schema of each from its dataclass.

A schema has the types of the fields, and as descriptions the docstrings of the classes;
``scripts/schema.py`` prints it for whoever reads our files with other tools. What a type can't say
stands beside a class's ``__post_init__`` as its ``RULES``. Reading in bulk goes through
``read_record``, which rejects exactly what the schemas reject (a test holds that) and is many times
as fast. As there, 1.0 is no integer here.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import types
import typing
from pathlib import Path
from typing import Any, Literal

from llm_energy.core.errors import LlmEnergyError, RecordError
from llm_energy.core.files import read_json, write_json, write_text
from llm_energy.core.serialize import Record, from_dict, to_dict

SCHEMA_VERSION = 1
PROBLEMS_SHOWN = 5


def read_record(cls: type[Record], path: str | Path) -> Record:
    """Read one record of type ``cls`` from a JSON file; errors name the file and the key."""
    return parse_record(cls, read_json(path), path)


def parse_record(cls: type[Record], data: Any, path: str | Path) -> Record:
    """Build a record from the JSON values that were read from ``path``.

    A record whose version has a default was once written without one.
    """
    if isinstance(data, dict):
        found = data.get("schema_version", getattr(cls, "schema_version", None))
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


_NAMES = {str: "string", int: "integer", float: "number", bool: "boolean", types.NoneType: "null"}


@functools.cache
def schema(record: type) -> dict[str, Any]:
    """Return the JSON Schema of one class of records; callers must not change it."""
    inner: dict[type, dict[str, Any]] = {}
    own = _of_class(record, inner)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": record.__name__,
        **own,
        "$defs": {kind.__name__: found for kind, found in inner.items()},
    }


@functools.cache
def validator(record: type) -> Any:
    """Return the jsonschema validator of one class of records."""
    import jsonschema

    base = jsonschema.Draft202012Validator
    strict = base.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)
    return jsonschema.validators.extend(base, type_checker=strict)(schema(record))


def problems(record: type, data: Any) -> list[str]:
    """List what ``data`` does wrong as a record, each with its place; empty if all is well."""
    errors = sorted(
        validator(record).iter_errors(data), key=lambda e: (list(map(str, e.path)), e.message)
    )
    return [f"{error.json_path}: {_short(error.message)}" for error in errors]


def _short(message: str) -> str:
    return message if len(message) <= 200 else f"{message[:100]} ... {message[-90:]}"


def _of_class(kind: type, inner: dict[type, dict[str, Any]]) -> dict[str, Any]:
    """Return the schema of one class; those of the classes in its fields go into ``inner``."""
    hints, missing = typing.get_type_hints(kind), dataclasses.MISSING
    fields = dataclasses.fields(kind)
    found = {
        "description": inspect.getdoc(kind),
        "type": "object",
        "additionalProperties": False,
        "required": [
            field.name
            for field in fields
            if field.default is missing and field.default_factory is missing
        ],
        "properties": {field.name: _of(hints[field.name], inner) for field in fields},
    }
    if "schema_version" in found["properties"]:
        found["properties"]["schema_version"]["const"] = SCHEMA_VERSION
    return found | ({"allOf": [kind.RULES]} if hasattr(kind, "RULES") else {})


def _of(kind: Any, inner: dict[type, dict[str, Any]]) -> dict[str, Any]:
    """Return the schema of a field's type."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return {}
    if dataclasses.is_dataclass(kind):
        if kind not in inner:
            inner[kind] = {}  # before its own, so that they come in the order of their first use
            inner[kind] |= _of_class(kind, inner)
        return {"$ref": f"#/$defs/{kind.__name__}"}
    if origin in (typing.Union, types.UnionType):
        if all(one in _NAMES for one in arguments):
            return {"type": [_NAMES[one] for one in arguments]}
        return {"anyOf": [_of(one, inner) for one in arguments]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is tuple and arguments[-1] is Ellipsis:
        return {"type": "array", "items": _of(arguments[0], inner)}
    if origin is tuple:
        count = len(arguments)
        items = [_of(one, inner) for one in arguments]
        return {"type": "array", "prefixItems": items, "minItems": count, "maxItems": count}
    if origin is dict:
        return {"type": "object", "additionalProperties": _of(arguments[1], inner)}
    return {"type": _NAMES[kind]}
