"""Turn what an engine raises into an outcome with its reason."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from llm_energy.errors import OutOfMemory, Unsupported
from llm_energy.records import Outcome


@dataclass
class Result:
    """How a stretch of an engine's work ended."""

    outcome: Outcome = "ok"
    reason: str | None = None


@contextlib.contextmanager
def outcome() -> Iterator[Result]:
    """Give a result that says how the code inside ended; nothing that it raises comes out."""
    result = Result()
    try:
        yield result
    except Unsupported as error:
        result.outcome, result.reason = "unsupported", str(error)
    except OutOfMemory as error:
        result.outcome, result.reason = "oom", str(error)
    except Exception as error:  # an engine may raise anything, and none of it may cost the others
        result.outcome, result.reason = "failed", f"{type(error).__name__}: {error}"
