"""One choice against another: what is said of it, from repeats that show it and from few."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support import builders
from support.noisy_sweep import NoisySweep

from llm_energy.analysis.aggregate import aggregate, planned_batch_sizes
from llm_energy.analysis.compare.stage import comparisons
from llm_energy.publish.tables import Results, make
from llm_energy.records import Beside
from llm_energy.records.registry.metrics import GROSS, SPEED

CLEAR = NoisySweep(5, 0.01, ("pytorch",), (1, 16))


def answer(sweep: NoisySweep, contrast: str, other: str, workload: str = "b1"):
    """Return the answer for one cell and workload against the first of its axis."""
    found = sweep.results().comparisons.answers
    return next(
        one for one in found if (one.contrast, one.other) == (contrast, (f"m--{other}", workload))
    )


def test_a_clear_difference_is_one_sentence_with_its_interval_and_its_price():
    one = answer(CLEAR, "precision", "pytorch--int8")
    assert one.reference == ("m--pytorch--bfloat16", "b1")
    start = "On pytorch at b1, int8 used "
    assert one.statement.startswith(start)
    assert " % less energy per output token than bfloat16 (95 %: " in one.statement
    assert one.statement.endswith("; perplexity rose by 0.30 %")
    assert one.repeats_needed is None


def test_what_cannot_be_told_apart_says_how_many_repeats_it_takes():
    one = answer(NoisySweep(3, 0.2, ("pytorch",), (1, 16)), "precision", "pytorch--int8")
    assert one.repeats_needed > 3
    assert "cannot be told apart in energy per output token with 3 repeats" in one.statement
    assert f"about {one.repeats_needed} repeats would be needed" in one.statement
    alone = answer(NoisySweep(1, 0.2, ("pytorch",), (1, 16)), "precision", "pytorch--int8")
    assert "than bfloat16 in 1 repeat: measure three or more" in alone.statement


def test_so_many_repeats_do_tell_such_a_difference():
    few = answer(NoisySweep(4, 0.1, ("pytorch",), (1,), seed=3), "precision", "pytorch--int4")
    asked = [
        answer(NoisySweep(few.repeats_needed or 8, 0.1, ("pytorch",), (1,), seed=seed), *where)
        for seed in range(20)
        for where in [("precision", "pytorch--int4")]
    ]
    told = [one.figures[0].outcome == "less" for one in asked]
    assert sum(told) >= 12


def test_every_axis_is_held_against_its_first_entry():
    found = NoisySweep(3, 0.05).results().comparisons.answers
    pairs = {(one.contrast, one.reference, one.other) for one in found}
    first = ("m--pytorch--bfloat16", "b1")
    for contrast, cell, workload in (
        ("precision", "m--pytorch--int4", "b1"),
        ("backend", "m--vllm--bfloat16", "b1"),
        ("batch_size", "m--pytorch--bfloat16", "b128"),
    ):
        assert (contrast, first, (cell, workload)) in pairs
    assert not any(other == first for _, _, other in pairs)


def test_the_numbers_are_those_of_the_comparisons():
    compared = NoisySweep(3, 0.05).results().comparisons
    known = {
        (c.metric, c.reference.cell, c.reference.workload, c.other.cell, c.other.workload): c
        for c in compared.comparisons
    }
    seen = 0
    for one in compared.answers:
        for figure in one.figures:
            if c := known.get((figure.metric, *one.reference, *one.other)):
                seen += 1
                found = (figure.ratio, figure.ci_low, figure.ci_high, figure.outcome)
                assert found == (c.ratio, c.ci_low, c.ci_high, c.outcome)
    assert seen > 20


def without_joules(precision: str):
    """Return a sweep in which every window of one precision has no usable joules."""
    sweep = CLEAR
    [table] = sweep.tables()
    lost = [row for row in table.rows if row.precision == precision]
    verdicts = [
        builders.verdict(
            cell=row.cell,
            repeat=row.repeat,
            workload=row.workload,
            verdict="invalid",
            reason="M09: no joule was counted",
        )
        for row in lost
    ]
    beside = [
        Beside(
            row.cell,
            row.workload,
            row.repeat,
            {SPEED: row.output_tokens_per_s, "perplexity": row.perplexity, "tpot_s": row.tpot_s},
            row.latencies_s,
        )
        for row in lost
    ]
    table = replace(
        table,
        rows=tuple(row for row in table.rows if row not in lost),
        without=tuple(verdicts),
        beside=tuple(beside),
    )
    sizes = planned_batch_sizes(sweep.plan, [table]) | {"b1": 1, "b16": 16}
    aggregates = (aggregate([table], sweep.plan, sizes),)
    return Results(aggregates, comparisons([table], aggregates, sweep.plan))


@pytest.mark.parametrize("precision", ["int8", "bfloat16"])
def test_quality_and_latency_stand_where_the_joules_are_invalid(precision):
    results = without_joules(precision)
    answers = results.comparisons.answers
    one = next(
        one
        for one in answers
        if {"m--pytorch--int8", "m--pytorch--bfloat16"} <= {one.reference[0], one.other[0]}
        or one.other[0] == f"m--pytorch--{precision}"
    )
    assert f"the energy of {precision} is not known" in one.statement
    assert "M09: no joule was counted" in one.statement
    assert "perplexity" in one.statement
    figures = {figure.metric: figure for figure in one.figures}
    assert (figures[GROSS].reference is None) or (figures[GROSS].other is None)
    for name in ("perplexity", "tpot_s", SPEED):
        assert None not in (figures[name].reference, figures[name].other, figures[name].ratio)
    made = make(results)
    for name in ("quality", "latency"):
        rows = [line for line in made[name].sheet.lines if precision in line.sources[0][0]]
        assert rows
        assert {line.cells["n"] for line in rows} == {"5"}
        assert {line.cells["energy"] for line in rows} == {"\N{EN DASH}"}
