"""What compiling engines took, apart from everything that serving took."""

from __future__ import annotations

from collections.abc import Iterable

from llm_energy.checks.accounting import sums
from llm_energy.engine_build import EngineBuild
from llm_energy.tables.by_cell import csv_text
from llm_energy.tables.sheet import Column, Line, Sheet, Table, title

COLUMNS = (
    Column("cell", "Cell"),
    Column("outcome", "Outcome"),
    Column("engine", "Engine"),
    Column("duration", "Time (s)", "number"),
    Column("energy", "Energy (J)", "number"),
    Column("status", "Energy is"),
    Column("first", "First built for"),
    Column("reason", "Reason", "prose"),
)
LABEL = "Compiling is paid once for an engine; none of it is in a joule per token."
EXPLANATION = (
    "An engine is compiled for a model, a precision, lengths and a batch size, before any window, "
    "and serves every cell that needs the same one: a cell that took another's has its time and "
    "energy. Starting the engine once, before it is saved, is part of it."
)
HEADS = (
    "sweep",
    "cell",
    "outcome",
    "engine",
    "first_built_for",
    "utc",
    "hostname",
    "engine_bytes",
    "duration_s",
    "energy_status",
    "components",
    "energy_j",
    "reason",
)


def table(sweep: str, builds: Iterable[tuple[str, EngineBuild]]) -> Table:
    """Give a row by (cell, record) and status of its joules: measured and estimated never add."""
    lines, rows = [], []
    for cell, record in builds:
        first, build = f"{record.sweep}/{record.cell}", record.build
        for status, total in (sums(build) if build else {}).items() or [(None, None)]:
            cells = {
                "cell": cell,
                "outcome": record.outcome,
                "engine": record.key or "-",
                "duration": f"{build.duration_s:.1f}" if build else "-",
                "energy": f"{total.energy_j:.0f}" if total else "-",
                "status": f"{status}: {', '.join(total.components)}" if total else "-",
                "first": first,
                "reason": record.reason or "",
            }
            lines.append(Line(cell, cells, ()))
            rows.append(
                (
                    *(sweep, cell, record.outcome, record.key, first),
                    *(record.clock.utc, record.hostname, record.engine_bytes),
                    build and build.duration_s,
                    status,
                    " ".join(total.components) if total else None,
                    total and total.energy_j,
                    record.reason,
                )
            )
    sheet = Sheet(
        name="builds",
        title=title("What compiling the engines took", sweep, simulated=False),
        label=LABEL,
        explanation=EXPLANATION,
        columns=COLUMNS,
        blocks=(("Engines", tuple(lines)),),
    )
    return Table(sheet, csv_text(HEADS, rows))
