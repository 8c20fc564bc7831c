"""Attribute the joules of a repeat's windows to their requests, and say what came of it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from llm_energy.analysis.energy.attribution import Attribution, attribute, joules
from llm_energy.analysis.energy.latency import PERCENTILES, quantile, reached
from llm_energy.analysis.evidence.steps import steps_of
from llm_energy.analysis.evidence.windows import WindowEvidence
from llm_energy.core.errors import RecordError
from llm_energy.core.files import sha256_file
from llm_energy.records import (
    DearRequest,
    Measurement,
    RequestEnergy,
    RequestGroup,
    Window,
    power_trace,
)
from llm_energy.records.files import paths
from llm_energy.records.power_trace import Sample

DEAREST = 5  # requests that a summary names
NO_STEPS = "no steps were recorded of this window"
NOT_WHOLE = "no request was served from begin to end inside the window"


def attributions(measurement: Measurement, path: Path) -> dict[str, Attribution | str]:
    """Return, by workload, the shares of the requests of each window with a result, or why none.

    ``path`` is that of the measurement, beside which the steps and the power trace lie.
    """
    windows = [window for window in measurement.windows if window.outcome == "ok"]
    steps = steps_of(measurement, path)
    if isinstance(steps, str):
        return {window.workload: steps for window in windows}
    samples = _samples(measurement, paths.power_trace(path))
    found: dict[str, Attribution | str] = {}
    for window in windows:
        table, (status, total_j) = steps.get(window.workload), joules(window)
        if table is None or not table.start_s:
            found[window.workload] = measurement.steps.reason or NO_STEPS
        elif not 0 < total_j < math.inf:
            found[window.workload] = f"the {status} joules of the window are {total_j:g}"
        else:
            found[window.workload] = attribute(WindowEvidence(measurement, window), table, samples)
    return found


def _samples(measurement: Measurement, path: Path) -> Mapping[str, Sequence[Sample]]:
    """Return the power trace by device; none where the file is not the recorded one."""
    report = measurement.meter
    found: dict[str, list[Sample]] = {}
    if report is None or report.trace_sha256 is None or not path.is_file():
        return found
    if sha256_file(path) != report.trace_sha256:
        return found
    try:
        for sample in power_trace.read(path):
            found.setdefault(sample.device, []).append(sample)
    except RecordError:
        return {}
    return found


def request_energy(window: Window, shares: Attribution) -> RequestEnergy | str:
    """Summarise the joules of a window's requests; of timed traffic, of those wholly inside."""
    table, interval = window.requests, window.interval
    starts_s = table.service_start_s or table.first_token_s
    times_s = zip(starts_s, table.last_token_s, strict=True)
    whole = [
        row
        for row, (start_s, last_s) in enumerate(times_s)
        if window.traffic is None
        or (
            start_s is not None
            and last_s is not None
            and interval.start_s <= start_s
            and last_s <= interval.end_s
        )
    ]
    if not whole:
        return NOT_WHOLE
    found = [
        DearRequest(
            table.request_id[row],
            table.prompt_tokens[row],
            table.output_tokens[row],
            shares.requests_j[row],
        )
        for row in whole
    ]
    ordered = sorted(one.energy_j for one in found)
    quantiles_j = {
        f"p{p}": quantile(ordered, p / 100) for p in PERCENTILES if reached(p, len(ordered))
    }
    alone = [RequestGroup(r.prompt_tokens, r.output_tokens, 1, r.energy_j) for r in found]
    return RequestEnergy(
        requests=len(found),
        mean_j=math.fsum(ordered) / len(ordered),
        quantiles_j=quantiles_j,
        groups=grouped(alone),
        dearest=dearest(found),
        power=shares.power,
        assumptions=shares.assumptions,
    )


def grouped(groups: Iterable[RequestGroup]) -> tuple[RequestGroup, ...]:
    """Join groups whose prompts and answers are of the same octave of tokens, shortest first."""
    octaves: dict[tuple[int, int], list[RequestGroup]] = {}
    for group in groups:
        lengths = (group.prompt_tokens, group.output_tokens)
        octave = tuple(math.floor(math.log2(max(1, tokens))) for tokens in lengths)
        octaves.setdefault(octave, []).append(group)
    return tuple(_joined(octaves[octave]) for octave in sorted(octaves))


def _joined(groups: Sequence[RequestGroup]) -> RequestGroup:
    counts = [group.requests for group in groups]
    means = (
        statistics.fmean([getattr(group, name) for group in groups], counts)
        for name in ("prompt_tokens", "output_tokens", "energy_j")
    )
    prompt, output, energy_j = means
    return RequestGroup(prompt, output, sum(counts), energy_j)


def dearest(requests: Iterable[DearRequest]) -> tuple[DearRequest, ...]:
    """Return the requests that took most, each by its prompt once, with the mean of its joules."""
    by_id: dict[str, list[DearRequest]] = {}
    for one in requests:
        by_id.setdefault(one.request_id, []).append(one)
    means = [
        DearRequest(
            id,
            own[0].prompt_tokens,
            round(statistics.fmean(one.output_tokens for one in own)),
            statistics.fmean(one.energy_j for one in own),
        )
        for id, own in by_id.items()
    ]
    return tuple(sorted(means, key=lambda one: -one.energy_j)[:DEAREST])


def over_repeats(found: Sequence[RequestEnergy]) -> RequestEnergy:
    """Join what windows of several repeats tell: means of their statistics, all of their groups."""
    names = dict.fromkeys(name for one in found for name in one.quantiles_j)
    return RequestEnergy(
        requests=sum(one.requests for one in found),
        mean_j=statistics.fmean(one.mean_j for one in found),
        quantiles_j={
            name: statistics.fmean(
                one.quantiles_j[name] for one in found if name in one.quantiles_j
            )
            for name in names
        },
        groups=grouped(group for one in found for group in one.groups),
        dearest=dearest(request for one in found for request in one.dearest),
        power="mean power" if any(o.power == "mean power" for o in found) else "power trace",
        assumptions=tuple(dict.fromkeys(text for one in found for text in one.assumptions)),
    )
