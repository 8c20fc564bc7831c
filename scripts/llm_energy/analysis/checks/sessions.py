"""Checks across the measurements of a backend: one machine, in one state, with one software."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import fmean

from llm_energy.analysis.checks.catalogue import Finding, check, differing_pairs
from llm_energy.analysis.evidence.windows import Pairs, WindowSummary
from llm_energy.records.registry.engines import REGISTRY

# These name the GPUs themselves; the rest of a GPU's state is how somebody has set it up.
GPU_IDENTITY = ("name", "driver_version", "vbios")
# Packages that do the work, by how their names begin, beside Python and Linux.
AT_WORK = tuple(name for engine in REGISTRY.values() for name in engine.packages_at_work)
# Student's t with eight degrees of freedom passes 5.04 by chance once in a thousand; and the whole
# trend must be worth 2 %, which is more than repeats of a quiet host differ by.
LEAST_FREEDOM, LEAST_T, NOTABLE_TREND = 8, 5.04, 0.02
FAR = 1e12  # no time or temperature; its square would still be a number


@check(
    "H06",
    "sweep",
    "warning",
    "GPUs set up differently",
    "Set power limit, ECC and MIG alike in all repeats, and persistence mode on.",
)
def other_gpu_state(summaries: Sequence[WindowSummary]) -> Iterator[tuple[WindowSummary, Finding]]:
    """Find settings of the GPUs that differ between measurements; persistence off is a note."""
    differing = differing_pairs(summaries, lambda t: _without(t.gpu_state, GPU_IDENTITY))
    for summary in summaries:
        state = dict(summary.gpu_state)
        if differing and state:
            yield summary, Finding(differing)
        elif "False" in state.get("persistence_mode", ""):
            yield summary, Finding({"persistence_mode": state["persistence_mode"]}, "note")


@check(
    "H10",
    "sweep",
    "warning",
    "more than one host, set of GPUs or driver",
    "GPUs of one kind differ by several percent: measure a sweep on one host and its GPUs.",
)
def mixed_machines(summaries: Sequence[WindowSummary]) -> Iterator[tuple[WindowSummary, Finding]]:
    """Find measurements from different hosts, GPUs or drivers; several boots are a note."""
    machines = sorted({(t.hostname, t.gpus) for t in summaries})
    drivers = differing_pairs(summaries, lambda t: _only(t.gpu_state, GPU_IDENTITY))
    boots = sorted({t.boot_id for t in summaries if t.boot_id is not None})
    if len(machines) == 1 and not drivers and len(boots) < 2:
        return
    evidence = {
        "machines": [{"hostname": h, "boards": list(b)} for h, b in machines],
        "boots": boots,
    }
    severity = None if len(machines) > 1 or drivers else "note"
    for summary in summaries:
        yield summary, Finding(evidence | drivers, severity, 0.0)  # each is as good as it was


@check(
    "H11",
    "sweep",
    "note",
    "kernel set up differently",
    "Set governor, turbo and multithreading alike in all repeats.",
)
def other_kernel_settings(
    summaries: Sequence[WindowSummary],
) -> Iterator[tuple[WindowSummary, Finding]]:
    """Find kernel settings that bear on energy and differ between measurements."""
    if differing := differing_pairs(summaries, lambda t: t.host_settings):
        for summary in summaries:
            if summary.host_settings:
                yield summary, Finding(differing)


@check(
    "H15",
    "sweep",
    "warning",
    "joules follow temperature or time",
    "Blocks no longer cancel it: let the GPUs settle, and keep the order of cells random.",
)
def confounded(summaries: Sequence[WindowSummary]) -> Iterator[tuple[WindowSummary, Finding]]:
    """Find joules per token whose deviations from their cell's mean follow temperature or time.

    Each repeat of a cell gives one point, the mean over its workloads; at least ten are needed.
    """
    evidence = {}
    for name in ("temperature_c", "start_s"):
        if found := _trend(list(_residuals(summaries, name))):
            evidence[name] = found
    if evidence:
        for summary in summaries:
            if summary.energy_per_output_token_j is not None:
                yield summary, Finding(evidence)


@check(
    "H16",
    "sweep",
    "warning",
    "measured with other software",
    "Measure the older ones again: a new version of an engine may cost other joules.",
)
def other_software(summaries: Sequence[WindowSummary]) -> Iterator[tuple[WindowSummary, Finding]]:
    """Find versions that differ between measurements; a note unless they do the work."""
    differing = differing_pairs(summaries, lambda t: t.software)
    commits = sorted({t.git_commit for t in summaries if t.git_commit is not None})
    if not differing and len(commits) < 2:
        return
    names = [name.lower().replace("_", "-") for name in differing]
    works = any(name in ("python", "linux") or name.startswith(AT_WORK) for name in names)
    for summary in summaries:
        yield summary, Finding(differing | {"git_commits": commits}, None if works else "note")


def _only(pairs: Pairs, names: Sequence[str]) -> Pairs:
    return tuple(pair for pair in pairs if pair[0] in names)


def _without(pairs: Pairs, names: Sequence[str]) -> Pairs:
    return tuple(pair for pair in pairs if pair[0] not in names)


Point = tuple[float, float]


def _residuals(summaries: Sequence[WindowSummary], name: str) -> Iterator[list[Point]]:
    """Return, for each cell on one machine, its repeats as points about their common mean.

    A point is (what stands in a summary under ``name``, logarithm of the joules per output token).
    """
    groups: dict[tuple, dict[str, list[tuple[int, float, float]]]] = {}
    for summary in summaries:
        x, energy_j = getattr(summary, name), summary.energy_per_output_token_j
        if x is None or not abs(x) < FAR or energy_j is None or not 0 < energy_j < math.inf:
            continue
        place = (summary.key.cell, summary.hostname, summary.boot_id, summary.gpus)
        rows = groups.setdefault(place, {}).setdefault(summary.key.workload, [])
        rows.append((summary.key.repeat, x, math.log(energy_j)))
    for workloads in groups.values():
        repeats: dict[int, list[Point]] = {}
        for rows in workloads.values():
            _, *means = map(fmean, zip(*rows, strict=True))
            for repeat, x, y in rows:
                repeats.setdefault(repeat, []).append((x - means[0], y - means[1]))
        yield [tuple(map(fmean, zip(*points, strict=True))) for points in repeats.values()]


def _trend(cells: Sequence[list[Point]]) -> dict[str, float] | None:
    """Return the common slope of all cells' points where it is certain and large, else None."""
    points = [point for cell in cells for point in cell]
    freedom = len(points) - len(cells) - 1
    sxx = math.fsum(x * x for x, _ in points)
    if freedom < LEAST_FREEDOM or not sxx > 0:
        return None
    slope = math.fsum(x * y for x, y in points) / sxx
    rest = math.fsum((y - slope * x) ** 2 for x, y in points)
    error = math.sqrt(rest / freedom / sxx)
    span = max(x for x, _ in points) - min(x for x, _ in points)
    if abs(slope) * span < NOTABLE_TREND or abs(slope) < LEAST_T * error:
        return None
    return {"relative_change": slope * span, "over": span, "repeats": len(points)}
