"""A fake TensorRT-LLM, made from tests/support/tensorrt_api.yaml: what that file has, and no more.

An argument that the file does not know, a value of another type, an attribute that is not in it:
each fails, as in the package itself. What its engine does is in fake_tensorrt_engine.py.
Nothing that it measures may enter a table; its version says that it is a stand-in.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib.machinery
import importlib.util
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support import tensorrt_contract
from support.fake_tensorrt_engine import Engine
from support.tensorrt_contract import Contract

PACKAGE = "tensorrt_llm"
# (class, argument) and (class.method, argument), of all that a caller ever passed
PASSED: set[tuple[str, str]] = set()


@contextmanager
def registered(contract: Contract | None = None) -> Iterator[None]:
    """Put the stand-in where ``import tensorrt_llm`` finds it, for as long as the block runs."""
    before = {name: sys.modules.pop(name) for name in _loaded()}
    register(contract)
    try:
        yield
    finally:
        for name in _loaded():
            del sys.modules[name]
        sys.modules.update(before)


def register(contract: Contract | None = None) -> None:
    """Put the stand-in where ``import tensorrt_llm`` finds it; never beside the real one."""
    if importlib.util.find_spec(PACKAGE) is not None:
        raise ImportError(f"there is a {PACKAGE} already")
    for name, module in build(contract or tensorrt_contract.load()).items():
        module.__spec__ = importlib.machinery.ModuleSpec(name, loader=None, is_package=True)
        module.__path__ = []
        sys.modules[name] = module


def _loaded() -> list[str]:
    return [name for name in sys.modules if name.partition(".")[0] == PACKAGE]


def build(contract: Contract) -> dict[str, types.ModuleType]:
    """Make the modules of the package, by name."""
    modules = {PACKAGE: types.ModuleType(PACKAGE)}
    modules[PACKAGE].__version__ = f"{contract['version']}+stand.in"
    for path, cls in _classes(contract).items():
        place, _, name = path.rpartition(".")
        parts = place.split(".")
        for length in range(2, len(parts) + 1):
            inner, outer = ".".join(parts[:length]), ".".join(parts[: length - 1])
            modules.setdefault(inner, types.ModuleType(inner))
            setattr(modules[outer], parts[length - 1], modules[inner])
        setattr(modules[place], name, cls)
    return modules


def _classes(contract: Contract) -> dict[str, type]:
    """Make the classes, those first that others have as their defaults."""
    made: dict[str, type] = {}
    named: dict[str, type] = {}

    def depends(item: tuple[str, dict[str, Any]]) -> int:
        entries = item[1].get("arguments", {}).values()
        return 2 if "rest" in item[1] else any("factory" in entry for entry in entries)

    for path, kind in sorted(contract["classes"].items(), key=depends):
        name = path.rpartition(".")[2]
        if "members" in kind:
            cls: type = enum.Enum(name, {member: member for member in kind["members"]}, type=str)
        elif "rest" in kind:
            cls = _llm_class(kind, made[kind["rest"]], contract, named)
        elif "arguments" in kind:
            cls = _settings_class(name, kind, named)
        else:
            cls = _result_class(name, kind)
        made[path] = cls
        if "rest" not in kind:
            named[name] = cls
    return made


def _settings_class(name: str, kind: dict[str, Any], named: dict[str, type]) -> type:
    """Make a class of named values that takes no others and none of another type."""
    entries, fields = kind["arguments"], []
    for argument, entry in entries.items():
        made = {"default": entry["default"]} if "default" in entry else {}
        if "factory" in entry:
            # One of which nothing is used is not in the file, and so it is empty.
            made = {
                "default_factory": named.get(entry["factory"]) or type(entry["factory"], (), {})
            }
        fields.append((argument, entry["type"], dataclasses.field(**made)))

    def check(self: Any) -> None:
        for argument, entry in entries.items():
            value = getattr(self, argument)
            if "default" not in entry or value != entry["default"]:  # that may be a member's value
                _check(f"{name}.{argument}", value, entry["type"])

    namespace = {"__post_init__": check, **dict.fromkeys(kind.get("attributes", {}))}
    cls = dataclasses.make_dataclass(name, fields, kw_only=True, namespace=namespace)
    plain = cls.__init__

    def noting(self: Any, **given: Any) -> None:
        PASSED.update((name, argument) for argument in given)
        plain(self, **given)

    cls.__init__ = noting
    return cls


def _result_class(name: str, kind: dict[str, Any]) -> type:
    """Make a class that the engine fills; it has the attributes of the file and no others.

    Its ``_run`` is the stand-in engine's side of a request.
    """

    def abort(self: Any) -> None:
        self._run.abort()

    async def following(self: Any) -> Any:
        if not await self._run.advance():
            raise StopAsyncIteration
        return self

    namespace: dict[str, Any] = {"__slots__": (*kind.get("attributes", {}), "_run")}
    if "asynchronous" in kind:
        namespace |= {"__aiter__": lambda self: self, "__anext__": following}
    namespace |= dict.fromkeys(kind.get("methods", {}), abort)
    return type(name, (), namespace)


def _llm_class(
    kind: dict[str, Any], args_class: type, contract: Contract, named: dict[str, type]
) -> type:
    """Make an ``LLM``: what is no argument of its own goes to the class that the file names."""
    signature = _signature(kind["arguments"], rest=True)
    known = {field.name for field in dataclasses.fields(args_class)}

    def start(self: Any, *given: Any, **rest: Any) -> None:
        bound = signature.bind(self, *given, **rest).arguments
        values = {**bound, **bound.get("kwargs", {})}
        values = {n: v for n, v in values.items() if n not in ("self", "kwargs")}
        for argument, value in values.items():
            PASSED.add(("LLM", argument))
            if argument in kind["arguments"]:
                _check(f"LLM.{argument}", value, kind["arguments"][argument]["type"])
            elif argument not in known:
                raise ValueError(f"LLM got invalid argument: {argument}")
        args = args_class(**values)
        for attribute in kind["attributes"]:
            setattr(self, attribute, args)
        self._engine = Engine(args, named, contract["mappings"])

    start.__signature__ = signature
    methods = {name: _method(name, method) for name, method in kind["methods"].items()}
    fields = {"__annotations__": dict.fromkeys(kind["attributes"], Any)}
    return type("LLM", (), {"__init__": start, **methods, **fields})


def _method(name: str, about: dict[str, Any]) -> Callable:
    entries = about["arguments"]
    signature = _signature(entries)

    def method(self: Any, *given: Any, **rest: Any) -> Any:
        bound = signature.bind(self, *given, **rest)
        PASSED.update((f"LLM.{name}", argument) for argument in bound.arguments)
        bound.apply_defaults()
        values = {n: v for n, v in bound.arguments.items() if n != "self"}
        for argument, value in values.items():
            _check(f"{name}.{argument}", value, entries[argument]["type"])
        return getattr(self._engine, name)(**values)

    method.__signature__ = signature
    return method


def _signature(entries: dict[str, Any], rest: bool = False) -> inspect.Signature:
    of = inspect.Parameter
    parameters = [of("self", of.POSITIONAL_OR_KEYWORD)]
    for name, entry in entries.items():
        default, kind = entry.get("default", of.empty), of.POSITIONAL_OR_KEYWORD
        parameters.append(of(name, kind, default=default, annotation=entry["type"]))
    if rest:
        parameters.append(of("kwargs", of.VAR_KEYWORD))
    return inspect.Signature(parameters)


def _check(where: str, value: Any, wanted: str) -> None:
    """Raise TypeError for a value of another type than the file has."""
    names = tensorrt_contract.spell(wanted).split(" | ")
    if wanted != "any" and not any(_is(value, name) for name in names):
        raise TypeError(f"{where} is {value!r}, allowed is {wanted}")


def _is(value: Any, name: str) -> bool:
    if name.startswith("Literal"):
        return isinstance(value, str) and repr(value) in name
    if name.startswith("list["):
        return isinstance(value, list) and all(_is(item, name[5:-1]) for item in value)
    if name in ("bool", "int", "float", "str"):
        kinds = {"bool": bool, "int": int, "float": (int, float), "str": str}
        return isinstance(value, kinds[name]) and isinstance(value, bool) == (name == "bool")
    if name == "Path":
        return isinstance(value, Path)
    return value is None if name == "None" else type(value).__name__ == name
