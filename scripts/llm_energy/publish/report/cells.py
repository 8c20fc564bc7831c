"""Describe each cell for its page: what was asked, what happened when, and where it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llm_energy.core.files import canonical_json
from llm_energy.publish.report.content import short
from llm_energy.publish.report.sources import Sources
from llm_energy.publish.timeline import thinned, timeline
from llm_energy.records import ComponentEnergy, Interval, Measurement

TRACE_POINTS_IN_ALL, FEWEST, MOST = (
    40_000,
    40,
    400,
)  # so that a page of a thousand cells stays light
REQUESTS_SHOWN = 5


def cell_records(sources: Sources) -> dict[str, dict[str, Any]]:
    """Return the page of each cell: what was asked, its timeline, and where it comes from."""
    most = max(FEWEST, min(MOST, TRACE_POINTS_IN_ALL // max(1, len(sources.repeats))))
    records = {}
    for cell in sources.plan.cells:
        record = {
            "cell": cell.cell,
            "model": cell.model,
            "backend": cell.backend,
            "precision": cell.precision,
            "planned": cell.outcome,
            "reason": cell.reason,
            "notes": [note.message for note in cell.notes],
            "files": dict(zip(cell.repeats, cell.measurements, strict=True)),
        }
        repeat = sources.repeats.get(cell.cell)
        if repeat is not None:
            record |= _repeat_record(repeat, sources, most)
        records[cell.cell] = record
    return records


def _repeat_record(measurement: Measurement, sources: Sources, most: int) -> dict[str, Any]:
    spec, found = measurement.spec, timeline(measurement, sources.root)
    return {
        "shown_repeat": spec.repeat,
        "model_name": spec.workloads[0].parameters.get("model_name"),
        "workloads": [
            {"id": w.id, "requests": w.requests, "parameters": w.parameters} for w in spec.workloads
        ],
        "requests": _requests(measurement),
        "stretches": [
            {
                "name": s.name,
                "kind": s.kind,
                "start": short(s.start_s),
                "end": short(s.end_s),
                "middle": short((s.start_s + s.end_s) / 2),
                "status": status,
                "w": short(s.total_w(status)),
                "parts": ", ".join(
                    f"{component} {power:.3g} W"
                    for (component, known), power in s.power_w.items()
                    if known == status
                ),
            }
            for s in found.stretches
            for status in ("measured", "estimated")
            if s.total_w(status) is not None
        ],
        "trace": [[short(t), short(w)] for t, w in thinned(found.trace, most)],
        "trace_reason": found.trace_reason,
        "trace_step_s": _step(found.trace, most),
        "provenance": _provenance(measurement),
    }


def _provenance(measurement: Measurement) -> list[list[str]]:
    """Return what one repeat was measured with, as pairs of a title and a text."""
    host, meter = measurement.host, measurement.meter
    gpus = [
        ", ".join(
            str(part)
            for part in (
                gpu.get("name"),
                gpu.get("uuid"),
                f"driver {gpu.get('driver_version')}",
                f"power limit {gpu.get('power_limit_w')} W",
            )
        )
        for gpu in host.gpus
    ]
    ticks = (meter.counter_tick_s if meter else {}) or {}
    pairs = [
        ("Began (UTC)", measurement.clock.utc),
        ("Host", f"{host.hostname}: {host.cpu_model}, {host.cpu_count} CPUs, {host.os}"),
        *(("GPU", gpu) for gpu in gpus),
        *(("Sensor", text) for text in _sensors(measurement)),
        *(("Counter tick", f"{gpu}: {tick} s") for gpu, tick in ticks.items() if tick),
        ("Commit", f"{host.git_commit}{' (with local changes)' if host.git_dirty else ''}"),
        ("Spec (SHA-256)", measurement.spec_sha256),
        ("Weights (SHA-256)", measurement.weights_sha256),
        ("Tokenizer (SHA-256)", measurement.tokenizer_sha256),
        *(
            (f"Prompts of {w} (SHA-256)", digest)
            for w, digest in measurement.prompts_sha256.items()
        ),
        ("Engine reports", canonical_json(measurement.effective)),
        ("Python", host.python),
        ("Packages", " ".join(f"{name}=={v}" for name, v in sorted(host.packages.items()))),
    ]
    return [[title, str(text)] for title, text in pairs if text is not None]


def _sensors(measurement: Measurement) -> list[str]:
    """Say how the energy of each component of a repeat is known, or why it is not."""
    intervals = [w.interval for w in measurement.windows if w.interval is not None]
    return [
        f"{part.component}: {part.status}, {part.reason or part.method}"
        for part in _parts(intervals)
    ]


def _parts(intervals: Sequence[Interval]) -> list[ComponentEnergy]:
    """Return each component and method once; GPUs of one kind share theirs."""
    found = {}
    for interval in intervals:
        for part in interval.energy:
            found.setdefault((part.component, part.status, part.method, part.reason), part)
    return list(found.values())


def _requests(measurement: Measurement) -> list[list[Any]]:
    """Return the first requests of each workload, as the engine counted them."""
    rows = []
    for window in measurement.windows:
        if window.requests is not None:
            columns = (
                window.requests.request_id,
                window.requests.prompt_tokens,
                window.requests.output_tokens,
                window.requests.finish_reason,
            )
            rows += [[window.workload, *row] for row in zip(*columns, strict=True)][:REQUESTS_SHOWN]
    return rows


def _step(trace: Sequence[tuple[float, float]], most: int) -> float | None:
    """Return over how many seconds each point of the thinned trace is a mean, None if over none."""
    if len(trace) <= most:
        return None
    return short((trace[-1][0] - trace[0][0]) / most)
