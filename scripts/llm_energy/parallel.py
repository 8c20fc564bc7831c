"""Apply a function to many items in several processes, in order."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
FEW = 50  # items for which starting processes takes longer than it saves


def each(
    function: Callable[[Item], Result], items: Sequence[Item], jobs: int
) -> Iterator[Result]:
    """Yield ``function`` of each item in the order of the items, from ``jobs`` processes.

    The function must be one that a process can be sent: of a module, or a partial of such a one.
    What it raises is raised here.
    """
    if jobs <= 1 or len(items) < FEW:
        yield from map(function, items)
        return
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        yield from pool.imap(function, items, chunksize=max(1, min(100, len(items) // (4 * jobs))))
