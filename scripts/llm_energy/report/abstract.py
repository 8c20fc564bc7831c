"""Write the first screen: what is cheapest, by how much, how sure, what was estimated or failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from llm_energy.records import AggregateRow, Flag, Statistic
from llm_energy.records.metrics import COMPONENTS, GROSS, METRICS
from llm_energy.report.sources import Sources, counted, listed, most_common, place
from llm_energy.statistics import absolute_quantity, quantity
from llm_energy.wording import number

MOST_REASONS = 3
MOST_TIES = 2
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
    """Give the one word and sentence that must stand above everything else, if there is one."""
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
    best = [_cheapest(sources, model) for model in dict.fromkeys(r.model for r in sources.rows)]
    return [
        Statement(
            "Which cell is cheapest?",
            "; ".join(_cost(sources, row) for row in best) + ".",
            tuple(
                text
                for row in best
                for text in (*_scope(sources, row), *_beyond_bounds(sources, row))
            ),
        ),
        Statement(
            "By how much?",
            _each(best, lambda row: _against_next(sources, row)),
            tuple(text for row in best for text in _against_first(sources, row)),
        ),
        _how_sure(sources, best),
        _estimated(sources),
        _missing(sources),
    ]


def name(row: AggregateRow) -> str:
    """Name a row as a person would."""
    return f"{row.precision} on {row.backend} at {row.workload}"


def _cost(sources: Sources, row: AggregateRow) -> str:
    """Say what a row costs, and of which rows nobody can tell whether they cost less."""
    ties = [name(other) for other in sources.ties(row)]
    shown = ties[:MOST_TIES] + [f"{len(ties) - MOST_TIES} more"] * (len(ties) > MOST_TIES)
    return (
        f"{row.model} in {row.precision} on {row.backend} at batch size {row.batch_size} "
        f"({row.workload}): {quantity(row.statistics[GROSS])} {METRICS[GROSS].label}"
        + (f", which cannot be told from {listed(shown)}" if ties else "")
    )


def warnings(sources: Sources) -> list[Warned]:
    """Give every check that found something, the worst and most frequent first."""
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


def _each(rows: Sequence[AggregateRow], say) -> str:
    """Say one thing of each model; the model is named only where there are several."""
    if len(rows) == 1:
        return _sentence(say(rows[0]))
    return "; ".join(f"{row.model}: {say(row)}" for row in rows) + "."


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _rivals(sources: Sources, model: str) -> list[AggregateRow]:
    """Give the rows of a model that can be ranked: one status, one set of components.

    Measured joules before estimated ones, then the components that most rows have.
    """
    rows = [row for row in sources.rows if row.model == model]
    measured = [row for row in rows if row.energy_status == "measured"] or rows
    components = most_common(row.components for row in measured)
    return [row for row in measured if row.components == components]


def _cheapest(sources: Sources, model: str) -> AggregateRow:
    return min(_rivals(sources, model), key=_mean)


def _scope(sources: Sources, best: AggregateRow) -> list[str]:
    """Say at how many workloads the cell is the cheapest, and what was not ranked with it."""
    rivals = _rivals(sources, best.model)
    by_workload: dict[str, list[AggregateRow]] = {}
    for row in rivals:
        by_workload.setdefault(row.workload, []).append(row)
    contested = [rows for rows in by_workload.values() if len(rows) > 1]
    told = []
    if contested:
        won = sum(min(rows, key=_mean).cell == best.cell for rows in contested)
        told.append(
            f"{best.precision} on {best.backend} has the least joules at {won} of "
            f"{counted(len(contested), 'workload')} that several cells served."
        )
    others = {r.cell for r in sources.rows if r.model == best.model} - {r.cell for r in rivals}
    if others:
        told.append(
            f"{counted(len(others), 'cell')} could not be ranked with it, the joules being of "
            "another kind or of other components."
        )
    return told


def _beyond_bounds(sources: Sources, best: AggregateRow) -> list[str]:
    """Say that the cheapest breaks a bound that the sweep sets, and what is cheapest within it."""
    for advised in sources.comparisons.recommendations:
        for candidate in advised.candidates:
            if (candidate.cell, candidate.workload) == place(best) and candidate.refused:
                return [f"But {'; '.join(candidate.refused)}. {advised.statement.rstrip('.')}."]
    return []


def _against_next(sources: Sources, best: AggregateRow) -> str:
    """Say how the cheapest row compares with the next cell at its workload, else with its own."""
    rivals = [row for row in _rivals(sources, best.model) if row is not best]
    here = [row for row in rivals if row.workload == best.workload]
    if here:
        return f"at {best.workload}, {_against(sources, best, min(here, key=_mean))}"
    if rivals:
        return f"among its workloads, {_against(sources, best, min(rivals, key=_mean))}"
    return "there is nothing to compare it with"


def _against_first(sources: Sources, best: AggregateRow) -> list[str]:
    """Compare with the first cell that the config names on this backend, if it is another."""
    here = [
        row
        for row in _rivals(sources, best.model)
        if row.workload == best.workload and row.backend == best.backend
    ]
    following = sorted((row for row in here if row is not best), key=_mean)
    if len(following) < 2 or here[0] in (best, following[0]):
        return []
    return [f"Against the first precision of the config: {_against(sources, best, here[0])}."]


def _against(sources: Sources, best: AggregateRow, other: AggregateRow) -> str:
    """Compare two rows in the words of the compare stage, else by their means, saying so."""
    verdict = sources.verdict(best, other)
    if verdict is not None:
        return verdict.rstrip(".")
    percent = 100 * (1 - _mean(best) / _mean(other))
    return f"{percent:.0f} % less than {name(other)}, by means that were not compared in pairs"


def _how_sure(sources: Sources, best: Sequence[AggregateRow]) -> Statement:
    details = []
    for row in best:
        details += _doubts(sources, row)
    return Statement(
        "How sure is that?",
        _each(best, lambda row: _interval(row.statistics[GROSS])),
        tuple(dict.fromkeys(details)),
    )


def _interval(statistic: Statistic) -> str:
    if statistic.ci_low is None:
        return "not at all: one repeat shows no scatter, so there is no interval"
    half = 100 * (statistic.ci_high - statistic.ci_low) / 2 / statistic.mean
    if statistic.n == 1:
        return (
            f"to ± {number(half)} %, the uncertainty of the meter alone: with one repeat, nothing "
            "is known of what another would give"
        )
    return f"to ± {number(half)} %, its 95 % interval over {counted(statistic.n, 'repeat')}"


def _doubts(sources: Sources, row: AggregateRow) -> list[str]:
    told = []
    statistic = row.statistics[GROSS]
    if row.energy_status == "estimated":
        told.append("The interval shows how the estimate scatters, not how wrong the model is.")
    if statistic.absolute_ci_low is not None:
        told.append(
            f"Beyond this board, with the sensors' own error: {absolute_quantity(statistic)} J."
        )
    if row.degraded:
        told.append(
            f"A warning is on {row.degraded} of its {counted(row.n, 'repeat')} (see below)."
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
    cells = sources.plan["cells"]
    lost = [cell["cell"] for cell in cells if cell["cell"] not in usable]
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
        all_of_them = f"all {counted(len(cells), 'cell')}" if len(cells) > 1 else "the only cell"
        answer = f"No cell: {all_of_them} gave usable windows."
    return Statement("What failed or is missing?", answer, tuple(details))


def _mean(row: AggregateRow) -> float:
    return row.statistics[GROSS].mean
