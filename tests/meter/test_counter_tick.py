"""The period of an energy counter, measured in virtual time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fake_nvml import FakeClock, FakeGpu

from llm_energy.meter.counter_tick import LIMIT_S, READ_PERIOD_S, measure_tick


def tick(gpu, start_s=0.0, sleep=None, clock=None):
    clock = clock or FakeClock(start_s)
    reads = []

    def read():
        reads.append(clock())
        return gpu.energy_mj(clock())

    found = measure_tick(read, clock, sleep or clock.sleep)
    return found, reads


@given(st.floats(0.03, 0.25), st.floats(0, 1))
def test_the_period_is_known_to_a_read_in_ten(tick_s, start_s):
    found, _ = tick(FakeGpu("GPU-a", tick_s=tick_s), start_s)
    assert found == pytest.approx(tick_s, abs=1.01 * READ_PERIOD_S / 9)


def test_it_reads_no_longer_than_it_must():
    _, reads = tick(FakeGpu("GPU-a", tick_s=0.1))
    assert reads[-1] < 1.2
    assert len(reads) < 125


def test_a_tick_missed_by_a_slow_read_is_counted():
    clock = FakeClock()
    naps = iter([*[0.01] * 25, 0.11, *[0.01] * 300])
    found, _ = tick(
        FakeGpu("GPU-a", tick_s=0.1), clock=clock, sleep=lambda _: clock.advance(next(naps))
    )
    assert found == pytest.approx(0.1, abs=1.01 * READ_PERIOD_S / 9)


def test_a_counter_faster_than_it_is_read_gives_the_period_of_reading():
    found, _ = tick(FakeGpu("GPU-a", tick_s=0.001))
    assert found == pytest.approx(READ_PERIOD_S)


@pytest.mark.parametrize("gpu", [FakeGpu("a", power_w=0), FakeGpu("a", tick_s=1.4)])
def test_a_counter_that_hardly_moves_gives_none_and_costs_three_seconds(gpu):
    found, reads = tick(gpu)
    assert found is None
    assert LIMIT_S - 2 * READ_PERIOD_S < reads[-1] - reads[0] <= LIMIT_S + 2 * READ_PERIOD_S


def test_a_clock_that_stands_still_ends_it_too():
    found, reads = tick(FakeGpu("GPU-a", tick_s=0.1), sleep=lambda _: None)
    assert found is None
    assert len(reads) <= 1 + LIMIT_S / READ_PERIOD_S


@pytest.mark.parametrize(("answers", "period_s"), [(0, None), (1, None), (3, None), (7, 0.01)])
def test_a_counter_that_fails_gives_what_was_seen_until_then(answers, period_s):
    clock = FakeClock()
    readings = iter([k % 2 for k in range(answers)])
    found = measure_tick(lambda: next(readings, None), clock, clock.sleep)
    assert found == (period_s and pytest.approx(period_s))
