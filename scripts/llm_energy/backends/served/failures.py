"""Tell from what a server said why it did not start, or why a request of it failed."""

from __future__ import annotations

import re
from pathlib import Path

from llm_energy.backends.engine_errors import OUT_OF_MEMORY_TEXTS, REFUSALS
from llm_energy.backends.served.server import ServerFailure
from llm_energy.core.errors import OutOfMemory, Unsupported

# How argparse, pydantic and Python say why the engine was not started.
REASON = re.compile(
    r"error: (?P<option>(?:unrecognized|argument) .+)"
    r"|validation errors? for \w+\s+(?P<value>\S.*)"
    rf"|\b(?:{'|'.join(error.__name__ for error in REFUSALS)}): (?P<error>\S.*)"
)
# Of an engine that died, all that waited for it tell in their turn.
CAUSE = re.compile(r"\b(?!EngineDead)\w+(?:Error|Exception): \S.*")


def load_failure(error: ServerFailure, said: str, folder: Path, server: str) -> Exception:
    """Tell why a server did not start, by what it said last."""
    if line := _out_of_memory(said):
        return OutOfMemory(f"out of memory in load: {line}")
    if found := list(REASON.finditer(said)):
        reason = next(filter(None, found[-1].groups())).strip()
        return Unsupported(f"{server} cannot load {folder}: {reason}")
    return error


def serving_failure(error: ServerFailure, said: str) -> Exception:
    """Tell why requests failed, by the last error that the server wrote down.

    An engine that has died is what its HTTP side tells; why it died stands in the output alone.
    """
    if line := _out_of_memory(said):
        return OutOfMemory(f"out of memory in the server: {line}")
    causes = CAUSE.findall(said)
    return ServerFailure(f"{error}; the server wrote: {causes[-1]}") if causes else error


def _out_of_memory(said: str) -> str | None:
    lines = (line.strip() for line in reversed(said.splitlines()))
    return next((line for line in lines if any(t in line for t in OUT_OF_MEMORY_TEXTS)), None)
