"""Take a sweep that was measured somewhere, by its own plan: in place, or unpacked from an archive.

An archive is a folder, a tar file or a zip file with what lies under ``results/<sweep>/``
(plan.json, specs, prompts, measurements) and the manifests under ``results/models/``.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_energy.errors import LlmEnergyError, RecordError
from llm_energy.files import read_json
from llm_energy.records import names, paths


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
        """Give the backends of the sweep, in its order, those without a planned cell included."""
        return tuple(dict.fromkeys(cell.backend for cell in self.cells))

    def measurements(self, backend: str | None = None) -> list[str]:
        """Give the paths of all measurements that are there; those that are not become rows."""
        return [
            path
            for cell in self.cells
            for path in cell.measurements
            if backend in (None, cell.backend) and Path(path).is_file()
        ]


def read_measured(sweep: str) -> MeasuredSweep:
    """Read ``results/<sweep>/plan.json``; LlmEnergyError where it is no plan of that sweep."""
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
    """Lay out below ``folder`` the sweep that ``archive`` holds, and give the sweep's name.

    What lay under ``folder/results`` before is removed. Raises LlmEnergyError for what is no
    archive of exactly one sweep.
    """
    with tempfile.TemporaryDirectory() as place:
        source = archive if archive.is_dir() else _extracted(archive, Path(place))
        plan = _plan_in(source, archive)
        sweep = measured(read_json(plan), f"{archive}: {plan.relative_to(source)}").sweep
        shutil.rmtree(folder / "results", ignore_errors=True)
        own, models = folder / paths.sweep_folder(sweep), paths.models(plan.parent)
        _copy(plan.parent, paths.MEASURED, own)
        _copy(models, paths.MANIFESTS, paths.models(own))
    return sweep


def _extracted(archive: Path, place: Path) -> Path:
    """Unpack a tar or a zip file; neither may write outside ``place``."""
    if not archive.exists():
        raise LlmEnergyError(f"{archive}: no such archive")
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file:
                file.extractall(place)
        else:
            with tarfile.open(archive) as file:
                file.extractall(place, filter="data")
    except (tarfile.TarError, zipfile.BadZipFile, OSError, EOFError) as error:
        raise LlmEnergyError(
            f"{archive}: neither a folder nor a readable tar or zip file ({error})"
        ) from None
    return place


def _plan_in(source: Path, archive: Path) -> Path:
    found = sorted(source.rglob("plan.json"))
    if len(found) != 1:
        names = ", ".join(str(path.relative_to(source)) for path in found) or "none"
        raise LlmEnergyError(
            f"{archive}: it must hold exactly one plan.json, that of one sweep; found {names}"
        )
    return found[0]


def _copy(source: Path, patterns: Iterable[str], target: Path) -> None:
    for path in sorted(path for pattern in patterns for path in source.glob(pattern)):
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
