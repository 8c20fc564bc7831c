"""Apply a function to many items in several processes, in order."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
FEW = 50  # items for which starting processes takes longer than it saves

_function: Callable[[Any], Any] | None = None  # of a worker process


def each(
    function: Callable[[Item], Result], items: Sequence[Item], jobs: int, few: int = FEW
) -> Iterator[Result]:
    """Yield ``function`` of each item in the order of the items, from ``jobs`` processes.

    Fewer than ``few`` items are done in this one. Each process has its own copy of the function and
    of what it holds; items and results are sent. What it raises is raised here.
    """
    if jobs <= 1 or len(items) < few:
        yield from map(function, items)
        return
    # A fork hands the function over as it is, closures included.
    with multiprocessing.get_context("fork").Pool(jobs, _take, (function,)) as pool:
        yield from pool.imap(_call, items, chunksize=max(1, min(25, len(items) // (4 * jobs))))


def _take(function: Callable[[Any], Any]) -> None:
    global _function
    _function = function


def _call(item: Any) -> Any:
    return _function(item)
