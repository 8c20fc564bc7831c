"""The figures of a sweep: what is drawn, what is not and why, and the same bytes each time."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.colors import to_rgba
from support import builders, report_sweep

from llm_energy.analysis.grouping.rows import one_per_place, with_energy
from llm_energy.core.files import read_json, write_json
from llm_energy.core.serialize import to_dict
from llm_energy.publish import figures, plots, style
from llm_energy.publish.figures import energy
from llm_energy.publish.timeline import timeline
from llm_energy.records import Statistic
from llm_energy.records.registry.metrics import GROSS

ROOT = Path(__file__).resolve().parents[3]
NAMES = {
    "energy_by_batch",
    "energy_by_backend",
    "energy_by_component",
    "energy_by_request",
    "energy_trade",
    "time_course",
    "warm_up",
}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return report_sweep.sources(tmp_path_factory.mktemp("sweep"))


@pytest.fixture(scope="module")
def drawn(sweep, tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    with contextlib.chdir(sweep.root):
        figures.write_figures(sweep.aggregates, (), folder)
    return folder


@pytest.fixture(autouse=True)
def _where_the_sweep_lies(sweep, monkeypatch):
    monkeypatch.chdir(sweep.root)


def test_every_figure_is_drawn_as_svg_and_pdf_and_named_in_the_index(drawn):
    index = {entry["name"]: entry for entry in read_json(drawn / "index.json")}
    assert index.pop("energy_over_load")["reason"] == "no workload has timed traffic"
    assert index.pop("energy_over_lengths")["reason"]
    assert set(index) == NAMES
    for entry in index.values():
        assert entry["files"] == [f"{entry['name']}.svg", f"{entry['name']}.pdf"]
        assert entry["reason"] is None
        plain = ("time_course", "warm_up", "energy_by_request")
        assert "95 %" in entry["caption"] or entry["name"] in plain
        svg, pdf = ((drawn / name).read_bytes() for name in entry["files"])
        assert b"<text" not in svg  # letters are outlines, so no reader lacks the font
        assert b"/FontFile2" in pdf
        assert b"/Type3" not in pdf


def test_another_process_draws_the_same_bytes(sweep, drawn, tmp_path):
    paths = [tmp_path / f"{a.backend}.json" for a in sweep.aggregates]
    for path, aggregate in zip(paths, sweep.aggregates, strict=True):
        write_json(path, to_dict(aggregate))
    script, again = ROOT / "scripts" / "figures.py", tmp_path / "again"
    write_json(tmp_path / "comparisons.json", to_dict(sweep.comparisons))
    options = ["--comparisons", tmp_path / "comparisons.json", "--out-dir", again]
    subprocess.run([sys.executable, script, "--aggregates", *paths, *options], check=True)
    files = {path.name: path.read_bytes() for path in drawn.iterdir()}
    assert {path.name: path.read_bytes() for path in again.iterdir()} == files


def test_an_estimate_is_hollow_and_the_figure_says_so(sweep):
    rows = one_per_place(with_energy(sweep.aggregates))
    assert {row.backend for row in rows if style.is_estimated(row)} == {"vllm"}
    described = plots.describe(rows, rows, ())
    figure = energy.points(energy.panels_of([described["batch"]]))
    faces = {
        axes.get_title(): {
            line.get_markerfacecolor()
            for line in axes.lines
            if line.get_marker() in style.MARKERS.values()
        }
        for axes in figure.axes
    }
    assert faces["m, vllm"] == {"white"}
    assert "white" not in faces["m, pytorch"]
    assert "hollow: estimated by a model, not measured" in legend_of(figure)

    bars = energy.by_component(energy.panels_of([described["components"]]))
    filled = {axes.get_title(): {bar.get_fc() for bar in axes.patches} for axes in bars.axes}
    assert filled["m, vllm, int8"] == {to_rgba("white")}
    assert to_rgba("white") not in filled["m, pytorch, int8"]
    assert "hollow: estimated by a model, not measured" in legend_of(bars)
    assert "GPU" in legend_of(bars)


def legend_of(figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_error_bars_are_the_intervals(sweep):
    row = next(
        r for r in one_per_place(with_energy(sweep.aggregates)) if r.cell == "m--pytorch--int4"
    )
    statistic = row.statistics[GROSS]
    below, above = style.error_bar(statistic)
    assert statistic.mean - below[0] == pytest.approx(statistic.ci_low)
    assert statistic.mean + above[0] == pytest.approx(statistic.ci_high)
    assert style.error_bar(Statistic(1, 0.5, None, None, None)) is None


def test_energy_over_load_is_drawn_against_the_rate_of_arrivals(sweep):
    rate, before = Statistic(2, 4.0, 0.0, 4.0, 4.0), one_per_place(with_energy(sweep.aggregates))
    rows = [
        replace(row, traffic="poisson", statistics=row.statistics | {plots.RATE: rate})
        for row in before
    ]
    without = replace(rows[0], statistics={GROSS: rows[0].statistics[GROSS]})
    plot = plots.describe([*rows, without, *before], (), ())["load"]
    assert list(plot.rows) == rows
    assert plots.describe(rows, (), ())["batch"].rows == ()
    figure = energy.points(energy.panels_of([plot]))
    for axes in figure.axes:
        drawn = [line for line in axes.lines if line.get_marker() in style.MARKERS.values()]
        own = [row for row in rows if f"{row.model}, {row.backend}" == axes.get_title()]
        assert {x for line in drawn for x in line.get_xdata()} == {4.0}
        assert {y for line in drawn for y in line.get_ydata()} == {
            row.statistics[GROSS].mean for row in own
        }


def test_what_has_no_data_is_not_drawn_and_the_index_says_why(tmp_path):
    figures.write_figures([builders.aggregate([builders.unusable_row()])], (), tmp_path)
    index = read_json(tmp_path / "index.json")
    assert [path.name for path in tmp_path.iterdir()] == ["index.json"]
    reasons = {entry["name"]: entry["reason"] for entry in index}
    assert reasons["energy_by_batch"] == "no cell gave a usable window"
    assert reasons["energy_by_backend"] == "no work was measured on two backends"


def test_panels_past_the_most_are_counted_in_the_caption(sweep, monkeypatch):
    monkeypatch.setattr(figures, "MOST_PANELS", 1)
    one, *_ = figures.draw(sweep.aggregates, ())
    assert one.caption.endswith("1 more panels are left out.")


def test_simulated_joules_say_so_in_the_figure_itself(sweep, monkeypatch):
    simulated = [
        replace(a, rows=tuple(replace(row, simulated=True) for row in a.rows))
        for a in sweep.aggregates
    ]
    noted = []
    monkeypatch.setattr(style, "render", lambda figure, title, note: noted.append(note) or {})
    one, *_ = figures.draw(simulated, ())
    assert set(noted) == {style.SIMULATED}
    assert one.caption.endswith(style.SIMULATED)


def test_workloads_that_share_a_batch_size_are_not_joined_by_a_line():
    static = [builders.aggregate_row(batch_size=b, workload=f"b{b}") for b in (1, 8)]
    other = builders.aggregate_row(batch_size=8, workload="long")
    lines = plots.describe([*static, other], (), ())["batch"].lines
    assert sorted([r.workload for r in one.rows] for one in lines) == [["b1", "b8"], ["long"]]


def test_fronts_are_those_of_the_compare_stage_and_never_cross_work(sweep):
    compared = report_sweep.two_lengths(sweep)
    rows = one_per_place(with_energy(sweep.aggregates))
    plot = plots.describe(rows, (), compared.pareto)["throughput"]
    found = {(f.rows[0].backend, f.rows[0].workload): f.rows for f in plot.lines}
    assert len(plot.lines) == len(found) == 4
    assert {row.precision for row in found["pytorch", "b8"]} == {"int4"}  # all are as fast
    assert all(len({row.workload for row in joined}) == 1 for joined in found.values())
    figure = energy.points(energy.panels_of([plot]))
    axes = next(a for a in figure.axes if a.get_title() == "m, pytorch")
    assert [line.get_color() for line in axes.lines].count(plots.FRONT_COLOUR) == 2


def test_a_timeline_has_the_mean_power_of_each_stretch():
    found = timeline(builders.measurement())
    kinds = [(s.name, s.kind) for s in found.stretches]
    assert kinds == [
        ("deep idle", "idle"),
        ("loaded idle before", "idle"),
        ("b1", "window"),
        ("loaded idle after", "idle"),
    ]
    window = found.stretches[2]
    assert (window.start_s, window.end_s) == (20.0, 60.0)
    assert window.total_w("measured") == pytest.approx(builders.GPU_W)
    assert window.total_w("estimated") == pytest.approx(builders.DRAM_W)
    assert found.trace_reason == "r01.trace.csv.gz is missing"
