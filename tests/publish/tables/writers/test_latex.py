"""The LaTeX tables compile in an article, fit its width, and say what they should."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from support import builders, system_tools
from support.archived import archived
from support.comparison_example import example
from support.noisy_sweep import NoisySweep

from llm_energy.publish.tables import TABLES, Results, render
from llm_energy.publish.tables.writers.latex import LINES_A_PAGE, PREAMBLE
from llm_energy.records import Statistic

HARD = "[a] *b* 50 % of $x_1 & {y} #2 ~^ \\input|`<z>` é ß — “q” \N{SNOWMAN} 日本 \x07 -- ?` end"

ARTICLE_PT, PAGE_PT, LEGIBLE = 345.0, 550.0, 0.72  # of 8 pt letters
SIZE = r"\typeout{SIZE \the\wd0\space\the\dimexpr\ht0+\dp0\relax}"


def statistics(mean: float = 0.123456, half: float = 0.012, **more: Statistic) -> dict:
    """Return statistics with a wide range of digits, and one that is below zero."""
    known = Statistic(
        5, mean, half / 2, mean - half, mean + half, half / 2, 4.0, mean / 2, mean * 2
    )
    net = Statistic(5, -mean / 7, half / 2, -mean / 7 - half, -mean / 7 + half)
    names = ("energy_per_output_token_j", "gpu_energy_per_output_token_j", "output_tokens_per_s")
    return dict.fromkeys(names, known) | {"net_energy_per_output_token_j": net} | more


def rows() -> list:
    single = Statistic(1, 0.0123, None, None, None)
    quality = {"perplexity": Statistic(3, 14.2, 0.0, 14.2, 14.2), "nll_per_token": single}
    return [
        builders.aggregate_row(statistics=statistics(**quality), batching="static"),
        builders.aggregate_row(
            workload="b128",
            precision="int8",
            batch_size=128,
            statistics=statistics(123.4, 32.1),
            flags=("M03",),
            degraded=1,
            excluded=((3, f"invalid: {HARD}"),),
        ),
        builders.aggregate_row(
            precision="int4",
            energy_status="estimated",
            components=("cpu", "dram"),
            statistics={
                "energy_per_output_token_j": single,
                "cpu_energy_per_output_token_j": single,
            },
        ),
        builders.unusable_row("oom", HARD, model="a_very-long--model_name-v1.5"),
    ]


def compiled(folder: Path, names: list[str], texts: dict[str, str]) -> tuple[str, str]:
    """Compile an article that takes in the named tables; give its text and LaTeX's log."""
    for name in names:
        (folder / f"{name}.tex").write_text(texts[f"{name}.tex"], encoding="utf-8")
    body = "\n".join(f"\\input{{{name}}}" for name in names)
    document = (
        f"\\documentclass{{article}}\n{PREAMBLE}\n\\begin{{document}}\n{body}\n\\end{{document}}"
    )
    (folder / "paper.tex").write_text(document, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    log = subprocess.run(command, cwd=folder, capture_output=True).stdout.decode("latin-1")
    assert (folder / "paper.pdf").is_file(), log[-2000:]
    text = subprocess.run(
        ["pdftotext", "-layout", "paper.pdf", "-"], cwd=folder, capture_output=True, text=True
    ).stdout
    return text, log


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    """Compile every table once, with whatever is hard to set in them."""
    system_tools.need("latex")
    aggregates = (builders.aggregate(rows()), builders.aggregate([], "vllm"))
    texts = dict(render(Results(aggregates, example())))
    return compiled(tmp_path_factory.mktemp("paper"), list(TABLES), texts)


def test_every_table_compiles_and_none_is_wider_than_the_page(paper):
    _, log = paper
    assert "Overfull \\hbox" not in log
    assert not re.search(r"^! |siunitx Warning|Undefined", log, re.M)


def test_the_page_shows_numbers_with_intervals_and_reasons(paper):
    text = " ".join(paper[0].split())
    for shown in ("0.123 ± 0.012", "123 ± 32", "-0.018 ± 0.012", "0.012", "oom"):
        assert shown in text.replace("\N{MINUS SIGN}", "-")
    assert "Short window: under 30 s" in text
    assert "Estimated by a model, not measured by a sensor." in text


def test_no_character_is_read_as_a_command(paper):
    text = " ".join(paper[0].split())
    assert re.search(r"50 % of \$x.1 & \{y\} #2", text)  # the underscore is a rule
    assert "[U+2603] [U+65E5][U+672C]" in text


def test_a_table_longer_than_a_page_is_cut_and_keeps_every_row(tmp_path):
    system_tools.need("latex")
    count = 2 * LINES_A_PAGE + 3
    many = [builders.aggregate_row(workload=f"w{k:03d}", flags=("M03",)) for k in range(count)]
    texts = dict(render(Results((builders.aggregate(many),))))
    text, log = compiled(tmp_path, ["energy"], texts)
    assert set(re.findall(r"w\d{3}", text)) == {f"w{k:03d}" for k in range(count)}
    assert "(3 of 3)" in text
    assert "Overfull" not in log


def noisy() -> Results:
    return NoisySweep(3, 0.2).results()


def of_two_models() -> Results:
    """Return an archive whose pairs have long names and whose columns span eight decades."""
    sweep = archived("h200-llama-3.1-8b-precisions.tar.xz")
    return Results(tuple(sweep.aggregates), sweep.comparisons)


@pytest.mark.parametrize("made", [noisy, of_two_models])
def test_every_table_of_a_sweep_can_be_read_in_print(made, tmp_path, monkeypatch):
    system_tools.need("latex")
    monkeypatch.chdir(tmp_path)
    results = made()
    texts = {
        name: text.replace("\\ifdim\\wd0>", f"{SIZE}\\ifdim\\wd0>")
        for name, text in render(results)
        if name.endswith(".tex")
    }
    _, log = compiled(tmp_path, list(TABLES), texts)
    found = [tuple(map(float, one)) for one in re.findall(r"SIZE ([\d.]+)pt\s*([\d.]+)pt", log)]
    assert len(found) > len(TABLES)
    assert max(width for width, _ in found) * LEGIBLE <= ARTICLE_PT
    assert max(height for _, height in found) <= PAGE_PT
    assert "Overfull" not in log
    # What names take most of a line costs one part more, not one for each column.
    count = max(int(last) for last in re.findall(r"\(\d+ of (\d+)\)", texts["comparisons.tex"]))
    assert count <= 3 * texts["comparisons.tex"].count("In words"), count
