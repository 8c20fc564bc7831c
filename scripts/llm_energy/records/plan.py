"""The plan of a sweep: every expected cell, where its files lie, and what its prompts must be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from llm_energy.core.errors import RecordError
from llm_energy.core.serialize import ONLY_WHERE_SET
from llm_energy.records.files import names, paths
from llm_energy.records.files.storage import SCHEMA_VERSION, read_record
from llm_energy.records.spec import Note


class PlannedRepeat(NamedTuple):
    """One repeat of a cell, with the paths of its spec and its measurement."""

    cell: PlannedCell
    number: int
    spec: str
    measurement: str


@dataclass(frozen=True)
class PlannedCell:
    """One (model, backend, precision) with its repeats by name, or the reason why it has none.

    ``specs`` and ``measurements`` are the paths of the repeats' files, in the same order.
    """

    cell: str
    model: str
    backend: str
    precision: str
    outcome: Literal["planned", "unsupported"]
    reason: str | None
    workloads: tuple[str, ...]
    repeats: tuple[str, ...]
    specs: tuple[str, ...]
    measurements: tuple[str, ...]
    notes: tuple[Note, ...] = ()

    AXES: ClassVar[tuple[str, ...]] = ("model", "backend", "precision")
    RULES: ClassVar[dict[str, Any]] = {
        "properties": {
            **dict.fromkeys(AXES, names.schema_of(names.ID)),
            "repeats": {"items": names.schema_of(names.REPEAT)},
        }
    }

    def __post_init__(self) -> None:
        for axis in self.AXES:
            names.require(names.ID, axis, getattr(self, axis))
        for name in self.repeats:
            names.require(names.REPEAT, "repeats", name)
        _require("cell", self.cell, cell_id(self.model, self.backend, self.precision))

    def each_repeat(self) -> Iterator[PlannedRepeat]:
        """Yield the repeats in their order."""
        for name, spec, path in zip(self.repeats, self.specs, self.measurements, strict=True):
            yield PlannedRepeat(self, int(name[1:]), spec, path)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The whole expected grid of a sweep; ``device`` is what ``auto`` was found to be.

    ``recommendation`` has the bounds that a recommended cell must keep. Strangers' plans are read
    too: all files that a plan names are those of its own cells, so no path leads out of the sweep.
    """

    schema_version: int = SCHEMA_VERSION
    sweep: str
    device: str | None = None
    allow_mixed_backends: bool = False
    pool_machines: bool = field(default=False, metadata=ONLY_WHERE_SET)
    recommendation: dict[str, float | None] = field(default_factory=dict)
    cells: tuple[PlannedCell, ...]

    RULES: ClassVar[dict[str, Any]] = {"properties": {"sweep": names.schema_of(names.SWEEP)}}

    def __post_init__(self) -> None:
        names.require(names.SWEEP, "sweep", self.sweep)
        for number, cell in enumerate(self.cells):
            specs, measurements = files_of(self.sweep, cell.cell, cell.backend, cell.repeats)
            _require(f"cells[{number}].specs", cell.specs, specs)
            _require(f"cells[{number}].measurements", cell.measurements, measurements)

    @property
    def folder(self) -> Path:
        """Return the sweep's folder."""
        return paths.sweep_folder(self.sweep)

    @property
    def planned(self) -> tuple[PlannedCell, ...]:
        """Return the cells that can be measured."""
        return tuple(cell for cell in self.cells if cell.outcome == "planned")

    @property
    def backends(self) -> tuple[str, ...]:
        """Return the backends of the sweep, in its order, those without a planned cell included."""
        return tuple(dict.fromkeys(cell.backend for cell in self.cells))

    def repeats(self, backend: str | None = None) -> list[PlannedRepeat]:
        """Return all repeats that are planned, or those of one backend."""
        cells = [cell for cell in self.cells if backend in (None, cell.backend)]
        return [repeat for cell in cells for repeat in cell.each_repeat()]

    def measurements(self, backend: str | None = None) -> list[str]:
        """Return the paths of all measurements that are planned, or of those of one backend."""
        return [repeat.measurement for repeat in self.repeats(backend)]


def cell_id(model: str, backend: str, precision: str) -> str:
    """Return the name of a cell.

    >>> cell_id("m", "vllm", "int4")
    'm--vllm--int4'
    """
    return f"{model}--{backend}--{precision}"


def files_of(
    sweep: str, cell: str, backend: str, repeats: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the paths of the specs and of the measurements of a cell's repeats."""
    folder = paths.sweep_folder(sweep)
    return (
        tuple(str(paths.spec(folder, cell, name)) for name in repeats),
        tuple(str(paths.measurement(folder, backend, cell, name)) for name in repeats),
    )


def read_plan(sweep: str) -> Plan:
    """Read ``results/<sweep>/plan.json``; RecordError where it is no plan of that sweep."""
    names.require(names.SWEEP, "the sweep that is measured", sweep)
    path = paths.plan(paths.sweep_folder(sweep))
    plan = read_record(Plan, path)
    if plan.sweep != sweep:
        raise RecordError(f"{path}: it is the plan of sweep '{plan.sweep}', not of '{sweep}'")
    return plan


def _require(key: str, value: Any, allowed: Any) -> None:
    if value != allowed:
        raise RecordError(f"{key}: found {value!r:.80}, allowed {allowed!r:.200}")


@dataclass(frozen=True)
class AskedPrompts:
    """How many requests a workload needs, and the config's settings of their prompts."""

    requests: int
    prompts: dict[str, Any]


@dataclass(frozen=True)
class AskedTrace(AskedPrompts):
    """The same where a trace gives the (prompt, output) tokens of each request."""

    tokens: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class QualitySettings:
    """Which text is scored after the windows, and how much of it; no path is the built-in one."""

    path: str | None
    tokens: int


@dataclass(frozen=True)
class PromptRequest:
    """What the prompts stage must make for a model, by workload id.

    ``quality`` is None where no text is scored.
    """

    schema_version: int
    model: str
    workloads: dict[str, AskedPrompts | AskedTrace]
    quality: QualitySettings | None = None
