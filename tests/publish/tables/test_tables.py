"""The tables that people read: honest labels, digits, reasons, and the same bytes each time."""

from __future__ import annotations

import csv
import io
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import tables as script
from hypothesis import given
from hypothesis import strategies as st
from support import builders
from support.project import ROOT

from llm_energy.core.errors import LlmEnergyError
from llm_energy.publish.csv_text import csv_text
from llm_energy.publish.tables import TABLES, Results, make, render
from llm_energy.publish.tables.cell_rows import label
from llm_energy.publish.tables.writers.text import TEXT_WIDTH, to_text
from llm_energy.records import Statistic, write_record

ESTIMATED = {"energy_status": "estimated", "components": ("cpu", "dram")}


def rendered(*rows, table="energy", **changes) -> dict[str, str]:
    """Return one table of one backend by the suffixes of its files."""
    return files([builders.aggregate(rows or [builders.aggregate_row()], **changes)], table)


def files(aggregates, table="energy", **more) -> dict[str, str]:
    """Return one table by the suffixes of its files."""
    results = Results(tuple(aggregates), **more)
    named = ([*name.split("."), text] for name, text in render(results))
    return {suffix: text for name, suffix, text in named if name == table}


def test_several_processes_make_the_same_tables(monkeypatch):
    results = Results((builders.aggregate([builders.aggregate_row(), builders.unusable_row()]),))
    one = list(render(results))
    monkeypatch.setattr("llm_energy.publish.tables.MANY_ROWS", 1)
    assert list(render(results, jobs=2)) == one


def test_a_number_has_its_interval_its_count_and_its_label():
    made = rendered()
    line = next(line for line in made["md"].splitlines() if line.startswith("| m "))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == [
        *("m", "float32", "b1 (1)", "0.123 ± 0.012", "0.050 ± 0.010"),
        *("83", "0.25", "5", "measured: gpu", ""),
    ]


def test_backends_stand_in_blocks_of_their_own():
    vllm = builders.aggregate_row(backend="vllm", cell="m--vllm--float32")
    made = files(
        [builders.aggregate([vllm], "vllm"), builders.aggregate([builders.aggregate_row()])]
    )
    assert re.findall(r"^## (.*)$", made["md"], re.M) == ["pytorch", "vllm"]
    assert re.findall(r"^\[(.*)\]$", made["txt"], re.M) == ["pytorch", "vllm"]
    assert re.findall(r"textbf\{(.*?)\}", made["tex"]) == ["pytorch", "vllm"]


def test_a_cell_without_a_result_is_a_row_with_its_reason():
    made = rendered(builders.unusable_row("oom", "oom: out of memory in generate"))
    for text in (made["md"], made["tex"], made["txt"]):
        assert "oom: out of memory in generate" in text
    assert re.search(r"^m +float32 +b1 \(1\) +oom ", made["txt"], re.M)


def cells_of(made: dict[str, str]) -> dict[str, str]:
    """Return the one row of a Markdown table by its heads."""
    heads, _, row = (line for line in made["md"].splitlines() if line.startswith("|"))
    split = ([cell.strip() for cell in line.strip("|").split("|")] for line in (heads, row))
    return dict(zip(*split, strict=True))


def with_statistics(**statistics):
    row = builders.aggregate_row()
    return replace(row, statistics=row.statistics | statistics)


def test_an_absolute_interval_has_a_column_of_its_own_and_fewer_digits():
    known = Statistic(5, 0.123456, 0.001, 0.1222, 0.1247, 0.0005, 4.0, 0.111, 0.136)
    made = rendered(with_statistics(energy_per_output_token_j=known))
    cells = cells_of(made)
    assert (cells["J/output token"], cells["absolute"]) == ("0.1235 ± 0.0013", "0.123 ± 0.013")
    assert "arXiv:2312.02741" in made["md"]
    assert "arXiv:2312.02741" in made["tex"]
    assert "energy.md has the absolute intervals" in made["txt"]


def test_columns_that_no_row_fills_are_not_there():
    made = rendered()
    assert set(cells_of(made)).isdisjoint(
        {"absolute", "steady-state J/output token", "facility J/output token"}
    )
    for told in ("2312.02741", "Steady state", "PUE"):
        assert told not in made["md"]
    assert "absolute" not in made["txt"]


def test_steady_state_and_facility_energy_stand_beside_the_headline():
    other = Statistic(5, 0.2, 0.01, 0.19, 0.21)
    made = rendered(
        with_statistics(
            steady_state_energy_per_output_token_j=other,
            facility_energy_per_output_token_j=other,
        )
    )
    cells = cells_of(made)
    assert cells["J/output token"] == "0.123 ± 0.012"
    assert cells["steady-state J/output token"] == "0.200 ± 0.010"
    assert cells["facility J/output token"] == "0.200 ± 0.010"
    assert "Steady state is" in made["tex"]
    assert "(PUE)" in made["tex"]


@pytest.mark.parametrize(
    ("batch_size", "batching", "written"),
    [(8, "continuous", "b1 (8, continuous)"), (8, None, "b1 (8)"), (None, None, "b1")],
)
def test_a_row_says_how_requests_were_batched(batch_size, batching, written):
    row = builders.aggregate_row(batch_size=batch_size, batching=batching)
    made = rendered(row)
    assert cells_of(made)["Workload (batch)"] == written
    assert re.search(rf"float32 +{re.escape(written)} ", made["txt"])


def test_simulated_tables_say_so_in_their_first_line():
    made = rendered(builders.aggregate_row(simulated=True))
    for suffix in ("md", "tex", "txt"):
        assert "SIMULATED" in made[suffix].splitlines()[0]
        assert "SIMULATED" not in rendered()[suffix]
        assert "No joule here was ever drawn" in made[suffix]
        assert "measured, by sensors" not in made[suffix]
    assert cells_of(made)["Energy"] == "simulated: gpu"
    (found,) = csv.DictReader(io.StringIO(made["csv"]))
    assert found["simulated"] == "True"


def test_simulated_and_real_joules_share_no_table():
    other = builders.aggregate_row(backend="simulated", simulated=True)
    both = [
        builders.aggregate([builders.aggregate_row()]),
        builders.aggregate([other], "simulated"),
    ]
    with pytest.raises(LlmEnergyError, match="they are never shown in one table"):
        files(both)


def test_what_was_not_needed_is_told_and_not_missing():
    made = rendered(builders.aggregate_row(not_needed=(6, 7)))
    assert "1. Stopped early at n = 5: the interval was narrow enough." in made["md"]
    assert "left out" not in made["md"]
    (found,) = csv.DictReader(io.StringIO(made["csv"]))
    assert (found["n"], found["not_needed"], found["excluded"]) == ("5", "2", "")


def test_what_an_interval_takes_for_granted_is_told():
    made = rendered(builders.aggregate_row(assumptions=("a tick of 100 ms", "no drift")))
    assert "1. Intervals assume: a tick of 100 ms; no drift." in made["md"]
    assert "a tick of 100 ms; no drift" in made["csv"]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{}], "Every joule here is measured"),
        ([ESTIMATED], "Every joule here is estimated: no energy sensor was readable on node1."),
        ([{}, ESTIMATED], "Joules are measured or estimated as each row says"),
        ([{"n": 0, "energy_status": "unavailable"}], "There is no joule here"),
    ],
)
def test_one_line_says_how_the_joules_are_known(rows, told):
    assert label([builders.aggregate_row(**row) for row in rows]).startswith(told)


def test_every_table_for_people_carries_the_label():
    made = rendered(builders.aggregate_row(**ESTIMATED))
    for suffix in ("md", "tex", "txt"):
        assert "Every joule here is estimated" in made[suffix]
        assert "Estimated by a model, not measured by a sensor." in made[suffix]


def test_measured_joules_are_shown_and_estimated_ones_kept_in_the_csv():
    rows = [builders.aggregate_row(), builders.aggregate_row(**ESTIMATED)]
    made = rendered(*rows)
    assert made["md"].count("| m |") == 1
    assert "Estimated joules of cpu, dram are in energy.csv and not added here." in made["md"]
    assert len(list(csv.reader(io.StringIO(made["csv"])))) == 3
    assert "Every joule here is measured" in made["txt"]


def test_short_degraded_and_left_out_are_footnotes():
    row = builders.aggregate_row(
        degraded=1, flags=("M03", "E29", "M11", "M22"), excluded=((3, "oom: full"),)
    )
    short = builders.aggregate_row(workload="b8", flags=("M03", "M25"))
    judged = {"E29": "as it was judged"}
    made = files([builders.aggregate([row, short])], titles=judged)
    assert "Notes:\n\n1. Degraded: " in made["md"]
    assert "2. Short window: under 30 s" in made["md"]
    assert "3. E29: as it was judged." in made["md"]
    assert "4. Repeat 3 left out: oom: full" in made["md"]
    assert "5. A GPU's joules are those of its whole module: CPU and memory are" in made["md"]
    assert "| 1, 2, 3, 4 |" in made["md"]
    assert "(1)\\textsuperscript{1,2,3,4} & " in made["tex"]
    # Verdicts of an older version have no titles; then the id stands alone.
    assert "3. E29\n" in files([builders.aggregate([row])])["md"]


@pytest.mark.parametrize("output", ["tables", "data", "figures", "report"])
def test_what_is_published_asks_no_check_of_today(output):
    code = f"import sys, llm_energy.publish.{output}; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT / "scripts", check=True, capture_output=True, text=True)
    assert not [
        name for name in done.stdout.split() if name.startswith("llm_energy.analysis.checks")
    ]


def test_pooled_backends_are_named_and_marked():
    row = builders.aggregate_row(backend="pytorch+vllm", flags=("mixed_backends",))
    pooled = builders.aggregate([row], "pytorch+vllm", mixed_backends=("pytorch", "vllm"))
    made = files([pooled])
    assert "## pytorch+vllm (pooled)" in made["md"]
    assert "Pools several backends against advice" in made["txt"]


def test_the_csv_has_every_value_unrounded():
    row = builders.aggregate_row(excluded=((2, "oom"),), flags=("M03",))
    (found,) = csv.DictReader(io.StringIO(rendered(row)["csv"]))
    assert float(found["energy_per_output_token_j_mean"]) == 0.123456
    assert found["energy_per_output_token_j_ci_low"] == "0.111"
    assert found["energy_per_output_token_j_n"] == "5"
    assert found["energy_per_output_token_j_absolute_ci_low"] == ""
    assert found["measurements"] == "a.json b.json"
    assert (found["sweep"], found["backend"], found["batch_size"]) == ("test", "pytorch", "1")
    assert (found["excluded"], found["flags"], found["reason"]) == ("2: oom", "M03", "")


def test_the_csv_leaves_absent_values_empty():
    statistics = {"ttft_s": Statistic(0, None, None, None, None)}
    rows = [builders.aggregate_row(statistics=statistics), builders.unusable_row()]
    found = list(csv.DictReader(io.StringIO(rendered(*rows)["csv"])))
    assert (found[0]["ttft_s_mean"], found[0]["ttft_s_n"]) == ("", "0")
    assert (found[1]["ttft_s_mean"], found[1]["ttft_s_n"]) == ("", "")
    assert (found[1]["outcome"], found[1]["reason"]) == ("unsupported", "no kernel")


def test_markup_in_names_and_reasons_stays_text():
    bad = "a|b <script>x</script> *b* `c` [d](e)\n# head & \\"
    made = rendered(builders.unusable_row("failed", bad, model="m_1"))
    assert "<script>" not in made["md"]
    assert "\n# head" not in made["md"]
    assert "a\\|b &lt;script>" in made["md"]
    assert "| m\\_1 |" in made["md"]


def test_latex_escapes_what_it_must():
    made = rendered(builders.unusable_row("failed", "50 % of $x_1 & {y} #1 ~^ \\input <z>"))
    assert (
        "50 \\% of \\$x\\_1 \\& \\{y\\} \\#1 \\textasciitilde{}\\textasciicircum{} "
        "\\textbackslash{}input \\textless{}z\\textgreater{}"
    ) in made["tex"]


@given(st.text(min_size=1, max_size=40))
def test_any_reason_keeps_latex_whole(reason):
    text = rendered(builders.unusable_row("failed", reason))["tex"]
    unescaped = re.sub(r"\\[\\{}%&$#_]", "", text)
    assert unescaped.count("{") == unescaped.count("}")
    assert text.count("\\begin{") == text.count("\\end{") == 2


def test_latex_rows_have_one_cell_a_column():
    made = rendered(builders.aggregate_row(), builders.unusable_row())
    body = made["tex"].split("\\toprule")[1].split("\\bottomrule")[0]
    rows = [line for line in body.splitlines() if line.endswith("\\\\") and " & " in line]
    assert len(rows) == 3
    # Model, precision and workload are the same in both, so they are told below the table.
    assert {len(re.split(r"(?<!\\)&", row)) for row in rows} == {6}


@given(
    model=st.text("abcdefgh-0123456789", min_size=1, max_size=80),
    precision=st.text("abcdefgh", min_size=1, max_size=40),
    workload=st.text("abcdefgh", min_size=1, max_size=40),
    reason=st.text(min_size=1, max_size=300),
)
def test_the_summary_fits_a_terminal(model, precision, workload, reason):
    names = {"model": model, "precision": precision, "workload": workload}
    rows = [
        builders.aggregate_row(**names),
        builders.unusable_row("unsupported", reason, **names),
    ]
    text = to_text(make(Results((builders.aggregate(rows),)))["energy"].sheet)
    assert max(map(len, text.splitlines())) <= TEXT_WIDTH


def test_a_note_of_every_row_is_told_once_in_the_terminal():
    rows = [
        builders.aggregate_row(workload="b1", flags=("M03",)),
        builders.aggregate_row(workload="b8", flags=("M03", "E29")),
    ]
    text = to_text(make(Results((builders.aggregate(rows),)))["energy"].sheet)
    assert text.count("Every row: Short window") == 1
    assert re.search(r"^m .* b1 .*(measured|estimated)$", text, re.M)
    assert re.search(r"^m .* b8 .* 1$", text, re.M)
    assert re.search(r"^1\. E29$", text, re.M)


def test_the_terminal_has_no_column_for_notes_that_all_rows_share():
    rows = [builders.aggregate_row(workload=name, flags=("M03",)) for name in ("b1", "b8")]
    text = to_text(make(Results((builders.aggregate(rows),)))["energy"].sheet)
    assert "Every row: Short window" in text
    assert "Notes" not in text


def test_the_same_aggregates_give_the_same_bytes_in_any_order():
    one = builders.aggregate([builders.aggregate_row()])
    other = builders.aggregate([builders.aggregate_row(backend="vllm")], "vllm")
    assert files([one, other]) == files([other, one]) == files([one, other])


def test_several_sweeps_or_one_backend_twice_are_refused():
    one = builders.aggregate([builders.aggregate_row()])
    with pytest.raises(LlmEnergyError, match="one sweep and each backend once"):
        files([one, one])
    with pytest.raises(LlmEnergyError, match="found sweeps other, test"):
        files([one, builders.aggregate([], "vllm", sweep="other")])


def test_the_command_line_writes_every_table_in_every_format(tmp_path):
    write_record(tmp_path / "aggregate.json", builders.aggregate([builders.aggregate_row()]))
    arguments = ["--aggregates", str(tmp_path / "aggregate.json")]
    assert script.main([*arguments, "--out-dir", str(tmp_path / "tables")]) == 0
    found = {path.name: path.read_text() for path in (tmp_path / "tables").iterdir()}
    wanted = {f"{name}.{suffix}" for name in TABLES for suffix in ("csv", "md", "tex")}
    assert set(found) == wanted | {"energy.txt", "phases.txt", "summary.txt", "sources.json"}
    assert found["energy.txt"] == rendered()["txt"]
    assert all(text.endswith("\n") and not text.endswith("\n\n") for text in found.values())


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
        ("+1", "'+1"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("a=b", "a=b"),
        ("", ""),
        (-1.5, "-1.5"),
        (-0.0, "-0.0"),
        (None, ""),
    ],
)
def test_no_text_of_a_csv_file_is_a_formula_and_numbers_keep_their_sign(value, written):
    assert list(csv.reader(io.StringIO(csv_text(["a", "b"], [["x", value]])))) == [
        ["a", "b"],
        ["x", written],
    ]
