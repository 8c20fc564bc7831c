"""Take a sweep that was measured somewhere, by its own plan: in place, or unpacked from an archive.

An archive is a folder, a tar file or a zip file with what lies under ``results/<sweep>/``
(plan.json, specs, prompts, measurements) and the manifests under ``results/models/``.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from llm_energy.core.errors import LlmEnergyError, RecordError
from llm_energy.core.files import parse_json, read_json
from llm_energy.publish.provenance import packed
from llm_energy.publish.provenance.packed import Entry
from llm_energy.records.files import names, paths


@dataclass(frozen=True)
class MeasuredCell:
    """One cell that a plan expects, with the paths of its measurements."""

    id: str
    model: str
    backend: str
    precision: str
    measurements: tuple[str, ...]


@dataclass(frozen=True)
class MeasuredSweep:
    """What the rules after ``measure`` ask of a plan, for a sweep that is measured already."""

    sweep: str
    cells: tuple[MeasuredCell, ...]

    @property
    def folder(self) -> Path:
        """Return the sweep's folder."""
        return paths.sweep_folder(self.sweep)

    @property
    def backends(self) -> tuple[str, ...]:
        """Return the backends of the sweep, in its order, those without a planned cell included."""
        return tuple(dict.fromkeys(cell.backend for cell in self.cells))

    def measurements(self, backend: str | None = None) -> list[str]:
        """Return the paths of all measurements that are there; those that are not become rows."""
        return [
            path
            for cell in self.cells
            for path in cell.measurements
            if backend in (None, cell.backend) and Path(path).is_file()
        ]


def read_measured(sweep: str) -> MeasuredSweep:
    """Read ``results/<sweep>/plan.json``; LlmEnergyError where it is no plan of that sweep."""
    names.require(names.SWEEP, "the sweep that is measured", sweep)
    path = paths.plan(paths.sweep_folder(sweep))
    return measured(read_json(path), path, sweep)


def measured(plan: Any, path: object, sweep: str | None = None) -> MeasuredSweep:
    """Return what a plan that was read from ``path`` says, once its names and paths are checked.

    Strangers' plans come here first: no path may lead out of the sweep's folder. ``sweep`` is the
    one that it must be of, if that is known.
    """
    try:
        names.require(names.SWEEP, "sweep", plan["sweep"])
        if sweep not in (None, plan["sweep"]):
            raise RecordError(f"it is the plan of sweep '{plan['sweep']}', not of '{sweep}'")
        return MeasuredSweep(
            plan["sweep"], tuple(_cell(plan, n) for n in range(len(plan["cells"])))
        )
    except RecordError as error:
        raise RecordError(f"{path}: {error}") from None
    except (KeyError, TypeError) as error:
        raise RecordError(f"{path}: not a plan of this pipeline: {error!r:.200}") from None


def make_paper(sweep: str, folder: Path, *options: str) -> bool:
    """Make all that follows from the measurements of a sweep below ``folder``; say if all is made.

    It is a Snakemake of its own, since no engine and no config are needed; ``options`` are for it.
    """
    command = [sys.executable, "-m", "snakemake", "--snakefile", paths.ROOT / "Snakefile"]
    command += ["--workflow-profile", paths.ROOT / "profiles" / "default", "--directory", folder]
    command += ["--cores", "1", *options, "--config", f"measured={sweep}", "--", "paper"]
    return subprocess.run(command, stdin=subprocess.DEVNULL).returncode == 0


def _cell(plan: dict[str, Any], number: int) -> MeasuredCell:
    folder = paths.sweep_folder(plan["sweep"])
    entry, where = plan["cells"][number], f"cells[{number}]"
    axes = {key: entry[key] for key in ("model", "backend", "precision")}
    for key, name in axes.items():
        names.require(names.ID, f"{where}.{key}", name)
    for name in entry["repeats"]:
        names.require(names.REPEAT, f"{where}.repeats", name)
    cell, repeats = "--".join(axes.values()), entry["repeats"]
    made = {
        "cell": cell,
        "specs": [str(paths.spec(folder, cell, name)) for name in repeats],
        "measurements": [
            str(paths.measurement(folder, axes["backend"], cell, name)) for name in repeats
        ],
    }
    for key, allowed in made.items():
        if entry[key] != allowed:
            raise RecordError(f"{where}.{key}: found {entry[key]!r:.80}, allowed {allowed!r:.200}")
    return MeasuredCell(cell, **axes, measurements=tuple(made["measurements"]))


def unpack(archive: Path, folder: Path) -> str:
    """Lay out below ``folder`` the sweep that ``archive`` holds, and return the sweep's name.

    What lay under ``folder/results`` before is replaced, once all of the archive is read and found
    sound. Raises LlmEnergyError for what is no archive of exactly one sweep.
    """
    results, there = (folder / "results").resolve(), archive.resolve()
    if there.is_relative_to(results) or results.is_relative_to(there):
        raise LlmEnergyError(
            f"{archive}: its tables would be made in {folder / 'results'}, which would replace it; "
            "give it another place or name"
        )
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        place = Path(name)
        found = _entries(archive, place, stack)
        plan = _plan_in(found, archive)
        packed.extract(archive, {place / "plan.json": plan})
        where, content = f"{archive}: {plan.name}", (place / "plan.json").read_bytes()
        sweep = measured(parse_json(content, where), where).sweep
        packed.extract(archive, _wanted(found, plan, place / "results", sweep))
        if results.exists():
            shutil.rmtree(results)
        results.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(place / "results", results)
    return sweep


def _entries(archive: Path, place: Path, stack: contextlib.ExitStack) -> list[Entry]:
    """Return what lies in the archive; beside the folder of one sweep lie the models."""
    found = packed.entries(archive, place, stack)
    models = archive.resolve().parent / "models"
    if not (archive / "plan.json").is_file() or not models.is_dir():
        return found
    beside = packed.entries(models, place, stack)
    return [replace(one, name="sweep" / one.name) for one in found] + [
        replace(one, name="models" / one.name) for one in beside
    ]


def _plan_in(found: list[Entry], archive: Path) -> Entry:
    plans = sorted((one for one in found if one.name.name == "plan.json"), key=lambda e: e.name)
    if len(plans) != 1:
        names = ", ".join(str(one.name) for one in plans[:10]) or "none"
        raise LlmEnergyError(
            f"{archive}: it must hold exactly one plan.json, that of one sweep; found {names}"
        )
    return plans[0]


def _wanted(found: list[Entry], plan: Entry, results: Path, sweep: str) -> dict[Path, Entry]:
    """Return what is taken over, by the path that it gets; links of the sweep are among it."""
    own = plan.name.parent
    models = own.parent / "models"
    wanted = {}
    for entry in found:
        if entry.name.is_relative_to(own):
            name = entry.name.relative_to(own)
            if entry.open is None or _matches(name, paths.MEASURED):
                wanted[results / sweep / name] = entry
        elif entry.name.is_relative_to(models):
            name = entry.name.relative_to(models)
            if _matches(name, paths.MANIFESTS):
                wanted[results / "models" / name] = entry
    return wanted


def _matches(name: PurePosixPath, patterns: Iterable[str]) -> bool:
    return any(len(name.parts) == one.count("/") + 1 and name.match(one) for one in patterns)
