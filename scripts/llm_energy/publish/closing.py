"""Write the last lines on the terminal: what was found, what gave no result, and what to do."""

from __future__ import annotations

import csv
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from llm_energy.analysis.evidence.failures import failure_of, known_failure
from llm_energy.core.errors import RecordError
from llm_energy.core.files import read_json
from llm_energy.inputs.currency import current
from llm_energy.records import Plan
from llm_energy.records.files import paths

WIDTH = 100
SHOWN = 10  # problems; all are in tables/failures.md
ANSWERS = 6  # all are in tables/summary.md
WELL = ("ok", "not_needed")
SHARED = "H07"  # the check that finds other work on the processors
OFTEN = 0.25


class Problem(NamedTuple):
    """What gave no usable result, and why; ``path`` is where more is said, None for nowhere."""

    what: str
    reason: str
    path: str | None


def closing_message(
    sweep: str,
    backends: Sequence[str],
    failed: Sequence[tuple[str, str | None]] = (),
    batch_logs: str | None = None,
) -> str:
    """Return the summary of the tables, where the files are, and each cell without a usable result.

    ``failed`` are the jobs that failed, each as the name of its rule and the path of its log;
    ``batch_logs`` is the folder of the batch system's own, where jobs were submitted to one.
    """
    results = paths.sweep_folder(sweep)
    lines = []
    summary = paths.table(results, "energy", "txt")
    if summary.exists():
        lines += ["", summary.read_text("utf-8"), *answers(results), *noise(results, backends)]
        lines.append(f"Files: {summary.parent}/")
    if (page := paths.report(results)).exists():
        lines.append(f"Report: {page}")
    cells = [problem for backend in backends for problem in _problems(results, backend)]
    told = {problem.path for problem in cells}
    stages = stages_message([job for job in failed if job[0] != "measure" and job[1] not in told])
    lines += ["", stages] * bool(stages)
    if cells:
        lines += ["", "No usable result:", *_told(cells)]
        more, rest = len(cells) - SHOWN, paths.table(results, "failures", "md")
        lines += [f"  and {more} more: {rest} has all"] * (more > 0)
        lines += _remedy(cells)
    elif failed:
        lines += _wrapped("", "The same command makes what is missing.")
    if failed and batch_logs:
        lines += _wrapped("", f"What the batch system said of its jobs is in {batch_logs}/.")
    return "\n".join(lines or ["Done."])


def stages_message(failed: Sequence[tuple[str, str | None]]) -> str:
    """Name each stage that failed, with its reason and its log; nothing where none did."""
    if not failed:
        return ""
    head = "These stages failed, and what hangs on them was not made:"
    return "\n".join([head, *_told([_stage(*job) for job in failed])])


def stopped_message(plan: Plan) -> str:
    """Say after a run that was interrupted how many repeats are left, and how to go on."""
    asked = plan.repeats()
    # What was measured for another config, or other prompts, is taken anew.
    missing = len(asked) - len(current((one.measurement, one.spec) for one in asked))
    left = f"Not measured: {missing} of {len(asked)} repeats. " if missing else ""
    return "\n".join(_wrapped("", f"{left}The same command goes on with sweep {plan.sweep}."))


def answers(folder: Path) -> list[str]:
    """Say what each choice changed, one sentence each."""
    path = paths.table(folder, "summary", "csv")
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        told = list(dict.fromkeys(row["statement"] for row in csv.DictReader(file)))
    if not told:
        return []
    lines = ["In short:"]
    for text in told[:ANSWERS]:
        lines += _wrapped("  ", f"{text}.")
    more = len(told) - ANSWERS
    lines += [f"  and {more} more: {paths.table(folder, 'summary', 'md')} has all"] * (more > 0)
    return [*lines, ""]


def noise(folder: Path, backends: Sequence[str]) -> list[str]:
    """Say in one sentence where other work on the host shared many windows' processors."""
    windows = [one for backend in backends for one in _verdicts(folder, backend) if one["repeat"]]
    shared = sum(any(flag["id"] == SHARED for flag in one["flags"]) for one in windows)
    if not windows or shared < OFTEN * len(windows):
        return []
    text = (
        f"This host did other work during {shared} of {len(windows)} windows ({SHARED}), which "
        "widens every ±: end what else runs on it, and measure again under another name."
    )
    return [*_wrapped("", text), ""]


def _verdicts(folder: Path, backend: str) -> list[dict]:
    try:
        return read_json(paths.verdicts(folder, backend))["verdicts"]
    except RecordError:
        return []


def _problems(folder: Path, backend: str) -> list[Problem]:
    """Collect the repeats of a backend's cells that share what became of them."""
    found: dict[tuple[str, str, str], list[dict]] = {}
    for verdict in _verdicts(folder, backend):
        # Repeat 0 is that of a cell of which the plan says already why it cannot run.
        if verdict["repeat"] and verdict["verdict"] == "invalid":
            outcome = "invalid" if verdict["outcome"] in WELL else verdict["outcome"]
            key = (verdict["cell"], outcome, verdict["reason"] or "no reason is known")
            found.setdefault(key, []).append(verdict)
    return [_problem(folder, backend, *key, verdicts) for key, verdicts in found.items()]


def _problem(
    folder: Path, backend: str, cell: str, outcome: str, reason: str, verdicts: list[dict]
) -> Problem:
    repeats = list(dict.fromkeys(paths.repeat_name(v["repeat"]) for v in verdicts))
    workloads = ", ".join(dict.fromkeys(verdict["workload"] for verdict in verdicts))
    first = paths.measurement(folder, backend, cell, repeats[0])
    where = f"{cell} {' '.join(repeats)}"
    if failure := known_failure(first):
        of_before = "; what was measured before is of another config" if first.exists() else ""
        return Problem(f"{where}: {failure.outcome}", failure.reason + of_before, failure.log)
    if first.exists():
        return Problem(f"{where} ({workloads}): {outcome}", reason, str(first))
    return Problem(f"{where}: {outcome}", reason, None)


def _stage(rule: str, log: str | None) -> Problem:
    failure = failure_of(Path(log or ""))
    return Problem(rule, failure.reason, failure.log)


def _told(problems: Sequence[Problem]) -> Iterable[str]:
    for problem in problems[:SHOWN]:
        yield from _wrapped("  ", f"{problem.what}: {problem.reason}")
        if problem.path:
            yield f"    see {problem.path}"


def _remedy(problems: Sequence[Problem]) -> list[str]:
    kept = [p.path for p in problems if p.path and p.path.endswith(".json")]
    text = []
    if len(kept) < len(problems):
        text.append("The same command tries again what has no measurement, and keeps all else.")
    if kept:
        text.append(
            "What was measured stays; to try such repeats again, add "
            "--config 'policy={measure_again: [failed, oom, invalid]}'."
        )
    return _wrapped("", " ".join(text))


def _wrapped(indent: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=f"{indent}  " if indent else "",
        break_long_words=False,
        break_on_hyphens=False,
    )
