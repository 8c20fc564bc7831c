"""Batches hold every request once, at the exact size or under the budget asked for."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_energy.backends.batching import default_max_batch_tokens, dynamic_batches, static_batches

LENGTHS = st.lists(st.integers(1, 500), min_size=1, max_size=60)
OUTPUT = st.integers(1, 200)


@given(st.integers(0, 200), st.integers(1, 64))
def test_static_batches_keep_the_order_and_are_full_but_the_last(count, size):
    batches = static_batches(count, size)

    assert [index for batch in batches for index in batch] == list(range(count))
    assert all(len(batch) == size for batch in batches[:-1])
    assert all(1 <= len(batch) <= size for batch in batches)


@pytest.mark.parametrize("size", [0, -1])
def test_a_static_batch_holds_at_least_one_request(size):
    with pytest.raises(ValueError, match="allowed 1 or more"):
        static_batches(3, size)


@given(LENGTHS, OUTPUT, st.integers(1, 5000))
def test_dynamic_batches_hold_each_request_once_within_the_budget(lengths, output, spare):
    budget = max(lengths) + output + spare

    batches = dynamic_batches(lengths, output, budget)

    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) * (max(lengths[i] for i in batch) + output) <= budget


@given(LENGTHS, OUTPUT, st.integers(1, 8))
def test_dynamic_batches_are_no_more_than_static_ones_at_the_default_budget(lengths, output, size):
    budget = default_max_batch_tokens(lengths, output, size)

    assert len(dynamic_batches(lengths, output, budget)) <= len(static_batches(len(lengths), size))


@given(LENGTHS, OUTPUT, st.integers(1, 8))
def test_no_prompt_shares_a_batch_across_a_longer_one_elsewhere(lengths, output, size):
    budget = default_max_batch_tokens(lengths, output, size)

    batches = dynamic_batches(lengths, output, budget)

    for earlier, later in itertools.pairwise(batches):
        assert min(lengths[i] for i in earlier) >= max(lengths[i] for i in later)


def test_short_prompts_fill_larger_batches():
    sizes = [len(batch) for batch in dynamic_batches([100, 100, 10, 10, 10, 10], 10, 220)]

    assert sizes == [2, 4]


def test_equal_lengths_keep_their_order():
    assert dynamic_batches([5, 5, 5, 5], 5, 20) == [[0, 1], [2, 3]]


def test_a_request_over_the_budget_is_named():
    with pytest.raises(ValueError, match="request 1 needs 60 tokens, max_batch_tokens is 50"):
        dynamic_batches([10, 50], 10, 50)
