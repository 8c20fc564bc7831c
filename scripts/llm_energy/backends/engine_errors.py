"""What engines refuse in the same words, and the outcome that any of their errors comes to."""

from __future__ import annotations

import contextlib
import functools
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from llm_energy.core.errors import OutOfMemory, Unsupported
from llm_energy.records import Outcome, Request

# How allocators say that memory is short: CUDA's runtime and cuBLAS, PyTorch's allocator on the
# CPU, and vLLM where weights or KV cache do not fit
OUT_OF_MEMORY_TEXTS = (
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "DefaultCPUAllocator",
    "can't allocate memory",
    "Available memory on node",
    "Free memory on device",
    "No available memory for the cache blocks",
    "To serve at least one request",
)

# What engines raise for arguments that cannot be, and for what is not there to serve them. What
# says in any other type that something is not supported is told by its words (``outcome``).
REFUSALS = (TypeError, ValueError, NotImplementedError, ImportError)


@contextlib.contextmanager
def reporting_refusals(what: str) -> Iterator[None]:
    """Turn what an engine refuses while it loads into Unsupported; ``what`` begins the reason."""
    reason = None
    try:
        yield
    except REFUSALS as error:
        if is_out_of_memory(error):
            raise
        reason = str(error) or type(error).__name__
    # Here the error is gone, and with it its frames, which held what had been loaded.
    if reason is not None:
        raise Unsupported(f"{what}: {reason}")


def reporting_out_of_memory(method: Callable) -> Callable:
    """Turn every way in which an allocation fails into OutOfMemory, and stay usable after it.

    The method's object has ``_release()``, which gives back what nothing refers to any more.
    """

    @functools.wraps(method)
    def guarded(self: Any, *arguments: Any) -> Any:
        try:
            return method(self, *arguments)
        except (MemoryError, RuntimeError, ValueError) as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error).strip().split("\n")[0] or type(error).__name__
        # Here the error is gone, and with it its frames, which held what had been allocated.
        self._release()
        raise OutOfMemory(f"out of memory in {method.__name__}: {reason}")

    return guarded


def check_prompt(request: Request, vocabulary: int) -> None:
    """Raise Unsupported for an empty prompt or an id outside a ``vocabulary`` of so many tokens."""
    if not request.prompt_token_ids or max(request.prompt_token_ids) >= vocabulary:
        raise Unsupported(
            f"request {request.id}: the prompt is empty or has an id outside the model's "
            f"{vocabulary} tokens"
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory is short."""
    # torch.OutOfMemoryError is a RuntimeError whose text says "out of memory".
    return isinstance(error, MemoryError) or any(t in str(error) for t in OUT_OF_MEMORY_TEXTS)


SIGNALS = frozenset(signal.Signals)


def how_it_ended(what: str, status: int | None) -> str:
    """Say in words what the exit status of a process means; minus a number is that signal.

    >>> how_it_ended("process 7", -15), how_it_ended("process 7", 1)
    ('process 7 was ended by SIGTERM', 'process 7 ended with exit status 1')
    """
    if status == -signal.SIGKILL:
        return f"{what} was killed (by the host for lack of memory, perhaps)"
    if status is not None and -status in SIGNALS:
        return f"{what} was ended by {signal.Signals(-status).name}"
    return f"{what} ended with exit status {status}"


NOT_SUPPORTED = re.compile(
    r"\bun-?supported\b|(\bnot|n't|\bno|\bonly) support|\bnot implemented\b", re.IGNORECASE
)


@dataclass
class Result:
    """How a stretch of an engine's work ended."""

    outcome: Outcome = "ok"
    reason: str | None = None


@contextlib.contextmanager
def outcome() -> Iterator[Result]:
    """Return a result that says how the code inside ended; nothing that it raises comes out.

    Engines find late, and in errors of any type, that they lack a kernel or a method for what they
    loaded. What says so is no crash: the same would be said again.
    """
    result = Result()
    try:
        yield result
    except Unsupported as error:
        result.outcome, result.reason = "unsupported", str(error)
    except OutOfMemory as error:
        result.outcome, result.reason = "oom", str(error)
    except Exception as error:  # an engine may raise anything, and none of it may cost the others
        result.outcome = "unsupported" if NOT_SUPPORTED.search(str(error)) else "failed"
        result.reason = f"{type(error).__name__}: {error}"
