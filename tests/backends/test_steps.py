"""The log of an engine's steps: whatever an engine schedules, it says what each step did."""

from __future__ import annotations

import doctest

from hypothesis import given
from hypothesis import strategies as st

from llm_energy.backends import steps
from llm_energy.backends.steps import StepLog
from llm_energy.records.steps import StepTable

PROMPTS = (1, 2, 5, 9)
# By step, the tokens that each request is given, if it is in the step: 1, or a chunk of its prompt.
schedules = st.lists(
    st.dictionaries(st.integers(0, 3), st.integers(1, 4), max_size=4), max_size=12
).map(lambda found: [step for step in found if step])


def entries(table: StepTable) -> list[dict[int, tuple[int, ...]]]:
    """Return what each step did for each request, run by run written out."""
    found: list[dict[int, tuple[int, ...]]] = [{} for _ in table.start_s]
    for run in table.runs:
        own = run.prefill_tokens + run.decode_tokens
        for k in range(run.steps):
            work = (run.prefill_tokens, run.decode_tokens, run.padding_tokens)
            held = (run.context_tokens + k * own, run.context_padding + k * run.padding_tokens)
            assert run.request not in found[run.first_step + k]
            found[run.first_step + k][run.request] = (*work, *held)
    return found


def test_the_doctests_hold():
    assert doctest.testmod(steps).failed == 0


@given(schedules, st.sets(st.integers(0, 11)))
def test_any_schedule_is_told_step_by_step(schedule, preempted):
    """Each request computes what it is given, from nothing again where it was preempted."""
    log, held, expected = StepLog(), dict.fromkeys(range(4), 0), []
    for index, step in enumerate(schedule):
        for gone in {0, 1, 2, 3} - step.keys() if index in preempted else ():
            held[gone] = 0
        tokens, told = {}, {}
        for number, asked in step.items():
            prefills = held[number] < PROMPTS[number]
            count = min(asked, PROMPTS[number] - held[number]) if prefills else 1
            tokens[f"r{number}"] = count
            work = (count, 0) if prefills else (0, 1)
            told[number] = (*work, 0, held[number], 0)
        before = dict(held)
        log.note(
            float(index),
            index + 0.5,
            tokens,
            lambda key, before=before: (int(key[1]), PROMPTS[int(key[1])], before[int(key[1])]),
        )
        for key, count in tokens.items():
            held[int(key[1])] += count
        expected.append(told)
    found = log.take()
    assert entries(found) == expected
    assert list(found.spans) == [(float(k), k + 0.5) for k in range(len(schedule))]
    assert log.take().start_s == ()


def test_a_batch_that_stays_the_same_is_one_run_a_request():
    log = StepLog()
    log.note(0.0, 1.0, {0: 4, 1: 2}, lambda key: (key, 4, 0))
    for k in range(50):
        held = (4 + k, 4 + k)
        log.note(1.0 + k, 2.0 + k, {0: 1, 1: 1}, lambda key, held=held: (key, 4, held[key]))
    assert log.take().steps == (1, 1, 50, 50)


def test_equal_steps_at_once_fill_their_time_evenly():
    log = StepLog()
    log.note(1.0, 3.0, {7: 1}, lambda key: (key, 5, 5), steps=4)
    found = log.take()
    assert list(found.spans) == [(1.0, 1.5), (1.5, 2.0), (2.0, 2.5), (2.5, 3.0)]
    assert entries(found)[3] == {7: (0, 1, 0, 8, 0)}


def test_a_static_batch_has_its_pads_and_the_rows_that_have_ended():
    log = StepLog()
    assert (log.number(2), log.number(2)) == (0, 2)
    log.static_batch([2, 3], [3, 5], [1, 3], [(0.0, 1.0), (1.0, 1.5), (1.5, 2.0)])
    assert entries(log.take()) == [
        {2: (3, 0, 2, 0, 0), 3: (5, 0, 0, 0, 0)},
        {2: (0, 0, 1, 3, 2), 3: (0, 1, 0, 5, 0)},
        {2: (0, 0, 1, 3, 3), 3: (0, 1, 0, 6, 0)},
    ]
    assert log.number(1) == 0, "numbers begin anew once the log was taken"
