"""Every figure can be read at the size of its print: nothing clipped, tiny, or below zero."""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations, pairwise

import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from matplotlib.text import Annotation, Text
from support import report_sweep
from support.archived import archived
from support.noisy_sweep import NoisySweep

from llm_energy.analysis.grouping.rows import one_per_place, with_energy
from llm_energy.publish import figures, style
from llm_energy.publish.figures import energy
from llm_energy.publish.plots import SHAPES, describe

SLACK = 1.0  # pixels
LUMINANCE = (0.2126, 0.7152, 0.0722)  # of red, green and blue (ITU-R BT.709)
OVER_TIME = {"Power over one repeat", "Warm-up"}
ARCHIVE = "h200-llama-3.1-8b-precisions.tar.xz"  # two models over four batch sizes


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
        for sweep in (NoisySweep(2, 1.5), NoisySweep(2, 0.4)):
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
        assert found.keys() >= OVER_TIME
        patch.chdir(tmp_path_factory.mktemp("archived"))
        patch.setattr(style, "render", lambda f, title, note: kept(f, f"{title}, archived", note))
        measured = archived(ARCHIVE)
        figures.draw(measured.aggregates, measured.comparisons.pareto)
    assert found.keys() >= {f"{name}, archived" for name in OVER_TIME}
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
        assert figure.get_figwidth() in (3.5, 7.1)  # one column of a journal, or two


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
            if name.removesuffix(", archived") in OVER_TIME or not axes.axison:
                continue
            if axes.get_xlabel():
                assert axes.get_xlim()[0] >= 0, name
            if axes.get_ylabel():
                assert axes.get_ylim()[0] >= 0, name
            if "component" in name and axes.patches:
                bars = [bar for one in figure.axes for bar in one.patches]
                longest = max(bar.get_x() + bar.get_width() for bar in bars)
                assert axes.get_xlim()[1] <= 1.2 * style.MOST_ROOM * longest


def test_points_stand_at_their_batch_size(every_figure):
    marks = style.MARKERS.values()
    for scatter in (1.5, 0.4):
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


def test_panels_of_one_quantity_share_its_scale(every_figure):
    for name, figure in every_figure.items():
        limits = defaultdict(set)
        for axes in (one for one in figure.axes if one.axison):
            place = axes.get_title().rpartition(", ")[2] if "backend" in name else ""
            if axes.get_ylabel():  # that of bars counts rows
                limits[axes.get_ylabel(), place].add(axes.get_ylim())
            if axes.get_xlabel() != "time (s)":  # one repeat may last far longer than another
                limits[axes.get_xlabel(), place].add(axes.get_xlim())
        assert {key: found for key, found in limits.items() if len(found) > 1} == {}, name


def test_heads_of_panels_do_not_run_into_each_other(every_figure):
    for name, figure in every_figure.items():
        renderer = FigureCanvasAgg(figure).get_renderer()
        heads = [axes.title.get_window_extent(renderer) for axes in figure.axes if axes.axison]
        assert not any(a.overlaps(b) for a, b in combinations(heads, 2)), name


def test_points_of_a_trade_are_all_named_or_none(every_figure):
    counts = {}
    for name, figure in every_figure.items():
        if "trade" not in name and "throughput" not in name:
            continue
        for axes in figure.axes:
            names = [one for one in axes.texts if isinstance(one, Annotation)]
            points = [line for line in axes.lines if line.get_marker() in style.MARKERS.values()]
            counts.setdefault(name, set()).add(len(points) - len(names) if names else "none")
    assert all(len(found) == 1 and found <= {0, "none"} for found in counts.values()), counts
    assert {0} in counts.values()
    assert {"none"} in counts.values()


def test_what_one_figure_tells_apart_differs_in_more_than_hue(every_figure):
    assert len(set(style.MARKERS.values())) == len(set(style.PATTERNS.values())) == len(SHAPES)
    for figure in every_figure.values():
        marks = [
            (handle.get_marker(), handle.get_linestyle(), handle.get_mfc() == "white")
            if isinstance(handle, Line2D)
            else (handle.get_hatch(), round(float(np.dot(to_rgb(handle.get_fc()), LUMINANCE)), 1))
            for handle in figure.legends[0].legend_handles
        ]
        assert len(set(marks)) == len(marks), marks
