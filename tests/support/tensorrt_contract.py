"""Compare what the backend uses of TensorRT-LLM, as tensorrt_api.yaml has it, with a package.

    python tests/support/tensorrt_contract.py

prints each difference to the package that is installed, and exits 1 if there is one.
"""

from __future__ import annotations

import builtins
import dataclasses
import enum
import functools
import importlib
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

API = Path(__file__).resolve().with_name("tensorrt_api.yaml")
MISSING = object()
FACTORY = "made by "  # before the name of the class that makes a default

Contract = dict[str, Any]


def load() -> Contract:
    """Read the file."""
    import yaml

    return yaml.safe_load(API.read_text(encoding="utf-8"))


def differences(contract: Contract, find: Callable[[str], Any] | None = None) -> list[str]:
    """List everything that a package has otherwise; ``find`` gives what a dotted path names."""
    find = find or installed
    version = find(f"{contract['package']}.__version__")
    found = []
    if str(version).partition("+")[0] != contract["version"]:
        found.append(f"version: {contract['version']} is written down, {version} is there")
    for path, kind in contract["classes"].items():
        try:
            cls = find(path)
        except (ImportError, AttributeError) as error:
            found.append(f"{path}: there is none ({error})")
            continue
        found += [f"{path}{problem}" for problem in _class(kind, cls)]
    return found


def installed(path: str) -> Any:
    """Return what a dotted path names in the packages that are installed."""
    parts = path.split(".")
    for length in range(len(parts) - 1, 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError as error:
            # A part that is a class is no module; a package that lacks another one is broken.
            if length > 1 and ".".join(parts[:length]).startswith(str(error.name)):
                continue
            raise
        for part in parts[length:]:
            value = getattr(value, part)
        return value
    raise ImportError(path)


def _class(kind: dict[str, Any], cls: type) -> Iterator[str]:
    if "arguments" in kind:
        yield from _arguments(kind["arguments"], arguments(cls))
    for name, method in kind.get("methods", {}).items():
        if not callable(getattr(cls, name, None)):
            yield f".{name}(): there is no such method"
            continue
        has = _of_signature(inspect.signature(getattr(cls, name)))
        yield from (f".{name}(){problem}" for problem in _arguments(method["arguments"], has))
    for name in kind.get("attributes", {}):
        if not _has_attribute(cls, name):
            yield f".{name}: there is no such attribute"
    for name in kind.get("members", ()):
        if name not in cls.__members__:
            yield f".{name}: there is no such member"
    if "asynchronous" in kind and not hasattr(cls, "__aiter__"):
        yield ": it cannot be iterated over asynchronously"


def _arguments(wanted: dict[str, Any], has: dict[str, tuple[Any, Any]]) -> Iterator[str]:
    for name, entry in wanted.items():
        if name not in has:
            yield f" {name}: there is no such argument"
            continue
        annotation, default = has[name]
        if entry["type"] != "any" and spell(entry["type"]) != spell(annotation):
            yield f" {name}: type {entry['type']} is written down, {spell(annotation)} is there"
        expected = entry.get("default", MISSING)
        if "factory" in entry:
            expected = FACTORY + entry["factory"]
        if (type(expected), expected) != (type(default), default):
            yield f" {name}: default {_say(expected)} is written down, {_say(default)} is there"


def _say(default: Any) -> str:
    return "none" if default is MISSING else repr(default)


def arguments(cls: type) -> dict[str, tuple[Any, Any]]:
    """Return annotation and default of all that a class takes, pydantic's or a dataclass's.

    A default that a factory makes is told by the name of what it makes.
    """
    fields = getattr(cls, "model_fields", None)  # pydantic
    if fields:
        return {
            name: (field.annotation, _default(field.default, field.default_factory, cls))
            for name, field in fields.items()
        }
    if dataclasses.is_dataclass(cls):
        return {
            field.name: (field.type, _default(field.default, field.default_factory, cls))
            for field in dataclasses.fields(cls)
            if field.init
        }
    return _of_signature(inspect.signature(cls.__init__))


def _of_signature(signature: inspect.Signature) -> dict[str, tuple[Any, Any]]:
    return {
        name: (p.annotation, MISSING if p.default is p.empty else _plain(p.default))
        for name, p in signature.parameters.items()
        if name != "self" and p.kind is not p.VAR_KEYWORD
    }


def _default(default: Any, factory: Any, cls: type) -> Any:
    if factory not in (None, dataclasses.MISSING):
        return FACTORY + getattr(factory, "__name__", str(factory))
    nothing = default is dataclasses.MISSING or type(default).__name__ == "PydanticUndefinedType"
    return MISSING if nothing else _plain(default)


def _plain(default: Any) -> Any:
    return default.value if isinstance(default, enum.Enum) else default


def _has_attribute(cls: type, name: str) -> bool:
    """Return whether instances have an attribute, also one that only a method of the class sets."""
    if hasattr(cls, name) or name in getattr(cls, "__annotations__", {}):
        return True
    for base in cls.__mro__:
        try:
            if re.search(rf"self\.{name}\b\s*(:|=[^=])", inspect.getsource(base)):
                return True
        except (OSError, TypeError):
            continue
    return False


def spell(annotation: Any) -> str:
    """Write a type in one way, whoever wrote it: modules away, unions in order.

    >>> spell("Optional[List[int]]"), spell(int | None), spell("Union[str, pathlib.Path]")
    ('None | list[int]', 'None | int', 'Path | str')
    """
    return _spell_text(annotation) if isinstance(annotation, str) else _spell_type(annotation)


@functools.cache
def _spell_text(annotation: str) -> str:
    try:
        # Names are looked up in a mapping that knows all of them, so nothing is called.
        return _spell_type(eval(re.sub(r"(?:\w+\.)+(?=\w)", "", annotation), {}, _Names()))
    except (SyntaxError, TypeError):
        return annotation


class _Names(dict):
    """Every name that an annotation may have, each standing for itself."""

    def __missing__(self, name: str) -> Any:
        known = {"NoneType": type(None), "List": list, "Dict": dict, "Tuple": tuple}
        found = known.get(name) or getattr(typing, name, None) or getattr(builtins, name, None)
        return found or type(name, (), {})


def _spell_type(annotation: Any) -> str:
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is None or annotation is type(None):
        return "None"
    if origin is typing.Annotated:
        return _spell_type(inner[0])
    if origin in (typing.Union, types.UnionType):
        return " | ".join(sorted({_spell_type(part) for part in inner}))
    if origin is typing.Literal:
        return f"Literal{sorted(map(str, inner))}"
    if origin is not None:
        return f"{origin.__name__}[{', '.join(map(_spell_type, inner))}]"
    return getattr(annotation, "__name__", str(annotation))


if __name__ == "__main__":
    try:
        problems = differences(load())
    except ImportError as error:
        sys.exit(f"error: TensorRT-LLM is not installed in this environment ({error})")
    print("\n".join(problems) or "What the backend uses is as written down.")
    sys.exit(1 if problems else 0)
