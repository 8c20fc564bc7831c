"""The errors a user may see, each one message without a traceback."""

from __future__ import annotations


class LlmEnergyError(Exception):
    """Say what is wrong and how to mend it; command-line entry points print it and exit 1."""


class ConfigError(LlmEnergyError):
    """Carry every mistake found in a sweep config, one line each."""

    def __init__(self, problems: list[str]):
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


class RecordError(LlmEnergyError):
    """A JSON record does not have the shape that its schema version promises."""


class BackendUnavailable(LlmEnergyError):
    """A backend's engine is not installed where the process runs."""


class Unsupported(LlmEnergyError):
    """The engine, or this host, cannot do what the spec asks; the message is the reason."""


class OutOfMemory(LlmEnergyError):
    """The engine ran out of memory on the device or the host."""
