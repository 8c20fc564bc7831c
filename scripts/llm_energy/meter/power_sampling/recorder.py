"""Keep the power trace of one repeat: the process that samples it, and the file it becomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from llm_energy.core.files import sha256_file
from llm_energy.records import TraceSummary


class RunningSampler(Protocol):
    """Sample GPUs from outside the measuring process (see ``process.py``).

    ``problem`` says why there are no samples any more, None while all is well.
    """

    problem: str | None

    def summary(self, start_s: float, end_s: float) -> tuple[TraceSummary, ...]:
        """Say what the samples of an interval show, by device."""

    def stop(self) -> Path | None:
        """End sampling and give the complete file, None where none came about."""


StartSampler = Callable[[Path, float, Sequence[str]], RunningSampler]


class PowerTrace:
    """Hold one sampler, or the reason why there is none.

    ``path`` and ``sha256`` are those of the complete file, there once the trace is closed.
    """

    def __init__(self, sampler: RunningSampler | None, reason: str):
        self._sampler = sampler
        self._reason = reason
        self._open = sampler is not None
        self.path: Path | None = None
        self.sha256: str | None = None

    @property
    def reason(self) -> str | None:
        """Say why there is no trace, or why it ends early; None for a whole one."""
        if self._sampler is not None and self._sampler.problem:
            return self._sampler.problem
        return None if self.path else self._reason

    def summary(
        self, start_s: float, end_s: float, devices: Sequence[str]
    ) -> tuple[TraceSummary, ...]:
        """Say what the trace shows of these devices over an interval that has ended."""
        if not self._open:
            return ()
        return tuple(s for s in self._sampler.summary(start_s, end_s) if s.device in devices)

    def close(self) -> None:
        """End sampling and hash the file; a second time does nothing."""
        if not self._open:
            return
        self._open = False
        self._reason = "the sampler left no trace"
        self.path = self._sampler.stop()
        if self.path is not None:
            self.sha256 = sha256_file(self.path)


def begin_trace(
    start_sampler: StartSampler | None,
    path: Path | None,
    period_s: float | None,
    devices: Sequence[str],
) -> PowerTrace:
    """Start the sampler of these devices where there is something to sample, and asked for."""
    if period_s is None:
        return PowerTrace(None, "sampling is switched off (meter.sampling_period_s is null)")
    if not devices:
        return PowerTrace(None, "there is no GPU whose power could be sampled")
    if path is None:
        return PowerTrace(None, "no file was named for the trace")
    if start_sampler is None:
        from llm_energy.meter.power_sampling import process as sampler

        start_sampler = sampler.start
    return PowerTrace(start_sampler(path, period_s, devices), "the power is still being sampled")
