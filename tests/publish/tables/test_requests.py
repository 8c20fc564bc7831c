"""What single requests took: the table, the plot of it, and the one reason where there is none."""

from __future__ import annotations

import csv
import io
import json

from support import builders

from llm_energy.analysis.statistics.format import ABSENT
from llm_energy.publish.figures import lengths as figure
from llm_energy.publish.length_plots import length_plots
from llm_energy.publish.report import charts, content
from llm_energy.publish.tables import make
from llm_energy.publish.tables.writers.markdown import to_markdown
from llm_energy.publish.tables.writers.table import Results
from llm_energy.records import DearRequest, RequestEnergy, RequestGroup

FOUND = RequestEnergy(
    requests=40,
    mean_j=12.3456,
    quantiles_j={"p50": 10.0, "p90": 31.25},
    groups=(RequestGroup(100.5, 20.0, 30, 8.0), RequestGroup(300.0, 70.0, 10, 25.0)),
    dearest=(DearRequest("q7", 310, 80, 33.0), DearRequest("q2", 290, 75, 30.0)),
    power="mean power",
    assumptions=("a balance",),
)
KNOWN = builders.aggregate_row(request_energy=FOUND)


def table_of(*rows):
    return make(Results((builders.aggregate(rows),)), ["requests"])["requests"]


def test_a_row_has_the_distribution_the_dearest_and_what_was_assumed():
    table = table_of(KNOWN)
    [line] = table.sheet.lines
    assert (line.cells["mean"], line.cells["p50"], line.cells["p90"]) == ("12.3", "10.0", "31.2")
    assert line.cells["p99"] == ABSENT
    assert line.cells["dearest"] == "q7, 310 → 80, 33.0"
    assert table.sheet.label.startswith("Every joule here is attributed")
    assert [table.sheet.notes[number - 1] for number in line.notes] == [
        "Shares assume: a balance.",
        "The power is taken as constant over the window, for want of a power trace.",
    ]
    rows = list(csv.DictReader(io.StringIO(table.csv)))
    assert [row["of"] for row in rows] == ["mean", "p50", "p90", *["dearest"] * 2, *["lengths"] * 2]
    assert rows[3]["request_id"] == "q7"
    assert (rows[-1]["prompt_tokens"], rows[-1]["attributed_energy_j"]) == ("300.0", "25.0")


def test_a_cell_without_steps_says_why_and_each_reason_once():
    older = builders.aggregate_row(workload="b8", attributed_reason="of an older version")
    other = builders.aggregate_row(workload="b9", attributed_reason="of an older version")
    table = table_of(KNOWN, older, other)
    assert len(table.sheet.lines) == 3
    assert sum("of an older version" in note for note in table.sheet.notes) == 1
    alone = to_markdown(table_of(older, other).sheet)
    assert alone.count("of an older version") == 1
    assert "Nothing to show: of an older version." in alone


def test_the_measured_row_of_a_cell_stands_for_its_requests():
    reason = "only the measured joules are attributed"
    estimated = builders.aggregate_row(energy_status="estimated", attributed_reason=reason)
    table = table_of(estimated, KNOWN)
    assert [line.cells["mean"] for line in table.sheet.lines] == ["12.3"]
    assert not any(reason in note for note in table.sheet.notes)


def test_figure_and_report_show_the_same_points_in_the_same_colours():
    plot = length_plots([KNOWN, builders.aggregate_row(workload="b8")])["requests"]
    assert list(plot.looks) == ["64 to 127", "256 to 511"]
    drawn = figure.by_length(plot.panels, plot)
    [axes] = [axes for axes in drawn.axes if axes.get_title()]
    marked = [line for line in axes.lines if line.get_marker() != "None"]
    points = [tuple(map(float, xy)) for line in marked for xy in line.get_xydata()]
    assert points == [(20.0, 8.0), (70.0, 25.0)]
    colours = [line.get_color() for line in marked]
    assert colours == [look.colour for look in plot.looks.values()]
    made = charts.charts({}, {"requests": plot})["requests"]
    assert json.dumps(colours) in json.dumps(made["spec"])
    assert [(one["out"], one["j"], one["n"]) for one in content.length_records(plot)] == [
        (20.0, 8.0, 30),
        (70.0, 25.0, 10),
    ]


def test_without_any_steps_the_plot_says_so():
    plots = length_plots([builders.aggregate_row()])
    told = charts.charts({}, plots)["requests"]["reason"]
    assert told == "no engine of this sweep told its steps"
