"""Write the first screen: lowest energy, by how much, how sure, what was estimated or failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress, zip_longest

from llm_energy.analysis.statistics.format import (
    ABSENT,
    NOISY,
    NOISY_MEANING,
    absolute_quantity,
    bias,
    quantity,
    significant,
)
from llm_energy.publish.report.sources import Sources, counted, listed
from llm_energy.records import AggregateRow, Flag, Statistic
from llm_energy.records.recommendation import Lowest
from llm_energy.records.registry.metrics import COMPONENTS, GROSS

MOST_REASONS = 3
MOST_LOWEST = 4
ALONE = "there is nothing to compare it with"
NOT_COMPARED = "An older version compared this sweep: run the workflow again to be told."
WORST_FIRST = ("invalid", "warning", "note")


@dataclass(frozen=True)
class Statement:
    """One question of the first screen, its answer, and what qualifies the answer."""

    question: str
    answer: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class Warned:
    """One check that found something: in how many windows of how many cells, and the advice."""

    id: str
    severity: str
    title: str
    advice: str
    windows: int
    cells: tuple[str, ...]


def banner(sources: Sources) -> tuple[str, str] | None:
    """Return the one word and sentence that must stand above everything else, if there is one."""
    if sources.simulated:
        return "Simulated", "No joule here was ever drawn: the host and its sensors are simulated."
    if sources.rows and all(row.energy_status == "estimated" for row in sources.rows):
        return (
            "Estimated",
            "No energy sensor could be read, so every joule here is what a model of the hardware "
            "says. How wrong that model is, nobody knows: compare cells by measured joules alone.",
        )
    if pooled := [a.backend for a in sources.aggregates if a.mixed_backends]:
        return "Pooled", f"The means of {listed(pooled)} pool unlike systems, against advice."
    return None


def abstract(sources: Sources) -> list[Statement]:
    """Answer the five questions of the first screen, in words, for every model of the sweep."""
    if not sources.rows:
        return [
            Statement("What came out?", "Nothing: no cell gave a usable measurement."),
            _missing(sources),
        ]
    found = sorted(sources.comparisons.lowest, key=lambda one: one.rows == 1)
    shown = [(one, sources.row_of(one)) for one in found[:MOST_LOWEST]]
    models = {row.model for _, row in shown}
    return [
        Statement(
            "Which cell has the lowest energy?",
            " ".join(f"{one.statement}." for one, _ in shown) or NOT_COMPARED,
            (
                *(text for one, _ in shown for text in _beside(sources, one)),
                *_rest(found[MOST_LOWEST:]),
            ),
        ),
        Statement(
            "By how much?",
            _each(shown, lambda one, _: one.against_next or ALONE),
            tuple(
                f"Against the first precision of the config: {one.against_first}."
                for one, _ in shown
                if one.against_first
            ),
        ),
        Statement(
            "How sure is that?",
            _each(shown, lambda _, row: _interval(row.statistics[GROSS])),
            tuple(
                dict.fromkeys(text for _, row in shown for text in _doubts(row, len(models) > 1))
            ),
        ),
        _estimated(sources),
        _missing(sources),
    ]


def _beside(sources: Sources, one: Lowest) -> Iterator[str]:
    """Say what could not be held against the lowest, and what is lowest within the bounds."""
    if one.not_comparable:
        others = counted(len(one.not_comparable), "cell and workload", "cells and workloads")
        yield f"{others} with the same work cannot be compared with it: the conditions differ."
    if one.refused:
        k = sources.comparisons.lowest.index(one)
        advised = sources.comparisons.recommendations[k]
        yield f"But {'; '.join(one.refused)}. {advised.statement}."


def _rest(left_out: Sequence[Lowest]) -> Iterator[str]:
    if left_out:
        pieces = counted(len(left_out), "more piece of work", "more pieces of work")
        yield f"{pieces}: see the recommendations under Comparisons."


def warnings(sources: Sources) -> list[Warned]:
    """Return every check that found something, the worst and most frequent first."""
    found: dict[tuple[str, str], list[tuple[str, Flag]]] = {}
    for verdict in sources.judged:
        for flag in verdict.flags:
            found.setdefault((flag.id, flag.severity), []).append((verdict.cell, flag))
    listing = [
        Warned(
            id,
            severity,
            sources.titles.get(id, id),
            flags[0][1].advice,
            len(flags),
            tuple(dict.fromkeys(cell for cell, _ in flags)),
        )
        for (id, severity), flags in found.items()
    ]
    return sorted(listing, key=lambda w: (WORST_FIRST.index(w.severity), -w.windows, w.id))


def _each(
    shown: Sequence[tuple[Lowest, AggregateRow]], say: Callable[[Lowest, AggregateRow], str]
) -> str:
    """Say one thing of each; they are named by that in which they differ."""
    told = [say(*one) for one in shown]
    if len(told) < 2:
        return "".join(f"{text[:1].upper()}{text[1:].rstrip('.')}." for text in told or [ALONE])
    names = [(one.model, f"on {one.backend}", *one.work.split("; ")) for one, _ in shown]
    names = [*zip(*zip_longest(*names, fillvalue=""), strict=True)]
    if len(set(names)) < len(names):  # the same work, by joules of another kind
        names = [(*name, one.energy_status) for name, (one, _) in zip(names, shown, strict=True)]
    varied = [len(set(values)) > 1 for values in zip(*names, strict=True)]
    labels = [", ".join(filter(None, compress(name, varied))) for name in names]
    text = "; ".join(f"{label}: {text}" for label, text in zip(labels, told, strict=True))
    return f"O{text[1:]}." if text.startswith("on ") else f"{text}."  # an id keeps its letters


def _interval(statistic: Statistic) -> str:
    if statistic.ci_low is None:
        return "not at all: one repeat shows no scatter, so there is no interval"
    half = 100 * statistic.ci_half / statistic.mean
    if half >= 100:
        return f"not at all: over {counted(statistic.n, 'repeat')} it is too noisy"
    if statistic.n == 1:
        return (
            f"to ± {significant(half)} %, the uncertainty of the meter alone: with one repeat, "
            "nothing is known of what another would give"
        )
    return f"to ± {significant(half)} %, its 95 % interval over {counted(statistic.n, 'repeat')}"


def _doubts(row: AggregateRow, several: bool) -> list[str]:
    """Say what qualifies a row's interval; ``several`` models are told apart by name."""
    told = []
    statistic = row.statistics[GROSS]
    if quantity(statistic).startswith(NOISY):
        told.append(NOISY_MEANING)
    if row.energy_status == "estimated":
        told.append("The interval shows how the estimate scatters, not how wrong the model is.")
    absolute = absolute_quantity(statistic)
    if absolute != ABSENT and not absolute.startswith(NOISY):
        cell = f"{row.precision} at {row.workload}"
        of = f" of {row.model}" if several else ""
        told.append(
            f"Against other GPUs the sensor's own error counts, too: {absolute} J for {cell}{of}."
        )
    if row.degraded:
        told.append(
            f"A warning is on {row.degraded} of its {counted(row.n, 'repeat')} (see below). "
            f"{bias(row.bias_bound_percent)}"
        )
    if statistic.n == 2:
        told.append("Two repeats say little: measure five for a result to publish.")
    return told


def _estimated(sources: Sources) -> Statement:
    """Say which joules are a model's, and what was not known at all."""
    parts: dict[str, Counter[str]] = {}
    for row in sources.every_row:
        for component in row.components:
            parts.setdefault(component, Counter())[row.energy_status] += 1
    by_status = {
        status: [COMPONENTS.get(c, c) for c, seen in parts.items() if seen[status]]
        for status in ("measured", "estimated")
    }
    absent = [COMPONENTS[component] for component in COMPONENTS if component not in parts]
    measured, estimated = listed(by_status["measured"]), listed(by_status["estimated"])
    if not estimated:
        answer = f"Nothing: the joules ({measured}) come from sensors."
    elif not measured:
        answer = f"Everything: the joules ({estimated}) come from a model of the hardware."
    else:
        answer = (
            f"What stands as estimated ({estimated}) comes from a model of the hardware, the rest "
            f"({measured}) from sensors. The two have rows of their own and are never added."
        )
    details = [f"Not known, and in no sum: {listed(absent)}."] if absent else []
    if sources.simulated:
        answer = (
            f"All of it is simulated: {listed([*by_status['measured'], *by_status['estimated']])}."
        )
    return Statement("What was only estimated?", answer, tuple(details))


def _missing(sources: Sources) -> Statement:
    """Say which cells gave nothing, and which repeats did not enter."""
    usable = {row.cell for row in sources.rows}
    cells = sources.plan.cells
    lost = [cell.cell for cell in cells if cell.cell not in usable]
    failed = {row.cell: row for row in reversed(sources.every_row) if not row.n}
    kinds = Counter(failed[cell].outcome if cell in failed else "missing" for cell in lost)
    excluded = {(r.cell, r.workload, k): why for r in sources.rows for k, why in r.excluded}
    spared = sum(len(row.not_needed) for row in sources.rows)
    details = [
        f"{cell}: {failed[cell].reason or failed[cell].outcome}."
        for cell in lost[:MOST_REASONS]
        if cell in failed
    ]
    if excluded:
        reasons = Counter(why.partition(":")[0] for why in excluded.values())
        kinds_of = listed(f"{count} {word}" for word, count in reasons.most_common())
        kind = "of the others " if lost else ""
        details.append(f"{counted(len(excluded), 'window')} {kind}left out: {kinds_of}.")
    if spared:
        details.append(
            f"{counted(spared, 'window')} not measured, the interval being narrow enough."
        )
    if lost:
        words = listed(f"{count} {word}" for word, count in kinds.most_common())
        answer = f"{len(lost)} of {counted(len(cells), 'cell')} gave no usable window: {words}."
    else:
        all_of_them = {1: "the only cell", 2: "both cells"}.get(
            len(cells), f"all {counted(len(cells), 'cell')}"
        )
        answer = f"No cell: {all_of_them} gave usable windows."
    return Statement("What failed or is missing?", answer, tuple(details))
