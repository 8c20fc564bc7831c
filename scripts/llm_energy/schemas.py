"""The JSON Schemas of the records: load them, and list everything that a value does wrong.

The schemas are the promise to whoever reads our files with other tools. Reading in bulk goes
through ``records.read_record``, which rejects exactly what the schemas reject (a test holds that)
and is many times as fast. As there, 1.0 is no integer here.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from llm_energy.files import read_yaml

FOLDER = Path(__file__).resolve().parents[2] / "workflow" / "schemas"
SUFFIX = ".schema.yaml"
PROBLEMS_SHOWN = 5


@functools.cache
def load_schema(name: str) -> dict[str, Any]:
    """Load one schema by its name, such as ``measurement``."""
    return read_yaml(FOLDER / f"{name}{SUFFIX}")


@functools.cache
def validator(name: str) -> Any:
    """Give the jsonschema validator of one schema; references to other schemas are followed."""
    import jsonschema
    from referencing import Registry, Resource
    from referencing.jsonschema import DRAFT202012

    def retrieve(uri: str) -> Resource:
        # Where a referenced schema names its dialect, jsonschema falls back to its own validator.
        content = dict(load_schema(uri.removesuffix(SUFFIX)))
        del content["$schema"]
        return DRAFT202012.create_resource(content)

    base = jsonschema.Draft202012Validator
    strict = base.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)
    kind = jsonschema.validators.extend(base, type_checker=strict)
    return kind(load_schema(name), registry=Registry(retrieve=retrieve))


def problems(name: str, data: Any) -> list[str]:
    """List what ``data`` does wrong under a schema, each with its place; empty if all is well."""
    errors = sorted(
        validator(name).iter_errors(data), key=lambda e: (list(map(str, e.path)), e.message)
    )
    return [f"{error.json_path}: {_short(error.message)}" for error in errors]


def _short(message: str) -> str:
    return message if len(message) <= 200 else f"{message[:100]} ... {message[-90:]}"
