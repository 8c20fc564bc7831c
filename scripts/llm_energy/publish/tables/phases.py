"""What a token of a prompt costs and what a token of an answer costs, by each method."""

from __future__ import annotations

from collections.abc import Iterator

from llm_energy.analysis.statistics.format import ABSENT, quantity, three_digits
from llm_energy.publish.tables.cell_rows import ENERGY, Frame, N, framed
from llm_energy.publish.tables.writers.table import Column, Footnotes, Line, Results, Table
from llm_energy.records import Statistic
from llm_energy.records.phases import PhaseCost, PhaseSplit

PER_CONTEXT = 1000  # tokens of context, for which the cost of one is too small a number
QUANTITIES = {
    "input": Column("input", "J/input token", "number", "J/input token"),
    "output": Column("output", "J/output token", "number", "J/output token"),
    "context": Column("context", "and 1000 tokens of context", "number"),
}
COLUMNS = (
    Column("cell", "Cell", brief="Cell"),
    Column("batch", "Batch", brief="Batch"),
    Column("method", "Method", brief="Method"),
    *QUANTITIES.values(),
    Column("lengths", "Between (prompt, output)", "prose"),
    Column("residual", "Residual", "number"),
    Column("condition", "Condition", "number"),
    Column("prices", "Prices: prompt → output, J", "prose"),
    N,
    ENERGY,
)
TERM_NAMES = {
    "request": "the request itself (r)",
    "input_token": "an input token (i)",
    "output_token": "an output token (o)",
    "context": "the context (c)",
    "input_squared": "the square of the prompt (s)",
}
EXPLANATION = (
    "Gross joules of one more token of a prompt and of an answer, at full batches. By difference: "
    "what the windows of two lengths differ by, over the tokens by which they differ; the context "
    "is what an output token costs more for each 1000 tokens before it. By fit: the same "
    "differences of E = r + i n + o k + c (n k + m k / 2) + s n², for n prompt and m output "
    "tokens and k = m - 1, since the prefill gives the first one; no term is negative. Values are "
    "means over n repeats ± half their 95 % intervals. "
    "Residual is the largest mean distance of a length from the fit, condition the condition "
    "number of its scaled columns. Prices are by the fit, for lengths inside those measured."
)


def table(results: Results) -> Table:
    """Return one row a cell, batch size and method."""
    found = results.phases.splits if results.phases else ()
    reason = (results.phases and results.phases.reason) or "the phases stage did not run"
    notes = Footnotes()
    blocks = [
        (
            backend,
            tuple(
                line for split in found if split.backend == backend for line in _lines(split, notes)
            ),
        )
        for backend in dict.fromkeys(split.backend for split in found)
    ]
    heads = ["backend", "cell", "batch_size", "batching", "energy_status", "components", "method"]
    heads += ["quantity", "prompt_tokens", "output_tokens", "n", "value_j", "ci_low", "ci_high"]
    heads += ["note"]
    told = "What a token costs is of this batch size, and of requests of like lengths."
    frame = Frame(
        "phases",
        "Energy of input and output tokens",
        told,
        EXPLANATION,
        COLUMNS,
        f"Nothing to show: {reason}.",
        in_terminal=True,
    )
    values = (row for split in found for row in _values(split))
    return framed(results, frame, blocks, notes.texts, heads, values)


def _lines(split: PhaseSplit, notes: Footnotes) -> Iterator[Line]:
    sources = tuple((split.cell, point.workload) for point in split.points)
    for method in ("fit", "difference"):
        costs = {one.quantity: one for one in split.costs if one.method == method}
        if not costs and method == "difference":
            continue
        cells = {column.name: ABSENT for column in COLUMNS} | {
            "cell": split.cell,
            "batch": ", ".join(str(part) for part in (split.batch_size, split.batching) if part),
            "method": method,
            "lengths": "; ".join(_between(one) for one in costs.values()) or ABSENT,
            "energy": f"{split.energy_status}: {', '.join(split.components)}",
            "n": str(max((one.cost_j.n for one in costs.values()), default=0)),
        }
        for name, one in costs.items():
            cells[name] = quantity(_scaled(one))
        if method == "fit":
            cells["residual"] = _percent(split.worst_residual)
            cells["condition"] = three_digits(split.condition_number)
            prices = (
                f"{one.prompt_tokens} → {one.output_tokens}: {quantity(one.energy_j)}"
                for one in split.prices
            )
            cells["prices"] = "; ".join(prices) or ABSENT
        marks = notes.marks(_remarks(split, method))
        yield Line(f"{split.cell} {cells['batch']} {method}", cells, sources, marks)


def _remarks(split: PhaseSplit, method: str) -> Iterator[str]:
    for name in split.disagreements:
        yield f"The methods disagree on {QUANTITIES[name].head}: their intervals do not overlap."
    if method != "fit":
        return
    if split.reason:
        yield f"No fit: {split.reason}."
    if split.misfit:
        yield f"No interval: {split.misfit}."
    for a, b in split.alike:
        yield f"These lengths hardly tell {TERM_NAMES[a]} from {TERM_NAMES[b]}."
    if split.unused:
        unused = ", ".join(TERM_NAMES[name] for name in split.unused)
        yield f"Would be negative, and so are 0: {unused}."
    for repeat in split.incomplete:
        yield f"Repeat {repeat} left out of the fit: not every length has a usable window there."
    if len(split.repeats) == 1:
        yield "Of one repeat, which says nothing of what another would give."


def _between(one: PhaseCost) -> str:
    return f"{one.quantity}: {', '.join(f'({a}, {b})' for a, b in one.lengths)}"


def _scaled(one: PhaseCost) -> Statistic:
    """Return a cost in the unit of its column."""
    if one.quantity != "context":
        return one.cost_j
    kept = ("n", "degrees_of_freedom")
    return Statistic(
        **{
            name: value if name in kept or value is None else value * PER_CONTEXT
            for name, value in vars(one.cost_j).items()
        }
    )


def _percent(share: float | None) -> str:
    return ABSENT if share is None else f"{share:.1%}"


def _values(split: PhaseSplit) -> Iterator[list[object]]:
    own = [split.backend, split.cell, split.batch_size, split.batching]
    own += [split.energy_status, " ".join(split.components)]
    told = "; ".join(text for text in (split.reason, split.misfit) if text) or None
    for one in split.costs:
        differ = "the methods disagree" if one.quantity in split.disagreements else None
        note = "; ".join(filter(None, (told if one.method == "fit" else None, differ))) or None
        yield [*own, one.method, one.quantity, None, None, *_parts(one.cost_j), note]
    for name, value in split.terms.items():
        yield [*own, "fit", f"term {name}", None, None, *_parts(value), told]
    for point in split.points:
        lengths = (point.prompt_tokens, point.output_tokens)
        yield [*own, "window", "request", *lengths, *_parts(point.energy_per_request_j), None]
    for price in split.prices:
        lengths = (price.prompt_tokens, price.output_tokens)
        yield [*own, "fit", "request", *lengths, *_parts(price.energy_j), told]


def _parts(one: Statistic) -> tuple[object, ...]:
    return one.n, one.mean, one.ci_low, one.ci_high
