"""Audit of the engine's steps: is it the file of the record, and does it tell of its requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from llm_energy.analysis.checks.audit.files import AGAIN
from llm_energy.analysis.checks.catalogue import Finding, check
from llm_energy.analysis.evidence.files import Repeat
from llm_energy.records import Window
from llm_energy.records.steps import Run, StepTable


@check("A20", "files", "invalid", "steps changed or lost", AGAIN)
def other_step_file(repeat: Repeat) -> Iterator[tuple[str | None, Finding]]:
    """Find a file of the engine's steps whose SHA-256 is not the recorded one, or that is none.

    One that was recorded and is gone is a warning: only the shares of the requests need it.
    """
    report, found = repeat.measurement.steps, repeat.steps
    if report is None or report.sha256 is None:
        return
    evidence = {"path": str(found.path), "recorded_sha256": report.sha256}
    if found.sha256 is None:
        yield None, Finding(evidence | {"problem": "there is no such file"}, "warning")
    elif found.sha256 != report.sha256 or found.problem:
        yield None, Finding(evidence | {"sha256": found.sha256, "problem": found.problem})


@check("A21", "files", "invalid", "steps and requests of a window do not agree", AGAIN)
def other_steps(repeat: Repeat) -> Iterator[tuple[str | None, Finding]]:
    """Find a window whose steps lie outside it, or compute other tokens than its requests tell.

    A request's output tokens may be off by one: a step may be under way when its request ends, and
    at the edge of a window of timed traffic a step and its token need not end at the same time.
    """
    for window in repeat.windows:
        table = repeat.steps.windows.get(window.workload)
        if table is not None and (problem := _outside(window, table) or _others(window, table)):
            yield window.workload, Finding(problem)


def _outside(window: Window, table: StepTable) -> dict[str, Any] | None:
    begin_s, end_s = window.interval.start_s, window.interval.end_s
    if table.start_s and begin_s < table.end_s[0] and table.start_s[-1] < end_s:
        return None
    return {"window_s": [begin_s, end_s], "steps_s": [*table.start_s[:1], *table.end_s[-1:]]}


def _others(window: Window, table: StepTable) -> dict[str, Any] | None:
    """Return the first request whose tokens the steps tell otherwise."""
    requests, timed = window.requests, window.traffic is not None
    rows = range(len(requests.request_id))
    prefilled, emitted = Counter[int](), Counter[int]()
    for run in table.runs:
        if run.request in rows:
            prefilled[run.request] += run.steps * run.prefill_tokens
            emitted[run.request] += _emitted(run, table, window)
        elif run.request is not None:
            return {"request": run.request, "problem": "steps of a request that is not there"}
    told = requests.output_tokens_inside or requests.output_tokens
    for row in rows:
        asked = requests.prompt_tokens[row] - requests.cached_prompt_tokens[row]
        few = not timed and prefilled[row] < asked
        if few or abs(emitted[row] - told[row]) > 1:
            return {
                "request": row,
                "prompt_tokens": asked,
                "prefill_tokens": prefilled[row],
                "output_tokens": told[row],
                "tokens_of_steps": emitted[row],
            }
    return None


def _emitted(run: Run, table: StepTable, window: Window) -> int:
    """Count the output tokens of a run that came inside the window.

    A prompt gives the first one with its last part.
    """
    ends_s = table.end_s[run.first_step : run.first_step + run.steps]
    inside = sum(window.interval.start_s < time_s <= window.interval.end_s for time_s in ends_s)
    prompt = window.requests.prompt_tokens[run.request]
    if run.prefill_tokens:
        return inside if run.context_tokens + run.prefill_tokens >= prompt else 0
    return inside * run.decode_tokens
