"""What tables and the report's first screen say of two or three repeats that scatter widely."""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict

import pytest
from support.noisy_sweep import NoisySweep

from llm_energy.analysis.statistics.format import NOISY, NOISY_MEANING
from llm_energy.publish.report import abstract
from llm_energy.publish.tables import make, render

SWEEPS = [NoisySweep(repeats, scatter) for repeats in (1, 2, 3) for scatter in (0.05, 0.4, 1.5)]
PROSE = ("verdict", "statement", "against_best", "reason", "differs", "notes")
NEVER = {
    "a ratio of 0": r"(?:\| |& )0 (?:\||&) 0 (?:\||&)",
    "an exponent": r"\d[eE][+-]?\d",
    "an interval of 0": r"± 0(?:\.0+)?(?![.\d])",
    "a percentage beyond sense": r"(?<![.\d])\d{4,} (?:\\)?%",
    "all of it less": r"\b100 (?:\\)?% less",
    "an identifier": r"\b[a-z]+_[a-z_]+\b",
    "an escaped identifier": r"\b[a-z]+\\_[a-z]+",
}


@pytest.fixture(
    params=SWEEPS, ids=lambda one: f"{one.repeats}-repeats-{one.scatter}", scope="module"
)
def sweep(request) -> NoisySweep:
    return request.param


@pytest.fixture(scope="module")
def texts(sweep) -> dict[str, str]:
    """Return all that is read of a sweep, by name; of spreadsheets the sentences alone."""
    found = {}
    for name, text in render(sweep.results()):
        if name.endswith(".csv"):
            rows = csv.DictReader(io.StringIO(text))
            found[name] = "\n".join(row[key] for row in rows for key in PROSE if row.get(key))
        elif not name.endswith(".json"):
            found[name] = text
    sources = sweep.sources()
    for one in abstract.abstract(sources):
        found[one.question] = "\n".join((one.answer, *one.details))
    found["findings"] = "\n".join(sources.comparisons.findings)
    return found


@pytest.mark.parametrize("pattern", NEVER.values(), ids=NEVER)
def test_nothing_is_printed_that_a_reader_cannot_use(texts, pattern):
    found = {name: sorted(set(re.findall(f".*{pattern}.*", text))) for name, text in texts.items()}
    assert {name: lines[:2] for name, lines in found.items() if lines} == {}


def test_no_interval_of_a_positive_number_reaches_below_zero(texts):
    for name, text in texts.items():
        for mean, half in re.findall(r"(-?[\d.]*\d) (?:±|\\pm) ([\d.]*\d)(?! ?\\?%)", text):
            assert float(half) <= float(mean), (name, mean, half)


def test_a_ratio_lies_between_ends_above_zero(sweep):
    for line in make(sweep.results(), ["comparisons"])["comparisons"].sheet.lines:
        ends = [line.cells[name] for name in ("low", "ratio", "high")]
        if all(re.fullmatch(r"[\d.]+", end) for end in ends):
            low, ratio, high = map(float, ends)
            assert 0 < low <= ratio <= high


def test_what_the_sign_of_noise_means_is_told_once_where_it_stands(texts):
    for name, text in texts.items():
        if name.endswith((".md", ".txt")):
            told = " ".join(text.split()).count(NOISY_MEANING)
            stands = re.search(rf"{NOISY}\d", text) is not None
            assert told == stands, name


def test_a_quantity_has_the_same_interval_in_every_table(sweep):
    written = defaultdict(set)
    for table in make(sweep.results()).values():
        heads = {column.name: column.head for column in table.sheet.columns}
        for line in table.sheet.lines:
            for name, cell in line.cells.items():
                head = (heads.get(name) or "").removeprefix("GPU ")
                if "J/output token" in head and "±" in cell and len(line.sources) == 1:
                    written[line.sources[0], head].add(cell)
    assert {key: cells for key, cells in written.items() if len(cells) > 1} == {}
    assert written or sweep.scatter > 1


def test_what_cannot_be_told_apart_is_not_recommended(sweep):
    results = sweep.results()
    rows = list(csv.DictReader(io.StringIO(make(results)["recommendations"].csv)))
    chosen = [one for one in results.comparisons.recommendations if not one.ties]
    assert sum(row["recommended"] == "True" for row in rows) == len(chosen)
    for one in results.comparisons.recommendations:
        assert ("cannot be told" in one.statement) == bool(one.ties)
