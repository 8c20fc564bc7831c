"""What is written down of TensorRT-LLM is what its package has, and all that the backend uses.

In an environment that has TensorRT-LLM the file is held against the package, else against the
stand-in that is made from it. Each single change of the one or the other must be seen.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Iterator
from typing import Any

import pytest
from support import fake_tensorrt, tensorrt_contract
from support.tensorrt_contract import differences, spell

from llm_energy.core.files import sha256_json

CONTRACT = tensorrt_contract.load()
STAND_IN = fake_tensorrt.build(CONTRACT)
REAL = importlib.util.find_spec("tensorrt_llm") is not None
# The names, types and defaults that were read in the sources. Where a source says
# otherwise, correct the file, see what the backend does with it, and then this.
READ = "dd6c0573b8f09898901a2b17e1e754931925fdf8624a7b1eaf00c16a834b1004"


def entries(contract: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Return every group of arguments or attributes with its path."""
    for path, kind in contract["classes"].items():
        for group in ("arguments", "attributes"):
            yield (path, group), kind.get(group, {})
        for name, method in kind.get("methods", {}).items():
            yield (path, "methods", name, "arguments"), method["arguments"]


ARGUMENTS = [
    (*path, name) for path, group in entries(CONTRACT) if path[-1] == "arguments" for name in group
]
ATTRIBUTES = [
    (*p, name) for p, group in entries(CONTRACT) if p[-1] == "attributes" for name in group
]
METHODS = [
    (path, "methods", name)
    for path, kind in CONTRACT["classes"].items()
    for name in kind.get("methods", {})
]


def changed(path: tuple[str, ...], change: str) -> dict[str, Any]:
    """Return a copy of the file with one entry renamed, removed, or of another default or type."""
    contract = copy.deepcopy(CONTRACT)  # which also parts what YAML anchors share
    holder: Any = contract["classes"]
    for key in path[:-1]:
        holder = holder[key]
    name = path[-1]
    if change == "renamed":
        renamed = {f"{name}_2" if key == name else key: value for key, value in holder.items()}
        holder.clear()
        holder.update(renamed)
    elif change == "removed":
        del holder[name]
    elif change == "another type":
        holder[name] = {**holder[name], "type": "SomethingElse"}
    else:
        kept = {key: value for key, value in holder[name].items() if key != "factory"}
        holder[name] = kept | {"default": "another"}
    return contract


def entry_at(path: tuple[str, ...]) -> dict[str, Any]:
    """Return one entry of the file."""
    entry: Any = CONTRACT["classes"]
    for key in path:
        entry = entry[key]
    return entry


def identifiers(paths: list[tuple[str, ...]]) -> list[str]:
    """Return the paths as names of tests."""
    return [".".join((path[0].rpartition("tensorrt_llm.")[2], *path[2:])) for path in paths]


def against(contract: dict[str, Any], package: dict[str, Any] | None = None) -> list[str]:
    """Hold one file against the stand-in that another makes, or that the real one makes."""
    modules = fake_tensorrt.build(package) if package else STAND_IN

    def find(path: str) -> Any:
        place, _, name = path.rpartition(".")
        return getattr(modules[place], name)

    return differences(contract, find)


def digest(contract: dict[str, Any]) -> str:
    """Return the hash of all names, types and defaults."""
    return sha256_json(
        {
            ".".join(path): {
                name: [spell(entry["type"]), entry.get("factory"), entry.get("default", "none")]
                for name, entry in group.items()
            }
            for path, group in entries(contract)
        }
    )


def test_the_file_is_what_the_package_has() -> None:
    found = differences(CONTRACT) if REAL else against(CONTRACT)
    assert found == [], "\n".join(found)


def test_the_file_is_what_was_read_in_the_sources() -> None:
    assert digest(CONTRACT) == READ


def test_every_entry_has_its_source() -> None:
    used = set()
    for path, kind in CONTRACT["classes"].items():
        assert kind["source"] in CONTRACT["sources"], path
        used |= {kind["source"]}
        for group in ("methods", "attributes"):
            for entry in kind.get(group, {}).values():
                used |= {entry["source"]} if "source" in entry else set()
        used |= {kind.get("asynchronous", kind)["source"]}
    used |= {mapping["source"] for mapping in CONTRACT["mappings"].values()}
    assert used == set(CONTRACT["sources"])
    for about in CONTRACT["sources"].values():
        assert about["url"].startswith("https://")
        assert about["title"]


def test_every_entry_says_why_it_is_there() -> None:
    for path, group in entries(CONTRACT):
        allowed = {"read"} if path[-1] == "attributes" else {"passed", "default", "read"}
        for name, entry in group.items():
            assert entry["use"] in allowed, (path, name)
            assert not (entry["use"] in ("default", "read") and path[-1] == "arguments") or (
                "default" in entry or "factory" in entry
            ), (path, name)


CHANGES = ("renamed", "removed", "another default", "another type")


@pytest.mark.parametrize("path", ARGUMENTS, ids=identifiers(ARGUMENTS))
def test_a_changed_argument_is_seen_in_the_file(path: tuple[str, ...]) -> None:
    for change in CHANGES:
        mutated = changed(path, change)
        assert digest(mutated) != READ, change
        compared = change != "another type" or entry_at(path)["type"] != "any"
        assert change == "removed" or not compared or against(mutated), change


@pytest.mark.parametrize("path", ARGUMENTS, ids=identifiers(ARGUMENTS))
def test_a_changed_argument_is_seen_in_the_package(path: tuple[str, ...]) -> None:
    for change in CHANGES[:3]:
        assert against(CONTRACT, changed(path, change)), change


@pytest.mark.parametrize("path", [*ATTRIBUTES, *METHODS], ids=identifiers([*ATTRIBUTES, *METHODS]))
def test_a_changed_attribute_or_method_is_seen(path: tuple[str, ...]) -> None:
    for change in CHANGES[:2]:
        mutated = changed(path, change)
        assert digest(mutated) != READ, change
        assert against(CONTRACT, mutated), change
    assert against(changed(path, "renamed"))


def test_a_missing_class_and_another_version_are_seen() -> None:
    without = copy.deepcopy(CONTRACT)
    del without["classes"]["tensorrt_llm.SamplingParams"]
    assert any("SamplingParams" in problem for problem in against(CONTRACT, without))
    later = CONTRACT | {"version": "1.4.0"}
    assert against(CONTRACT, later) == [
        "version: 1.3.0rc26 is written down, 1.4.0+stand.in is there"
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Optional[List[int]]", "list[int] | None"),
        ("Union[str, pathlib.Path, NoneType]", str | None),
        ("Literal['b', 'a']", "Literal['a', 'b']"),
        ("tensorrt_llm.llmapi.llm_args.KvCacheConfig", "KvCacheConfig"),
    ],
)
def test_types_are_compared_however_they_are_spelled(one: Any, other: Any) -> None:
    same = spell(one) == spell(other)
    assert same or "str" in spell(one)
    assert spell(one) != spell("dict")
