"""Checks of the pipeline itself: files, plan, order, and how many repeats are left."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby

from llm_energy.analysis.checks.catalogue import Finding, check
from llm_energy.analysis.evidence.windows import (
    FileState,
    RepeatCounts,
    WindowEvidence,
    WindowSummary,
)

# How unlikely an order must be, if it was drawn at random, to count as not random.
CHANCE = 0.001

EXPLAINED = {
    "P05": "Closed by construction: every ratio is a sum of joules over a sum of tokens within one "
    "window, and every mean is one over repeats of such ratios.",
    "P08": "Closed by construction: energy, tokens and times of a row come from one window of one "
    "measurement, whose hash the row carries.",
}


@check(
    "P01",
    "host",
    "invalid",
    "windows overlap on one host",
    "Something measured beside the pipeline's lock: measure one thing at a time on a host.",
)
def overlapping_windows(
    summaries: Sequence[WindowSummary],
) -> Iterator[tuple[WindowSummary, Finding]]:
    """Find windows of one backend that were open at the same time on one host since its start.

    Monotonic times of one boot are comparable, also where containers give the host several names;
    a host that gives no boot id is left out. Backends are judged each by itself, so windows of two
    are not held against each other.
    """
    for group in _by_boot(summaries):
        last: WindowSummary | None = None
        for summary in group:
            if last is not None and summary.start_s < last.end_s:
                overlap_s = min(last.end_s, summary.end_s) - summary.start_s
                yield last, Finding({"with": list(summary.key), "overlap_s": overlap_s})
                yield summary, Finding({"with": list(last.key), "overlap_s": overlap_s})
            if last is None or summary.end_s > last.end_s:
                last = summary


@check(
    "P02",
    "host",
    "warning",
    "order not random",
    "Let the pipeline choose the order; drift of the host cannot be told from a cell's energy.",
)
def ordered(summaries: Sequence[WindowSummary]) -> Iterator[tuple[WindowSummary, Finding]]:
    """Find cells that were measured in one order in every block, or each cell in one stretch.

    Per boot, since only there the times say what came first. Flagged is what a random order gives
    less than once in a thousand times, so small sweeps are never flagged.
    """
    for here in _by_boot(summaries):
        runs = list(dict.fromkeys((t.key.cell, t.key.repeat) for t in here))
        for finding in (_same_order(runs), _one_stretch_each([cell for cell, _ in runs])):
            if finding is not None:
                yield from ((summary, finding) for summary in here)


@check(
    "P03",
    "repeats",
    "warning",
    "few or unequal repeats",
    "Run more repeats (protocol.repeats; five or more for a publication).",
)
def few_repeats(remaining: RepeatCounts) -> Finding | None:
    """Find a cell with a single usable repeat, or with fewer than were planned."""
    usable, planned = remaining.usable, remaining.planned
    if not usable or (len(usable) > 1 and len(usable) == len(planned)):
        return None
    evidence = {"usable": list(usable), "planned": list(planned)}
    return Finding(evidence, bias_bound_percent=0.0)  # each window is as good as it was


@check(
    "P04",
    "file",
    "invalid",
    "planned but not measured",
    "Run the sweep again: it goes on with what is missing.",
)
def not_measured(state: FileState) -> Finding | None:
    """Find a measurement that the plan asks for and that does not exist."""
    return None if state.exists else Finding({"path": state.path})


@check(
    "P06",
    "window",
    "invalid",
    "measured under another spec, model or prompts",
    "Delete the measurement and run the sweep again.",
)
def stale(case: WindowEvidence) -> Finding | None:
    """Find a measurement that was made from another spec, model or prompts than there are now."""
    measurement, expected = case.measurement, case.expected
    pairs = {
        "spec_sha256": (measurement.spec_sha256, expected.spec_sha256),
        "weights_sha256": (measurement.weights_sha256, expected.weights_sha256),
        "prompts_sha256": (
            measurement.prompts_sha256.get(case.window.workload),
            expected.prompts_sha256,
        ),
    }
    changed = {
        name: {"measured": then, "now": now}
        for name, (then, now) in pairs.items()
        if now is not None and then != now
    }
    return Finding(changed) if changed else None


@check(
    "P07",
    "file",
    "invalid",
    "not a measurement record",
    "Delete the file and run the sweep again; a whole file is written or none.",
)
def broken_record(state: FileState) -> Finding | None:
    """Find a file that is no JSON, not of this schema version, or not consistent in itself."""
    return Finding({"problem": state.problem}) if state.exists and state.problem else None


def _by_boot(summaries: Sequence[WindowSummary]) -> Iterator[list[WindowSummary]]:
    """Return the windows of each boot of a host, by when they began."""
    placed = [t for t in summaries if t.boot_id is not None]
    placed.sort(key=lambda t: (t.boot_id, t.start_s, t.key))
    for _, group in groupby(placed, key=lambda t: t.boot_id):
        yield list(group)


def _same_order(runs: Sequence[tuple[str, int]]) -> Finding | None:
    """Find blocks that all have the same order; that it is the sorted one makes it less likely."""
    blocks: dict[int, list[str]] = {}
    for cell, repeat in runs:
        blocks.setdefault(repeat, []).append(cell)
    orders = {tuple(order) for order in blocks.values()}
    if len(orders) != 1:
        return None
    order = orders.pop()
    is_sorted = list(order) == sorted(order)
    chance = math.exp(-_log_orders(len(order)) * (len(blocks) - 1 + is_sorted))
    if chance >= CHANCE:
        return None
    return Finding({"every_block": list(order[:5]), "blocks": len(blocks), "chance": chance})


def _one_stretch_each(cells: Sequence[str]) -> Finding | None:
    """Find a sequence in which no cell comes back once another one has begun."""
    if len(list(groupby(cells))) > len(set(cells)):
        return None
    counts = Counter(cells)
    log_orders = _log_orders(len(cells)) - sum(map(_log_orders, counts.values()))
    chance = math.exp(_log_orders(len(counts)) - log_orders)
    if chance >= CHANCE:
        return None
    return Finding({"cells": len(counts), "repeats": len(cells), "chance": chance})


def _log_orders(count: int) -> float:
    """Return the logarithm of the number of orders that ``count`` things can have."""
    return math.lgamma(count + 1)
