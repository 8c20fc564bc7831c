"""Turn records into JSON values and back, checking every value against its declared type."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from llm_energy.errors import RecordError

Record = TypeVar("Record")


def to_dict(record: Any) -> Any:
    """Turn a record into plain JSON values, nested records included."""
    if dataclasses.is_dataclass(record):
        return {f.name: to_dict(getattr(record, f.name)) for f in dataclasses.fields(record)}
    if isinstance(record, (list, tuple)):
        return [to_dict(item) for item in record]
    if isinstance(record, dict):
        return {key: to_dict(value) for key, value in record.items()}
    return record


def from_dict(cls: type[Record], data: Any, where: str = "") -> Record:
    """Build a record of type ``cls`` from JSON values.

    Unknown keys, missing keys and values of another type raise a RecordError that names the place.
    """
    try:
        return _converter(cls)(data)
    except _Mismatch as mismatch:
        place = (where or cls.__name__) + "".join(reversed(mismatch.path))
        raise RecordError(f"{place}: {mismatch}") from None


class _Mismatch(Exception):
    """A value that does not fit; ``path`` collects where it stands while the error travels up."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.path: list[str] = []


Converter = Callable[[Any], Any]

_SCALARS: dict[Any, tuple[type, ...]] = {
    str: (str,),
    int: (int,),
    float: (float, int),
    bool: (bool,),
}


@functools.cache
def _converter(kind: Any) -> Converter:
    """Make, once a type, the function that checks and converts a JSON value of that type."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return lambda value: value
    if dataclasses.is_dataclass(kind):
        return _dataclass_converter(kind)
    if origin in (typing.Union, types.UnionType):
        return _union_converter(arguments)
    if origin is Literal:
        return _literal_converter(arguments)
    if origin is tuple and arguments[-1] is Ellipsis:
        return _list_converter(arguments[0])
    if origin is tuple:
        return _pair_converter(arguments)
    if origin is dict:
        return _mapping_converter(arguments[1])
    return _scalar_converter(kind)


def _scalar_converter(kind: type) -> Converter:
    allowed = _SCALARS[kind]

    def convert(value: Any) -> Any:
        if type(value) not in allowed:
            raise _Mismatch(f"found {value!r}, allowed {kind.__name__}")
        return value

    return convert


def _literal_converter(allowed: tuple[Any, ...]) -> Converter:
    def convert(value: Any) -> Any:
        if value not in allowed:
            raise _Mismatch(f"found {value!r}, allowed {', '.join(map(repr, allowed))}")
        return value

    return convert


def _union_converter(kinds: tuple[Any, ...]) -> Converter:
    """Take the first kind that fits; where none does, the first one's complaint is reported."""
    nullable = type(None) in kinds
    converters = [_converter(kind) for kind in kinds if kind is not type(None)]

    def convert(value: Any) -> Any:
        if value is None and nullable:
            return None
        first: _Mismatch | None = None
        for converter in converters:
            try:
                return converter(value)
            except _Mismatch as mismatch:
                first = first or mismatch
        raise first or _Mismatch(f"found {value!r}")

    return convert


def _list_converter(kind: Any) -> Converter:
    item, scalars = _converter(kind), frozenset(_SCALARS.get(kind, ()))

    def convert(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)):
            raise _Mismatch(f"found {type(value).__name__}, allowed a list")
        if scalars and scalars.issuperset(map(type, value)):
            return tuple(value)  # long columns of numbers are most of a measurement
        return tuple(_at(f"[{index}]", item, one) for index, one in enumerate(value))

    return convert


def _pair_converter(kinds: tuple[Any, ...]) -> Converter:
    items = [_converter(kind) for kind in kinds]

    def convert(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)) or len(value) != len(items):
            raise _Mismatch(f"found {value!r}, allowed a list of {len(items)}")
        pairs = enumerate(zip(items, value, strict=True))
        return tuple(_at(f"[{index}]", item, one) for index, (item, one) in pairs)

    return convert


def _mapping_converter(kind: Any) -> Converter:
    item = _converter(kind)

    def convert(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _Mismatch(f"found {type(value).__name__}, allowed a mapping")
        return {key: _at(f".{key}", item, one) for key, one in value.items()}

    return convert


def _dataclass_converter(kind: Any) -> Converter:
    hints = typing.get_type_hints(kind)
    items = {name: _converter(hint) for name, hint in hints.items()}
    required = [
        f.name
        for f in dataclasses.fields(kind)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]

    def convert(value: Any) -> Any:
        if not isinstance(value, dict):
            raise _Mismatch(f"found {type(value).__name__}, allowed a mapping")
        for name in value:
            if name not in items:
                raise _Mismatch(f"unknown key {name!r}, allowed {', '.join(items)}")
        for name in required:
            if name not in value:
                raise _Mismatch(f"missing key {name!r}")
        arguments = {name: _at(f".{name}", items[name], one) for name, one in value.items()}
        try:
            return kind(**arguments)
        except RecordError as error:
            raise _Mismatch(str(error)) from None

    return convert


def _at(place: str, converter: Converter, value: Any) -> Any:
    """Convert ``value``; should that fail, note the place on the way out."""
    try:
        return converter(value)
    except _Mismatch as mismatch:
        mismatch.path.append(place)
        raise
