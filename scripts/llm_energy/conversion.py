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
MOST_SHAPES = 1000  # that are remembered of one kind of record


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
        return lambda value: value
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
    """Give the Python types that a kind allows where its values need no conversion, else None."""
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
    item = _converter(kind)

    def convert(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _Mismatch(f"found {type(value).__name__}, allowed a mapping")
        if kind is Any:
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

    Records of one kind come in few shapes: the same keys, with values of the same types. Whether a
    shape is allowed, and which of its values need a converter of their own, is found out once. And
    a record gets its fields at once: through its own ``__init__``, which sets each by itself,
    reading ten thousand measurements would take much longer.
    """
    shapes: dict[tuple[Any, ...], _Shape] = {}
    fields = _Fields.of(kind)
    check = getattr(kind, "__post_init__", None)

    def convert(value: Any) -> Any:
        if not isinstance(value, dict):
            raise _Mismatch(f"found {type(value).__name__}, allowed a mapping")
        key = (*value, *map(type, value.values()))
        shape = shapes.get(key)
        if shape is None:
            shape = fields.shape(value)
            if len(shapes) < MOST_SHAPES:
                shapes[key] = shape
        found, name = {**fields.blank, **value}, ""
        for name, make in shape.absent:
            found[name] = make()
        try:
            for name, item in shape.items:
                found[name] = item(value[name])
        except _Mismatch as mismatch:
            mismatch.path.append(f".{name}")
            raise
        record = object.__new__(kind)
        record.__dict__.update(found)
        if check is not None:
            try:
                check(record)
            except RecordError as error:
                raise _Mismatch(str(error)) from None
        return record

    return convert


@dataclasses.dataclass(frozen=True)
class _Shape:
    """What is left to do for a mapping whose keys and scalars are known to be right."""

    items: tuple[tuple[str, Converter], ...]
    absent: tuple[tuple[str, Callable[[], Any]], ...]


@dataclasses.dataclass(frozen=True)
class _Fields:
    """The fields of a kind of record; ``blank`` has the plain defaults, ``made`` makes the others.

    ``scalars`` are the types that a field takes as they are, empty where it needs its converter.
    """

    items: dict[str, Converter]
    scalars: dict[str, frozenset[type]]
    blank: dict[str, Any]
    made: dict[str, Callable[[], Any]]
    required: frozenset[str]

    @classmethod
    def of(cls, kind: Any) -> _Fields:
        """Read them off a dataclass."""
        hints = typing.get_type_hints(kind)
        fields, missing = dataclasses.fields(kind), dataclasses.MISSING
        made = {f.name: f.default_factory for f in fields if f.default_factory is not missing}
        return cls(
            items={name: _converter(hint) for name, hint in hints.items()},
            scalars={name: _scalar_types(hint) or frozenset() for name, hint in hints.items()},
            blank={f.name: None if f.default is missing else f.default for f in fields},
            made=made,
            required=frozenset(
                f.name for f in fields if f.default is missing and f.name not in made
            ),
        )

    def shape(self, value: dict[str, Any]) -> _Shape:
        """Check the keys of a mapping and its scalars, and give what is left to do."""
        if not self.required <= value.keys() <= self.items.keys():
            raise _Mismatch(self._wrong_keys(value))
        left = {n: self.items[n] for n, one in value.items() if type(one) not in self.scalars[n]}
        absent = {name: make for name, make in self.made.items() if name not in value}
        return _Shape(tuple(left.items()), tuple(absent.items()))

    def _wrong_keys(self, value: dict[str, Any]) -> str:
        unknown = [name for name in value if name not in self.items]
        if unknown:
            return f"unknown key {unknown[0]!r}, allowed {', '.join(self.items)}"
        return f"missing key {next(n for n in self.items if n in self.required - value.keys())!r}"
