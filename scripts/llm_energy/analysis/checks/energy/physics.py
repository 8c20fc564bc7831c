"""Checks against physics and against what others have published."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence

from llm_energy.analysis.checks.catalogue import Finding, check
from llm_energy.analysis.energy import published
from llm_energy.analysis.energy.limits import gpu_energy_j, gpus_of, served_work, window_limits
from llm_energy.analysis.evidence.windows import (
    DTYPE_BYTES,
    WindowEvidence,
    WindowSummary,
    in_flight,
    number,
)

FAR = 5.0
# The anchors' prompts are about as long as their outputs; of longer ones the prefill would weigh.
LONGEST_PROMPTS = 2


@check(
    "E25",
    "window",
    "invalid",
    "below the physical floor",
    "Something is miscounted: the GPUs that were metered, the tokens, or the prompts computed.",
)
def below_floor(case: WindowEvidence) -> Finding | None:
    """Find fewer joules than memory and arithmetic take, or more work than the GPUs can do.

    Needs GPUs that are in the table, all of them metered, and the model's architecture.
    """
    found = window_limits(case)
    if isinstance(found, str) or found.energy_j is None or found.fault is None:
        return None
    evidence = {
        "energy_j": found.energy_j,
        "floor_j": found.floor_j,
        "roofline_j": found.roofline_j,
        "x_floor": found.energy_j / found.floor_j if found.floor_j > 0 else None,
        "mbu": found.mbu,
        "mfu": found.mfu,
    }
    return Finding(evidence)


@check(
    "E26",
    "window",
    "warning",
    "far from published measurements",
    "Find the cause before you publish: another load on the GPU, a stalled engine, a unit.",
)
def far_from_anchor(case: WindowEvidence) -> Finding | None:
    """Find joules per output token five times above, or below, those published of a like cell.

    Those are of a busy engine; one that waits for requests needs any number of joules a token.
    """
    if case.window.traffic is not None:
        return None
    energy_j, gpus = gpu_energy_j(case), gpus_of(case)
    resident = number(case.measurement.effective, "weight_bytes")
    unquantised = not any(case.workload.parameters["quantization"].values())
    if energy_j is None or not gpus or not resident or not unquantised:
        return None
    if DTYPE_BYTES.get(str(case.measurement.effective.get("dtype"))) != 2:
        return None
    names = {str(gpu.get("name")) for gpu in case.measurement.host.gpus if gpu.get("uuid") in gpus}
    anchor = published.anchor_of(names.pop(), len(gpus), resident) if len(names) == 1 else None
    published_j = published.at_batch_size(anchor, in_flight(case)) if anchor else None
    if anchor is None or published_j is None:
        return None
    work = served_work(case)
    if not 0 < work.prompt_tokens <= LONGEST_PROMPTS * work.output_tokens:
        return None
    measured_j = energy_j / work.output_tokens
    if 1 / FAR <= measured_j / published_j <= FAR:
        return None
    return Finding(
        {
            "energy_per_output_token_j": measured_j,
            "published_j": published_j,
            "of": f"{anchor.model}, {anchor.gpus} x {anchor.gpu}, batch {work.batch_size}",
            "source": published.SOURCE,
        }
    )


@check(
    "E31",
    "sweep",
    "warning",
    "far from the other repeats of its cell",
    "Find what was different: one of the two kinds of repeat did not do the cell's work.",
)
def far_from_other_repeats(
    summaries: Sequence[WindowSummary],
) -> Iterator[tuple[WindowSummary, Finding]]:
    """Find joules per output token five times above, or below, the median of the other repeats."""
    groups: dict[tuple[str, str], list[WindowSummary]] = {}
    for summary in summaries:
        value_j = summary.energy_per_output_token_j
        if value_j is not None and 0 < value_j < math.inf:
            groups.setdefault((summary.key.cell, summary.key.workload), []).append(summary)
    for group in groups.values():
        values_j = [summary.energy_per_output_token_j for summary in group]
        for place, summary in enumerate(group):
            others_j = values_j[:place] + values_j[place + 1 :]
            usual_j = statistics.median(others_j or values_j)
            if not 1 / FAR <= values_j[place] / usual_j <= FAR:
                evidence = {"energy_per_output_token_j": values_j[place], "others_j": usual_j}
                yield summary, Finding(evidence)
