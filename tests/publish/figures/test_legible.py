"""Every figure can be read at the size of its print: nothing clipped, tiny, or below zero."""

from __future__ import annotations

from itertools import pairwise

import pytest
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from support import report_sweep
from support.noisy_sweep import NoisySweep

from llm_energy.analysis.grouping.rows import one_per_place, with_energy
from llm_energy.publish import figures, style
from llm_energy.publish.figures import energy
from llm_energy.publish.plots import describe

SLACK = 1.0  # pixels
COLUMN_INCHES = 10.0  # two columns of a journal, or a page on its side


def drawn_of(results) -> dict[str, object]:
    """Draw what follows from aggregates, without a measurement's file."""
    rows = one_per_place(with_energy(results.aggregates))
    every = [row for one in results.aggregates for row in one.rows if row.n]
    plots = describe(rows, every, results.comparisons.pareto)
    found = {}
    for name, (wanted, draw) in figures.FROM_PLOTS.items():
        if panels := energy.panels_of([plots[one] for one in wanted]):
            found[name] = draw(panels)
    return found


@pytest.fixture(scope="module")
def every_figure(tmp_path_factory):
    """Return all figures, laid out as their files are."""
    found = {}
    with rc_context(style.RC):
        for sweep in (NoisySweep(2, 1.5), NoisySweep(2, 0.4), NoisySweep(3, 0.05)):
            made = drawn_of(sweep.results())
            found |= {f"{name}, {sweep.scatter}": figure for name, figure in made.items()}
        for name, figure in found.items():
            style.render(figure, name, style.SIMULATED)
    render, titles = style.render, found

    def kept(figure, title, note):
        titles[title] = figure
        return render(figure, title, note)

    swept = report_sweep.sources(tmp_path_factory.mktemp("sweep"))
    fronts = report_sweep.two_lengths(swept).pareto
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "render", kept)
        figures.draw(swept.aggregates, fronts)
    assert {"Power over one repeat", "Warm-up"} <= found.keys()
    return found


def texts_of(figure) -> list[Text]:
    """Return what is written: heads, labels, numbers at axes inside their ends, legends, names."""
    found = []
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip():
            found.append(text)
    for axes in figure.axes:
        if not axes.axison:
            continue
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            hidden = [t.label1 for t in axis.get_major_ticks() if not low <= t.get_loc() <= high]
            hidden += [t.label2 for t in axis.get_major_ticks()]
            found = [text for text in found if text not in hidden]
    return found


def test_no_text_is_clipped_or_smaller_than_print_allows(every_figure):
    for name, figure in every_figure.items():
        renderer = FigureCanvasAgg(figure).get_renderer()
        box = figure.bbox
        for text in texts_of(figure):
            extent, told = text.get_window_extent(renderer), (name, text.get_text())
            assert text.get_fontsize() >= style.SMALLEST_PT, told
            assert extent.x0 >= box.x0 - SLACK, told
            assert extent.y0 >= box.y0 - SLACK, told
            assert extent.x1 <= box.x1 + SLACK, told
            assert extent.y1 <= box.y1 + SLACK, told
        for legend in figure.legends:
            assert legend.get_window_extent(renderer).width <= box.width
        assert figure.get_figwidth() <= COLUMN_INCHES


def test_the_numbers_at_an_axis_do_not_run_into_each_other(every_figure):
    for name, figure in every_figure.items():
        renderer = FigureCanvasAgg(figure).get_renderer()
        for axes in (one for one in figure.axes if one.axison):
            low, high = sorted(axes.xaxis.get_view_interval())
            ticks = [t for t in axes.xaxis.get_major_ticks() if low <= t.get_loc() <= high]
            ticks.sort(key=lambda tick: tick.get_loc())
            boxes = [tick.label1.get_window_extent(renderer) for tick in ticks]
            assert all(a.x1 <= b.x0 for a, b in pairwise(boxes)), (name, axes.get_title())


def test_no_axis_of_a_positive_quantity_reaches_below_zero_or_far_past_its_values(every_figure):
    for name, figure in every_figure.items():
        for axes in figure.axes:
            if name in ("Power over one repeat", "Warm-up") or not axes.axison:
                continue
            if axes.get_xlabel():
                assert axes.get_xlim()[0] >= 0, name
            if axes.get_ylabel():
                assert axes.get_ylim()[0] >= 0, name
            if "component" in name and axes.patches:
                longest = max(bar.get_x() + bar.get_width() for bar in axes.patches)
                assert axes.get_xlim()[1] <= 1.2 * style.MOST_ROOM * longest


def test_points_stand_at_their_batch_size(every_figure):
    marks = style.MARKERS.values()
    for scatter in (1.5, 0.4, 0.05):
        figure = every_figure[f"energy_by_batch, {scatter}"]
        for axes in figure.axes:
            points = [line for line in axes.lines if line.get_marker() in marks]
            assert {x for line in points for x in line.get_xdata()} == {1, 2, 16, 128}


def test_workloads_stand_in_the_order_of_their_numbers(every_figure):
    axes = every_figure["energy_by_component, 0.4"].axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["b1", "b2", "b16", "b128"]
    panels = every_figure["energy_by_backend, 0.4"].axes
    titles = [axes.get_title() for axes in panels if axes.axison]
    assert titles == ["m, b1", "m, b2", "m, b16", "m, b128"]
