"""Turn records into JSON values and back, checking every value against its declared type."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from llm_energy.core.errors import RecordError

Record = TypeVar("Record")
# Metadata of a field that is written only where it says something else than its default, so that
# records without it keep their bytes and their hashes.
ONLY_WHERE_SET = {"only_where_set": True}


def to_dict(record: Any) -> Any:
    """Turn a record into plain JSON values, nested records included."""
    if dataclasses.is_dataclass(record):
        found = {f.name: to_dict(getattr(record, f.name)) for f in dataclasses.fields(record)}
        for name, default in _defaults_left_out(type(record)):
            if found[name] == default:
                del found[name]
        return found
    if isinstance(record, (list, tuple)):
        return [to_dict(item) for item in record]
    if isinstance(record, dict):
        return {key: to_dict(value) for key, value in record.items()}
    return record


@functools.cache
def _defaults_left_out(kind: type) -> tuple[tuple[str, Any], ...]:
    """Return the fields of a class that are written only where set, with their defaults."""
    return tuple(
        (field.name, _default(field))
        for field in dataclasses.fields(kind)
        if field.metadata.get("only_where_set")
    )


def _default(field: dataclasses.Field) -> Any:
    made = field.default_factory is not dataclasses.MISSING
    return field.default_factory() if made else field.default


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

_SCALARS: dict[Any, frozenset[type]] = {
    str: frozenset({str}),
    int: frozenset({int}),
    float: frozenset({float, int}),
    bool: frozenset({bool}),
    types.NoneType: frozenset({types.NoneType}),
}


@functools.cache
def _converter(kind: Any) -> Converter:
    """Make, once a type, the function that checks and converts a JSON value of that type."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return _same
    if dataclasses.is_dataclass(kind):
        return _dataclass_converter(kind)
    if origin in (typing.Union, types.UnionType):
        return _union_converter(kind, arguments)
    if origin is Literal:
        return _literal_converter(arguments)
    if origin is tuple and arguments[-1] is Ellipsis:
        return _list_converter(arguments[0])
    if origin is tuple:
        return _pair_converter(arguments)
    if origin is dict:
        return _mapping_converter(arguments[1])
    return _scalar_converter(kind)


def _scalar_types(kind: Any) -> frozenset[type] | None:
    """Return the Python types that a kind allows where its values need no conversion, else None."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        allowed = [_scalar_types(one) for one in typing.get_args(kind)]
        return None if None in allowed else frozenset().union(*allowed)
    try:
        return _SCALARS.get(kind)
    except TypeError:  # not hashable
        return None


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


def _union_converter(whole: Any, kinds: tuple[Any, ...]) -> Converter:
    """Take the first kind that fits; where none does, the first one's complaint is reported."""
    nullable, scalars = types.NoneType in kinds, _scalar_types(whole) or frozenset()
    converters = [_converter(kind) for kind in kinds if kind is not types.NoneType]

    def convert(value: Any) -> Any:
        if type(value) in scalars or (value is None and nullable):
            return value
        first: _Mismatch | None = None
        for converter in converters:
            try:
                return converter(value)
            except _Mismatch as mismatch:
                first = first or mismatch
        raise first or _Mismatch(f"found {value!r}")

    return convert


def _list_converter(kind: Any) -> Converter:
    item, scalars = _converter(kind), _scalar_types(kind)

    def convert(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)):
            raise _Mismatch(f"found {type(value).__name__}, allowed a list")
        if scalars and scalars.issuperset(map(type, value)):
            return tuple(value)  # long columns of numbers are most of a measurement
        return _each(value, item)

    return convert


def _each(values: list[Any] | tuple[Any, ...], item: Converter) -> tuple[Any, ...]:
    found: list[Any] = []
    try:
        for one in values:
            found.append(item(one))  # its length says where it broke off
    except _Mismatch as mismatch:
        mismatch.path.append(f"[{len(found)}]")
        raise
    return tuple(found)


def _pair_converter(kinds: tuple[Any, ...]) -> Converter:
    items = [_converter(kind) for kind in kinds]
    scalars = _scalar_types(kinds[0]) if len(set(kinds)) == 1 else None

    def convert(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)) or len(value) != len(items):
            raise _Mismatch(f"found {value!r}, allowed a list of {len(items)}")
        if scalars and scalars.issuperset(map(type, value)):
            return tuple(value)
        which = iter(items)
        return _each(value, lambda one: next(which)(one))

    return convert


def _mapping_converter(kind: Any) -> Converter:
    item, scalars = _converter(kind), _scalar_types(kind)

    def convert(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _Mismatch(f"found {type(value).__name__}, allowed a mapping")
        if kind is Any or (scalars and scalars.issuperset(map(type, value.values()))):
            return dict(value)
        found, key = {}, ""
        try:
            for key, one in value.items():
                found[key] = item(one)
        except _Mismatch as mismatch:
            mismatch.path.append(f".{key}")
            raise
        return found

    return convert


def _dataclass_converter(kind: Any) -> Converter:
    """Convert a mapping to a record.

    A record's fields are set in one pass over the mapping: through its own ``__init__``, which sets
    each by itself, reading ten thousand measurements would take much longer.
    """
    declared = typing.get_type_hints(kind)
    hints = {field.name: declared[field.name] for field in dataclasses.fields(kind)}
    items = {name: _converter(hint) for name, hint in hints.items()}
    steps = [(name, _scalar_types(hint) or (), items[name]) for name, hint in hints.items()]
    check = getattr(kind, "__post_init__", None)

    def convert(value: Any) -> Any:
        if not isinstance(value, dict):
            raise _Mismatch(f"found {type(value).__name__}, allowed a mapping")
        todo = steps
        if len(value) != len(steps):
            absent = _absent(kind, value)
            value = value | absent
            todo = [(name, types, _same if name in absent else i) for name, types, i in steps]
        record, name = object.__new__(kind), ""
        own = record.__dict__
        try:
            for name, scalars, item in todo:
                one = value[name]
                own[name] = one if type(one) in scalars else item(one)
        except _Mismatch as mismatch:
            mismatch.path.append(f".{name}")
            raise
        except KeyError:  # as many keys as there are fields, but others
            _absent(kind, value)
            raise
        if check is not None:
            try:
                check(record)
            except RecordError as error:
                raise _Mismatch(str(error)) from None
        return record

    return convert


def _same(value: Any) -> Any:
    return value


def _absent(kind: Any, value: dict[str, Any]) -> dict[str, Any]:
    """Return the defaults of what a mapping lacks, or say which key it lacks or has besides."""
    fields, missing = dataclasses.fields(kind), dataclasses.MISSING
    names = [field.name for field in fields]
    if unknown := [name for name in value if name not in names]:
        raise _Mismatch(f"unknown key {unknown[0]!r}, allowed {', '.join(names)}")
    found = {}
    for field in fields:
        if field.name in value:
            continue
        if field.default is missing and field.default_factory is missing:
            raise _Mismatch(f"missing key {field.name!r}")
        found[field.name] = _default(field)
    return found
