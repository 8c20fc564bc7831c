"""What the power trace keeps, and what it says of an interval."""

from __future__ import annotations

import doctest
import gzip
import itertools
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llm_energy.core.errors import RecordError
from llm_energy.records import power_trace
from llm_energy.records.power_trace import Sample, summarise

PERIOD_S = 0.1


def sample(time_s, power_w=100.0, device="GPU-a", **values):
    rest = {
        "temperature_c": 41.0,
        "sm_clock_mhz": 1980,
        "memory_clock_mhz": 2619,
        "utilization_percent": 90.0,
        "clock_event_reasons": 0,
    }
    return Sample(time_s=time_s, device=device, power_w=power_w, **(rest | values))


def write(path, samples, tail=""):
    rows = "".join(map(power_trace.row, samples))
    path.write_text(power_trace.header(PERIOD_S, {"GPU-a": "a_method"}) + rows + tail)


def maybe(values):
    return st.none() | values


powers_w = st.floats(0, 2000)
samples = st.lists(
    st.builds(
        Sample,
        time_s=st.integers(0, 10**12).map(lambda us: us / 1e6),
        device=st.sampled_from(["GPU-a", "GPU-b"]),
        power_w=maybe(powers_w),
        temperature_c=maybe(st.floats(-10, 120)),
        sm_clock_mhz=maybe(st.integers(0, 4000)),
        memory_clock_mhz=maybe(st.integers(0, 9000)),
        utilization_percent=maybe(st.floats(0, 100)),
        clock_event_reasons=maybe(st.integers(0, 2**64 - 1)),
    )
)


@st.composite
def courses(draw, device="GPU-a", power_w=powers_w):
    """Draw samples of one device at irregular moments, the first at 0 s."""
    gaps_s = draw(st.lists(st.floats(0.05, 0.5), min_size=5, max_size=30))
    times_s = itertools.accumulate(gaps_s, initial=0.0)
    return [sample(time_s, draw(power_w), device) for time_s in times_s]


def shares(count):
    """Draw edges as shares of a course's length, in rising order."""
    return st.lists(st.floats(0.0, 1.0), min_size=count, max_size=count).map(sorted)


@st.composite
def cut_courses(draw, count, power_w=powers_w):
    """Draw a course and ``count`` (2 or 3) rising edges, with two samples or more between any."""
    course = draw(courses(power_w=power_w))
    spare = len(course) - 2 * count
    waits = draw(st.lists(st.integers(0, spare), min_size=count, max_size=count).map(sorted))
    edges_s = []
    for number, wait in enumerate(waits):
        before, after = course[2 * number + wait], course[2 * number + wait + 1]
        share = draw(st.floats(0.0, 1.0))
        edges_s.append(before.time_s + share * (after.time_s - before.time_s))
    return course, edges_s


def energy_j(course, start_s, end_s):
    (found,) = summarise(course, start_s, end_s)
    return found.energy_j


def test_the_doctests_hold():
    assert doctest.testmod(power_trace).failed == 0


@given(samples)
def test_a_trace_is_read_as_it_was_written(tmp_path_factory, written):
    path = tmp_path_factory.mktemp("trace") / "r01.trace.csv.gz"
    write(power_trace.partial_path(path), written)
    assert list(power_trace.read(power_trace.partial_path(path))) == written
    power_trace.pack(path)
    assert list(power_trace.read(path)) == written
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_the_file_says_its_units_its_columns_and_how_power_was_read(tmp_path):
    path = tmp_path / "x.partial"
    write(path, [])
    comment, columns = path.read_text().splitlines()
    assert comment.startswith("# time_s: s on CLOCK_MONOTONIC")
    assert "period_s: 0.1; power by: GPU-a a_method" in comment
    assert columns.split(",") == list(Sample._fields)


def test_equal_rows_give_equal_bytes_whenever_they_are_packed(tmp_path):
    packed = []
    for name in ("one", "other"):
        path = tmp_path / f"{name}.trace.csv.gz"
        write(power_trace.partial_path(path), [sample(1.0), sample(1.1)])
        power_trace.pack(path)
        packed.append(path.read_bytes())
    assert packed[0] == packed[1]
    assert packed[0][4:8] == bytes(4)  # the time in the header of RFC 1952


def test_an_unfinished_last_line_is_neither_read_nor_packed(tmp_path):
    path = tmp_path / "r01.trace.csv.gz"
    write(power_trace.partial_path(path), [sample(1.0)], tail="1.100000,GPU-a,10")
    assert list(power_trace.read(power_trace.partial_path(path))) == [sample(1.0)]
    power_trace.pack(path)
    assert list(power_trace.read(path)) == [sample(1.0)]


def test_a_file_that_was_cut_within_its_header_holds_no_sample(tmp_path):
    path = tmp_path / "x.partial"
    path.write_text("# time_s: s on CLO")
    assert list(power_trace.read(path)) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("# units\ntime_s,power_w\n", "line 2: .*the columns are 'time_s,power_w'"),
        (power_trace.header(0.1, {}) + "1.0,GPU-a,ten,41,1,1,1,1\n", "line 3: .*'ten'"),
        (power_trace.header(0.1, {}) + "1.0,GPU-a\n", "line 3"),
    ],
)
def test_what_is_no_trace_is_refused_with_its_line(tmp_path, content, said):
    path = tmp_path / "x.partial"
    path.write_text(content)
    with pytest.raises(RecordError, match=f"x.partial, {said}"):
        list(power_trace.read(path))


def test_a_damaged_or_missing_archive_is_refused(tmp_path):
    path = tmp_path / "x.trace.csv.gz"
    with pytest.raises(RecordError, match="no such file"):
        list(power_trace.read(path))
    whole = gzip.compress((power_trace.header(0.1, {}) + power_trace.row(sample(1.0))).encode())
    for content in (b"time_s", whole[:-9], whole[:40] + b"\xff\xff" + whole[42:]):
        path.write_bytes(content)
        with pytest.raises(RecordError, match="not a power trace"):
            list(power_trace.read(path))


def test_a_summary_counts_what_lies_inside_and_interpolates_at_the_edges():
    course = [
        sample(0.0, 100.0, temperature_c=99.0, clock_event_reasons=64),
        sample(1.0, 200.0, temperature_c=50.0, clock_event_reasons=5, utilization_percent=40.0),
        sample(2.0, 300.0, temperature_c=60.0, clock_event_reasons=4, utilization_percent=60.0),
        sample(3.0, 100.0, temperature_c=99.0, clock_event_reasons=64),
    ]
    (found,) = summarise(course, 0.5, 2.25)
    # 150 W at 0.5 s, 250 W at 2.25 s
    assert found.energy_j == pytest.approx(0.5 * 175 + 250 + 0.25 * 275)
    assert found.samples == 2
    assert found.longest_gap_s == 1.0
    assert found.max_power_w == 300.0
    assert found.max_temperature_c == 60.0
    assert found.clock_event_reasons == 5
    assert found.utilization_percent == 50.0


def test_an_edge_beyond_the_samples_is_reached_within_one_period_only():
    course = [sample(1.0, 100.0), sample(1.5, 200.0), sample(2.0, 200.0)]
    assert energy_j(course, 0.75, 2.5) == pytest.approx(25 + 75 + 100 + 100)
    assert energy_j(course, 0.75, 2.51) is None
    assert energy_j(course, 0.49, 2.0) is None


def test_the_longest_gap_reaches_from_the_edges():
    course = [sample(1.0), sample(1.5)]
    assert summarise(course, 0.0, 2.0)[0].longest_gap_s == 1.0
    assert summarise(course, 0.9, 3.5)[0].longest_gap_s == 2.0
    assert summarise(course, 5.0, 9.0)[0].longest_gap_s == 4.0


def test_fewer_than_two_samples_inside_give_no_energy():
    course = [sample(time_s) for time_s in (0.0, 1.0, 2.0)]
    assert energy_j(course, 0.5, 1.5) is None
    (none_inside,) = summarise(course, 1.2, 1.8)
    assert (none_inside.samples, none_inside.energy_j, none_inside.max_power_w) == (0, None, None)
    assert none_inside.clock_event_reasons is None
    assert none_inside.utilization_percent is None


def test_what_was_not_read_is_left_out_and_never_zero():
    course = [
        sample(0.0, None),
        sample(1.0, 100.0, temperature_c=None, clock_event_reasons=None),
        sample(2.0, None, clock_event_reasons=8, utilization_percent=None),
        sample(3.0, 100.0, temperature_c=None, utilization_percent=None),
        sample(4.0, None),
    ]
    (found,) = summarise(course, 1.0, 3.0)
    assert (found.samples, found.longest_gap_s) == (2, 2.0)
    assert found.energy_j == 200.0
    assert found.clock_event_reasons == 8
    assert found.max_temperature_c == 41.0
    assert found.utilization_percent == 90.0
    (blind,) = summarise([sample(time_s, None) for time_s in (1.0, 2.0, 3.0)], 1.0, 3.0)
    assert (blind.samples, blind.energy_j, blind.max_temperature_c) == (0, None, 41.0)


def test_no_samples_give_no_summary():
    assert summarise([], 0.0, 1.0) == ()


@given(st.data(), powers_w)
def test_constant_power_gives_power_times_time(data, power_w):
    course, (start_s, end_s) = data.draw(cut_courses(2, st.just(power_w)))
    expected = power_w * (end_s - start_s)
    assert energy_j(course, start_s, end_s) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@given(cut_courses(3))
@example(([sample(t / 10, 100.0 * t) for t in range(9)], [0.0, 0.4, 0.8]))
def test_adjacent_intervals_add_up(cut):
    course, (begin_s, middle_s, end_s) = cut
    parts = [energy_j(course, begin_s, middle_s), energy_j(course, middle_s, end_s)]
    assert energy_j(course, begin_s, end_s) == pytest.approx(math.fsum(parts), rel=1e-9, abs=1e-9)


@given(courses("GPU-a"), courses("GPU-b"), shares(2), st.randoms())
def test_the_order_of_the_devices_changes_nothing(first, second, edges, random):
    start_s, end_s = (share * first[-1].time_s for share in edges)
    expected = summarise(first, start_s, end_s) + summarise(second, start_s, end_s)
    assert summarise(second + first, start_s, end_s) == expected
    turns = ["GPU-a"] * len(first) + ["GPU-b"] * len(second)
    random.shuffle(turns)
    sources = {"GPU-a": iter(first), "GPU-b": iter(second)}
    assert summarise((next(sources[turn]) for turn in turns), start_s, end_s) == expected
