"""Judge every window of a backend: schema, then the catalogue of checks, then a verdict."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from llm_energy.analysis.checks import (
    Expected,
    FileState,
    Key,
    RepeatCounts,
    Scope,
    WindowEvidence,
    WindowSummary,
    bias_bound,
    expected_of,
    flags_of,
    of_scope,
    summary_of,
    verdict_word,
)
from llm_energy.analysis.checks.energy.steady_state import steady_flags
from llm_energy.analysis.evidence.failures import known_failure
from llm_energy.analysis.evidence.measurements import plan_of, read_measurement
from llm_energy.core.errors import LlmEnergyError
from llm_energy.core.files import parse_json, sha256_bytes, sha256_file, sha256_json
from llm_energy.core.parallel import each
from llm_energy.records import (
    SCHEMA_VERSION,
    Audit,
    AuditedWindow,
    Flag,
    Measurement,
    ModelManifest,
    PlannedCell,
    PlannedRepeat,
    PromptSet,
    Verdict,
    Verdicts,
    holds_already,
    read_record,
)
from llm_energy.records.files import paths

# The outcome of a repeat that the earlier ones made unnecessary (protocol.target_ci_percent).
NOT_NEEDED = "not_needed"


def validate(
    sweep: str, backend: str, plan_path: Path, jobs: int = 1, audit: Audit | None = None
) -> Verdicts:
    """Judge every window of ``backend`` that the plan at ``plan_path`` expects.

    What ``audit`` found of a window joins its flags. One measurement is held in memory at a time,
    in each of ``jobs`` processes. Raises LlmEnergyError where the plan is of another sweep or has
    no such backend, and where a measurement is not the one that was audited.
    """
    plan = plan_of(plan_path, sweep, backend)
    cells = [cell for cell in plan.cells if cell.backend == backend]
    verdicts: dict[Key, Verdict] = {}
    summaries: list[WindowSummary] = []
    found = {Key(w.cell, w.repeat, w.workload): w for w in audit.windows} if audit else {}
    around = SweepFiles(plan_path.parent)
    judged = each(lambda planned: _judge(planned, around), plan.repeats(backend), jobs)
    for cell in cells:
        if cell.outcome != "planned":
            verdicts.update(_not_planned(cell))
        for _ in cell.measurements:
            for verdict, summary in next(judged):
                audited = found.get(_key(verdict))
                verdicts[_key(verdict)] = _with_audit(verdict, audited) if audited else verdict
                summaries += [summary] if summary else []
    _judge_together("host", summaries, verdicts)
    _judge_together("sweep", [t for t in summaries if _is_usable(verdicts[t.key])], verdicts)
    _judge_repeats(cells, verdicts)
    return Verdicts(SCHEMA_VERSION, sweep, backend, tuple(map(_conclude, verdicts.values())))


def _with_audit(verdict: Verdict, audited: AuditedWindow) -> Verdict:
    if verdict.measurement_sha256 != audited.measurement_sha256:
        raise LlmEnergyError(
            f"{verdict.measurement}: it changed after it was audited; run the audit stage again"
        )
    return replace(verdict, flags=(*verdict.flags, *audited.flags))


def _not_planned(cell: PlannedCell) -> dict[Key, Verdict]:
    """Return one verdict a workload for an unsupported cell, as repeat 0: it has no repeats."""
    return {
        key: Verdict(*key[:2], key.workload, cell.outcome, cell.reason, None, None, "invalid", ())
        for key in (Key(cell.cell, 0, workload) for workload in cell.workloads)
    }


def _judge(
    planned: PlannedRepeat, around: SweepFiles
) -> list[tuple[Verdict, WindowSummary | None]]:
    """Judge one measurement; what nobody foresaw, or is broken around it, costs it and no other."""
    try:
        return list(_judge_windows(planned, around))
    except LlmEnergyError as error:
        problem = str(error)
    except Exception as error:
        problem = f"it could not be judged ({type(error).__name__}: {error}); please report this"
    path, sha256 = planned.measurement, None
    try:
        sha256 = sha256_file(path)
    except OSError:  # a measurement that nobody may read
        path = None
    faults = flags_of("file", FileState(planned.measurement, True, problem))
    place = ("failed", problem, path, sha256, "invalid", faults)
    return [
        (Verdict(planned.cell.cell, planned.number, w, *place), None)
        for w in planned.cell.workloads
    ]


def _judge_windows(
    planned: PlannedRepeat, around: SweepFiles
) -> Iterator[tuple[Verdict, WindowSummary | None]]:
    """Judge the windows of one measurement by the file and window checks."""
    measurement, sha256, problem = None, None, None
    if exists := os.path.isfile(planned.measurement):
        with open(planned.measurement, "rb") as stream:
            content = stream.read()
        sha256 = sha256_bytes(content)
        measurement, problem = read_measurement(content, planned)
    path = planned.measurement if exists else None

    def verdict(
        workload: str, outcome: str, reason: str | None, flags: tuple[Flag, ...] = ()
    ) -> Verdict:
        # One that was not needed is no fault and no exclusion; flags are weighed once all are in.
        word = "valid" if outcome == NOT_NEEDED else "invalid"
        place = (planned.cell.cell, planned.number, workload)
        return Verdict(*place, outcome, reason, path, sha256, word, flags)

    faults = flags_of("file", FileState(planned.measurement, exists, problem))
    if measurement is None:
        outcome, reason = ("failed", problem) if exists else _absent(planned.measurement)
        for workload in planned.cell.workloads:
            yield verdict(workload, outcome, reason, faults), None
        return
    windows = {window.workload: window for window in measurement.windows}
    spec_sha256 = around.spec_sha256(planned, measurement)
    for workload in planned.cell.workloads:
        window = windows.get(workload)
        if window is None:
            ended = measurement.outcome if measurement.outcome != "ok" else "missing"
            reason = measurement.reason or "the repeat ended before this workload"
            yield verdict(workload, ended, reason, faults), None
        elif window.outcome != "ok":
            yield verdict(workload, window.outcome, window.reason, faults), None
        else:
            asked = next(w for w in measurement.spec.workloads if w.id == workload)
            key = asked.prompts_key(planned.number)
            expected = around.expected(planned.cell.model, key, spec_sha256)
            case = WindowEvidence(measurement, window, expected)
            flags = (*flags_of("window", case), *steady_flags(case))
            yield verdict(workload, "ok", None, flags), summary_of(case)


def _absent(path: str) -> tuple[str, str]:
    """Say what came of a repeat that has no measurement, as far as its last run left word."""
    failure = known_failure(path)
    if failure is None:
        return "missing", "there is no such file"
    return failure.outcome, failure.reason


class SweepFiles:
    """What the files around the plan say now; files that are not there say nothing.

    A model's manifest and prompts are read once, however many measurements there are of it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._models: dict[str, tuple[ModelManifest | None, PromptSet | None]] = {}
        self._known: dict[tuple[str, str], Expected] = {}

    def spec_sha256(self, planned: PlannedRepeat, measurement: Measurement) -> str | None:
        """Return the hash of a spec as the measuring process took it, if it says the same still.

        Where the process was of a newer version than the plan, it hashed keys that the file lacks.
        """
        path = paths.spec(self.folder, planned.cell.cell, paths.repeat_name(planned.number))
        try:
            with open(path, "rb") as stream:
                found = sha256_json(parse_json(stream.read(), path))
        except FileNotFoundError:
            return None
        if found != measurement.spec_sha256 and holds_already(path, measurement.spec):
            return measurement.spec_sha256
        return found

    def expected(self, model: str, prompts_key: str, spec_sha256: str | None) -> Expected:
        """Return what a window is held against."""
        if (model, prompts_key) not in self._known:
            self._known[model, prompts_key] = self._read(model, prompts_key)
        return replace(self._known[model, prompts_key], spec_sha256=spec_sha256)

    def _read(self, model: str, prompts_key: str) -> Expected:
        if model not in self._models:
            manifest = paths.manifest(self.folder, model)
            prompts = paths.prompts(self.folder, model)
            self._models[model] = (
                read_record(ModelManifest, manifest) if manifest.is_file() else None,
                read_record(PromptSet, prompts) if prompts.is_file() else None,
            )
        return expected_of(*self._models[model], prompts_key)


def _judge_together(
    scope: Scope, summaries: list[WindowSummary], verdicts: dict[Key, Verdict]
) -> None:
    """Apply the checks that hold windows against each other."""
    for check in of_scope(scope):
        for summary, finding in check.find(summaries):
            _add(verdicts, summary.key, check.flag(finding))


def _judge_repeats(cells: list[PlannedCell], verdicts: dict[Key, Verdict]) -> None:
    """Apply the checks that see which repeats are left once all other checks have spoken."""
    for cell in cells:
        repeats = tuple(planned.number for planned in cell.each_repeat())
        for workload in cell.workloads:
            keys = [Key(cell.cell, repeat, workload) for repeat in repeats]
            keys = [key for key in keys if verdicts[key].outcome != NOT_NEEDED]
            usable = [key for key in keys if _is_usable(verdicts[key])]
            remaining = RepeatCounts(
                cell.cell,
                workload,
                tuple(key.repeat for key in usable),
                tuple(key.repeat for key in keys),
            )
            for check in of_scope("repeats"):
                if (finding := check.find(remaining)) is not None:
                    for key in usable:
                        _add(verdicts, key, check.flag(finding))


def _is_usable(verdict: Verdict) -> bool:
    return verdict.outcome == "ok" and verdict_word(verdict.flags) != "invalid"


def _add(verdicts: dict[Key, Verdict], key: Key, flag: Flag) -> None:
    verdicts[key] = replace(verdicts[key], flags=(*verdicts[key].flags, flag))


def _key(verdict: Verdict) -> Key:
    return Key(verdict.cell, verdict.repeat, verdict.workload)


def _conclude(verdict: Verdict) -> Verdict:
    """Set the verdict of a measured window from its flags, and say why where it is invalid."""
    if verdict.outcome != "ok":
        return verdict
    found = {flag.id: flag.title for flag in verdict.flags if flag.severity == "invalid"}
    bound_percent, reason = bias_bound(verdict.flags)
    return replace(
        verdict,
        bias_bound_percent=bound_percent,
        bias_reason=reason,
        verdict=verdict_word(verdict.flags),
        reason="; ".join(f"{id} {title}" for id, title in found.items()) or None,
    )
