"""Follow a table's row back to its files, and verify that none of them has changed since."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_energy.analysis.aggregate import aggregate, planned_batch_sizes
from llm_energy.analysis.audit import audit, findings
from llm_energy.analysis.compare.stage import comparisons
from llm_energy.analysis.load_curve import load_curves
from llm_energy.analysis.normalise import normalise
from llm_energy.analysis.phases import phases
from llm_energy.analysis.validate import validate
from llm_energy.core.errors import LlmEnergyError
from llm_energy.core.files import read_json, sha256_file, sha256_json
from llm_energy.environments import registry
from llm_energy.publish.provenance.provenance import (
    Provenance,
    entries,
    fed_by,
    judged_hashes,
)
from llm_energy.publish.tables import TABLES, Results, make, render
from llm_energy.records import (
    Aggregate,
    Measurement,
    MetricsTable,
    Plan,
    PlannedCell,
    Spec,
    Verdicts,
    check_titles,
    holds_already,
    parse_record,
    read_plan,
    read_record,
    rows_text,
)
from llm_energy.records.comparison import Comparisons
from llm_energy.records.files import paths
from llm_energy.records.load_curve import LoadCurves
from llm_energy.records.phases import Phases

ROWS_SHOWN = 10
STAGES = (paths.audit, paths.verdicts, paths.metrics, paths.aggregate)


@dataclass(frozen=True)
class Fault:
    """One file that is not what it was, and by table the rows that it feeds."""

    path: str
    found: str
    rows: dict[str, list[str]]

    def __str__(self) -> str:
        """Name the file, what is wrong with it and the rows."""
        lines = [f"{self.path}: {self.found}"]
        for table, rows in self.rows.items():
            more = len(rows) - ROWS_SHOWN
            shown = [*rows[:ROWS_SHOWN], *([f"and {more} more"] if more > 0 else [])]
            lines += [f"  feeds {table}: {row}" for row in shown]
        return "\n".join(lines)


# one row


def describe(provenance: Provenance, table: str, row: str, root: Path) -> str:
    """Say what one row of a table was made from; ``root`` is the checkout with the locks.

    Raises LlmEnergyError for a table or a row that is not there.
    """
    rows = provenance.tables.get(table)
    if rows is None:
        raise LlmEnergyError(f"no table '{table}': there are {', '.join(provenance.tables)}")
    if row not in rows:
        close = difflib.get_close_matches(row, rows, n=5, cutoff=0.3) or list(rows)[:5]
        raise LlmEnergyError(
            f"table {table} has no row '{row}': a row is named cell/workload, such as "
            f"{', '.join(map(repr, close)) or 'none; the table is empty'}"
        )
    plan = read_plan(provenance.sweep)
    lines = [f"Table {table}, row {row}", *_shown(provenance, plan, table, row)]
    for cell, workload in rows[row]:
        lines += _of_source(provenance, plan, cell, workload, root)
    state = " with changes" if provenance.git_dirty else ""
    lines += ["", f"Tables made by commit {provenance.git_commit or 'unknown'}{state}"]
    return "\n".join(lines)


def _shown(provenance: Provenance, plan: Plan, table: str, row: str) -> Iterator[str]:
    if table not in TABLES:  # of another version
        return
    sheet = make(_results(provenance.folder, plan), [table])[table].sheet
    heads = {column.name: column.head for column in sheet.columns if column.head}
    for line in sheet.lines:
        if line.id == row:
            yield "  " + ", ".join(f"{head}: {line.cells[name]}" for name, head in heads.items())
            yield from (f"  note: {sheet.notes[k - 1]}" for k in line.notes)


def _of_source(
    provenance: Provenance, plan: Plan, cell: str, workload: str, root: Path
) -> Iterator[str]:
    """Yield the lines on one cell and workload; a pooled cell stands for those of its backends."""
    for entry in entries(plan, cell):
        folder, backend = provenance.folder, entry.backend
        yield from ("", f"{entry.cell}, workload {workload}")
        if not entry.measurements:
            yield f"  {entry.outcome}: {entry.reason}"
            continue
        verdicts = {
            v["measurement"]: v
            for v in read_json(paths.verdicts(folder, backend))["verdicts"]
            if (v["cell"], v["workload"]) == (entry.cell, workload)
        }
        for path, spec in zip(entry.measurements, entry.specs, strict=True):
            yield from _of_measurement(provenance, path, spec, verdicts.get(path))
        yield from _of_environment(provenance, entry, root)
        around = [paths.prompts(folder, entry.model)]
        arrivals = paths.arrivals(folder)
        around += [arrivals] if str(arrivals) in provenance.files else []
        around += [paths.manifest(folder, entry.model), *(of(folder, backend) for of in STAGES)]
        yield "  made with"
        yield from (f"    {_file(provenance, str(path))}" for path in around)


def _of_measurement(
    provenance: Provenance, path: str, spec: str, verdict: dict[str, Any] | None
) -> Iterator[str]:
    if path not in provenance.files:
        yield f"  {path}: there is no such file"
        return
    flags = ", ".join(flag["id"] for flag in verdict["flags"]) if verdict else ""
    word = verdict["verdict"] if verdict else "no verdict"
    measured = read_record(Measurement, path)
    host = measured.host
    state = " with changes" if host.git_dirty else ""
    yield f"  {_file(provenance, path)}"
    yield f"    verdict {word}" + (f" ({flags})" if flags else "")
    yield f"    measured {measured.clock.utc} on {host.hostname} by commit {host.git_commit}{state}"
    yield f"    spec {_file(provenance, spec)}"
    if quantised := measured.spec.quantised_before:
        sweep = paths.sweep_folder(measured.spec.sweep)
        weights = paths.quantised_manifest(sweep, measured.spec.model, quantised)
        yield f"    weights {_file(provenance, str(weights))}"


def _of_environment(provenance: Provenance, entry: PlannedCell, root: Path) -> Iterator[str]:
    lock = provenance.environments.get(entry.backend)
    if lock is None:
        yield f"  environment: none of this checkout is that of backend {entry.backend}"
        return
    yield f"  environment {lock.name}: {lock.path} sha256 {lock.sha256}"
    there = [path for path in entry.measurements if path in provenance.files]
    recorded = read_record(Measurement, there[0]).host.packages if there else {}
    if not (root / lock.path).is_file() or sha256_file(root / lock.path) != lock.sha256:
        yield "    the lock in this checkout is another one now"
    else:
        yield f"    {_agreement(registry.pins(root, lock.name), recorded)}"


def _agreement(pins: dict[str, str], recorded: dict[str, str]) -> str:
    """Return whether the versions that a measurement recorded are those of the lock."""
    known = {name: version for name, version in recorded.items() if name in pins}
    other = [
        f"{name} {version} instead of {pins[name]}"
        for name, version in sorted(known.items())
        if version.partition("+")[0] != pins[name]
    ]
    if other:
        return f"the measurements recorded other versions: {', '.join(other)}"
    return f"the {len(known)} versions that the measurements recorded are those of the lock"


def _file(provenance: Provenance, path: str) -> str:
    return f"{path} sha256 {provenance.files.get(path, 'unknown')}"


def _results(folder: Path, plan: Plan) -> Results:
    """Read what the tables of a sweep are made from."""
    aggregates = [read_record(Aggregate, folder / b / "aggregate.json") for b in plan.backends]
    verdicts = [read_record(Verdicts, folder / b / "verdicts.json") for b in plan.backends]
    compared, load = folder / "comparisons.json", folder / "load.json"
    split = paths.phases(folder)  # older versions: none
    return Results(
        tuple(aggregates),
        read_record(Comparisons, compared) if compared.is_file() else None,
        read_record(LoadCurves, load) if load.is_file() else None,
        read_record(Phases, split) if split.is_file() else None,
        check_titles(verdicts),
    )


# the whole chain


def verify(provenance: Provenance) -> list[Fault]:
    """Verify every file's hash, every link between files, the audit, and what each stage gives.

    The stages run again only where all files are as they were, so what they find then is that a
    result was not made by this software from these measurements.
    """
    plan = read_plan(provenance.sweep)
    found = dict(_changed(provenance)) or dict(_broken_links(provenance, plan))
    found = found or dict(_refuted(provenance, plan)) or dict(_not_reproduced(provenance, plan))
    return [Fault(path, what, fed_by(provenance, plan, path)) for path, what in found.items()]


def _changed(provenance: Provenance) -> Iterator[tuple[str, str]]:
    for path, expected in provenance.files.items():
        if not Path(path).is_file():
            yield path, "it is gone"
        elif (found := sha256_file(path)) != expected:
            yield path, f"its SHA-256 is {found}, not {expected} as when the tables were made"


def _broken_links(provenance: Provenance, plan: Plan) -> Iterator[tuple[str, str]]:
    for path, judged in judged_hashes(provenance.folder, plan):
        if provenance.files.get(path) != judged:
            yield path, f"its verdict was given for a file with the SHA-256 {judged}"
    for _, _, spec, path in plan.repeats():
        if path not in provenance.files:
            continue
        if not Path(spec).is_file():
            yield spec, f"it is gone, and {path} was measured by it"
            continue
        measured = read_json(path)
        obeyed = measured.get("spec_sha256") if isinstance(measured, dict) else None
        if not obeyed or sha256_json(read_json(spec)) == obeyed:
            continue
        if not holds_already(spec, parse_record(Spec, measured["spec"], path)):
            yield spec, f"{path} obeyed a spec with the SHA-256 {obeyed}"


def _refuted(provenance: Provenance, plan: Plan) -> Iterator[tuple[str, str]]:
    """Audit the measurements, and yield those of each backend that contradict themselves."""
    for backend in plan.backends:
        found = audit(provenance.sweep, backend, paths.plan(provenance.folder))
        wrong = [text for severity, text in findings([found]) if severity == "invalid"]
        if wrong:
            place = str(paths.audit(provenance.folder, backend))
            yield place, "\n".join(["measurements do not prove their numbers", *wrong])


def _not_reproduced(provenance: Provenance, plan: Plan) -> Iterator[tuple[str, str]]:
    """Run each stage on what the one before it wrote, and compare."""
    folder = provenance.folder
    again: dict[Path, Any] = {}
    every, judgements = [], []
    for backend in plan.backends:
        verdicts = read_record(Verdicts, paths.verdicts(folder, backend))
        metrics = read_record(MetricsTable, paths.metrics(folder, backend))
        audited = audit(provenance.sweep, backend, paths.plan(folder))
        judged = validate(provenance.sweep, backend, paths.plan(folder), audit=audited)
        again[paths.audit(folder, backend)] = audited
        again[paths.verdicts(folder, backend)] = judged
        again[paths.metrics(folder, backend)] = normalise(verdicts)
        sizes = planned_batch_sizes(plan, [metrics])
        again[paths.aggregate(folder, backend)] = aggregate([metrics], plan, sizes)
        every.append(metrics)
        judgements.append(verdicts)
    results = _results(provenance.folder, plan)
    if results.comparisons:
        found = comparisons(every, results.aggregates, plan)
        again[paths.comparisons(folder)] = found
    if results.load:
        again[paths.load(folder)] = load_curves(results.aggregates, every)
    if results.phases:
        again[paths.phases(folder)] = phases(plan.sweep, every)
    made = {path: rows_text(record) for path, record in again.items()}
    wrong = [path for path, text in made.items() if json.loads(text) != read_json(path)]
    for name, text in render(results):
        path = paths.table(folder, *name.rsplit(".", 1))
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            wrong.append(path)
    if str(paths.data(folder, "datapackage", "json")) in provenance.files:  # older versions: none
        from llm_energy.publish import data  # pandas takes a second, which one row can do without

        sweep = data.Sweep(plan, judgements, every, results.aggregates, results.comparisons)
        wrong += data.not_reproduced(sweep, folder)
    for path in wrong:
        yield str(path), "this software makes something else of what it was made from"
