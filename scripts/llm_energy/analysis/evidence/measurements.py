"""Read the measurements that a plan asks for, and say what is wrong with those that cannot be."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from llm_energy.analysis.evidence.files import intervals
from llm_energy.analysis.evidence.readings import WITH_READINGS, has_readings
from llm_energy.analysis.evidence.windows import number
from llm_energy.core.errors import LlmEnergyError, RecordError
from llm_energy.core.files import parse_json, sha256_json
from llm_energy.records import (
    SCHEMA_VERSION,
    Measurement,
    Plan,
    PlannedRepeat,
    Workload,
    parse_record,
    read_record,
)
from llm_energy.records.files import storage

# Beside what is no record: too deep for the parser, and numbers of thousands of digits.
UNREADABLE = (RecordError, RecursionError, ValueError)

# An exponent of three digits, or as many digits: rare, and cheaper to find than each number.
EXTREME = re.compile(rb"[0-9][eE][+-]?[0-9]{2}[0-9]|[0-9]{50}")

# What checks and conditions read of a workload's parameters, and the types that it may have.
PARAMETERS = {
    "fp_precision": (str,),
    "min_output_tokens": (int,),
    "max_output_tokens": (int,),
    "decoder.do_sample": (bool,),
    "decoder.temperature": (float, int),
    "batching.batch_size": (int,),
    "batching.strategy": (str,),
    "quantization": (dict,),
    "sharding": (dict, type(None)),
    "traffic_simulation": (dict, type(None)),
}


def plan_of(plan_path: Path, sweep: str, backend: str) -> Plan:
    """Read the plan; LlmEnergyError where it is of another sweep or has no such backend."""
    plan = read_record(Plan, plan_path)
    if plan.sweep != sweep or backend not in plan.backends:
        raise LlmEnergyError(
            f"{plan_path}: it plans sweep '{plan.sweep}' with backends "
            f"{', '.join(sorted(plan.backends))}, not sweep '{sweep}' with backend '{backend}'"
        )
    return plan


def read_measurement(
    content: bytes, planned: PlannedRepeat
) -> tuple[Measurement | None, str | None]:
    """Read a planned measurement, or say what is wrong, all of it where a schema can tell."""
    try:
        data = parse_json(content, planned.measurement)
    except UNREADABLE as error:
        return None, str(error)
    try:
        measurement = parse_record(Measurement, data, planned.measurement)
        # As it stands in the file: a spec that an older version wrote lacks newer keys.
        spec_sha256 = sha256_json(data["spec"])
    except UNREADABLE as error:
        found = str(error)
        listed = storage.problems(Measurement, data)
        more = len(listed) - storage.PROBLEMS_SHOWN
        if listed:
            found = "; ".join(listed[: storage.PROBLEMS_SHOWN])
        return None, f"{found}; and {more} more" if more > 0 else found
    problem = extreme(content, data) or consistent(measurement, planned, spec_sha256)
    return (None, problem) if problem else (measurement, None)


def extreme(content: bytes, data: Any) -> str | None:
    """Name a number so large or small that arithmetic with it would overflow, or return None.

    No quantity that a repeat measures is of 1e99 or, unless it is zero, below 1e-99.
    """
    return next(_extremes(data, ""), None) if EXTREME.search(content) else None


def _extremes(value: Any, place: str) -> Iterator[str]:
    if isinstance(value, (int, float)):
        if value and not 1e-99 < abs(value) < 1e99:
            yield f"{place.lstrip('.')} is {value!r:.40}, allowed 0 or a size from 1e-99 to 1e99"
    elif isinstance(value, (dict, list)):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, one in pairs:
            yield from _extremes(
                one, f"{place}[{key}]" if isinstance(key, int) else f"{place}.{key}"
            )


def consistent(measurement: Measurement, planned: PlannedRepeat, spec_sha256: str) -> str | None:
    """Say what in a well-formed measurement contradicts itself or the plan, or None."""
    spec = measurement.spec
    if spec.schema_version != SCHEMA_VERSION:
        return f"spec.schema_version is {spec.schema_version}, this version reads {SCHEMA_VERSION}"
    if (spec.cell, spec.repeat) != (planned.cell.cell, planned.number):
        return (
            f"it holds {spec.cell} repeat {spec.repeat}, "
            f"the plan expects {planned.cell.cell} repeat {planned.number}"
        )
    if spec_sha256 != measurement.spec_sha256:
        return "its spec is not the one that spec_sha256 was taken of"
    for workload in spec.workloads:
        if problem := _unusable(workload):
            return f"spec.workloads {workload.id}: {problem}"
    try:
        datetime.fromisoformat(measurement.clock.utc)
    except ValueError:
        return f"clock.utc is {measurement.clock.utc!r}, allowed such as 2026-01-31T12:00:00Z"
    intensity = measurement.carbon_intensity
    if intensity is not None and number(intensity, "g_per_kwh") is None:
        return f"carbon_intensity.g_per_kwh is {intensity.get('g_per_kwh')!r}, not a number"
    if (quality := measurement.quality) is not None:
        if quality.total_nll is not None and quality.tokens < 1:
            return f"quality.total_nll is of {quality.tokens} tokens, allowed 1 or more"
        if quality.total_nll is not None and quality.total_nll < 0:
            return f"quality.total_nll is {quality.total_nll}, allowed 0 or more"
        if quality.bytes_per_token is not None and not quality.bytes_per_token > 0:
            return f"quality.bytes_per_token is {quality.bytes_per_token}, allowed above 0"
    if has_readings(measurement) and (problem := _unread(measurement)):
        return problem
    names = [window.workload for window in measurement.windows]
    if len(set(names)) < len(names):
        return f"two windows of one workload: {', '.join(names)}"
    if strange := set(names) - {workload.id for workload in spec.workloads}:
        return f"a window of a workload that the spec has not: {', '.join(sorted(strange))}"
    for window in measurement.windows:
        if window.outcome != "ok":
            continue
        if window.interval is None or window.requests is None:
            return f"window {window.workload} has outcome ok without interval or requests"
        optional = {"service_start_s"} | ({"output_tokens_inside"} if not window.traffic else set())
        columns = vars(window.requests).items()
        lengths = {len(column) for name, column in columns if column or name not in optional}
        if len(lengths) > 1:
            return f"window {window.workload} has request columns of unequal length"
        if window.traffic and not window.traffic.end_s > window.traffic.begin_s:
            return f"window {window.workload} has traffic that ends before it begins"
    return None


def _unread(measurement: Measurement) -> str | None:
    """Name a measured component of which there is no raw reading, or return None."""
    read = {(counter.component, counter.device) for counter in measurement.readings}
    for place, _, interval in intervals(measurement):
        for part in interval.energy:
            if part.status == "measured" and (part.component, part.device) not in read:
                return (
                    f"{place}: {part.component} {part.device} has measured joules and no raw "
                    f"readings, which a record of protocol version {WITH_READINGS} keeps; take the "
                    "file from where it was measured, or measure again"
                )
    return None


def _unusable(workload: Workload) -> str | None:
    """Say what the stages need of a workload and it does not give, or None."""
    for path, (kind, *others) in PARAMETERS.items():
        value: Any = workload.parameters
        for name in path.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        if type(value) not in (kind, *others):
            return f"parameters.{path} is {value!r}, allowed {kind.__name__}"
    for name, count in (("requests", workload.requests), ("batch_size", workload.batch_size)):
        if count < 1:
            return f"{name} is {count}, allowed 1 or more"
    return None
