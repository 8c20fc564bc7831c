"""What checks look at: windows and files as evidence, and what engines report about themselves.

Reports are free-form, and older ones lack keys: a check that asks here for one that is not there
says nothing, and never fails.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from llm_energy.records import Measurement, Window, Workload

EXAMPLES = 5
DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
Pairs = tuple[tuple[str, str], ...]  # names and values, sorted


class Key(NamedTuple):
    """Name one window: a cell, one of its repeats, one of its workloads."""

    cell: str
    repeat: int
    workload: str


@dataclass(frozen=True)
class FileState:
    """What reading one measurement file gave: whether it is there, and what is wrong with it."""

    path: str
    exists: bool
    problem: str | None = None


@dataclass(frozen=True)
class Expected:
    """What the plan's own files say now about one measurement; None where there is no such file.

    ``prompt_tokens`` is, by request id, the number of token ids of the prompts of one workload.
    """

    spec_sha256: str | None = None
    weights_sha256: str | None = None
    parameter_count: int | None = None
    prompts_sha256: str | None = None
    prompt_tokens: dict[str, int] | None = None


@dataclass(frozen=True)
class WindowEvidence:
    """One window with a measured result, the measurement around it, and what should be true now."""

    measurement: Measurement
    window: Window
    expected: Expected = Expected()

    @functools.cached_property
    def workload(self) -> Workload:
        """Return what the window was asked to do."""
        workloads = self.measurement.spec.workloads
        return next(w for w in workloads if w.id == self.window.workload)

    @property
    def forced_output_tokens(self) -> int | None:
        """Return the output length that every request must have, None where it is free."""
        low, high = (self.workload.parameters[f"{m}_output_tokens"] for m in ("min", "max"))
        return high if low == high else None


@dataclass(frozen=True)
class WindowSummary:
    """The little of one window that checks across measurements need; ten thousand are held.

    ``gpus`` are the GPUs whose energy was metered, not all that the host has, ``gpu_state`` how
    they are set up. ``utc`` is when the repeat began, ``order`` the window's place in it, and
    ``temperature_c`` that of its hottest GPU when the window began. The joules per output token
    are gross and measured, None where none were; ``methods`` are those by which each component's
    joules are known.
    """

    key: Key
    model: str
    hostname: str
    boot_id: str | None
    gpus: tuple[str, ...]
    weights_sha256: str
    prompts_sha256: str | None
    arrivals_sha256: str | None
    resampled: bool
    start_s: float
    end_s: float
    utc: str
    order: int
    temperature_c: float | None
    energy_per_output_token_j: float | None
    methods: Pairs
    gpu_state: Pairs
    host_settings: Pairs
    software: Pairs
    git_commit: str | None


@dataclass(frozen=True)
class RepeatCounts:
    """The repeats of one cell and workload that are left, and those planned and not unnecessary."""

    cell: str
    workload: str
    usable: tuple[int, ...]
    planned: tuple[int, ...]


def number(report: Mapping[str, Any], name: str) -> float | None:
    """Return a finite number, not a truth value.

    >>> number({"steps": 3}, "steps"), number({"steps": True}, "steps"), number({}, "steps")
    (3, None, None)
    """
    value = report.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if math.isfinite(value) else None


def mapping(report: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a mapping, empty where there is none."""
    value = report.get(name)
    return value if isinstance(value, Mapping) else {}


def integers(report: Mapping[str, Any], name: str) -> tuple[int, ...]:
    """Return a list of integers, empty where there is none."""
    value = report.get(name)
    if not isinstance(value, (list, tuple)):
        return ()
    return tuple(v for v in value if isinstance(v, int))


def scalar(value: Any) -> bool:
    """Return whether a value can stand in evidence as it is."""
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, (bool, int, str))


def some(found: Mapping[str, Any]) -> dict[str, Any]:
    """Keep a few examples, so that evidence stays readable."""
    return dict(list(found.items())[:EXAMPLES])


def finite(values: Sequence[float]) -> bool:
    """Return whether all values are finite."""
    return all(map(math.isfinite, values))


def is_continuous(case: WindowEvidence) -> bool:
    """Return whether requests join and leave the batch while it runs; the engine knows best."""
    reported = mapping(case.window.effective, "batching").get("strategy")
    return (reported or case.workload.parameters["batching"]["strategy"]) == "continuous"


def in_flight(case: WindowEvidence) -> int:
    """Return the most requests that can have been served together."""
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
