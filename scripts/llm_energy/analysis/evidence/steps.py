"""Read the engine's steps beside a measurement, and tell whether they are those of its record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llm_energy.core.errors import LlmEnergyError
from llm_energy.core.files import sha256_file
from llm_energy.records import Measurement, steps
from llm_energy.records.files import paths
from llm_energy.records.steps import StepTable

OLDER = "this record is of a version that kept no steps"


@dataclass(frozen=True)
class StepsRead:
    """The file of steps beside a measurement as it is now; ``problem`` says what is wrong with it.

    ``windows`` are the steps by workload.
    """

    path: Path
    sha256: str | None = None
    problem: str | None = None
    windows: Mapping[str, StepTable] = field(default_factory=dict)


def read_steps(measurement: Path) -> StepsRead:
    """Read the file beside the measurement at that path; without a hash there is none."""
    path = paths.steps(measurement)
    if not path.is_file():
        return StepsRead(path)
    sha256 = sha256_file(path)
    try:
        return StepsRead(path, sha256, windows=steps.read(path).windows)
    except LlmEnergyError as error:
        return StepsRead(path, sha256, str(error))


def steps_of(measurement: Measurement, path: Path) -> Mapping[str, StepTable] | str:
    """Return the steps of the measurement at ``path`` by workload, or why there are none."""
    report = measurement.steps
    if report is None:
        return OLDER
    if report.sha256 is None:
        return report.reason or "no steps were recorded"
    found = read_steps(path)
    if found.sha256 is None:
        return f"{found.path} is missing"
    if found.sha256 != report.sha256:
        return f"{found.path} is not the file that was written with the measurement"
    return found.problem or found.windows
