"""What a check is, what it gets to see, and the one list of all checks.

A check is one function with an id, a severity and an advice. It gets what its scope promises and
gives a Finding, or None when all is well:

- ``file``: a FileState -> Finding | None, for each measurement that the plan asks for;
- ``window``: a WindowEvidence -> Finding | None, for each window with a measured result;
- ``host``: a sequence of WindowSummary -> (WindowSummary, Finding) pairs, once over all windows of
  a backend, also those that are invalid already, since they too took up the host;
- ``sweep``: the same without these, since what is wrong with one window says nothing of the others;
- ``repeats``: a RepeatCounts -> Finding | None, for each cell and workload, after all exclusions;
- ``files``: a Repeat -> (workload, Finding) pairs, for what the audit reads anew of one repeat,
  with None for all of its windows;
- ``spans``: a sequence of Spans -> (Span, Finding) pairs, for what the audit compares of a sweep.

A check without the evidence that it needs finds nothing: older measurements hold less. A failure
that no check can see stands in its group's EXPLAINED, with what keeps it out.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from llm_energy.analysis.energy.accounting import sums, work
from llm_energy.analysis.evidence.windows import Expected, Key, Pairs, WindowEvidence, WindowSummary
from llm_energy.records import (
    Flag,
    Host,
    Interval,
    ModelManifest,
    PromptSet,
    Severity,
    VerdictWord,
)

Scope = Literal["file", "window", "host", "sweep", "repeats", "files", "spans"]
# What belongs to how a GPU is set up; the rest of what is recorded of it says what it did.
GPU_SETTINGS = (
    "name",
    "driver_version",
    "vbios",
    "power_limit_w",
    "persistence_mode",
    "ecc_mode",
    "mig_mode",
)


@dataclass(frozen=True)
class Finding:
    """What a check found; ``severity`` stands where this case is milder or worse than usual.

    ``evidence`` holds what JSON can, and numbers that are not finite. By ``bias_bound_percent`` the
    gross energy of the window may be off for it, None where that is not known.
    """

    evidence: dict[str, Any]
    severity: Severity | None = None
    bias_bound_percent: float | None = None


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
        """Turn a finding into the flag that a verdict carries; what is not finite becomes text."""
        evidence = _finite(finding.evidence)
        severity = finding.severity or self.severity
        bound_percent = finding.bias_bound_percent
        return Flag(self.id, severity, evidence, self.advice, self.title, bound_percent)


CATALOGUE: dict[str, Check] = {}
_BY_SCOPE: dict[Scope, list[Check]] = {}


def check(
    id: str, scope: Scope, severity: Severity, title: str, advice: str
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enter a function into the catalogue; the file it stands in is its group."""

    def enter(find: Callable[..., Any]) -> Callable[..., Any]:
        if id in CATALOGUE:
            raise ValueError(f"two checks are named {id}")
        group = find.__module__.rpartition(".")[2]
        entered = CATALOGUE[id] = Check(id, group, scope, severity, title, advice, find)
        _BY_SCOPE.setdefault(scope, []).append(entered)
        return find

    return enter


def of_scope(scope: Scope) -> Sequence[Check]:
    """Return the checks of one scope, in the order of the catalogue."""
    return _BY_SCOPE[scope]


def flags_of(scope: Scope, evidence: Any) -> tuple[Flag, ...]:
    """Return the flags of the checks of one scope that find something in what they look at."""
    found = ((check, check.find(evidence)) for check in of_scope(scope))
    return tuple(check.flag(finding) for check, finding in found if finding is not None)


def verdict_word(flags: Iterable[Flag]) -> VerdictWord:
    """Return the verdict that the worst of the flags decides; notes change nothing."""
    severities = {flag.severity for flag in flags}
    if "invalid" in severities:
        return "invalid"
    return "degraded" if "warning" in severities else "valid"


def bias_bound(flags: Iterable[Flag]) -> tuple[float | None, str | None]:
    """Return by how many percent the gross energy may be off for all warnings, or why not.

    Notes change nothing.
    """
    flags = [flag for flag in flags if flag.severity != "note"]
    if unknown := dict.fromkeys(f.id for f in flags if f.bias_bound_percent is None):
        return None, f"no bound is known for {', '.join(unknown)}"
    return math.fsum(flag.bias_bound_percent for flag in flags), None


def expected_of(
    manifest: ModelManifest | None, prompts: PromptSet | None, prompts_key: str
) -> Expected:
    """Take from a model's files what a window is held against, its spec aside."""
    requests = prompts.requests.get(prompts_key) if prompts else None
    return Expected(
        weights_sha256=manifest.weights_sha256 if manifest else None,
        parameter_count=manifest.parameter_count if manifest else None,
        prompts_sha256=prompts.sha256.get(prompts_key) if prompts else None,
        prompt_tokens=requests and {r.id: len(r.prompt_token_ids) for r in requests},
    )


def summary_of(case: WindowEvidence) -> WindowSummary:
    """Take from a case what checks across measurements need."""
    measurement, window = case.measurement, case.window
    spec, host = measurement.spec, measurement.host
    metered = [e for e in window.interval.energy if e.component == "gpu" and e.energy_j is not None]
    gpus = tuple(sorted({str(part.device) for part in metered}))
    warm = [b.temperature_c[0] for b in window.interval.boards if b.temperature_c[0] is not None]
    measured = sums(window.interval).get("measured")
    tokens = work(window).output_tokens
    return WindowSummary(
        key=Key(spec.cell, spec.repeat, window.workload),
        model=spec.model,
        hostname=host.hostname,
        boot_id=host.boot_id,
        gpus=gpus,
        weights_sha256=measurement.weights_sha256,
        prompts_sha256=measurement.prompts_sha256.get(window.workload),
        arrivals_sha256=measurement.arrivals_sha256.get(window.workload),
        resampled=case.workload.resampled,
        start_s=window.interval.start_s,
        end_s=window.interval.end_s,
        utc=measurement.clock.utc,
        order=window.order,
        temperature_c=max(warm, default=None),
        energy_per_output_token_j=measured.energy_j / tokens if measured and tokens else None,
        methods=_pairs(_methods(window.interval)),
        gpu_state=_pairs(_gpu_settings(host, gpus)),
        host_settings=_pairs(host.settings),
        software=_pairs(host.packages | {"python": host.python, "linux": host.kernel}),
        git_commit=host.git_commit,
    )


def differing_pairs(
    summaries: Iterable[WindowSummary], pairs: Callable[[WindowSummary], Pairs]
) -> dict[str, list[str]]:
    """Return the names whose values differ, with all values; a summary without pairs has no say."""
    return differing_values(map(pairs, summaries))


def differing_values(found: Iterable[Pairs]) -> dict[str, list[str]]:
    """Return the names whose values differ, with all values; empty pairs have no say."""
    values: dict[str, set[str]] = {}
    kinds = {pairs for pairs in found if pairs}
    for name in {name for kind in kinds for name, _ in kind}:
        values[name] = {dict(kind).get(name, "absent") for kind in kinds}
    return {name: sorted(found) for name, found in sorted(values.items()) if len(found) > 1}


def _gpu_settings(host: Host, gpus: tuple[str, ...]) -> dict[str, Any]:
    """Return each setting once, with all its values where GPUs differ."""
    known = [gpu for gpu in host.gpus if gpu.get("uuid") in gpus]
    return {
        name: ", ".join(sorted({str(gpu[name]) for gpu in known if name in gpu}))
        for name in GPU_SETTINGS
        if any(name in gpu for gpu in known)
    }


def _methods(interval: Interval) -> dict[str, str]:
    """Return by which methods each component is known."""
    found: dict[str, set[str]] = {}
    for part in interval.energy:
        found.setdefault(part.component, set()).add(part.method)
    return {component: ", ".join(sorted(methods)) for component, methods in found.items()}


def _pairs(values: dict[str, Any]) -> Pairs:
    return _one(tuple(sorted((name, str(value)) for name, value in values.items())))


@functools.lru_cache(maxsize=64)
def _one(pairs: Pairs) -> Pairs:
    """Return one object for equal pairs: ten thousand summaries hold few that differ."""
    return pairs


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
