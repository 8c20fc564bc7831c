"""Windows, sweeps and the like for the pairs of a fault and its healthy twin to be made of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from support import builders

from llm_energy.analysis.checks import Expected, WindowEvidence, WindowSummary, summary_of
from llm_energy.records import TrafficReport

EXPECTED = Expected(
    spec_sha256=builders.measurement().spec_sha256,
    weights_sha256="w" * 64,
    parameter_count=1000,
    prompts_sha256=builders.prompt_set().sha256["b1"],
    prompt_tokens={"q0": 4, "q1": 4},
)


def case(window: dict | None = None, expected: Expected = EXPECTED, **changes) -> WindowEvidence:
    """Return a healthy case; ``window`` replaces fields of the window, keywords others."""
    measured = builders.window(**(window or {}))
    return WindowEvidence(builders.measurement(windows=(measured,), **changes), measured, expected)


def metered(duration_s: float, parts: tuple | None = None) -> WindowEvidence:
    """Return a window of another length or energy, with its requests inside."""
    interval = builders.interval("window", 1020.0, duration_s, parts)
    return case({"interval": interval, "requests": builders.request_table(1020.0, duration_s)})


def column(spec=None, **changes) -> WindowEvidence:
    """Return a window with other columns of requests."""
    return case({"requests": builders.request_table(1020.0, **changes)}, spec=spec)


def traces(*changes: dict) -> list[WindowSummary]:
    """Return the traces of repeats 1, 2, ... each with its changes to the measurement.

    ``repeat`` among them gives it that number, ``resampled`` prompts of its own.
    """
    found = []
    for repeat, change in enumerate(changes, 1):
        change = dict(change)
        own = {"resample_prompts": True} if change.pop("resampled", False) else {}
        workloads = (builders.workload(**own),)
        spec = builders.spec(repeat=change.pop("repeat", repeat), workloads=workloads)
        measured = builders.measurement(spec, **change)
        found.append(summary_of(WindowEvidence(measured, measured.windows[0])))
    return found


def traffic(
    mode: str = "poisson",
    arrived: int = 10,
    started: int = 10,
    batch_size: int = 1,
    effective: dict | None = None,
    requested_rate_per_s: float | None = 0.25,
    in_flight: tuple[int, int] = (0, 0),
    ramp_s: float = 100.0,
    **window: Any,
) -> WindowEvidence:
    """Return a window of timed traffic; keywords replace fields of the window."""
    report = TrafficReport(
        mode=mode,
        begin_s=1020.0,
        end_s=1060.0,
        requested_rate_per_s=requested_rate_per_s,
        arrived=arrived,
        started=started,
        ended=started,
        waiting=(0, max(0, arrived - started)),
        in_flight=in_flight,
        gap_cv=1.0,
    )
    asked = {"mode": mode, "ramp_s": ramp_s}
    workload = builders.workload(f"b{batch_size}", traffic_simulation=asked)
    spec = builders.spec(workloads=(workload,))
    table = builders.request_table(1020.0)
    table = replace(table, output_tokens_inside=table.output_tokens)
    name = f"b{batch_size}"
    timed = {"workload": name, "traffic": report, "passes": 0, "requests": table}
    loaded = effective or builders.measurement().effective
    return case(timed | window, spec=spec, effective=loaded)
