"""Split joules over input (prefill) and output tokens (decode), from windows of many lengths.

Differences between windows assume no form: one more token costs what two lengths differ by, over
the tokens by which they differ. Beside them stands a fit (``fit.py``), which is asked for the same
lengths, so that the two can be held against each other. The windows of one repeat share a process
and the state of its GPU, so a repeat counts once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from llm_energy.analysis.grouping.scopes import Scopes
from llm_energy.analysis.phases.fit import fitted, lack
from llm_energy.analysis.phases.windows import Lengths, Weights, Windows, contrasts
from llm_energy.records import SCHEMA_VERSION, MetricsTable, Statistic
from llm_energy.records.phases import PhaseCost, PhasePoint, Phases, PhaseSplit

NEEDS = (
    "the split needs workloads of one batch size with forced output lengths and synthetic prompts, "
    "all requests of a workload of one length, and two prompt lengths or two output lengths "
    "(config/examples/phases.yaml)"
)


def phases(sweep: str, tables: Iterable[MetricsTable]) -> Phases:
    """Return how joules split over input and output tokens, of all backends of a sweep."""
    splits = tuple(
        split for table in tables for key, own in _alike(table) if (split := _split(key, own))
    )
    return Phases(SCHEMA_VERSION, sweep, splits, None if splits else NEEDS)


def _alike(table: MetricsTable) -> Iterator[tuple[tuple[Any, ...], Windows]]:
    """Yield the windows that differ in their lengths and repeat alone.

    Of timed traffic there are none, since waiting is in its joules, and of requests of unequal
    lengths there are none, since the mean of a product is no product of means.
    """
    scopes = Scopes([table], pool_machines=False)
    found: dict[tuple[Any, ...], Windows] = {}
    for row in table.rows:
        held = table.conditions.get(row.conditions or "", {})
        lengths = _lengths(held)
        if row.traffic is not None or lengths is None or not row.requests:
            continue
        key = (row.backend, row.cell, row.batch_size, row.batching, row.energy_status)
        key += (row.components, held.get("work_left_out"))
        own = found.setdefault(key, Windows({}, scopes)).found.setdefault(lengths, {})
        own.setdefault(row.repeat, row)  # a second workload of like lengths says nothing new
    for key, own in found.items():
        yield key[:-1], own


def _lengths(held: Mapping[str, str]) -> Lengths | None:
    """Return the lengths of a window's requests, None where they are not all alike."""
    told = [held.get(name, "") for name in ("prompt_lengths", "output_lengths")]
    return Lengths(*map(int, told)) if all(text.isdecimal() for text in told) else None


def _split(key: tuple[Any, ...], windows: Windows) -> PhaseSplit | None:
    wanted = contrasts(windows.found)
    if not wanted:
        return None
    whole = windows.complete
    points = tuple(
        PhasePoint(
            next(iter(own.values())).workload,
            *lengths,
            windows.weighted({lengths: 1.0}, sorted(own)),
        )
        for lengths, own in sorted(windows.found.items())
    )
    incomplete = tuple(sorted(set(windows.repeats) - set(whole)))
    split = PhaseSplit(*key, points, tuple(whole), incomplete)
    measured = tuple(
        PhaseCost("difference", quantity, tuple(sorted(contrast)), cost)
        for quantity, contrast in wanted.items()
        if (cost := _measured(windows, contrast))
    )
    split = replace(split, costs=measured, reason=lack(windows))
    return split if split.reason else fitted(split, windows, wanted)


def _measured(windows: Windows, contrast: Weights) -> Statistic | None:
    """Return what a difference between windows costs, over the repeats that have all of them."""
    repeats = sorted(set.intersection(*(set(windows.found[one]) for one in contrast)))
    return windows.weighted(contrast, repeats) if repeats else None
