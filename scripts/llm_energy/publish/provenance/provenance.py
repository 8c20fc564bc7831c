"""Say from which files every row of every table was made, with their hashes and environments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llm_energy.core.errors import LlmEnergyError
from llm_energy.core.files import read_json, sha256_file
from llm_energy.core.git import git_state
from llm_energy.environments import registry as environments
from llm_energy.records import (
    SCHEMA_VERSION,
    Plan,
    PlannedCell,
    Spec,
    TableSources,
    read_plan,
    read_record,
)
from llm_energy.records.files import paths, patterns
from llm_energy.records.registry.precisions import PRECISIONS


@dataclass(frozen=True)
class Lock:
    """The environment of a backend: its name, the path of its lock and the lock's SHA-256."""

    name: str
    path: str
    sha256: str


@dataclass(frozen=True)
class Provenance:
    """What the results of a sweep were made from.

    ``git_commit`` is that of the software that made the tables; each measurement has its own.
    ``environments`` are by backend, as far as this checkout has their locks. ``files`` has the
    SHA-256 of every file by its path. ``tables`` has, by table and row, the (cell, workload) pairs
    whose measurements the row was made from.
    """

    schema_version: int
    sweep: str
    git_commit: str | None
    git_dirty: bool | None
    environments: dict[str, Lock]
    files: dict[str, str]
    tables: dict[str, dict[str, tuple[tuple[str, str], ...]]]

    @property
    def folder(self) -> Path:
        """Return the sweep's folder."""
        return paths.sweep_folder(self.sweep)


def trace_back(sweep: str, root: Path) -> Provenance:
    """Collect what the sweep in ``results/<sweep>`` was made from; ``root`` is the checkout.

    Raises LlmEnergyError where a measurement is not the one that was judged.
    """
    folder = paths.sweep_folder(sweep)
    plan = read_plan(sweep)
    files = {str(path): sha256_file(path) for path in _files(folder, plan)}
    for path, judged in judged_hashes(folder, plan):
        if files.get(path) != judged:
            raise LlmEnergyError(f"{path}: it changed after it was judged; run the workflow again")
    commit, dirty = git_state(root)
    sources = paths.table_sources(folder)
    if not sources.is_file():
        raise LlmEnergyError(
            f"{sources}: no such file; an older version made these tables, so make them again: "
            f"make paper SWEEP={sweep}"
        )
    return Provenance(
        schema_version=SCHEMA_VERSION,
        sweep=sweep,
        git_commit=commit,
        git_dirty=dirty,
        environments=dict(_locks(plan, root)),
        files=files,
        tables=read_record(TableSources, sources).tables,
    )


def judged_hashes(folder: Path, plan: Plan) -> Iterator[tuple[str, str]]:
    """Yield the path of each measurement that has a verdict, and the hash that it was judged by."""
    for backend in plan.backends:
        verdicts = read_json(paths.verdicts(folder, backend))["verdicts"]
        found = {v["measurement"]: v["measurement_sha256"] for v in verdicts}
        yield from ((path, sha256) for path, sha256 in found.items() if path)


def _files(folder: Path, plan: Plan) -> list[Path]:
    models = sorted({cell.model for cell in plan.cells})
    found = [path for part in (*patterns.MEASURED, *patterns.MADE) for path in folder.glob(part)]
    found += [paths.manifest(folder, model) for model in models]
    found += [paths.quantised_manifest(folder, m, name) for m in models for name in PRECISIONS]
    return sorted(path for path in found if path.is_file() and not paths.is_unread(path))


def _locks(plan: Plan, root: Path) -> Iterator[tuple[str, Lock]]:
    """Yield the lock of each backend that has an environment of its own in this checkout."""
    for backend in plan.backends:
        specs = (repeat.spec for repeat in plan.repeats(backend))
        spec = next((path for path in specs if Path(path).is_file()), None)
        if spec is None:
            continue
        try:
            read = read_record(Spec, spec)
            name = environments.environment_name(
                read.engine_id, "cpu" if read.device == "cpu" else "cuda"
            )
            lock = environments.lock_path(root, name)
            yield backend, Lock(name, str(lock.relative_to(root)), sha256_file(lock))
        except (LlmEnergyError, FileNotFoundError):
            continue


def fed_by(provenance: Provenance, plan: Plan, path: str) -> dict[str, list[str]]:
    """Return, by table, the rows that a file feeds."""
    place = Path(path)
    if place == paths.table_sources(provenance.folder):
        return {table: list(rows) for table, rows in provenance.tables.items()}
    if place.parent == provenance.folder / "tables":
        table = place.name.partition(".")[0]
        return {table: list(provenance.tables.get(table, ()))}
    named = {cell for rows in provenance.tables.values() for s in rows.values() for cell, _ in s}
    fed = {
        cell
        for cell in named
        if any(_feeds(place, entry, provenance.folder) for entry in entries(plan, cell))
    }
    return _rows(provenance, fed)


def _feeds(place: Path, cell: PlannedCell, folder: Path) -> bool:
    """Return whether a file that is no table feeds a cell; what has no cell's name feeds all."""
    if place.is_relative_to(folder.parent / "models"):
        return place.parent.name == cell.model
    if not place.is_relative_to(folder):
        return False
    match place.relative_to(folder).parts:
        case ("specs", name, _) | (_, "measurements", name, _):
            return name == cell.cell
        case ("prompts", name):
            return name.partition(".")[0] == cell.model
        case (backend, "audit.json" | "verdicts.json" | "metrics.json" | "aggregate.json"):
            return backend == cell.backend
    return place.parent == folder  # the plan, the config, the arrivals, the comparisons


def _rows(provenance: Provenance, cells: set[str]) -> dict[str, list[str]]:
    """Return, by table, the rows that one of the cells is a source of."""
    found = {
        table: [row for row, sources in rows.items() if any(cell in cells for cell, _ in sources)]
        for table, rows in provenance.tables.items()
    }
    return {table: rows for table, rows in found.items() if rows}


def entries(plan: Plan, cell: str) -> list[PlannedCell]:
    """Return the entries of the plan behind a cell: its own, or those of pooled backends (a+b)."""
    return [one for one in plan.cells if cell in (one.cell, _pooled(one, cell))]


def _pooled(entry: PlannedCell, cell: str) -> str | None:
    """Return ``cell`` where it pools the entry's backend with others."""
    before, after = f"{entry.model}--", f"--{entry.precision}"
    if not (cell.startswith(before) and cell.endswith(after)):
        return None
    pooled = cell.removeprefix(before).removesuffix(after).split("+")
    return cell if entry.backend in pooled else None
