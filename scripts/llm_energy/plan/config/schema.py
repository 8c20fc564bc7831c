"""Read the sweep config's JSON Schema: its rules for one key, its defaults, and all its keys."""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Iterator
from typing import Any

from llm_energy.core.files import read_yaml
from llm_energy.records.files.paths import ROOT

SCHEMA = ROOT / "workflow" / "schemas" / "config.schema.yaml"


@functools.cache
def schema() -> dict[str, Any]:
    """Read the schema, once a process; callers must not change it."""
    return read_yaml(SCHEMA)


def rule(subschema: dict[str, Any]) -> dict[str, Any]:
    """Return a subschema in one piece: its ``$ref`` replaced, its record form, no shorthand.

    Keys beside a ``$ref`` add to what it refers to, also property by property.
    """
    base: dict[str, Any] = {}
    if "$ref" in subschema:
        base = schema()["$defs"][subschema["$ref"].removeprefix("#/$defs/")]
    elif "else" in subschema:
        base = subschema["else"]
    merged = {**base, **subschema}
    if "properties" in base and "properties" in subschema:
        merged["properties"] = {
            key: {**value, **subschema["properties"].get(key, {})}
            for key, value in base["properties"].items()
        }
    return merged


def coerce(subschema: dict[str, Any], value: Any) -> Any:
    """Copy a config value, with text turned into the number, boolean or null that is wanted there.

    Values inside ``--config`` arrive as text, and YAML reads ``1e-3`` as text. Where a string is
    allowed, text stays text; whatever doesn't fit is left for the schema check.

    >>> coerce({"type": "integer"}, "2"), coerce({"type": "boolean"}, "true")
    (2, True)
    """
    wanted = rule(subschema)
    if isinstance(value, dict):
        properties = wanted.get("properties", {})
        return {
            key: coerce(properties[key], item) if key in properties else item
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [coerce(wanted["items"], v) for v in value] if "items" in wanted else list(value)
    types = wanted.get("type", ())
    types = {types} if isinstance(types, str) else set(types)
    if isinstance(value, str) and types and "string" not in types:
        value = _value_of_text(value.strip(), types)
    if isinstance(value, float) and "integer" in types and value.is_integer():
        return int(value)
    if type(value) is int and "number" in types and abs(value) < 2**53:
        return float(value)  # 30 and 30.0 are the same sweep, so they must give the same spec
    return value


def _value_of_text(text: str, types: set[str]) -> Any:
    if "boolean" in types and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if "null" in types and text.lower() in ("null", "none", "~"):
        return None
    if types & {"integer", "number"} and re.fullmatch(r"[+-]?\d{1,20}", text):
        return int(text)
    if types & {"integer", "number"} and re.fullmatch(
        r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", text
    ):
        return float(text)
    return text


def fill_defaults(subschema: dict[str, Any], value: Any) -> Any:
    """Add the schema's defaults to a valid config value, in place, and give it back."""
    wanted = rule(subschema)
    if isinstance(value, dict):
        for key, below in wanted.get("properties", {}).items():
            if key not in value and "default" in rule(below):
                value[key] = copy.deepcopy(rule(below)["default"])
            if key in value:
                fill_defaults(below, value[key])
    elif isinstance(value, list):
        for item in value:
            fill_defaults(wanted.get("items", {}), item)
    return value


def keys(subschema: dict[str, Any] | None = None, above: str = "") -> Iterator[tuple[str, dict]]:
    """Return every key below a subschema as (dotted path, rule), a level after the one above it.

    >>> [path for path, _ in keys()][:3]
    ['name', 'models', 'backends']
    """
    level = [(above, rule(subschema or schema()))]
    while level:
        below = []
        for prefix, wanted in level:
            if "items" in wanted:
                prefix, wanted = prefix.removesuffix(".") + "[].", rule(wanted["items"])
            for key, value in wanted.get("properties", {}).items():
                yield prefix + key, rule(value)
                below.append((prefix + key + ".", rule(value)))
        level = below
