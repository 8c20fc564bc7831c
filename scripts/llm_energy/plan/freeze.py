"""Say what a run would write of its plan and measure anew, and write that once the run has begun.

Reading the workflow changes no file: a dry run, or a second command with another config, leaves a
sweep that is being measured as it is.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm_energy.core.errors import RecordError
from llm_energy.core.files import is_written, read_json, sha256_file, sha256_json
from llm_energy.core.serialize import to_dict
from llm_energy.inputs import currency
from llm_energy.plan.plan import Planning
from llm_energy.records import Plan, holds_already, write_record
from llm_energy.records.files import paths
from llm_energy.records.files.attempts import put_aside


@dataclass(frozen=True)
class Pending:
    """What a run would change.

    ``files`` are the plan's files by path, with what they shall hold. ``stale`` are the paths of
    measurements that are of another spec, model or prompts, ``again`` of those that came to what
    ``policy.measure_again`` names. Of models, ``fetched`` have the files
    that the config asks, ``settled`` those and the prompts; the prompts of ``outdated`` are of
    another request or another tokenizer.
    """

    sweep: str
    folder: Path = Path()
    files: Mapping[Path, Any] = field(default_factory=dict)
    stale: frozenset[str] = frozenset()
    again: frozenset[str] = frozenset()
    fetched: frozenset[str] = frozenset()
    settled: frozenset[str] = frozenset()
    outdated: frozenset[str] = frozenset()

    @property
    def needed(self) -> bool:
        """Return whether any result depends on what is pending: on all but the config's copy."""
        others = self.files.keys() - {self.folder / paths.config(paths.sweep_folder(self.sweep))}
        return bool(others or self.stale or self.again or self.outdated)

    def outputs(self) -> list[str]:
        """Return the files of the plan that stages wait for: the grid, and arrivals that are new.

        All else is there before any job begins. Snakemake looks at each output of a rule again for
        each job that waits for it, so a file a model would be too many.
        """
        folder = paths.sweep_folder(self.sweep)
        found = [paths.plan(folder), paths.arrivals(folder)]
        return [str(path) for path in found[: 1 + (self.folder / found[1] in self.files)]]

    def describe(self) -> str | None:
        """Say how many measurements a run takes anew; None for none."""
        told = []
        if self.stale:
            told.append(
                f"{len(self.stale)} of its measurements are of another config; a run takes them "
                "anew and keeps the old ones beside them (.superseded-<n>.json), which no table "
                "has. To have both, give this config another `name`."
            )
        if self.again:
            told.append(
                f"{len(self.again)} of its measurements are taken again, as policy.measure_again "
                "asks; the old ones stay beside them (.superseded-<n>.json)."
            )
        return f"Sweep {self.sweep}: {' '.join(told)}" if told else None

    def write(self) -> None:
        """Write the files of the plan; those of ``outputs`` as ``<name>.new`` beside them.

        What is measured again is put aside, since its job would keep it: it is of the same spec.
        """
        for path in self.again:
            put_aside(self.folder / path)
        waited_for = {self.folder / path for path in self.outputs()}
        for path, value in self.files.items():
            new = path in waited_for
            write_record(path.with_name(f"{path.name}.new") if new else path, value)


def bring_back(folders: Iterable[Path]) -> int:
    """Date files of the future at the present time; return how many there were.

    A clock that was set back leaves such files. Snakemake fails a job, and deletes what it made,
    where that is older than an input.
    """
    now_s, found = time.time(), 0
    for path in (path for folder in folders for path in folder.rglob("*")):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime > now_s:
                os.utime(path)
                found += 1
    return found


def changes(made: Planning, folder: Path) -> dict[Path, Any]:
    """Return as records what of grid, specs and requests ``folder`` lacks or has otherwise.

    A spec that an older version wrote stays if it says the same, and so do its measurements.
    """
    specs = {folder / path: spec for path, spec in made.specs.items()}
    changed = {p: spec for p, spec in specs.items() if not holds_already(p, spec)}
    others: dict[Path, Any] = {
        folder / paths.prompt_request(made.plan.folder, model): request
        for model, request in made.prompt_requests.items()
    }
    if made.arrivals.timed:
        others[folder / paths.arrivals(made.plan.folder)] = made.arrivals
    others[folder / paths.plan(made.plan.folder)] = made.plan
    return changed | {p: one for p, one in others.items() if not is_written(p, to_dict(one))}


def write_plan(made: Planning, folder: Path) -> None:
    """Write the grid, every spec and every prompt request below ``folder``, where they changed."""
    for path, record in changes(made, folder).items():
        write_record(path, record)


def pending(
    made: Planning, config: Mapping[str, Any], folder: Path, measure_again: Container[str] = ()
) -> Pending:
    """Compare a plan and its config with what ``folder`` holds; nothing is written.

    ``measure_again`` are the outcomes of windows, and ``invalid``, that a run tries again.
    """
    files = changes(made, folder)
    path = folder / paths.config(made.plan.folder)
    if not is_written(path, config):
        files[path] = config
    models = {model: _Model.found(made, model, files, folder) for model in made.models}
    stale = set()
    for repeat in made.plan.repeats():
        model = models[repeat.cell.model]
        try:
            head = currency.read_head(folder / repeat.measurement)
        except RecordError:
            continue  # not measured; or damaged, which is for the validate stage to say
        spec = made.specs[repeat.spec]
        if model.asked_anew or not currency.is_of(head, spec, model.manifest, model.sha256):
            stale.add(repeat.measurement)
    return Pending(
        made.plan.sweep,
        folder,
        files,
        frozenset(stale),
        frozenset(_came_to(made.plan, measure_again, folder) - stale if measure_again else ()),
        frozenset(id for id, model in models.items() if model.fetched),
        frozenset(id for id, model in models.items() if model.settled),
        frozenset(id for id, model in models.items() if model.outdated),
    )


@dataclass(frozen=True)
class _Model:
    """What is there of a model.

    ``manifest`` and the ``sha256`` of its prompts by workload are None where they are not there.
    ``asked_anew`` tells that its prompts are asked for otherwise than before, ``outdated`` that
    they are of another request or tokenizer; ``fetched`` that the manifest is of the config's
    entry, and ``settled`` that the prompts are as asked, too.
    """

    manifest: dict[str, Any] | None
    sha256: dict[str, str] | None
    asked_anew: bool
    outdated: bool = False
    fetched: bool = False
    settled: bool = False

    @classmethod
    def found(cls, made: Planning, model: str, files: Mapping[Path, Any], folder: Path) -> _Model:
        path = folder / paths.prompts(made.plan.folder, model)
        request = folder / paths.prompt_request(made.plan.folder, model)
        manifest = _manifest(folder / paths.manifest(made.plan.folder, model))
        prompts = currency.read_prompts_ends(path)
        fetched = manifest is not None and _is_of_entry(manifest, made.models[model])
        if manifest is None or prompts is None or request in files:
            return cls(manifest, None, request in files and request.exists(), fetched=fetched)
        if (asked := prompts.get("request_sha256")) is None:  # an older version's
            same = request.stat().st_mtime_ns <= path.stat().st_mtime_ns
        else:
            same = asked == sha256_json(to_dict(made.prompt_requests[model]))
        same = same and prompts.get("tokenizer_sha256") == manifest.get("tokenizer_sha256")
        return cls(manifest, prompts.get("sha256"), False, not same, fetched, fetched and same)


def _came_to(plan: Plan, outcomes: Container[str], folder: Path) -> set[str]:
    """Return the planned measurements with a window that came to one of the outcomes.

    The verdicts say so, as far as they are of what lies there.
    """
    found: dict[str, str] = {}
    for backend in plan.backends:
        try:
            judged = read_json(folder / paths.verdicts(plan.folder, backend))["verdicts"]
        except RecordError:
            continue
        for verdict in judged:
            word = verdict["verdict"] if verdict["outcome"] == "ok" else verdict["outcome"]
            if word in outcomes and verdict["measurement"]:
                found[verdict["measurement"]] = verdict["measurement_sha256"]
    there = set(plan.measurements())
    return {
        path
        for path, sha256 in found.items()
        if path in there and (folder / path).is_file() and sha256_file(folder / path) == sha256
    }


def _manifest(path: Path) -> dict[str, Any] | None:
    try:
        found = read_json(path)
    except RecordError:
        return None
    return found if isinstance(found, dict) else None


def _is_of_entry(manifest: Mapping[str, Any], entry: Mapping[str, Any]) -> bool:
    """Return whether a manifest is of a model's entry in the config; its source may say more."""
    asked = {key: value for key, value in entry["source"].items() if value is not None}
    if asked.get("kind") == "hub" and entry["revision"] is not None:
        asked["revision"] = entry["revision"]
    source = manifest.get("source", {})
    same = all(source.get(key) == value for key, value in asked.items())
    return same and manifest.get("model_name") == entry["model_name"]
