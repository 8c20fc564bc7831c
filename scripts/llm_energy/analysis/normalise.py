"""Turn joules, tokens and times of every usable window into joules per token and latencies."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from llm_energy.analysis.energy.accounting import (
    LOADED_IDLE,
    Sum,
    Work,
    baseline,
    loaded_idle_power_w,
    sums,
    work,
)
from llm_energy.analysis.energy.attribution import Attribution
from llm_energy.analysis.energy.latency import latencies_s, mean, quantiles_s
from llm_energy.analysis.energy.limits import window_limits
from llm_energy.analysis.energy.requests import attributions, request_energy
from llm_energy.analysis.energy.uncertainty import Budget, window_budget
from llm_energy.analysis.evidence.steps import OLDER
from llm_energy.analysis.evidence.windows import WindowEvidence
from llm_energy.analysis.grouping.comparability import (
    batching,
    energy_conditions,
    window_conditions,
)
from llm_energy.analysis.sameness import Outputs, agreement, reference_outputs
from llm_energy.core.errors import LlmEnergyError
from llm_energy.core.files import parse_json, sha256_bytes, sha256_json
from llm_energy.core.parallel import each
from llm_energy.core.units import kilowatt_hours_from_joules
from llm_energy.inputs.models.quantization import checkpoint_of
from llm_energy.records import (
    SCHEMA_VERSION,
    Beside,
    Interval,
    Measurement,
    Metrics,
    MetricsTable,
    Status,
    TrafficReport,
    Verdict,
    Verdicts,
    Window,
    Workload,
    parse_record,
)
from llm_energy.records.registry.metrics import OF_COMPONENT, SUMMARISED

OF_SENSORS = "M"  # what the ids of checks of joules and sensors begin with
# What of a traffic says where on a line a window lies, and how long it is.
PLACE_ON_LINE = ("rate_per_s", "ramp_s", "horizon_s")
ESTIMATE_HAS_NO_BOUND = "estimated: a model of the hardware has no known error"


def normalise(verdicts: Verdicts, jobs: int = 1) -> MetricsTable:
    """Return the metrics of every window that is not invalid, and list the others.

    One measurement is held in memory at a time, in each of ``jobs`` processes. Raises
    LlmEnergyError where a measurement is not the one that was judged.
    """
    usable: dict[str, list[Verdict]] = {}
    without = []
    for verdict in verdicts.verdicts:
        if verdict.outcome != "ok" or verdict.verdict == "invalid":
            without.append(verdict)
        else:
            usable.setdefault(verdict.measurement, []).append(verdict)
    rows: list[Metrics] = []
    keys: dict[tuple[str, ...], str] = {}  # most windows share all their conditions with others
    names: tuple[str, ...] = ()
    references = reference_outputs(verdicts.verdicts)
    for found in each(lambda windows: _measured(windows, references), [*usable.values()], jobs):
        for fields, held in found:
            names = tuple(held)
            key = keys.setdefault(tuple(held.values()), f"c{len(keys) + 1}")
            rows.append(Metrics(**fields, conditions=key))
    return MetricsTable(
        SCHEMA_VERSION,
        verdicts.sweep,
        verdicts.backend,
        tuple(rows),
        tuple(without),
        {key: dict(zip(names, values, strict=True)) for values, key in keys.items()},
        tuple(found for verdict in without if (found := beside(verdict, references))),
    )


def beside(verdict: Verdict, references: Outputs) -> Beside | None:
    """Return what a window without usable joules still tells; None where that is nothing.

    Quality is of a text outside all windows. Times and tokens stand where only sensors were found
    at fault.
    """
    faults = [flag.id for flag in verdict.flags if flag.severity == "invalid"]
    unread = verdict.outcome == "missing" or not verdict.measurement_sha256
    if unread or any(not id.startswith(OF_SENSORS) for id in faults):
        return None
    measurement = judged_measurement(verdict)
    window = next((w for w in measurement.windows if w.workload == verdict.workload), None)
    quality = measurement.quality
    values: dict[str, Any] = {
        name: quality and getattr(quality, name) for name in ("nll_per_token", "perplexity")
    }
    if verdict.outcome == "ok" and window and window.interval and window.requests:
        workload = next(w for w in measurement.spec.workloads if w.id == verdict.workload)
        values = _of_window(measurement, window, workload, verdict, work(window))
        values["agreement_with_float32"] = agreement(measurement.spec, window, references)
    known = {name: values[name] for name in SUMMARISED if values.get(name) is not None}
    place = (verdict.cell, verdict.workload, verdict.repeat)
    return Beside(*place, known, values.get("latencies_s", {})) if known else None


def _measured(
    verdicts: list[Verdict], references: Outputs
) -> list[tuple[dict[str, Any], dict[str, str]]]:
    """Return the fields of the rows of the windows of one measurement, each with its conditions."""
    measurement = judged_measurement(verdicts[0])
    shares = attributions(measurement, Path(verdicts[0].measurement))
    return [
        found
        for one in verdicts
        for found in window_fields(measurement, one, references, shares[one.workload])
    ]


def window_fields(
    measurement: Measurement,
    verdict: Verdict,
    references: Outputs,
    shares: Attribution | str = OLDER,
) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """Return the fields of one row for the measured joules and one for the estimated, never a sum.

    Each with its conditions, in the form that crosses processes fastest. ``references`` are outputs
    in float32, by model and workload, ``shares`` what requests took, or why that is not known.
    """
    window = next(w for w in measurement.windows if w.workload == verdict.workload)
    workload = next(w for w in measurement.spec.workloads if w.id == verdict.workload)
    done = work(window)
    shared = _of_window(measurement, window, workload, verdict, done)
    shared["agreement_with_float32"] = agreement(measurement.spec, window, references)
    held = window_conditions(measurement, window, workload)
    for status, total in sums(window.interval).items():
        fields = shared | _of_joules(measurement, window, done, status, total)
        fields |= _of_requests(window, status, shares)
        yield fields, held | energy_conditions(window, status)


def judged_measurement(verdict: Verdict) -> Measurement:
    """Read the measurement that a verdict was given for; LlmEnergyError where it is another now."""
    path = Path(verdict.measurement)
    if not path.is_file():
        raise LlmEnergyError(f"{path}: no such file, though it was judged")
    content = path.read_bytes()
    if sha256_bytes(content) != verdict.measurement_sha256:
        raise LlmEnergyError(
            f"{path}: it changed after it was judged; run the validate stage again"
        )
    return parse_record(Measurement, parse_json(content, path), path)


def _of_window(
    measurement: Measurement, window: Window, workload: Workload, verdict: Verdict, done: Work
) -> dict[str, Any]:
    """Return the fields of a window that are the same whichever joules a row is of."""
    spec, quality = measurement.spec, measurement.quality
    duration_s, latency = window.interval.duration_s, latencies_s(window)
    return {
        "cell": spec.cell,
        "model": spec.model,
        "backend": spec.backend,
        "precision": spec.precision,
        "workload": workload.id,
        "batch_size": workload.batch_size,
        "repeat": spec.repeat,
        "verdict": verdict.verdict,
        "flags": tuple(dict.fromkeys(flag.id for flag in verdict.flags)),
        "bias_bound_percent": verdict.bias_bound_percent,
        "duration_s": duration_s,
        "passes": window.passes,
        "requests": done.requests,
        "prompt_tokens": done.prompt_tokens,
        "output_tokens": done.output_tokens,
        "output_tokens_per_s": done.output_tokens / duration_s,
        "requests_per_s": done.requests / duration_s,
        "accepted_draft_share": _accepted_draft_share(window.events),
        "ttft_s": mean(latency["ttft"]),
        "service_ttft_s": mean(latency["service_ttft"]),
        "queueing_s": mean(latency["queueing"]),
        "tpot_s": mean(latency["tpot"]),
        "e2e_latency_s": mean(latency["e2e"]),
        "latencies_s": quantiles_s(window, latency),
        "hostname": measurement.host.hostname,
        "measurement": verdict.measurement,
        "measurement_sha256": verdict.measurement_sha256,
        "batching": batching(window, workload),
        "simulated": measurement.meter is not None and measurement.meter.simulated,
        "nll_per_token": quality and quality.nll_per_token,
        "perplexity": quality and quality.perplexity,
        "model_notes": measurement.model_notes,
        "checkpoint": checkpoint_of(measurement.effective),
        "gpu_memory_gb": _gpu_memory_gb(window),
        "weights_gb": _gigabytes(measurement.effective.get("weight_bytes")),
        **_when(measurement),
        "arrivals_sha256": measurement.arrivals_sha256.get(workload.id),
        "prompts_sha256": measurement.prompts_sha256.get(workload.id),
        **_limits(measurement, window, done.output_tokens),
        **_traffic(window.traffic),
        **_kinds(workload),
    }


def _gpu_memory_gb(window: Window) -> float | None:
    """Return what the metered GPUs held at the window's end; None where one did not tell."""
    used = [gpu.memory_used_bytes[1] for gpu in window.interval.boards]
    return _gigabytes(sum(used)) if used and None not in used else None


def _gigabytes(count: float | None) -> float | None:
    return count / 1e9 if count else None


def _when(measurement: Measurement) -> dict[str, Any]:
    """Return the fields of a row that say in which boot its repeat ran, and from when to when."""
    clock = measurement.clock
    began_s = datetime.fromisoformat(clock.utc).timestamp()
    ended_s = began_s + measurement.end_s - clock.monotonic_s
    return {"boot_id": measurement.host.boot_id, "span_utc_s": (began_s, ended_s)}


def _of_joules(
    measurement: Measurement, window: Window, done: Work, status: Status, total: Sum
) -> dict[str, Any]:
    """Return the fields of a row that follow from the joules of one status."""
    duration_s, quality = window.interval.duration_s, measurement.quality
    output_tokens, pue = done.output_tokens, measurement.spec.meter.pue
    idle_w, net_reason = loaded_idle_power_w(measurement, status, total.parts)
    budget = _budget(measurement, window, total) if status == "measured" else None
    if idle_w is not None and budget and budget.idle_w is not None:
        idle_w = budget.idle_w
    net_j = None if idle_w is None else total.energy_j - idle_w * duration_s
    per_output_token_j = _per(total.energy_j, output_tokens)
    bytes_per_token = quality and quality.bytes_per_token
    found = {
        "energy_status": status,
        "components": total.components,
        "gross_energy_j": total.energy_j,
        "net_energy_j": net_j,
        "net_reason": net_reason,
        "mean_power_w": total.energy_j / duration_s,
        "loaded_idle_power_w": idle_w,
        "energy_per_output_token_j": per_output_token_j,
        "energy_per_total_token_j": _per(total.energy_j, done.prompt_tokens + output_tokens),
        "energy_per_request_j": _per(total.energy_j, done.requests),
        "net_energy_per_output_token_j": _per(net_j, output_tokens),
        "co2e_g_per_output_token": _co2e_g(per_output_token_j, measurement.carbon_intensity),
        "facility_energy_per_output_token_j": _times(per_output_token_j, pue),
        "energy_per_utf8_byte_j": _times(
            per_output_token_j, 1 / bytes_per_token if bytes_per_token else None
        ),
        "steady_state_energy_per_output_token_j": _steady_state_j(window, status, total),
    }
    for component, name in OF_COMPONENT.items():
        found[name] = _per(total.component_j.get(component), output_tokens)
    if budget is None:
        return found | {"uncertainty_reason": ESTIMATE_HAS_NO_BOUND}
    return found | {
        "gross_energy_standard_uncertainty_j": budget.gross_j,
        "net_energy_standard_uncertainty_j": None if net_j is None else budget.net_j,
        "counter_lag_j": budget.lag_j,
        "loaded_idle_drift_w": budget.drift_w,
        "loaded_idle_excess_w": budget.excess_w,
        "assumptions": budget.assumptions,
    }


def _of_requests(window: Window, status: Status, shares: Attribution | str) -> dict[str, Any]:
    """Return the fields of a row that tell what its requests took."""
    if isinstance(shares, str):
        return {"attributed_reason": shares}
    if shares.status != status:
        return {"attributed_reason": f"only the {shares.status} joules are attributed"}
    found = request_energy(window, shares)
    told = {"attributed_reason": found} if isinstance(found, str) else {"request_energy": found}
    return told | {
        "attributed_energy_j": math.fsum(shares.requests_j),
        "attributed_idle_energy_j": shares.idle_j,
    }


def _kinds(workload: Workload) -> dict[str, str]:
    """Return what tells which windows may lie on one line of energy over load."""
    alike = workload.without_draws()
    traffic = alike.parameters.pop("traffic_simulation", None) or {}
    asked = [alike.parameters, alike.engine]
    kept = {name: value for name, value in traffic.items() if name not in PLACE_ON_LINE}
    return {"work": sha256_json(asked), "series": sha256_json([*asked, kept])}


def _limits(measurement: Measurement, window: Window, output_tokens: int) -> dict[str, Any]:
    """Return the fields of a row that tell how far its window is from what hardware allows."""
    found = window_limits(WindowEvidence(measurement, window))
    if isinstance(found, str):
        return {"limits_reason": found}
    return {
        "floor_energy_per_output_token_j": _per(found.floor_j, output_tokens),
        "roofline_energy_per_output_token_j": _per(found.roofline_j, output_tokens),
        "limited_energy_per_output_token_j": _per(found.energy_j, output_tokens),
        "mbu": found.mbu,
        "mfu": found.mfu,
        "limits_source": found.rates,
        "limits_fault": found.fault,
    }


def _traffic(report: TrafficReport | None) -> dict[str, Any]:
    """Return the fields of a row that tell of timed traffic."""
    if report is None:
        return {}
    return {
        "traffic": report.mode,
        "requested_rate_per_s": report.requested_rate_per_s,
        "arrival_rate_per_s": report.arrival_rate_per_s,
        "achieved_rate_per_s": report.achieved_rate_per_s,
        "gap_cv": report.gap_cv,
    }


def _budget(measurement: Measurement, window: Window, total: Sum) -> Budget:
    """Return the uncertainty of a window's measured joules, by idle intervals of the same parts."""

    def usable(interval: Interval | None) -> bool:
        if interval is None or not interval.duration_s > 0:
            return False
        found = sums(interval).get("measured")
        return found is not None and found.parts == total.parts

    same = [one for name in LOADED_IDLE if usable(one := baseline(measurement, name))]
    ticks_s = measurement.meter.counter_tick_s if measurement.meter else {}
    hot_idle = window.hot_idle if usable(window.hot_idle) else None
    return window_budget(window.interval, same, total.parts, ticks_s, hot_idle)


def _steady_state_j(window: Window, status: Status, total: Sum) -> float | None:
    """Return the joules per output token while the batch was full; None where it never was.

    None as well where a part of it was metered otherwise than the whole window.
    """
    steady = window.steady_state
    if steady is None or not steady.intervals:
        return None
    found = [sums(interval).get(status) for interval in steady.intervals]
    if any(one is None or one.parts != total.parts for one in found):
        return None
    return _per(math.fsum(one.energy_j for one in found), steady.output_tokens)


def _per(energy_j: float | None, count: int) -> float | None:
    return None if energy_j is None or count == 0 else energy_j / count


def _times(energy_j: float | None, factor: float | None) -> float | None:
    """Multiply, as for facility energy: the meter's joules hold no PUE, so here it enters, once."""
    return None if energy_j is None or factor is None else energy_j * factor


def _co2e_g(energy_j: float | None, intensity: dict | None) -> float | None:
    g_per_kwh = (intensity or {}).get("g_per_kwh")
    if energy_j is None or g_per_kwh is None:
        return None
    return kilowatt_hours_from_joules(energy_j) * g_per_kwh


def _accepted_draft_share(events: dict[str, Any]) -> float | None:
    """Return which share of the tokens drafted by speculative decoding the model accepted."""
    drafted = events.get("drafted_tokens")
    return events["accepted_tokens"] / drafted if drafted else None
