"""The errors a user may see, each one message without a traceback."""

from __future__ import annotations

LONGEST_LINE = 2000  # characters; what was found may be a megabyte of somebody else's file


class LlmEnergyError(Exception):
    """Say what is wrong and how to mend it; command-line entry points print it and exit 1.

    A long line keeps its beginning, which names the place, and its end, which has the remedy.
    """

    def __init__(self, message: str = ""):
        super().__init__("\n".join(map(_bounded, message.split("\n"))))


def _bounded(line: str) -> str:
    """Return a line of LONGEST_LINE characters at most.

    >>> _bounded("a" * 5000 + "; mend it") == "a" * 1200 + " (...) " + "a" * 591 + "; mend it"
    True
    """
    return line if len(line) <= LONGEST_LINE else f"{line[:1200]} (...) {line[-600:]}"


class ConfigError(LlmEnergyError):
    """Carry every mistake found in a sweep config, one line each."""

    def __init__(self, problems: list[str]):
        self.problems = list(map(_bounded, problems))
        super().__init__("\n".join(self.problems))


class RecordError(LlmEnergyError):
    """A JSON record does not have the shape that its schema version promises."""


class BackendUnavailable(LlmEnergyError):
    """A backend's engine is not installed where the process runs."""


class Unsupported(LlmEnergyError):
    """The engine, or this host, cannot do what the spec asks; the message is the reason."""


class OutOfMemory(LlmEnergyError):
    """The engine ran out of memory on the device or the host."""
