"""Leave out a cell's later repeats once its earlier ones have pinned the answer down."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from llm_energy.analysis.checks import WindowEvidence, expected_of, flags_of, verdict_word
from llm_energy.analysis.energy.accounting import sums, work
from llm_energy.analysis.statistics.format import significant
from llm_energy.analysis.statistics.intervals import t_quantile_without_scipy
from llm_energy.analysis.statistics.summary import summarise
from llm_energy.core.errors import RecordError
from llm_energy.records import (
    Measurement,
    ModelManifest,
    PromptSet,
    Protocol,
    Spec,
    Window,
    Workload,
    read_record,
)


def enough(values_j: Mapping[str, Sequence[float]], settings: Protocol) -> str | None:
    """Say why no further repeat is needed, or None while one is.

    ``values_j`` has, by workload, the gross joules per output token of each usable repeat. Enough
    is when, for every workload, half the 95 % t-interval is narrower than ``target_ci_percent`` of
    the mean, with ``min_repeats`` repeats at least: a sequential interval of fixed width (Chow and
    Robbins, Ann. Math. Statist. 36, 1965).

    >>> enough({"b1": [1.00, 1.01, 0.99]}, Protocol(target_ci_percent=3.0, min_repeats=3))
    'half the 95 % interval is within 3 % of the mean after 3 repeats: b1 1 J per token, 2.9 %'
    >>> enough({"b1": [1.0, 1.1, 0.9]}, Protocol(target_ci_percent=3.0, min_repeats=3))
    """
    target = settings.target_ci_percent
    counts = [len(values) for values in values_j.values()]
    if target is None or not counts or min(counts) < max(2, settings.min_repeats):
        return None
    found = {workload: _mean_and_half_percent(values) for workload, values in values_j.items()}
    if not all(half < target for _, half in found.values()):
        return None
    figures = ", ".join(
        f"{w} {mean:.4g} J per token, {significant(half)} %" for w, (mean, half) in found.items()
    )
    return (
        f"half the 95 % interval is within {target:g} % of the mean after {min(counts)} repeats: "
        f"{figures}"
    )


def earlier_values_j(
    spec: Spec, out: Path, manifest: ModelManifest, prompts: PromptSet
) -> dict[str, list[float]]:
    """Return, by workload, the gross joules per output token of the cell's earlier usable repeats.

    They lie beside ``out`` under a smaller number. Usable is a repeat of the same spec, weights and
    prompts in which every workload has a window that no check calls invalid. The joules are the
    measured ones where there are any, else the estimated ones. Repeats that metered other
    components are other quantities: where they differ, none is given.
    """
    values_j: dict[str, list[float]] = {workload.id: [] for workload in spec.workloads}
    kinds = set()
    for measurement in _earlier(spec, out):
        windows = {window.workload: window for window in measurement.windows}
        if _same_work(measurement.spec, spec) and all(
            workload in windows and _usable(measurement, windows[workload], manifest, prompts)
            for workload in values_j
        ):
            for workload, values in values_j.items():
                status, total = next(iter(sums(windows[workload].interval).items()))
                kinds.add((workload, status, total.components))
                values.append(total.energy_j / work(windows[workload]).output_tokens)
    return values_j if len(kinds) == len(values_j) else {workload: [] for workload in values_j}


def _mean_and_half_percent(values: Sequence[float]) -> tuple[float, float]:
    found = summarise(values, t_quantile_without_scipy)
    return found.mean, 100 * found.ci_half / found.mean if found.mean > 0 else math.inf


def _earlier(spec: Spec, out: Path) -> Iterator[Measurement]:
    """Yield the measurements beside ``out`` with a smaller number; what is none is passed over."""
    for path in sorted(out.parent.glob("r*.json")):
        number = re.fullmatch(r"r(\d+)\.json", path.name)
        if number and int(number[1]) < spec.repeat:
            try:
                yield read_record(Measurement, path)
            except (RecordError, ValueError):
                continue


def _same_work(then: Spec, now: Spec) -> bool:
    """Return whether two specs differ in what is drawn for a block alone, such as seeds."""
    return _asked(then) == _asked(now)


def _asked(spec: Spec) -> tuple[Spec, dict[str, Workload]]:
    engine = {name: value for name, value in spec.engine.items() if name != "seed"}
    alike = replace(spec, repeat=1, seed=0, engine=engine, workloads=())
    return alike, {workload.id: workload.without_draws() for workload in spec.workloads}


def _usable(
    measurement: Measurement, window: Window, manifest: ModelManifest, prompts: PromptSet
) -> bool:
    if measurement.outcome != "ok" or window.outcome != "ok":
        return False
    if not (sums(window.interval) and work(window).output_tokens):
        return False
    spec = measurement.spec
    asked = next(w for w in spec.workloads if w.id == window.workload)
    expected = expected_of(manifest, prompts, asked.prompts_key(spec.repeat))
    case = WindowEvidence(measurement, window, expected)
    return verdict_word(flags_of("window", case)) != "invalid"
