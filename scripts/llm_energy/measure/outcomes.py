"""Turn what an engine raises into an outcome with its reason."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from llm_energy.core.errors import OutOfMemory, Unsupported
from llm_energy.records import Outcome

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
