"""Put what is wrong with a sweep config into words: file, line, key, found, allowed, remedy."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import ValidationError

from llm_energy.plan.config.schema import keys, rule, schema

Key = tuple[str | int, ...]
Problem = tuple[Key, str]  # where in the config, and the sentence about it


# what the schema finds


def _is_finite(checker: Any, value: Any) -> bool:
    """Accept finite numbers only: `.nan` would pass every limit."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and (isinstance(value, int) or math.isfinite(value))


_Validator = validators.extend(
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine("number", _is_finite),
)


def schema_problems(config: Any) -> list[Problem]:
    """Check a config against the schema; give every mistake, none twice."""
    problems: dict[Problem, None] = {}
    for error in _Validator(schema()).iter_errors(config):
        path = tuple(error.absolute_path)
        for below, sentence in _sentences(error, path):
            problems[path + below, sentence] = None
    return list(problems)


def _sentences(error: ValidationError, path: Key) -> Iterator[tuple[Key, str]]:
    """Put one schema error into words, one sentence for each key that it is about."""
    if error.validator == "additionalProperties":
        level = rule(error.schema)
        for key in error.instance:
            if key not in level["properties"]:
                yield (key,), _unknown_key(str(key), level, path)
    elif error.validator == "required":
        for key in error.validator_value:
            if key not in error.instance:
                wanted = rule(error.schema["properties"][key])
                yield (key,), f"missing, allowed {allowed(wanted)}; add the key"
    elif error.validator == "anyOf":  # the only one stands at the top
        yield (
            ("models",),
            "missing, allowed a list with at least one entry; name the models, or one model "
            "with 'model_name'",
        )
    else:
        wanted = allowed(error.schema, far_limits=error.validator == "maximum")
        yield (), f"found {found(error.instance)}, allowed {wanted}{_remedy(error)}"


def _unknown_key(key: str, level: dict[str, Any], path: Key) -> str:
    """Say what an unknown key was probably meant to be: one of its level, or one from elsewhere."""
    names = list(level["properties"])
    sentence = f"unknown key, allowed {', '.join(names)}"
    here = dotted(path) + "." if path else ""
    elsewhere = [here + k for k, _ in keys(level) if k.rsplit(".", 1)[-1] == key]
    elsewhere += [k for k, _ in keys() if k.rsplit(".", 1)[-1] == key]
    if elsewhere:
        return f"{sentence}; the key '{key}' belongs at '{elsewhere[0]}'"
    return sentence + did_you_mean(key, names)


def _remedy(error: ValidationError) -> str:
    value, wanted = error.instance, rule(error.schema)
    if error.validator == "enum" and isinstance(value, str):
        return did_you_mean(value, wanted["enum"])
    if error.validator != "type":
        return ""
    if value is None:
        return "; fill it in or remove the key"
    if wanted["type"] == "array":
        return "; write each entry on a line of its own after '- '"
    if "string" in wanted["type"] and isinstance(value, (int, float)):
        return "; put it in quotes"
    return ""


# What is meant by a word whose letters are closer to those of another choice.
_MEANT = {"gpu": "cuda"}


def did_you_mean(word: str, choices: Sequence[Any], cutoff: float = 0.55) -> str:
    """Return the ending of a sentence that names the closest choice, or nothing if none is close.

    >>> did_you_mean("pytroch", ["pytorch", "vllm"])
    "; did you mean 'pytorch'?"
    >>> did_you_mean("GPU", ["auto", "cpu", "cuda"])
    "; did you mean 'cuda'?"
    """
    names = {choice.lower(): choice for choice in choices if isinstance(choice, str)}
    meant = _MEANT.get(word.lower())
    if meant in names:
        close = [meant]
    else:
        close = difflib.get_close_matches(word.lower(), names, n=1, cutoff=cutoff)
    return f"; did you mean '{names[close[0]]}'?" if close else ""


# words for values, rules and places


def found(value: Any) -> str:
    """Name a value as a reader of YAML would."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def allowed(subschema: dict[str, Any], far_limits: bool = False) -> str:
    """Name what a rule allows; limits that only bound the absurd are left out unless asked for.

    >>> allowed({"type": "integer", "minimum": 1})
    'an integer >= 1'
    """
    wanted = rule(subschema)
    if "x-allowed" in wanted:
        return wanted["x-allowed"].strip()
    if "enum" in wanted:
        return ", ".join(map(str, wanted["enum"]))
    types = wanted.get("type", ())
    words = [_TYPE_WORDS[t] for t in ([types] if isinstance(types, str) else types)]
    limits = [
        f"{sign} {wanted[limit]}"
        for limit, sign in _LIMITS.items()
        if limit in wanted and (far_limits or wanted[limit] < FAR)
    ]
    if limits:
        words[0] += " " + " and ".join(limits)
    if wanted.get("minItems"):
        words[0] += " with at least one entry"
    if wanted.get("minLength"):
        words[0] = "a non-empty string"
    return " or ".join(words)


_TYPE_WORDS = {
    "object": "a mapping",
    "array": "a list",
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}
FAR = 10_000
MOST_LINES = 100
_LIMITS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<="}


def dotted(path: Key) -> str:
    """Write a path as a reader would.

    >>> dotted(("workloads", 0, "batching", "batch_size"))
    'workloads[0].batching.batch_size'
    """
    text = ""
    for key in path:
        if isinstance(key, int) and text:
            text += f"[{key}]"
        else:
            plain = re.fullmatch(r"[\w.-]+", str(key))
            text += ("." if text else "") + (str(key) if plain else repr(key))
    return text


class Places:
    """Where each key of a merged config stands; what is in no file came from the command line."""

    def __init__(self, config: dict[str, Any], files: Sequence[str | Path]):
        self.config = config
        self.files: list[tuple[str, yaml.Node, Any]] = []
        self.doubled: list[tuple[tuple[int, int], str]] = []
        for file in files:
            try:
                text = Path(file).read_text(encoding="utf-8")
                node, data = yaml.compose(text, yaml.SafeLoader), yaml.safe_load(text)
            except (OSError, ValueError, RecursionError, yaml.YAMLError):
                continue  # whoever merged the files has read it, in a way that we can't
            if isinstance(node, yaml.MappingNode):
                self.files.append((str(file), node, data))
                self._find_doubled(node, set())

    def lines(self, problems: Sequence[Problem]) -> list[str]:
        """Return one line a problem, in the order of the files."""
        found_at = list(self.doubled)
        for path, sentence in problems:
            order, place = self.find(path)
            found_at.append((order, f"{place}: {dotted(path) or 'top level'}: {sentence}"))
        lines = list(dict.fromkeys(line for _, line in sorted(found_at)))
        more = [f"and {len(lines) - MOST_LINES} more"] if len(lines) > MOST_LINES else []
        return lines[:MOST_LINES] + more

    def find(self, path: Key) -> tuple[tuple[int, int], str]:
        """Return a sortable place and its name for a key, or for the level that lacks the key."""
        while path and not _has(self.config, path):
            path = path[:-1]
        for index in reversed(range(len(self.files))):
            name, node, data = self.files[index]
            if not _has(data, path):
                continue
            if path and not _same(_get(data, path), _get(self.config, path)):
                continue
            line = _line(node, path) if path else 1
            return (index, line), f"{name}:{line}"
        return (-1, 0), "--config" if self.files else "config"

    def _find_doubled(self, node: yaml.Node, seen: set[int]) -> None:
        """Note keys that stand twice in one mapping, of which YAML silently drops the first."""
        if id(node) in seen or isinstance(node, yaml.ScalarNode):
            return
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            for item in node.value:
                self._find_doubled(item, seen)
            return
        first: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in first:
                    index, name = len(self.files) - 1, self.files[-1][0]
                    text = (
                        f"found a second time, first at line {first[key.value]}, allowed once; "
                        "remove one of them"
                    )
                    self.doubled.append(
                        ((index, line), f"{name}:{line}: {dotted((key.value,))}: {text}")
                    )
                first.setdefault(key.value, line)
            self._find_doubled(value, seen)


def _has(data: Any, path: Key) -> bool:
    try:
        _get(data, path)
    except (KeyError, IndexError, TypeError):
        return False
    return True


def _get(data: Any, path: Key) -> Any:
    for key in path:
        if not isinstance(data, dict if not isinstance(key, int) else (dict, list)):
            raise KeyError(key)
        data = data[key]
    return data


def _same(ours: Any, merged: Any) -> bool:
    """Return whether a file's value is the merged one; mappings always may be."""
    if isinstance(ours, dict) and isinstance(merged, dict):
        return True
    return ours is merged or repr(ours) == repr(merged) or ours == merged


def _line(node: yaml.Node, path: Key) -> int:
    """Return the line of the deepest part of ``path`` that is written out in the file."""
    line = node.start_mark.line + 1
    for key in path:
        below: yaml.Node | None = None
        if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            below = node.value[key]
            line = below.start_mark.line + 1
        elif isinstance(node, yaml.MappingNode):
            for name, value in node.value:
                if name.value == str(key):
                    below, line = value, name.start_mark.line + 1
        if below is None:
            break
        node = below
    return line
