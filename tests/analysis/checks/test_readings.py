"""The readings of a repeat are those of real counters, and give each joule again."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from support import builders

from llm_energy.analysis.checks.audit.readings import (
    discontinuous,
    impossible_readings,
    other_joules,
)
from llm_energy.analysis.evidence.files import Repeat, TraceFile, spans
from llm_energy.analysis.evidence.steps import StepsRead
from llm_energy.records import ComponentEnergy, CounterReadings, Interval

BOOT = "boot-1"


def counter(values, wraps_at=None, component="gpu", device="GPU-1", read_s=0.003, begin_s=1000.0):
    """Return readings 10 s apart."""
    edges_s = tuple(begin_s + 10.0 * k for k in range(len(values)))
    unit = "mJ" if component == "gpu" else "uJ"
    ends_s = tuple(edge_s + read_s for edge_s in edges_s)
    return CounterReadings(
        component, device, unit, wraps_at, edges_s, edges_s, ends_s, tuple(values)
    )


def repeat_of(*counters, energy=()):
    """Return a repeat whose baselines are what lies between neighbouring readings."""
    edges_s = counters[0].edge_s
    baselines = tuple(
        Interval(f"idle {k}", a, b, energy) for k, (a, b) in enumerate(pairwise(edges_s))
    )
    spec = builders.spec()
    spec = replace(spec, protocol=replace(spec.protocol, version=3))
    return Repeat(
        builders.measurement(
            spec, 1000.0, windows=(), baselines=baselines, readings=counters, end_s=1100.0
        ),
        TraceFile(Path()),
        StepsRead(Path()),
    )


def joules(component, device, energy_j):
    method = "nvml_total_energy_counter" if component == "gpu" else "rapl_powercap_package"
    return ComponentEnergy(component, device, "measured", method, energy_j)


RAPL = {"wraps_at": 10_000_000, "component": "cpu", "device": "package-0"}


@pytest.mark.parametrize(
    ("readings", "part", "accused"),
    [
        (counter([0, 500_000]), joules("gpu", "GPU-1", 500.0), False),
        (counter([0, 500_000]), joules("gpu", "GPU-1", 500.001), True),
        (counter([0, None]), joules("gpu", "GPU-1", 500.0), True),
        (counter([9_000_000, 2_000_000], **RAPL), joules("cpu", "package-0", 3.0), False),
        (counter([9_000_000, 2_000_000], **RAPL), joules("cpu", "package-0", 13.0), True),
    ],
)
def test_joules_are_those_of_the_readings(readings, part, accused):
    assert bool(list(other_joules(repeat_of(readings, energy=(part,))))) is accused


def test_a_wrap_that_was_seen_between_two_edges_counts():
    edges = counter([9_000_000, 8_000_000], **RAPL)
    looked = replace(
        edges,
        edge_s=(1000.0, None, None, 1010.0),
        start_s=(1000.0, 1004.0, 1006.0, 1010.0),
        end_s=(1000.0, 1004.0, 1006.0, 1010.0),
        value=(9_000_000, 9_500_000, 1_000_000, 8_000_000),
    )
    part = joules("cpu", "package-0", 9.0)
    (baseline,) = repeat_of(edges).measurement.baselines
    healthy = repeat_of(edges)
    measurement = replace(
        healthy.measurement, readings=(looked,), baselines=(replace(baseline, energy=(part,)),)
    )
    assert list(other_joules(replace(healthy, measurement=measurement))) == []


def test_a_gpu_that_was_read_and_is_in_no_sum_is_told():
    other = counter([0, 900_000], device="GPU-2")
    part = joules("gpu", "GPU-1", 500.0)
    ((_, finding),) = other_joules(repeat_of(counter([0, 500_000]), other, energy=(part,)))
    assert finding.evidence["intervals"]["idle 0, gpu GPU-2"]["reason"] == "not in the sum"


@pytest.mark.parametrize(
    ("readings", "found"),
    [
        (counter([0, 500_000, 900_000]), None),
        (counter([0, 500_000, 499_999]), "from"),
        (counter([0, None, 500_000]), None),
        (counter([0, 90_000_000]), "most_w"),
        (counter([9_000_000, 2_000_000], **RAPL), None),
        (counter([0, 500_000], read_s=1.5), "slowest_read_s"),
        (counter([0, 500_000], read_s=-0.1), "reading"),
        (counter([0, 500_000], begin_s=900.0), "reading"),
        (counter([0, 500_000], begin_s=1095.0), "last_reading_s"),
    ],
)
def test_only_readings_that_no_counter_gives_are_accused(readings, found):
    findings = [finding for _, finding in impossible_readings(repeat_of(readings))]
    assert [found in finding.evidence for finding in findings] == ([True] if found else [])
    severe = [finding.severity for finding in findings]
    assert severe == (["warning"] if found == "slowest_read_s" else [None] * len(severe))


def spans_of(*readings):
    """Return the windows of repeats of one boot, 1000 s apart, each with a counter's values."""
    found = []
    for number, values in enumerate(readings, 1):
        begin_s = 1000.0 * number
        one = builders.measurement(builders.spec(repeat=number), begin_s)
        one = replace(
            one,
            host=replace(one.host, boot_id=BOOT),
            readings=(counter(values, begin_s=begin_s),),
        )
        found += spans(one, True, None)
    return found


GROWING = (5_000_000, 5_300_000, 5_900_000, 6_100_000)
LATER = (7_000_000, 7_310_000, 7_900_000, 8_200_000)


@pytest.mark.parametrize(
    ("readings", "accused"),
    [
        ([GROWING, LATER], set()),
        ([LATER, tuple(v - 4_000_000 for v in GROWING)], set()),  # the driver was loaded anew
        ([GROWING, GROWING], {1, 2}),
        ([GROWING, tuple(v + 2_000_000 for v in GROWING)], {1, 2}),
        ([GROWING, tuple(v + 9_000_000_000 for v in LATER)], {1, 2}),
        ([tuple(v + 9_000_000_000 for v in LATER), tuple(v + 6e9 for v in GROWING)], {1, 2}),
    ],
)
def test_a_counter_goes_on_from_repeat_to_repeat(readings, accused):
    assert {span.key.repeat for span, _ in discontinuous(spans_of(*readings))} == accused
