"""Every number of a window has one name, and people read its words and not its identifier."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import get_type_hints

import pytest
from support import builders
from support.comparison_example import comparison, example

from llm_energy.publish.report.content import comparison_records
from llm_energy.publish.tables import TABLES, Results, make
from llm_energy.publish.tables.writers.markdown import to_markdown
from llm_energy.records import Metrics
from llm_energy.records.registry.metrics import DENOMINATORS, GROSS, METRICS

IDENTIFIER = re.compile(r"[a-z0-9]+(_[a-z0-9]+)+")


def test_every_number_of_a_window_is_registered():
    types = get_type_hints(Metrics)
    numbers = {name for name, type in types.items() if type in (float, float | None)}
    assert set(METRICS) == numbers


@pytest.mark.parametrize("metric", METRICS.values(), ids=list(METRICS))
def test_what_people_read_is_no_identifier(metric):
    assert not IDENTIFIER.search(f"{metric.axis}, {metric.head}")


def ranked_by_all():
    compared = example()
    return replace(
        compared,
        rankings=tuple(replace(one, metrics=DENOMINATORS) for one in compared.rankings),
    )


@pytest.mark.parametrize("name", TABLES)
def test_no_head_of_a_table_is_an_identifier(name):
    table = make(Results((builders.aggregate([builders.aggregate_row()]),), ranked_by_all()))[name]
    heads = [column.head for column in table.sheet.columns if column.head]
    assert heads
    assert not [head for head in heads if IDENTIFIER.fullmatch(head)]


def test_joules_per_byte_stand_before_the_net_ones():
    table = make(Results((builders.aggregate([builders.aggregate_row()]),), ranked_by_all()))
    text = to_markdown(table["denominators"].sheet)
    heads = [METRICS[name].head for name in DENOMINATORS]
    assert f"| {' | '.join(heads)} | Ranks |" in text


@pytest.mark.parametrize("metric", DENOMINATORS)
def test_the_report_names_what_was_compared_in_words(metric):
    [record] = comparison_records([comparison(metric=metric)])
    assert record["metric"] == METRICS[metric].head
    assert (record["metric"] == "J/output token") == (metric == GROSS)
