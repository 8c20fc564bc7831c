"""Say what each column of a tidy table is: its type, unit and meaning, as the records have them."""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import inspect
import re
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from llm_energy.records import Metrics
from llm_energy.records.registry.metrics import METRICS

Kind = Literal["string", "integer", "number", "boolean"]
KINDS: dict[type, Kind] = {str: "string", int: "integer", float: "number", bool: "boolean"}
UNITS = {"_per_s": "1/s", "_s": "s", "_j": "J", "_w": "W", "_percent": "%"}
SENTENCES = ("assumptions", "model_notes", "notes", "excluded", "left_out", "differs")


@dataclass(frozen=True)
class Column:
    """One column: its ``kind`` as Frictionless names it, and all that it may hold, in order.

    Without ``categories`` it may hold anything of its kind; null is allowed everywhere. ``part``
    is which statistic over repeats it is of what it means.
    """

    name: str
    kind: Kind
    meaning: str
    unit: str = ""
    categories: tuple[str, ...] = ()
    part: Column | None = None


def columns_of(
    record: type,
    orders: Mapping[str, tuple[str, ...]],
    leave: Iterable[str] = (),
    prefix: str = "",
    columnar: bool = False,
) -> list[Column]:
    """Return a column for each field of a class of records, but for those to ``leave`` out.

    ``orders`` has the categories of columns that the sweep decides, by the names of fields. The
    fields of a ``columnar`` record are lists of what the column holds.
    """
    hints = typing.get_type_hints(record)
    if columnar:
        hints = {name: typing.get_args(hint)[0] for name, hint in hints.items()}
    return [
        Column(
            prefix + field.name,
            kind_of(hints[field.name]),
            meaning(record, field.name),
            unit(field.name),
            orders.get(field.name) or choices(hints[field.name]),
        )
        for field in dataclasses.fields(record)
        if field.name not in leave
    ]


def kind_of(hint: Any) -> Kind:
    """Return the type of a column: a list of anything is one text.

    >>> kind_of(int | None), kind_of(tuple[int, int]), kind_of(Literal["a"] | None)
    ('integer', 'string', 'string')
    """
    found = {KINDS[one] for one in _options(hint) if one in KINDS}
    return found.pop() if len(found) == 1 else "string"


def choices(hint: Any) -> tuple[str, ...]:
    """Return what a field may hold where its type lists it.

    >>> choices(Literal["a", "b"] | Literal["c"] | None), choices(str)
    (('a', 'b', 'c'), ())
    """
    options = _options(hint)
    return sum((typing.get_args(o) for o in options if typing.get_origin(o) is Literal), ())


def _options(hint: Any) -> tuple[Any, ...]:
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if union else (hint,)


def unit(name: str) -> str:
    """Return the unit of a quantity: the metric's own, or what the end of its name says.

    >>> unit("ttft_s"), unit("energy_per_request_j"), unit("arrival_s"), unit("cell")
    ('s', 'J/request', 's', '')
    """
    if name in METRICS:
        return METRICS[name].unit
    return next((found for end, found in UNITS.items() if name.endswith(end)), "")


def meaning(record: type, name: str) -> str:
    """Say what a field is: the metric in words, and what the record's docstring says of it.

    What a record says nothing of, such as its cell, is as in a window's metrics.
    """
    known = METRICS.get(name)
    words = [f"{known.label}."] if known else []
    told = [[s for s, names in _sentences(r) if _names(names, name)] for r in (record, Metrics)]
    return " ".join([*words, *next(filter(None, told), [])])


@functools.cache
def _sentences(record: type) -> list[tuple[str, tuple[str, ...]]]:
    """Return the sentences of a docstring, each with the names that it marks as code."""
    text = " ".join((inspect.getdoc(record) or "").split())
    found = re.split(r"(?<=\.)\s+(?=[A-Z`])", text)
    return [(s.replace("``", "`"), tuple(re.findall(r"``([^`]+)``", s))) for s in found]


def _names(patterns: tuple[str, ...], name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def value_of(record: Any, name: str) -> Any:
    """Return a field as a cell of a table: a list as one text, and what is empty as None."""
    value = getattr(record, name)
    if isinstance(value, tuple):
        value = ("; " if name in SENTENCES else " ").join(map(_text, value))
    return None if value == "" else value


def _text(value: Any) -> str:
    """Return an entry of a list as text.

    >>> _text((3, "failed")), _text(3)
    ('3: failed', '3')
    """
    if dataclasses.is_dataclass(value):
        value = tuple(vars(value).values())
    if isinstance(value, tuple):
        first, *others = map(str, value)
        return f"{first}: {' | '.join(others)}"
    return str(value)
