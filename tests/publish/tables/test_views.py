"""The tables beside the headline: comparisons in words, components, failures, views of a sweep."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest
from support import builders
from support.comparison_example import example

from llm_energy.analysis.statistics.format import quantity
from llm_energy.publish.tables import TABLES, Results, make
from llm_energy.publish.tables.writers.latex import to_latex
from llm_energy.publish.tables.writers.markdown import to_markdown
from llm_energy.records import Statistic
from llm_energy.records.comparison import HeldFixed
from llm_energy.records.registry.metrics import GROSS

FLOAT, INT4 = "m--pytorch--float32", "m--pytorch--int4"
KNOWN = Statistic(5, 0.123456, 0.01, 0.111, 0.1358)


def tables(*rows, comparisons=None, **changes):
    aggregate = builders.aggregate(rows or [builders.aggregate_row()], **changes)
    return make(Results((aggregate,), comparisons))


def line(table, id):
    """Return the one row of a table that is called ``id``."""
    [found] = [line for line in table.sheet.lines if line.id == id]
    return found


def spreadsheet(table):
    return list(csv.DictReader(io.StringIO(table.csv)))


def test_a_comparison_has_its_ratio_its_interval_and_its_verdict_in_words():
    found = line(tables(comparisons=example())["comparisons"], f"{FLOAT}/b8 : {INT4}/b8")
    ends = [found.cells[name] for name in ("ratio", "low", "high", "n")]
    assert ends == ["0.980", "0.950", "1.010", "4"]
    assert "are not distinguishable at n = 4" in found.cells["verdict"]
    assert found.sources == ((FLOAT, "b8"), (INT4, "b8"))


def test_a_paper_gets_names_without_what_all_cells_share():
    compared = example()
    alike = [one for one in compared.comparisons if "vllm" not in one.other.cell]
    shorter = replace(compared, comparisons=tuple(alike))
    text = to_latex(tables(comparisons=shorter)["comparisons"].sheet)
    assert "\nfloat32/b1 & int4/b1 & " in text
    assert "Every cell's name begins with m-{}-{}pytorch-{}-{}" in text


def test_cells_that_may_not_be_compared_have_no_ratio_and_say_what_differs():
    table = tables(comparisons=example())["comparisons"]
    [found] = [one for one in table.sheet.lines if "vllm" in one.id]
    assert found.cells["ratio"] == found.cells["low"] == "\N{EN DASH}"
    assert found.cells["verdict"].startswith("vllm and pytorch are not comparable")
    [row] = [one for one in spreadsheet(table) if one["outcome"] == "not_comparable"]
    assert (row["ratio"], row["sweep"]) == ("", "test")
    assert row["differs"] == "power_limit_w: 300 | 400"


def test_what_entered_no_pair_is_a_footnote():
    sheet = tables(comparisons=example())["comparisons"].sheet
    assert "Block 4 left out: GPUs differ: GPU-1 and GPU-2" in sheet.notes
    assert sheet.label.startswith("2 of 5 pairs differ beyond noise")


def test_a_crossover_is_told_with_its_interval():
    [found] = tables(comparisons=example())["crossovers"].sheet.lines
    assert (found.cells["size"], found.cells["low"], found.cells["high"]) == (
        *("4.9", "3.6"),
        "\N{EN DASH}",
    )
    assert set(found.sources) == {(cell, w) for cell in (FLOAT, INT4) for w in ("b1", "b8")}


def test_denominators_take_their_digits_from_the_interval_and_show_ranks():
    row = builders.aggregate_row(statistics={"energy_per_output_token_j": KNOWN})
    table = tables(row, comparisons=example())["denominators"]
    found = line(table, f"{FLOAT}/b1")
    assert found.cells["energy_per_output_token_j"] == "0.123 ± 0.012"
    assert found.cells["ranks"] == "2, 1"
    assert "comes before" in table.sheet.notes[found.notes[0] - 1]


def test_limits_say_why_there_is_none():
    table = tables(comparisons=example())["limits"]
    found = line(table, f"{INT4}/b1")
    assert found.cells["times_floor"] == "\N{EN DASH}"
    assert [table.sheet.notes[k - 1] for k in found.notes] == [
        "GPU 'NVIDIA X' is not in the table of data sheets"
    ]
    assert line(table, f"{FLOAT}/b1").cells["times_floor"] == "5.00"


def test_a_recommendation_names_the_cell_to_take_first():
    compared = example()
    [asked] = compared.recommendations
    table = tables(comparisons=compared)["recommendations"]
    assert table.sheet.label == asked.statement
    taken = [one for one in table.sheet.lines if one.cells["words"] == "Recommended."]
    assert [one.sources[0] for one in taken] == [asked.best]
    assert [row["recommended"] for row in spreadsheet(table)].count("True") == 1


@pytest.mark.parametrize("ends", [(0.111, 0.1358), (None, None)])
def test_the_same_joules_are_written_alike_in_every_table(ends):
    known = Statistic(1, 0.123456, None, *ends)
    compared = example()
    [asked] = compared.recommendations
    first, *others = asked.candidates
    first = replace(
        first, energy_j=known.mean, energy_ci_low_j=known.ci_low, energy_ci_high_j=known.ci_high
    )
    asked = replace(asked, candidates=(first, *others))
    row = builders.aggregate_row(statistics={GROSS: known})
    made = tables(row, comparisons=replace(compared, recommendations=(asked,)))
    written = made["energy"].sheet.lines[0].cells["gross"]
    assert made["recommendations"].sheet.lines[0].cells["energy"] == written == quantity(known)


def test_components_stand_apart_and_estimates_in_rows_of_their_own():
    estimated = builders.aggregate_row(
        energy_status="estimated",
        components=("cpu", "dram"),
        statistics={f"{name}_energy_per_output_token_j": KNOWN for name in ("cpu", "dram")},
    )
    measured = builders.aggregate_row(statistics={"gpu_energy_per_output_token_j": KNOWN})
    sheet = tables(measured, estimated)["components"].sheet
    shown = [(x.cells["energy"], x.cells["gpu"], x.cells["cpu"]) for x in sheet.lines]
    dash = "\N{EN DASH}"
    assert shown == [
        ("measured: gpu", "0.123 ± 0.012", dash),
        ("estimated: cpu, dram", dash, "0.123 ± 0.012"),
    ]
    assert "Estimated by a model, not measured by a sensor." in sheet.notes


def test_every_failure_is_a_row_with_its_reason_and_its_repeats():
    lost = ((2, "oom: full"), (4, "oom: full"), (5, "invalid: M08 counter went back"))
    rows = [
        builders.aggregate_row(excluded=lost),
        builders.aggregate_row(excluded=lost, energy_status="estimated", components=("dram",)),
        builders.unusable_row("unsupported", "unsupported: no kernel", precision="int4"),
    ]
    table = tables(*rows)["failures"]
    shown = [
        [x.cells[name] for name in ("outcome", "repeats", "reason")] for x in table.sheet.lines
    ]
    assert shown == [
        ["oom", "r02 r04", "full"],
        ["invalid", "r05", "M08 counter went back"],
        ["unsupported", "all", "no kernel"],
    ]
    assert [row["outcome"] for row in spreadsheet(table)] == ["oom", "invalid", "unsupported"]


def test_quality_stands_beside_the_joules_where_it_was_measured():
    scored = {"energy_per_output_token_j": KNOWN, "perplexity": KNOWN}
    sheet = tables(builders.aggregate_row(statistics=scored), builders.aggregate_row())[
        "quality"
    ].sheet
    [found] = sheet.lines
    assert found.cells["perplexity"] == found.cells["gross"] == "0.123 ± 0.012"


def test_a_table_without_rows_says_so_in_every_format():
    made = tables()
    assert set(made) == set(TABLES)
    assert "Nothing failed" in to_markdown(made["failures"].sheet)
    assert "no two cells of this sweep were compared" in made["comparisons"].sheet.label
    assert spreadsheet(made["limits"]) == []


def test_markup_from_elsewhere_stays_text_in_every_table():
    bad = "<script>x</script> | `c`"
    row = builders.aggregate_row(
        excluded=((1, f"oom: {bad}"),),
        statistics={"gpu_energy_per_output_token_j": KNOWN, "perplexity": KNOWN},
    )
    for name, table in tables(row, comparisons=example()).items():
        assert "<script>" not in to_markdown(table.sheet), name


def test_the_set_up_has_every_condition_the_repeats_and_the_windows():
    lengths = (31.26, 33.44)
    rows = [
        builders.aggregate_row(
            workload=f"b{n}",
            statistics={GROSS: KNOWN, "duration_s": Statistic(n, seconds, None, None, None)},
            n=n,
        )
        for n, seconds in enumerate(lengths, 2)
    ]
    many = HeldFixed("prompts", "prompts (SHA-256)", tuple("abcdefghij"))
    held = (HeldFixed("engine", "engine and its version", ("vllm 0.26.0",)), many)
    table = tables(*rows, comparisons=replace(example(), held_fixed=held))["setup"]
    assert [(one.id, one.cells["values"]) for one in table.sheet.lines] == [
        ("engine", "vllm 0.26.0"),
        ("prompts", "a; b; c; d; e; f; g; h; and 2 more"),
        ("n", "2; 3"),
        ("duration_s", "31.3 to 33.4"),
    ]
    assert [row["value"] for row in spreadsheet(table) if row["condition"] == "prompts"] == [
        *many.values
    ]
    assert len(table.sheet.lines[0].sources) == len(rows)


def test_a_sweep_without_joules_has_no_set_up():
    table = tables(builders.unusable_row(), comparisons=example())["setup"]
    assert (table.sheet.lines, spreadsheet(table)) == ([], [])


def test_a_quantile_that_no_repeat_reaches_is_left_empty():
    row = builders.aggregate_row(latencies_s={"ttft_p50": KNOWN})
    page = to_markdown(tables(row)["latency"].sheet)
    [shown] = [line for line in page.splitlines() if " TTFT |" in line]
    assert f"| {quantity(KNOWN)} | \N{EN DASH} | \N{EN DASH} | \N{EN DASH} | 5 |" in shown
