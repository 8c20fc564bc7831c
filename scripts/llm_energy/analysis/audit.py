"""Audit a backend's measurements: prove from the files alone that nothing was changed or lost.

Every power trace is hashed and integrated anew, the engine's steps are held against the requests,
every repeat's parts are added up, and the windows of the sweep are compared. What is found
becomes flags, which the validate stage takes over.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from llm_energy.analysis.checks import Key, of_scope
from llm_energy.analysis.evidence.files import Repeat, Span, intervals, read_trace, spans
from llm_energy.analysis.evidence.measurements import UNREADABLE, plan_of, read_measurement
from llm_energy.analysis.evidence.steps import read_steps
from llm_energy.core.files import parse_json, read_json, sha256_bytes, sha256_json
from llm_energy.core.parallel import each
from llm_energy.records import (
    SCHEMA_VERSION,
    Audit,
    AuditedWindow,
    Flag,
    Measurement,
    PlannedRepeat,
    PromptSet,
    Severity,
    parse_record,
    read_record,
)
from llm_energy.records.files import paths
from llm_energy.records.registry.order import block_rank

SHOWN = 5  # windows that a finding names


@dataclass(frozen=True)
class _Read:
    """What reading one repeat gave: its windows, and of each what is compared with others."""

    windows: tuple[AuditedWindow, ...] = ()
    spans: tuple[Span, ...] = ()


def audit(sweep: str, backend: str, plan_path: Path, jobs: int = 1) -> Audit:
    """Audit every measured window of ``backend`` that the plan at ``plan_path`` expects.

    What is no measurement record is left to the validate stage. Of other backends only the times
    are read, since windows of one host must not overlap. Raises LlmEnergyError where the plan is of
    another sweep or has no such backend, or where a prompts file is none.
    """
    plan = plan_of(plan_path, sweep, backend)
    folder = plan_path.parent
    seed = _order_seed(folder)
    models = {cell.model for cell in plan.cells if cell.backend == backend}
    prompts = {model: _prompts(folder, model) for model in models}
    own = plan.repeats(backend)
    others = [planned for planned in plan.repeats() if planned.cell.backend != backend]
    found: dict[Key, AuditedWindow] = {}
    compared: list[Span] = []
    for one in each(lambda p: _read(p, prompts[p.cell.model], _rank(seed, p)), own, jobs):
        found |= {Key(w.cell, w.repeat, w.workload): w for w in one.windows}
        compared += one.spans
    for one in each(lambda p: tuple(_other_spans(p, _rank(seed, p))), others, jobs):
        compared += one
    flags: dict[Key, list[Flag]] = {key: list(window.flags) for key, window in found.items()}
    for check in of_scope("spans"):
        for span, finding in check.find(compared):
            if span.own and check.id not in {f.id for f in flags[span.key]}:
                flags[span.key].append(check.flag(finding))
    windows = (replace(window, flags=tuple(flags[key])) for key, window in found.items())
    return Audit(SCHEMA_VERSION, sweep, backend, tuple(windows))


def findings(audits: Iterable[Audit]) -> Iterator[tuple[Severity, str]]:
    """Yield each finding once, the worst first, with its severity and the windows that it is of."""
    places: dict[tuple[Severity, str, str, str], list[str]] = {}
    for window in (window for audit in audits for window in audit.windows):
        for flag in window.flags:
            found = (flag.severity, f"{flag.id} {flag.title}", str(flag.evidence), flag.advice)
            name = f"{window.cell} {paths.repeat_name(window.repeat)}/{window.workload}"
            places.setdefault(found, []).append(name)
    for severity in ("invalid", "warning", "note"):
        for (found, title, evidence, advice), names in places.items():
            if found == severity:
                more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
                where = ", ".join(names[:SHOWN]) + more
                yield severity, f"{severity} {title}: {where}\n  found {evidence:.500}\n  {advice}"


def _read(
    planned: PlannedRepeat, prompts: dict[str, tuple[str | None, str]], rank: int | None
) -> _Read:
    """Audit one repeat by itself; nothing where it is not there or no record."""
    if not os.path.isfile(planned.measurement):
        return _Read()
    content = Path(planned.measurement).read_bytes()
    measurement, _ = read_measurement(content, planned)
    if measurement is None:
        return _Read()
    asked = {w.id for w in measurement.spec.workloads}
    repeat = Repeat(
        measurement,
        read_trace(measurement, Path(planned.measurement)),
        read_steps(Path(planned.measurement)),
        {workload: pair for workload, pair in prompts.items() if workload in asked},
    )
    names = [window.workload for window in repeat.windows]
    flags: dict[str, list[Flag]] = {name: [] for name in names}
    for check in of_scope("files"):
        for workload, finding in check.find(repeat):
            for name in names if workload is None else [workload]:
                flags.get(name, []).append(check.flag(finding))
    sha256 = sha256_bytes(content)
    windows = tuple(
        AuditedWindow(
            planned.cell.cell,
            planned.number,
            name,
            sha256,
            repeat.trace.sha256,
            _integrals(repeat, name),
            tuple(flags[name]),
        )
        for name in names
    )
    return _Read(windows, tuple(spans(measurement, True, rank)))


def _integrals(repeat: Repeat, workload: str) -> int:
    """Return how many recorded integrals that bear on a window were made again from the file."""
    return sum(
        one.energy_j is not None
        for place, name, interval in intervals(repeat.measurement)
        if name in (None, workload) and place in repeat.trace.summaries
        for one in interval.trace
    )


def _other_spans(planned: PlannedRepeat, rank: int | None) -> Iterator[Span]:
    """Yield the times of another backend's windows, none where its file is no measurement.

    Its requests, which are most of a record, are left out: its own audit looks at them.
    """
    if not os.path.isfile(planned.measurement):
        return
    try:
        data = parse_json(Path(planned.measurement).read_bytes(), planned.measurement)
        for window in data["windows"]:
            window |= {"requests": None, "output_token_ids": {}}
        yield from spans(parse_record(Measurement, data, planned.measurement), False, rank)
    except (*UNREADABLE, KeyError, TypeError):
        return


def _prompts(folder: Path, model: str) -> dict[str, tuple[str | None, str]]:
    """Return, by workload, the recorded hash of a model's prompts and that of their token ids."""
    path = paths.prompts(folder, model)
    if not path.is_file():
        return {}
    prompts = read_record(PromptSet, path)
    return {
        workload: (prompts.sha256.get(workload), sha256_json([r.identity() for r in requests]))
        for workload, requests in prompts.requests.items()
    }


def _order_seed(folder: Path) -> int | None:
    """Return the seed that drew the order, None where the sweep's config is not there."""
    path = paths.config(folder)
    protocol = read_json(path).get("protocol") if path.is_file() else None
    seed = protocol.get("order_seed") if isinstance(protocol, dict) else None
    return seed if type(seed) is int else None


def _rank(seed: int | None, planned: PlannedRepeat) -> int | None:
    if seed is None:
        return None
    return block_rank(seed, paths.repeat_name(planned.number), planned.cell.cell)
