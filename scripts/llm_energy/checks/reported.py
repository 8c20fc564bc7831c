"""Read what engines report about themselves: a value of the kind that is meant, or nothing.

Reports are free-form, and older ones lack keys: a check that asks here for one that is not there
says nothing, and never fails.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from llm_energy.checks.catalogue import Case

EXAMPLES = 5


def number(report: Mapping[str, Any], name: str) -> float | None:
    """Give a finite number, not a truth value.

    >>> number({"steps": 3}, "steps"), number({"steps": True}, "steps"), number({}, "steps")
    (3, None, None)
    """
    value = report.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if math.isfinite(value) else None


def mapping(report: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Give a mapping, empty where there is none."""
    value = report.get(name)
    return value if isinstance(value, Mapping) else {}


def integers(report: Mapping[str, Any], name: str) -> tuple[int, ...]:
    """Give a list of integers, empty where there is none."""
    value = report.get(name)
    if not isinstance(value, (list, tuple)):
        return ()
    return tuple(v for v in value if isinstance(v, int))


def scalar(value: Any) -> bool:
    """Say whether a value can stand in evidence as it is."""
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, (bool, int, str))


def some(found: Mapping[str, Any]) -> dict[str, Any]:
    """Keep a few examples, so that evidence stays readable."""
    return dict(list(found.items())[:EXAMPLES])


def finite(values: Sequence[float]) -> bool:
    """Say whether all values are finite."""
    return all(map(math.isfinite, values))


def is_continuous(case: Case) -> bool:
    """Say whether requests join and leave the batch while it runs; the engine knows best."""
    reported = mapping(case.window.effective, "batching").get("strategy")
    return (reported or case.workload.parameters["batching"]["strategy"]) == "continuous"


def in_flight(case: Case) -> int:
    """Give the most requests that can have been served together."""
    batching = mapping(case.window.effective, "batching")
    largest = max(integers(batching, "batch_sizes"), default=0)
    limit = number(batching, "max_requests_in_flight")
    # A request of timed traffic may come again before its first answer is complete.
    asked = case.workload.requests if case.window.traffic is None else math.inf
    if largest or limit:
        return max(1, int(min(largest or limit, asked)))
    # A dynamic batch is filled up to its budget of tokens, whatever the batch size.
    dynamic = case.workload.parameters["batching"]["strategy"] == "dynamic"
    size = case.workload.batch_size
    return max(1, case.workload.requests if dynamic else int(min(size, asked)))
