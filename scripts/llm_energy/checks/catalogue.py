"""What a check is, what it gets to see, and the one list of all checks.

A check is one function with an id, a severity and an advice. It gets what its scope promises and
gives a Finding, or None when all is well:

- ``file``: a FileState -> Finding | None, for each measurement that the plan asks for;
- ``window``: a Case -> Finding | None, for each window with a measured result;
- ``sweep``: a sequence of Traces -> (Trace, Finding) pairs, once over all windows of a backend;
- ``repeats``: a Remaining -> Finding | None, for each cell and workload, after all exclusions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from llm_energy.records import Flag, Measurement, Severity, VerdictWord, Window, Workload

Scope = Literal["file", "window", "sweep", "repeats"]


class Key(NamedTuple):
    """Name one window: a cell, one of its repeats, one of its workloads."""

    cell: str
    repeat: int
    workload: str


@dataclass(frozen=True)
class Finding:
    """What a check found; ``severity`` stands where this case is milder or worse than usual.

    ``evidence`` holds JSON values only, so what is not finite stands there as text.
    """

    evidence: dict[str, Any]
    severity: Severity | None = None


@dataclass(frozen=True)
class FileState:
    """What reading one measurement file gave: whether it is there, and what is wrong with it."""

    path: str
    exists: bool
    problem: str | None = None


@dataclass(frozen=True)
class Current:
    """What the plan's own files say now about one measurement; None where there is no such file.

    ``prompt_tokens`` is, by request id, the number of token ids of the prompts of one workload.
    """

    spec_sha256: str | None = None
    weights_sha256: str | None = None
    parameter_count: int | None = None
    prompts_sha256: str | None = None
    prompt_tokens: dict[str, int] | None = None


@dataclass(frozen=True)
class Case:
    """One window with a measured result, the measurement around it, and what should be true now."""

    measurement: Measurement
    window: Window
    current: Current = Current()

    @property
    def workload(self) -> Workload:
        """Give what the window was asked to do."""
        workloads = self.measurement.spec.workloads
        return next(w for w in workloads if w.id == self.window.workload)

    @property
    def forced_output_tokens(self) -> int | None:
        """Give the output length that every request must have, None where it is free."""
        low, high = (self.workload.parameters[f"{m}_output_tokens"] for m in ("min", "max"))
        return high if low == high else None


@dataclass(frozen=True)
class Trace:
    """The little of one window that checks across measurements need; ten thousand are held.

    ``boards`` are the GPUs whose energy was metered, not all that the host has.
    """

    key: Key
    model: str
    hostname: str
    boot_id: str | None
    boards: tuple[str, ...]
    weights_sha256: str
    prompts_sha256: str | None
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Remaining:
    """The repeats of one cell and workload that are left, and those that were planned."""

    cell: str
    workload: str
    usable: tuple[int, ...]
    planned: tuple[int, ...]


@dataclass(frozen=True)
class Check:
    """One named check; ``title`` says in a few words what is wrong when it finds something."""

    id: str
    group: str
    scope: Scope
    severity: Severity
    title: str
    advice: str
    find: Callable[..., Any]

    def flag(self, finding: Finding) -> Flag:
        """Turn a finding of this check into the flag that a verdict carries."""
        return Flag(self.id, finding.severity or self.severity, finding.evidence, self.advice)


CATALOGUE: dict[str, Check] = {}


def check(
    id: str, scope: Scope, severity: Severity, title: str, advice: str
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enter a function into the catalogue; the file it stands in is its group."""

    def enter(find: Callable[..., Any]) -> Callable[..., Any]:
        if id in CATALOGUE:
            raise ValueError(f"two checks are named {id}")
        group = find.__module__.rpartition(".")[2]
        CATALOGUE[id] = Check(id, group, scope, severity, title, advice, find)
        return find

    return enter


def of_scope(scope: Scope) -> tuple[Check, ...]:
    """Give the checks of one scope, in the order of the catalogue."""
    return tuple(check for check in CATALOGUE.values() if check.scope == scope)


def verdict_word(flags: Iterable[Flag]) -> VerdictWord:
    """Give the verdict that the worst of the flags decides; notes change nothing."""
    severities = {flag.severity for flag in flags}
    if "invalid" in severities:
        return "invalid"
    return "degraded" if "warning" in severities else "valid"


def trace_of(case: Case) -> Trace:
    """Take from a case what checks across measurements need."""
    measurement, window = case.measurement, case.window
    spec = measurement.spec
    metered = [e for e in window.interval.energy if e.component == "gpu" and e.energy_j is not None]
    return Trace(
        key=Key(spec.cell, spec.repeat, window.workload),
        model=spec.model,
        hostname=measurement.host.hostname,
        boot_id=measurement.host.boot_id,
        boards=tuple(sorted({str(part.device) for part in metered})),
        weights_sha256=measurement.weights_sha256,
        prompts_sha256=measurement.prompts_sha256.get(window.workload),
        start_s=window.interval.start_s,
        end_s=window.interval.end_s,
    )
