"""Windows, sweeps and the like for the pairs of a fault and its healthy twin to be made of."""

from __future__ import annotations

import builders

from llm_energy.checks import Case, Current, Trace, trace_of

CURRENT = Current(
    spec_sha256=builders.measurement().spec_sha256,
    weights_sha256="w" * 64,
    parameter_count=1000,
    prompts_sha256=builders.prompt_set().sha256["b1"],
    prompt_tokens={"q0": 4, "q1": 4},
)


def case(window: dict | None = None, current: Current = CURRENT, **changes) -> Case:
    """Give a healthy case; ``window`` replaces fields of the window, keywords the measurement's."""
    measured = builders.window(**(window or {}))
    return Case(builders.measurement(windows=(measured,), **changes), measured, current)


def metered(duration_s: float, parts: tuple | None = None) -> Case:
    """Give a window of another length or energy, with its requests inside."""
    interval = builders.interval("window", 1020.0, duration_s, parts)
    return case({"interval": interval, "requests": builders.request_table(1020.0, duration_s)})


def column(spec=None, **changes) -> Case:
    """Give a window with other columns of requests."""
    return case({"requests": builders.request_table(1020.0, **changes)}, spec=spec)


def traces(*changes: dict) -> list[Trace]:
    """Give the traces of repeats 1, 2, ... each with its changes to the measurement."""
    found = []
    for repeat, change in enumerate(changes, 1):
        measured = builders.measurement(builders.spec(repeat=repeat), **change)
        found.append(trace_of(Case(measured, measured.windows[0])))
    return found
