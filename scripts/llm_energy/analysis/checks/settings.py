"""Tell what was passed to an engine from what it used, whatever way each of them is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_energy.analysis.evidence.windows import scalar

# What a sampling argument is where it asks for nothing; engines write that in several ways.
NEUTRAL = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
# What has no effect on the most likely token.
ONLY_SAMPLING = frozenset({"temperature", "top_p", "top_k", "min_p", "do_sample", "seed"})
# Judged by checks of their own, in other forms than they are passed in.
ELSEWHERE = frozenset({"dtype", "quantization", "device_map", "tp_plan", "kv_cache_dtype"})
LEFT_TO_THE_ENGINE = (None, "auto", -1)


def greedy(arguments: Mapping[str, Any]) -> bool:
    """Return whether generation arguments ask for the most likely token each time.

    >>> greedy({"temperature": 0.0}), greedy({"do_sample": False}), greedy({"top_k": 1})
    (True, True, True)
    >>> greedy({"do_sample": True, "temperature": 1.0})
    False
    """
    return (
        arguments.get("do_sample") is False
        or arguments.get("temperature") == 0
        or arguments.get("top_k") == 1
    )


def load_differences(passed: Mapping[str, Any], used: Mapping[str, Any]) -> dict[str, Any]:
    """Return the load arguments that the engine reports otherwise, by name, with both values."""
    wrong = {}
    for name in passed.keys() & used.keys() - ELSEWHERE:
        value = passed[name]
        if not (scalar(value) and scalar(used[name])) or value in LEFT_TO_THE_ENGINE:
            continue
        if value != used[name]:
            wrong[name] = {"passed": value, "used": used[name]}
    return dict(sorted(wrong.items()))


def generation_differences(passed: Mapping[str, Any], used: Mapping[str, Any]) -> dict[str, Any]:
    """Return the generation arguments that the engine reports otherwise, by name, with both values.

    One that was not passed must be neutral; under greedy decoding none that only sampling reads
    counts.
    """
    if greedy(passed) != _reports_greedy(passed, used):
        spelled = ("do_sample", "temperature", "top_k")
        return {
            "greedy": {
                "passed": {name: passed[name] for name in spelled if name in passed},
                "used": {n: used[n] for n in spelled if n in used and scalar(used[n])},
            }
        }
    wrong = {}
    for name in sorted(used.keys() & (passed.keys() | NEUTRAL.keys())):
        if greedy(passed) and name in ONLY_SAMPLING:
            continue
        before, after = (_plain(name, values.get(name)) for values in (passed, used))
        if scalar(before) and scalar(after) and before != after:
            wrong[name] = {"passed": before, "used": after}
    return wrong


def _reports_greedy(passed: Mapping[str, Any], used: Mapping[str, Any]) -> bool:
    """Say the same of what is reported; an engine that reports none of it is believed."""
    told = any(used.get(name) is not None for name in ("do_sample", "temperature"))
    return greedy(used) if told else greedy(passed)


def _plain(name: str, value: Any) -> Any:
    """Return a value in one spelling: a filter or penalty that is off by its neutral value."""
    if value is None or (name == "top_k" and value == -1):
        return NEUTRAL.get(name, value)
    return value
