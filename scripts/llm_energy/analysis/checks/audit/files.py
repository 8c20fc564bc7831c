"""Audit of the files: are they those that were recorded, and do they give the recorded numbers."""

from __future__ import annotations

from collections.abc import Iterator

from llm_energy.analysis.checks.catalogue import Finding, check
from llm_energy.analysis.evidence.files import Repeat, intervals, same

AGAIN = "Take the file from where it was measured, or measure this repeat again."


@check("A01", "files", "invalid", "power trace changed or lost", AGAIN)
def other_trace_file(repeat: Repeat) -> Iterator[tuple[str | None, Finding]]:
    """Find a power trace whose SHA-256 is not the recorded one, or that is no power trace.

    One that was recorded and is gone is a warning: the joules stand without their second sensor.
    """
    report, trace = repeat.measurement.meter, repeat.trace
    recorded = report.trace_sha256 if report else None
    if recorded is None:
        return
    evidence = {"path": str(trace.path), "recorded_sha256": recorded}
    if trace.sha256 is None:
        yield None, Finding(evidence | {"problem": "there is no such file"}, "warning")
    elif trace.sha256 != recorded or trace.problem:
        yield None, Finding(evidence | {"sha256": trace.sha256, "problem": trace.problem})


@check("A02", "files", "invalid", "power trace gives other values than recorded", AGAIN)
def other_integral(repeat: Repeat) -> Iterator[tuple[str | None, Finding]]:
    """Find an interval whose integral and samples the power trace does not give again.

    The file is integrated anew between the recorded edges, by the function that measuring takes.
    """
    if repeat.trace.sha256 is None or repeat.trace.problem:
        return
    found: dict[str | None, dict] = {}
    for place, workload, interval in intervals(repeat.measurement):
        again = {one.device: one for one in repeat.trace.summaries.get(place, ())}
        for one in interval.trace:
            now = again.get(one.device)
            if not same((one,), (now,) if now else ()):
                found.setdefault(workload, {})[f"{place}, {one.device}"] = {
                    "recorded_energy_j": one.energy_j,
                    "energy_j": now and now.energy_j,
                    "recorded_samples": one.samples,
                    "samples": now.samples if now else 0,
                }
    for workload, places in found.items():
        yield workload, Finding({"intervals": places})


@check(
    "A03",
    "files",
    "invalid",
    "prompts are not those of their hash",
    "Delete the prompts file and let the workflow make it again; measure again if that differs.",
)
def other_prompts(repeat: Repeat) -> Iterator[tuple[str | None, Finding]]:
    """Find a workload whose prompts file gives a SHA-256 that its token ids do not have."""
    for workload, (recorded, found) in repeat.prompts.items():
        if recorded != found:
            yield workload, Finding({"recorded_sha256": recorded, "sha256": found})
