"""Group requests into batches: of one exact size, or under a token budget."""

from __future__ import annotations

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
    """Give the budget in tokens under which ``batch_size`` of the longest requests still fit.

    >>> default_max_batch_tokens([10, 90], max_output_tokens=10, batch_size=4)
    400
    """
    return batch_size * (max(prompt_lengths) + max_output_tokens)
