"""Group requests into batches: of one exact size, or under a token budget."""

from __future__ import annotations

import itertools
from collections.abc import Sequence


def static_batches(count: int, batch_size: int) -> list[list[int]]:
    """Cut ``count`` requests, in their order, into batches of exactly ``batch_size``.

    Only the last batch may be smaller. Gives the indices of the requests of each batch.

    >>> static_batches(5, 2)
    [[0, 1], [2, 3], [4]]
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, allowed 1 or more")
    return [list(range(i, min(i + batch_size, count))) for i in range(0, count, batch_size)]


def dynamic_batches(
    prompt_lengths: Sequence[int], max_output_tokens: int, max_batch_tokens: int
) -> list[list[int]]:
    """Fill each batch up to a token budget, with prompts of like length beside each other.

    A batch is padded to its longest prompt, so one of ``n`` requests takes ``n * (longest prompt +
    max_output_tokens)`` tokens. Requests are taken from the longest to the shortest: the first of a
    batch then fixes its width, and the batch that needs most memory comes first. Equal lengths keep
    their order. Gives the indices of the requests of each batch; a request that is over the budget
    by itself raises ValueError.

    >>> dynamic_batches([10, 90, 12, 11], max_output_tokens=10, max_batch_tokens=100)
    [[1], [2, 3, 0]]
    """
    order = sorted(range(len(prompt_lengths)), key=lambda index: -prompt_lengths[index])
    batches: list[list[int]] = []
    room = 0
    for index in order:
        width = prompt_lengths[index] + max_output_tokens
        if room == 0:
            room = max_batch_tokens // width
            if room == 0:
                raise ValueError(
                    f"request {index} needs {width} tokens, max_batch_tokens is {max_batch_tokens}"
                )
            batches.append([])
        batches[-1].append(index)
        room -= 1
    return batches


def default_max_batch_tokens(
    prompt_lengths: Sequence[int], max_output_tokens: int, batch_size: int
) -> int:
    """Return the budget in tokens under which ``batch_size`` of the longest requests still fit.

    >>> default_max_batch_tokens([10, 90], max_output_tokens=10, batch_size=4)
    400
    """
    return batch_size * (max(prompt_lengths) + max_output_tokens)


def due_static_batch(
    arrivals_s: Sequence[float], now_s: float, batch_size: int, timeout_s: float
) -> tuple[int, float | None]:
    """Say how many of the requests that wait, the oldest first, make a batch of one exact size now.

    Fewer than ``batch_size`` wait until the oldest has waited for ``timeout_s``; 0 comes with when
    that will be.

    >>> due_static_batch([1.0, 1.5], 1.6, batch_size=2, timeout_s=1.0)
    (2, None)
    >>> due_static_batch([1.0], 1.6, batch_size=2, timeout_s=1.0)
    (0, 2.0)
    """
    if len(arrivals_s) >= batch_size:
        return batch_size, None
    full_s = arrivals_s[0] + timeout_s
    return (len(arrivals_s), None) if now_s >= full_s else (0, full_s)


def due_dynamic_batch(
    prompt_lengths: Sequence[int], max_output_tokens: int, max_batch_tokens: int
) -> int:
    """Say how many of the requests that wait, the oldest first, fit into one batch together.

    None is passed over for one behind it, so that no long prompt waits for ever.

    >>> due_dynamic_batch([10, 40, 12, 11], max_output_tokens=10, max_batch_tokens=100)
    2
    """
    widths = itertools.accumulate((n + max_output_tokens for n in prompt_lengths), max)
    counted = enumerate(widths, 1)
    fits = itertools.takewhile(lambda pair: pair[0] * pair[1] <= max_batch_tokens, counted)
    return max((count for count, _ in fits), default=1)
