"""What tables are made from, and what one says before it is set as Markdown, LaTeX or text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from llm_energy.records import Aggregate
from llm_energy.records.comparison import Comparisons
from llm_energy.records.load_curve import LoadCurves
from llm_energy.records.phases import Phases

SIMULATED = "SIMULATED: "
Kind = Literal["text", "number", "prose"]


@dataclass(frozen=True)
class Column:
    """One column: its head on a page and, shorter, in the terminal; None leaves it out there.

    ``prose`` holds sentences, which a page may break over several lines.
    """

    name: str
    head: str | None
    kind: Kind = "text"
    brief: str | None = None


@dataclass(frozen=True)
class Line:
    """One row: its cells by the columns' names and the numbers of its footnotes.

    ``id`` is what the row is called (``cell/workload``), ``sources`` the (cell, workload) pairs
    whose measurements it was made from.
    """

    id: str
    cells: dict[str, str]
    sources: tuple[tuple[str, str], ...]
    notes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Sheet:
    """A table: ``blocks`` are rows under a title each, ``notes`` its footnotes from 1 on.

    ``label`` says in one line how its joules are known, ``explanation`` what its columns mean, and
    ``remark``, in the terminal alone, what is not seen there. Texts are plain: whoever sets them
    escapes them.
    """

    name: str
    title: str
    label: str
    explanation: str
    columns: tuple[Column, ...]
    blocks: tuple[tuple[str, tuple[Line, ...]], ...]
    notes: tuple[str, ...] = ()
    in_terminal: bool = False
    remark: str | None = None

    @property
    def lines(self) -> list[Line]:
        """Return all rows, block after block."""
        return [line for _, lines in self.blocks for line in lines]


@dataclass(frozen=True)
class Table:
    """A table for people and, as ``csv``, the same for further work with every value unrounded."""

    sheet: Sheet
    csv: str


@dataclass(frozen=True)
class Results:
    """All that tables are made from: what was aggregated, backend by backend, and compared.

    ``titles`` are those of the checks, by their ids.
    """

    aggregates: tuple[Aggregate, ...]
    comparisons: Comparisons | None = None
    load: LoadCurves | None = None
    phases: Phases | None = None
    titles: Mapping[str, str] = field(default_factory=dict)


class Footnotes:
    """Number footnotes in the order in which rows first need them."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def marks(self, texts: Iterable[str]) -> tuple[int, ...]:
        """Return the numbers of these footnotes in rising order."""
        return tuple(sorted({self._numbers.setdefault(t, len(self._numbers) + 1) for t in texts}))

    @property
    def texts(self) -> tuple[str, ...]:
        """Return all footnotes by rising number."""
        return tuple(self._numbers)


def title(text: str, sweep: str, simulated: bool) -> str:
    """Return a table's title, which says first of all where its joules were never drawn."""
    return f"{SIMULATED if simulated else ''}{text}, sweep {sweep}"


def row_id(*sources: tuple[str, str]) -> str:
    """Name a row after the cells and workloads that it is made from.

    >>> row_id(("m--pytorch--int8", "b1"), ("m--pytorch--int4", "b1"))
    'm--pytorch--int8/b1 : m--pytorch--int4/b1'
    """
    return " : ".join("/".join(source) for source in sources)
