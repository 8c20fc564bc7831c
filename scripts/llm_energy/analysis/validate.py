"""Judge every window of a backend: schema, then the catalogue of checks, then a verdict."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from llm_energy.analysis.checks import (
    Expected,
    FileState,
    Key,
    RepeatCounts,
    Scope,
    WindowEvidence,
    WindowSummary,
    expected_of,
    flags_of,
    of_scope,
    summary_of,
    verdict_word,
)
from llm_energy.analysis.evidence import number
from llm_energy.analysis.failures import known_failure
from llm_energy.core.errors import LlmEnergyError, RecordError
from llm_energy.core.files import parse_json, read_json, sha256_bytes, sha256_json
from llm_energy.core.parallel import each
from llm_energy.records import (
    SCHEMA_VERSION,
    Flag,
    Measurement,
    ModelManifest,
    PromptSet,
    Verdict,
    Verdicts,
    Workload,
    holds_already,
    parse_record,
    paths,
    read_record,
    storage,
)

# The outcome of a repeat that the earlier ones made unnecessary (protocol.target_ci_percent).
NOT_NEEDED = "not_needed"
# Beside what is no record: too deep for the parser, and numbers of thousands of digits.
UNREADABLE = (RecordError, RecursionError, ValueError)

# An exponent of three digits, or as many digits: rare, and cheaper to find than each number.
EXTREME = re.compile(rb"[0-9][eE][+-]?[0-9]{2}[0-9]|[0-9]{50}")

# What checks and conditions read of a workload's parameters, and the types that it may have.
PARAMETERS = {
    "fp_precision": (str,),
    "min_output_tokens": (int,),
    "max_output_tokens": (int,),
    "decoder.do_sample": (bool,),
    "decoder.temperature": (float, int),
    "batching.batch_size": (int,),
    "batching.strategy": (str,),
    "quantization": (dict,),
    "sharding": (dict, type(None)),
    "traffic_simulation": (dict, type(None)),
}


@dataclass(frozen=True)
class Planned:
    """One measurement that the plan asks for."""

    cell: str
    model: str
    repeat: int
    workloads: tuple[str, ...]
    path: str


def validate(sweep: str, backend: str, plan_path: Path, jobs: int = 1) -> Verdicts:
    """Judge every window of ``backend`` that the plan at ``plan_path`` expects.

    One measurement is held in memory at a time, in each of ``jobs`` processes. Raises
    LlmEnergyError where the plan is of another sweep or has no such backend.
    """
    plan = read_json(plan_path)
    cells = [cell for cell in plan["cells"] if cell["backend"] == backend]
    if plan["sweep"] != sweep or not cells:
        raise LlmEnergyError(
            f"{plan_path}: it plans sweep '{plan['sweep']}' with backends "
            f"{', '.join(sorted({c['backend'] for c in plan['cells']}))}, "
            f"not sweep '{sweep}' with backend '{backend}'"
        )
    verdicts: dict[Key, Verdict] = {}
    summaries: list[WindowSummary] = []
    around = SweepFiles(plan_path.parent)
    wanted = [planned for cell in cells for planned in _planned(cell)]
    judged = each(lambda planned: list(_judge(planned, around)), wanted, jobs)
    for cell in cells:
        if cell["outcome"] != "planned":
            verdicts.update(_not_planned(cell))
        for _ in cell["measurements"]:
            for verdict, summary in next(judged):
                verdicts[_key(verdict)] = verdict
                summaries += [summary] if summary else []
    _judge_together("host", summaries, verdicts)
    _judge_together("sweep", [t for t in summaries if _is_usable(verdicts[t.key])], verdicts)
    _judge_repeats(cells, verdicts)
    return Verdicts(SCHEMA_VERSION, sweep, backend, tuple(map(_conclude, verdicts.values())))


def extreme(content: bytes, data: Any) -> str | None:
    """Name a number so large or small that arithmetic with it would overflow, or return None.

    No quantity that a repeat measures is of 1e99 or, unless it is zero, below 1e-99.
    """
    return next(_extremes(data, ""), None) if EXTREME.search(content) else None


def _extremes(value: Any, place: str) -> Iterator[str]:
    if isinstance(value, (int, float)):
        if value and not 1e-99 < abs(value) < 1e99:
            yield f"{place.lstrip('.')} is {value!r:.40}, allowed 0 or a size from 1e-99 to 1e99"
    elif isinstance(value, (dict, list)):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, one in pairs:
            yield from _extremes(
                one, f"{place}[{key}]" if isinstance(key, int) else f"{place}.{key}"
            )


def consistent(measurement: Measurement, planned: Planned, spec_sha256: str) -> str | None:
    """Say what in a well-formed measurement contradicts itself or the plan, or None."""
    spec = measurement.spec
    if spec.schema_version != SCHEMA_VERSION:
        return f"spec.schema_version is {spec.schema_version}, this version reads {SCHEMA_VERSION}"
    if (spec.cell, spec.repeat) != (planned.cell, planned.repeat):
        return (
            f"it holds {spec.cell} repeat {spec.repeat}, "
            f"the plan expects {planned.cell} repeat {planned.repeat}"
        )
    if spec_sha256 != measurement.spec_sha256:
        return "its spec is not the one that spec_sha256 was taken of"
    for workload in spec.workloads:
        if problem := _unusable(workload):
            return f"spec.workloads {workload.id}: {problem}"
    try:
        datetime.fromisoformat(measurement.clock.utc)
    except ValueError:
        return f"clock.utc is {measurement.clock.utc!r}, allowed such as 2026-01-31T12:00:00Z"
    intensity = measurement.carbon_intensity
    if intensity is not None and number(intensity, "g_per_kwh") is None:
        return f"carbon_intensity.g_per_kwh is {intensity.get('g_per_kwh')!r}, not a number"
    if (quality := measurement.quality) is not None:
        if quality.total_nll is not None and quality.tokens < 1:
            return f"quality.total_nll is of {quality.tokens} tokens, allowed 1 or more"
        if quality.total_nll is not None and quality.total_nll < 0:
            return f"quality.total_nll is {quality.total_nll}, allowed 0 or more"
        if quality.bytes_per_token is not None and not quality.bytes_per_token > 0:
            return f"quality.bytes_per_token is {quality.bytes_per_token}, allowed above 0"
    names = [window.workload for window in measurement.windows]
    if len(set(names)) < len(names):
        return f"two windows of one workload: {', '.join(names)}"
    if strange := set(names) - {workload.id for workload in spec.workloads}:
        return f"a window of a workload that the spec has not: {', '.join(sorted(strange))}"
    for window in measurement.windows:
        if window.outcome != "ok":
            continue
        if window.interval is None or window.requests is None:
            return f"window {window.workload} has outcome ok without interval or requests"
        optional = {"service_start_s"} | ({"output_tokens_inside"} if not window.traffic else set())
        columns = vars(window.requests).items()
        lengths = {len(column) for name, column in columns if column or name not in optional}
        if len(lengths) > 1:
            return f"window {window.workload} has request columns of unequal length"
        if window.traffic and not window.traffic.end_s > window.traffic.begin_s:
            return f"window {window.workload} has traffic that ends before it begins"
    return None


def _unusable(workload: Workload) -> str | None:
    """Say what the stages need of a workload and it does not give, or None."""
    for path, (kind, *others) in PARAMETERS.items():
        value: Any = workload.parameters
        for name in path.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        if type(value) not in (kind, *others):
            return f"parameters.{path} is {value!r}, allowed {kind.__name__}"
    for name, count in (("requests", workload.requests), ("batch_size", workload.batch_size)):
        if count < 1:
            return f"{name} is {count}, allowed 1 or more"
    return None


def _planned(cell: dict[str, Any]) -> Iterator[Planned]:
    for repeat, path in zip(cell["repeats"], cell["measurements"], strict=True):
        yield Planned(cell["cell"], cell["model"], int(repeat[1:]), tuple(cell["workloads"]), path)


def _not_planned(cell: dict[str, Any]) -> dict[Key, Verdict]:
    """Return one verdict a workload for an unsupported cell, as repeat 0: it has no repeats."""
    return {
        key: Verdict(
            *key[:2], key.workload, cell["outcome"], cell["reason"], None, None, "invalid", ()
        )
        for key in (Key(cell["cell"], 0, workload) for workload in cell["workloads"])
    }


def _judge(planned: Planned, around: SweepFiles) -> Iterator[tuple[Verdict, WindowSummary | None]]:
    """Judge the windows of one measurement by the file and window checks."""
    measurement, sha256, problem = None, None, None
    if exists := os.path.isfile(planned.path):
        with open(planned.path, "rb") as stream:
            content = stream.read()
        sha256 = sha256_bytes(content)
        measurement, problem = _read(content, planned)
    path = planned.path if exists else None

    def verdict(
        workload: str, outcome: str, reason: str | None, flags: tuple[Flag, ...] = ()
    ) -> Verdict:
        # One that was not needed is no fault and no exclusion; flags are weighed once all are in.
        word = "valid" if outcome == NOT_NEEDED else "invalid"
        place = (planned.cell, planned.repeat, workload)
        return Verdict(*place, outcome, reason, path, sha256, word, flags)

    faults = flags_of("file", FileState(planned.path, exists, problem))
    if measurement is None:
        outcome, reason = ("failed", problem) if exists else _absent(planned.path)
        for workload in planned.workloads:
            yield verdict(workload, outcome, reason, faults), None
        return
    windows = {window.workload: window for window in measurement.windows}
    spec_sha256 = around.spec_sha256(planned, measurement)
    for workload in planned.workloads:
        window = windows.get(workload)
        if window is None:
            ended = measurement.outcome if measurement.outcome != "ok" else "missing"
            reason = measurement.reason or "the repeat ended before this workload"
            yield verdict(workload, ended, reason, faults), None
        elif window.outcome != "ok":
            yield verdict(workload, window.outcome, window.reason, faults), None
        else:
            asked = next(w for w in measurement.spec.workloads if w.id == workload)
            key = asked.prompts_key(planned.repeat)
            expected = around.expected(planned.model, key, spec_sha256)
            case = WindowEvidence(measurement, window, expected)
            yield verdict(workload, "ok", None, flags_of("window", case)), summary_of(case)


def _absent(path: str) -> tuple[str, str]:
    """Say what came of a repeat that has no measurement, as far as its last run left word."""
    failure = known_failure(path)
    if failure is None:
        return "missing", "there is no such file"
    return failure.outcome, failure.reason


def _read(content: bytes, planned: Planned) -> tuple[Measurement | None, str | None]:
    """Read one measurement, or say what is wrong with it, all of it where a schema can tell."""
    try:
        data = parse_json(content, planned.path)
    except UNREADABLE as error:
        return None, str(error)
    try:
        measurement = parse_record(Measurement, data, planned.path)
        # As it stands in the file: a spec that an older version wrote lacks newer keys.
        spec_sha256 = sha256_json(data["spec"])
    except UNREADABLE as error:
        found = str(error)
        listed = storage.problems(Measurement, data)
        more = len(listed) - storage.PROBLEMS_SHOWN
        if listed:
            found = "; ".join(listed[: storage.PROBLEMS_SHOWN])
        return None, f"{found}; and {more} more" if more > 0 else found
    problem = extreme(content, data) or consistent(measurement, planned, spec_sha256)
    return (None, problem) if problem else (measurement, None)


class SweepFiles:
    """What the files around the plan say now; files that are not there say nothing.

    A model's manifest and prompts are read once, however many measurements there are of it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._models: dict[str, tuple[ModelManifest | None, PromptSet | None]] = {}
        self._known: dict[tuple[str, str], Expected] = {}

    def spec_sha256(self, planned: Planned, measurement: Measurement) -> str | None:
        """Return the hash of a spec as the measuring process took it, if it says the same still.

        Where the process was of a newer version than the plan, it hashed keys that the file lacks.
        """
        path = paths.spec(self.folder, planned.cell, paths.repeat_name(planned.repeat))
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


def _judge_repeats(cells: list[dict[str, Any]], verdicts: dict[Key, Verdict]) -> None:
    """Apply the checks that see which repeats are left once all other checks have spoken."""
    for cell in cells:
        repeats = tuple(planned.repeat for planned in _planned(cell))
        for workload in cell["workloads"]:
            keys = [Key(cell["cell"], repeat, workload) for repeat in repeats]
            keys = [key for key in keys if verdicts[key].outcome != NOT_NEEDED]
            usable = [key for key in keys if _is_usable(verdicts[key])]
            remaining = RepeatCounts(
                cell["cell"],
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
    return replace(
        verdict,
        verdict=verdict_word(verdict.flags),
        reason="; ".join(f"{id} {title}" for id, title in found.items()) or None,
    )
