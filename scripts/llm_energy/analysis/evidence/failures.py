"""Say why a job failed, by its log, and keep that beside where its measurement would lie.

The shell of each job that prepares or measures adds ``exit status <n>`` to its log when it fails,
since a process that is killed says nothing itself.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Container, Mapping
from pathlib import Path

from llm_energy.core.errors import RecordError
from llm_energy.records import (
    SCHEMA_VERSION,
    Failure,
    Plan,
    PlannedRepeat,
    Spec,
    read_record,
    write_record,
)
from llm_energy.records.files import paths

STATUS = re.compile(r"^exit status (\d+)\n?\Z", re.MULTILINE)
KILLED_BY = 128  # a shell adds this to the number of the signal that ended a process
LONGEST_REASON = 400  # characters


def failure_of(log: Path) -> Failure:
    """Return how a job ended by what its log says; a log that is not there says nothing.

    A process that was killed by SIGKILL while its shell lives on most probably met the kernel's
    out-of-memory killer, which sends that signal and no word.
    """
    text = log.read_text("utf-8", "replace") if log.is_file() else ""
    found = STATUS.search(text)
    status = int(found[1]) if found else None
    said = _last_words(STATUS.sub("", text))
    outcome = "failed"
    if status is not None and status > KILLED_BY:
        number = status - KILLED_BY
        reason = f"the process was ended by signal {number} ({_name(number)})"
        if number == signal.SIGKILL:
            outcome = "oom"
            reason += ", which most probably means that memory was full"
    elif said:
        reason, said = said, ""
    elif found:
        reason = f"the process ended with exit status {status} and no message"
    else:
        reason = (
            "the job ended without a word: it was not begun, or killed as a whole (out of memory, "
            "out of time, cancelled)"
        )
    if said:
        reason += f"; its last words: {said}"
    return Failure(SCHEMA_VERSION, outcome, reason, status, str(log) if log.is_file() else None)


def known_failure(measurement: str | Path) -> Failure | None:
    """Read why there is no measurement, None where nobody knows."""
    try:
        return read_record(Failure, paths.failure(Path(measurement)))
    except RecordError:
        return None


def record_failures(
    plan: Plan, specs: Mapping[str, Spec], unmade: Container[str], folder: Path = Path()
) -> None:
    """Write why, for each planned measurement whose path is in ``unmade``; specs are by path."""
    for repeat in plan.repeats():
        if repeat.measurement in unmade:
            failure = failure_of(_log(plan, repeat, specs[repeat.spec], folder))
            write_record(paths.failure(folder / repeat.measurement), failure)


def _log(plan: Plan, repeat: PlannedRepeat, spec: Spec, folder: Path) -> Path:
    """Return the log of the job that left a repeat without a result: the first in order."""
    model, sweep = spec.model, folder / plan.folder
    stages = [
        (paths.manifest(sweep, model), f"models/{model}.log"),
        (paths.prompts(sweep, model), f"{plan.sweep}/prompts/{model}.log"),
    ]
    if quantised := spec.quantised_before:
        made = paths.quantised_manifest(sweep, model, quantised)
        stages.insert(1, (made, f"models/{model}--{quantised}.log"))
    measured = f"{plan.sweep}/measure/{spec.cell}/{paths.repeat_name(repeat.number)}.log"
    return folder / "logs" / next((log for made, log in stages if not made.exists()), measured)


def _last_words(text: str) -> str:
    """Return the last message of a log in one line: from `error:` on, or the end of a traceback."""
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    if errors:
        words = " ".join(line.strip() for line in lines[errors[-1] :]).removeprefix("error: ")
    else:
        words = next((line.strip() for line in reversed(lines) if line[0] != " "), "")
    return words if len(words) <= LONGEST_REASON else f"{words[: LONGEST_REASON - 3]}..."


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
