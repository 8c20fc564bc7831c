"""The report of a sweep: what its first screen says, and that nothing foreign becomes markup."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import report as script
from hypothesis import given
from hypothesis import strategies as st
from support import builders, comparison_example, report_sweep
from support.report_sweep import HOSTILE

from llm_energy.analysis.compare.stage import comparisons
from llm_energy.analysis.statistics.format import NOISY_MEANING
from llm_energy.core.files import write_json
from llm_energy.core.serialize import to_dict
from llm_energy.publish.length_plots import length_plots
from llm_energy.publish.plots import describe
from llm_energy.publish.report import (
    Sources,
    abstract,
    charts,
    content,
    render,
    script_hash,
    script_json,
)
from llm_energy.publish.report.methods import methods
from llm_energy.records import Statistic, write_record
from llm_energy.records.registry.metrics import GROSS

FIGURES = [{"name": "energy_by_batch", "reason": None}, {"name": "warm_up", "reason": HOSTILE}]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    compared = replace(comparison_example.example(), findings=(f"A finding about {HOSTILE}.",))
    return report_sweep.sources(tmp_path_factory.mktemp("sweep"), compared)


@pytest.fixture(scope="module")
def page(sweep):
    return render(sweep, FIGURES)


# the first screen

LOWEST = "Which cell has the lowest energy?"


def answers(sources: Sources) -> dict[str, str]:
    return {s.question: " ".join([s.answer, *s.details]) for s in abstract.abstract(sources)}


def row(precision="float32", mean=0.5, half=0.01, n=5, workload="b1", **changes):
    """Return a row whose gross joules have this mean and half interval; None for no interval."""
    low, high = (None, None) if half is None else (mean - half, mean + half)
    statistics = {GROSS: Statistic(n, mean, None, low, high)}
    return builders.aggregate_row(
        cell=f"m--pytorch--{precision}",
        precision=precision,
        workload=workload,
        n=n,
        statistics=statistics,
        **changes,
    )


def small(*rows, cells=None, **changes) -> Sources:
    """Return the sources of a sweep that is all in its aggregate; its first row has the lowest."""
    precisions = cells or list(dict.fromkeys(r.precision for r in rows))
    first = {name: getattr(rows[0], name) for name in SCOPE}
    found = [comparison_example.lowest(**first | changes)] if rows[0].n else []
    compared = replace(report_sweep.nothing_compared(), lowest=tuple(found))
    grid = builders.plan([("pytorch", p) for p in precisions], 5)
    return Sources(grid, [builders.aggregate(rows)], [], [], compared)


SCOPE = ("cell", "workload", "energy_status", "components")


def test_the_first_screen_answers_the_five_questions(sweep):
    assert list(answers(sweep)) == [
        LOWEST,
        "By how much?",
        "How sure is that?",
        "What was only estimated?",
        "What failed or is missing?",
    ]


def test_the_first_screen_says_what_the_compare_stage_found(tmp_path):
    swept = report_sweep.sources(tmp_path, report_sweep.nothing_compared())
    compared = comparisons(swept.metrics, swept.aggregates, swept.plan)
    one, other = compared.lowest
    assert (one.cell, one.workload, one.energy_status) == ("m--pytorch--int4", "b8", "measured")
    assert other.backend == "vllm"
    found = answers(replace(swept, comparisons=compared))
    assert found[LOWEST] == f"{one.statement}. {other.statement}."
    assert found["By how much?"].startswith(f"On pytorch: {one.against_next}; on vllm: ")
    assert any(finding == f"{one.statement}; {one.against_next}" for finding in compared.findings)


def test_no_winner_is_named_across_work_that_is_not_the_same(tmp_path):
    swept = report_sweep.sources(tmp_path, report_sweep.nothing_compared())
    compared = report_sweep.two_lengths(swept)
    works = {(one.backend, one.workload): one.work for one in compared.lowest}
    assert works.keys() == {("pytorch", "b1"), ("pytorch", "b8"), ("vllm", "b1"), ("vllm", "b8")}
    found = answers(replace(swept, comparisons=compared))
    assert found["By how much?"].startswith("On pytorch, 128 output tokens: int8 at b1 uses")
    told = found[LOWEST]
    assert told.count("has the lowest") == 4
    for (_, workload), work in works.items():
        assert ("128 output tokens" if workload == "b1" else "1024 output tokens") in work
        assert f" at {workload} has the lowest" in told
        assert f"({work})" in told


def test_what_else_is_known_of_the_lowest_is_said_below_it():
    compared = comparison_example.comparison().verdict
    changes = {
        "not_comparable": (("m--pytorch--int8", "b1"),),
        "against_next": compared,
        "against_first": "int4 uses 20 % less than float32",
    }
    found = answers(small(row("int4", 0.41), row(), **changes))
    assert "1 cell and workload with the same work cannot be compared with it" in found[LOWEST]
    assert found["By how much?"].startswith("Int4 uses 18 % less than float32, 95 % CI 12 to 23 %.")
    assert found["By how much?"].endswith("config: int4 uses 20 % less than float32.")
    assert found["How sure is that?"].startswith("To ± 2.4 %, its 95 % interval over 5 repeats.")


def test_the_lowest_that_breaks_a_bound_stands_beside_the_one_that_keeps_it(sweep):
    (one,) = sweep.comparisons.lowest
    (advised,) = sweep.comparisons.recommendations
    told = answers(sweep)[LOWEST]
    assert told.startswith(f"{one.statement}.")
    assert f"But quality drop of 3.2 % is above 1 %. {advised.statement}." in told


def test_two_models_are_named_by_their_ids_wherever_their_numbers_stand():
    known = Statistic(5, 0.5, None, 0.49, 0.51, absolute_ci_low=0.45, absolute_ci_high=0.55)
    first = replace(row(), statistics={GROSS: known})
    one = small(first, against_next="int8 uses 9 % more than float32")
    (lowest,) = one.comparisons.lowest
    other = replace(first, model="n", cell="n--pytorch--float32")
    both = replace(lowest, model="n", cell=other.cell)
    found = answers(
        replace(
            one,
            aggregates=[builders.aggregate([first, other])],
            comparisons=replace(one.comparisons, lowest=(lowest, both)),
        )
    )
    assert found["By how much?"].startswith("m: int8 uses 9 % more than float32; n: int8 uses")
    assert "0.500 ± 0.050 J for float32 at b1 of m." in found["How sure is that?"]
    assert "0.500 ± 0.050 J for float32 at b1 of n." in found["How sure is that?"]


def test_of_many_pieces_of_work_the_rest_is_counted():
    one = small(row())
    many = tuple(replace(one.comparisons.lowest[0], work=f"work {k}") for k in range(6))
    found = answers(replace(one, comparisons=replace(one.comparisons, lowest=many)))
    assert "2 more pieces of work: see the recommendations" in found[LOWEST]


def test_comparisons_of_an_older_version_name_no_lowest():
    one = small(row())
    old = replace(one, comparisons=report_sweep.nothing_compared())
    assert answers(old)[LOWEST] == abstract.NOT_COMPARED


def test_what_is_too_noisy_is_said_in_words():
    told = answers(small(row(half=1.05)))["How sure is that?"]
    assert told.startswith("Not at all: over 5 repeats it is too noisy.")
    assert told.count(NOISY_MEANING) == 1


def test_alone_there_is_nothing_to_compare():
    alone = small(row(), against_next=None)
    assert answers(alone)["By how much?"] == "There is nothing to compare it with."


def test_one_repeat_is_said_to_show_no_scatter():
    found = answers(small(row(half=None, n=1)))
    assert found["How sure is that?"].startswith("Not at all: one repeat shows no scatter")
    metered = answers(small(row(half=0.01, n=1)))["How sure is that?"]
    assert "the uncertainty of the meter alone" in metered


def test_estimated_joules_stand_beside_measured_ones_by_name():
    estimate = row("int4", 0.1, energy_status="estimated", components=("cpu", "dram"))
    found = answers(small(row(), estimate))
    assert "What stands as estimated (CPU and memory)" in found["What was only estimated?"]


def test_only_estimates_stand_under_a_banner():
    sources = small(row(energy_status="estimated", components=("cpu", "dram")))
    assert abstract.banner(sources)[0] == "Estimated"
    assert answers(sources)["What was only estimated?"].startswith("Everything")
    assert abstract.banner(small(row(simulated=True)))[0] == "Simulated"
    assert abstract.banner(small(row())) is None


def test_failures_are_counted_with_their_reasons(sweep):
    found = answers(sweep)["What failed or is missing?"]
    assert found.startswith("1 of 6 cells gave no usable window: 1 unsupported.")
    assert f"m--vllm--int4: unsupported: no kernel for {HOSTILE}" in found
    assert "1 window of the others left out: 1 oom." in found


def test_a_sweep_without_any_result_still_has_a_page():
    failed = builders.unusable_row("oom", "no memory", cell="m--pytorch--int4", precision="int4")
    sources = small(failed, cells=["int4"])
    assert answers(sources)["What came out?"] == "Nothing: no cell gave a usable measurement."
    assert "no memory" in render(sources)


# the page


def test_a_front_of_the_page_is_one_of_the_compare_stage_and_never_crosses_work(tmp_path):
    swept = report_sweep.sources(tmp_path, report_sweep.nothing_compared())
    swept = replace(swept, comparisons=report_sweep.two_lengths(swept))
    fronts = {}
    described = describe(swept.rows, swept.every_row, swept.comparisons.pareto)
    for row in content.row_records(swept, described):
        if "throughput_front" in row:
            place = row["backend"], row["workload"]
            fronts.setdefault(row["throughput_front"], []).append(place)
    assert len(fronts) == 4
    assert all(len(set(places)) == 1 for places in fronts.values())


def test_nothing_from_outside_becomes_markup(page):
    assert HOSTILE not in page
    assert "window.hacked" in html.unescape(page)  # it is there, as text
    assert len(re.findall(r"<script\b", page)) == 3
    assert len(re.findall(r"</script", page)) == 3


def test_only_the_scripts_of_the_page_itself_may_run(page):
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page).group(1)
    allowed = re.findall(r"'sha256-[^']+'", html.unescape(policy))
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    assert allowed == [script_hash(text) for text in scripts]
    assert "default-src 'none'" in html.unescape(policy)
    assert "unsafe-eval" not in policy


def test_nothing_is_fetched(page):
    markup = re.sub(r"<script\b.*?</script>", "", page, flags=re.DOTALL)
    assert re.findall(r"<(?:link|img|iframe|script)\b", markup) == []
    assert "@import" not in page
    assert "url(" not in page.partition("</style>")[0]


def test_the_same_sweep_gives_the_same_page(sweep, page):
    assert render(sweep, FIGURES) == page


@given(
    st.recursive(
        st.text() | st.none() | st.integers(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_json_in_a_script_means_the_same_and_cannot_end_it(value):
    text = script_json(value)
    assert json.loads(text) == value
    assert not set("<>&\u2028\u2029") & set(text)


def test_flags_that_are_alike_are_stored_once(sweep):
    flags = content.Flags()
    table = content.window_table(sweep, flags)
    marks = [mark for marks in table["columns"]["flags"] for mark in marks]
    assert len(marks) > len(flags.records)
    texts = [json.dumps(record, sort_keys=True) for record in flags.records]
    assert len(set(texts)) == len(texts)


def test_every_window_is_in_the_table_of_repeats(sweep):
    columns = content.window_table(sweep, content.Flags())["columns"]
    judged = {(v.cell, v.workload, v.repeat) for v in sweep.judged}
    assert len(judged) == 2 * (5 * 3 + 1)
    names = content.window_table(sweep, content.Flags())["names"]
    places = zip(columns["cell"], columns["workload"], columns["repeat"], strict=True)
    assert {(names[c], names[w], r) for c, w, r in places} == judged


def test_the_page_shows_the_plots_that_figures_draw_in_the_same_colours(sweep):
    described = describe(sweep.rows, sweep.every_row, sweep.comparisons.pareto)
    made = charts.charts(described, length_plots(sweep.every_row))
    assert made.keys() - described.keys() == {"repeats", "requests", "lengths"}
    for name, plot in described.items():
        assert (made[name]["title"], made[name]["reason"] is None) == (plot.title, bool(plot.rows))
    for name in ("batch", "backend"):
        scale = json.dumps(made[name]["spec"])
        used = {getattr(row, described[name].by) for row in described[name].rows}
        looks = {who: look.colour for who, look in described[name].looks.items() if who in used}
        assert json.dumps({"domain": list(looks), "range": list(looks.values())}) in scale


def test_the_methods_say_what_was_done(sweep):
    text = " ".join(methods(sweep))
    assert "5 cells (model m, 2 backends: pytorch, vllm, 3 precisions: float32, int8, int4)" in text
    assert "in 3 repeats" in text
    assert "windows of" not in text
    assert "at least 30 s" in text
    assert "gpu (nvml_total_energy)" in text
    assert "Holm" in text


@pytest.fixture
def command(sweep, tmp_path, monkeypatch):
    """Write what the report is made of; give the arguments of the command, and the page's path."""
    monkeypatch.chdir(sweep.root)
    arguments = ["--out", str(tmp_path / "report.html")]
    for name in ("aggregates", "metrics", "verdicts"):
        arguments.append(f"--{name}")
        for k, record in enumerate(getattr(sweep, name)):
            write_record(tmp_path / f"{name}-{k}.json", record)
            arguments.append(str(tmp_path / f"{name}-{k}.json"))
    write_record(tmp_path / "plan.json", sweep.plan)
    write_json(tmp_path / "comparisons.json", to_dict(sweep.comparisons))
    write_json(tmp_path / "figures" / "index.json", FIGURES)
    for name in ("plan.json", "comparisons.json", "figures"):
        arguments += [f"--{name.partition('.')[0]}", str(tmp_path / name)]
    return arguments, tmp_path / "report.html"


def test_the_command_writes_the_page(command):
    arguments, page = command
    assert script.main(arguments) == 0
    assert "What does a token cost?" in page.read_text(encoding="utf-8")


def test_under_a_limited_address_space_the_page_is_made_and_says_what_it_lacks(command):
    arguments, page = command
    limited = ["bash", "-c", 'ulimit -v 20000000; exec "$@"', "-", sys.executable, script.__file__]
    done = subprocess.run([*limited, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    reason = "the address space of a process is limited to 20 GB here (ulimit -v)"
    assert f"The report has no plots: {reason}" in done.stdout.replace("\n", " ")
    text = page.read_text(encoding="utf-8")
    assert f"; {reason}" in text
    assert "<figure data-plot" not in text
    assert "What does a token cost?" in text


def test_a_missing_file_is_named(tmp_path, capsys):
    names = ("plan", "aggregates", "metrics", "verdicts", "comparisons", "figures", "out")
    arguments = [part for name in names for part in (f"--{name}", str(tmp_path / name))]
    assert script.main(arguments) == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'plan'}: no such file\n"
