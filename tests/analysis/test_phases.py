"""Joules split over input and output tokens: the fit, the differences and the table of both."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support import builders
from support.simulated_phases import BENT, GRID, NOISE, REQUESTS, SHAPES, TRUTH_J, Lengthy, held

from llm_energy.analysis.phases import NEEDS, phases
from llm_energy.analysis.phases.windows import TERMS, Lengths, contrasts
from llm_energy.publish.figures import lengths as figure
from llm_energy.publish.length_plots import length_plots
from llm_energy.publish.report import charts, content
from llm_energy.publish.tables import make
from llm_energy.publish.tables.writers.table import Results

STILL = Lengthy(window_cv=0.0)
ROWS = [*Lengthy().rows(0)]
NONE = {"counter_lag_j": 0.0, "gross_energy_standard_uncertainty_j": 0.0}


def split_of(rows, lengthy=STILL):
    (split,) = phases("test", [lengthy.table([*rows])]).splits
    return split


def shown(found):
    """Return the table of a sweep of which the phases stage found that."""
    aggregate = builders.aggregate([builders.aggregate_row()])
    return make(Results((aggregate,), phases=found), ["phases"])["phases"]


def test_both_methods_find_what_tokens_cost() -> None:
    split, truths_j = STILL.split(0), STILL.truths_j()
    factor = split.terms["output_token"].mean / TRUTH_J[2]  # by which these repeats lie off
    assert factor == pytest.approx(1.0, abs=0.05)
    for cost in split.costs:
        assert cost.cost_j.mean == pytest.approx(factor * truths_j[cost.quantity])
        assert cost.cost_j.n == 5
    assert {cost.method for cost in split.costs} == {"fit", "difference"}
    assert {name: one.mean / factor for name, one in split.terms.items()} == pytest.approx(
        dict(zip(TERMS, TRUTH_J, strict=True))
    )
    assert (split.reason, split.misfit, split.disagreements) == (None, None, ())
    assert split.worst_residual == pytest.approx(0.0, abs=1e-9)
    for price in split.prices:
        wanted_j = STILL.energy_j(Lengths(price.prompt_tokens, price.output_tokens))
        assert price.energy_j.mean == pytest.approx(factor * wanted_j)


@pytest.mark.parametrize(
    ("shape", "noise"),
    [
        ("all five terms", "independent and normal"),
        ("prompts and outputs alone, no context, no square", "independent and normal"),
        ("a prompt costs nothing", "independent and normal"),
        ("the context is half of an output token", "log-normal with a sigma of 0.5"),
        ("all five terms", "three sessions of three repeats"),
    ],
)
def test_what_tokens_cost_is_held_by_both_methods(shape, noise) -> None:
    """A small share of what tests/benchmarks/phases_coverage.py does; 100 sweeps to 3 SD."""
    shares = held(Lengthy(**SHAPES[shape], **NOISE[noise]), range(100))
    assert len(shares) == 6
    assert min(share for share, _ in shares.values()) >= 0.84
    assert min(given for _, given in shares.values()) >= 0.84


def test_where_the_form_is_wrong_the_fit_has_no_interval() -> None:
    split = Lengthy(bent=True).split(0)
    assert "does not describe" in split.misfit, BENT
    by_method = {cost.method: cost.cost_j.ci_low for cost in split.costs}
    assert by_method["fit"] is None
    assert by_method["difference"] is not None
    sheet = shown(phases("test", [Lengthy().table([*Lengthy(bent=True).rows(0)])])).sheet
    assert any(note.startswith("No interval: the form") for note in sheet.notes)


def test_a_repeat_without_every_length_is_left_out_of_the_fit_and_named() -> None:
    rows = [*STILL.rows(0)]
    split = split_of(rows[:-1])
    assert (split.repeats, split.incomplete) == ((1, 2, 3, 4), (5,))
    assert {len(split.points), len(GRID)} == {10}


@pytest.mark.parametrize(
    ("grid", "reason"),
    [
        ([(32, 1), (32, 64)], "found 1 prompt and 2 output lengths in 2"),
        ([(p, m) for p in (8, 16, 32) for m in (1, 2)], "found 3 prompt and 2 output lengths in 6"),
        (
            [*((n, n) for n in (8, 16, 32, 64, 128)), (8, 16)],
            "vary prompts and outputs each by itself",
        ),
    ],
)
def test_too_few_lengths_have_differences_and_no_fit(grid, reason) -> None:
    split = Lengthy(grid=tuple(Lengths(*one) for one in grid)).split(0)
    assert reason in split.reason
    assert {cost.method for cost in split.costs} == {"difference"}


@pytest.mark.parametrize(
    ("changes", "conditions"),
    [
        ({"traffic": "poisson"}, {}),
        ({}, {"prompt_lengths": "5 to 9, mean 6.5"}),
        ({}, {"output_lengths": "1"}),
    ],
)
def test_a_sweep_without_lengths_says_in_one_line_what_it_needs(changes, conditions) -> None:
    table = STILL.table([replace(row, **changes) for row in STILL.rows(0)])
    held_fixed = {"prompt_lengths": "8"} if "output_lengths" in conditions else {}
    alike = {name: own | held_fixed | conditions for name, own in table.conditions.items()}
    found = phases("test", [replace(table, conditions=alike)])
    assert (found.splits, found.reason) == ((), NEEDS)
    sheet = shown(found).sheet
    assert (sheet.lines, sheet.label) == ([], f"Nothing to show: {NEEDS}.")


def test_batch_sizes_are_split_each_by_itself() -> None:
    rows = [*STILL.rows(0)]
    rows += [replace(row, batch_size=1, gross_energy_j=2 * row.gross_energy_j) for row in rows]
    found = phases("test", [STILL.table(rows)]).splits
    assert {one.batch_size for one in found} == {1, 8}
    assert len(shown(phases("test", [STILL.table(rows)])).sheet.lines) == 4


def test_methods_that_disagree_are_named_in_the_table() -> None:
    found = phases("test", [Lengthy().table([*Lengthy().rows(0)])])
    (split,) = found.splits
    found = replace(found, splits=(replace(split, disagreements=("input",)),))
    told = "The methods disagree on J/input token: their intervals do not overlap."
    assert told in shown(found).sheet.notes


def test_contrasts_are_of_the_lengths_furthest_apart() -> None:
    found = {name: set(one) for name, one in contrasts(GRID).items()}
    assert found == {
        "input": {(32, 1), (4096, 1)},
        "output": {(32, 1), (32, 512)},
        "context": {(32, 1), (32, 512), (4096, 1), (4096, 512)},
    }


def test_an_interval_allows_for_what_the_counters_show_too_little() -> None:
    """All repeats share that, so that it is in no scatter."""
    lag_j = 3.0 * REQUESTS
    open_j = {"counter_lag_j": lag_j, "gross_energy_standard_uncertainty_j": lag_j / 4}
    rows = [replace(row, **(open_j if row.workload == "p4096-o1" else NONE)) for row in ROWS]
    plain, lagging = (
        {(c.method, c.quantity): c.cost_j.ci_half for c in split_of(own).costs}
        for own in ([replace(row, **NONE) for row in ROWS], rows)
    )
    wider = {key for key, half in lagging.items() if half > 1.01 * plain[key]}
    assert wider >= {("difference", "input"), ("difference", "context"), ("fit", "input")}
    assert ("difference", "output") not in wider
    assert lagging["difference", "input"] > 3.0 / (4096 - 32)


def test_figure_and_report_draw_the_fit_through_the_windows() -> None:
    lengthy = Lengthy()
    found = phases("test", [lengthy.table([*lengthy.rows(0)])])
    plot = length_plots([], found)["lengths"]
    (split,) = found.splits
    (title, lines), *others = plot.panels.items()
    assert (others, title) == ([], "m, pytorch, float32, batch of 8, static")
    assert [len(points) for points in lines] == [3, 3, 1, 3]
    drawn = figure.by_length(plot.panels, plot)
    [axes] = [axes for axes in drawn.axes if axes.get_title()]
    through = [line.get_ydata() for line in axes.lines if line.get_marker() == "None"]
    by_fit = {(p.prompt_tokens, p.output_tokens): p.fitted_j for p in split.points}
    assert list(through[0]) == [by_fit[32, m] for m in (1, 64, 512)]
    records = content.length_records(plot)
    assert {record["line"] for record in records} == {content.short(j) for j in by_fit.values()}
    assert charts.charts({}, {"lengths": plot})["lengths"]["spec"]


def test_a_sweep_without_lengths_has_no_plot_and_says_what_it_needs() -> None:
    plot = length_plots([], phases("test", []))["lengths"]
    assert (plot.points, plot.reason) == ((), NEEDS)
