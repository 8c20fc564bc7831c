"""What the compare stage recommends: the lowest energy of each piece of work, with its reasons."""

from __future__ import annotations

from dataclasses import dataclass

from llm_energy.records import Status


@dataclass(frozen=True)
class Candidate:
    """A cell and workload that could be recommended, or why it could not.

    ``quality_drop_percent`` is by how much the negative log-likelihood per token is above that of
    the best precision of its model, None where it was not measured. ``latency_s`` are the means of
    the bounded latencies by their names. ``refused`` says which bound it breaks; empty if none.
    ``against_best`` is its comparison with the recommended one in words.
    """

    cell: str
    workload: str
    energy_j: float
    energy_ci_low_j: float | None
    energy_ci_high_j: float | None
    quality_drop_percent: float | None
    latency_s: dict[str, float]
    refused: tuple[str, ...]
    against_best: str | None


@dataclass(frozen=True)
class Recommendation:
    """The cell and workload of lowest energy within given bounds, and those that came after it.

    ``bounds`` are by name: ``max_quality_drop_percent`` and latencies in seconds; empty if none
    were asked for. ``best`` is None where no candidate keeps them. ``ties`` are (cell, workload)
    that cannot be told from the best. ``reasons`` are sentences.
    """

    backend: str
    model: str
    energy_status: Status
    components: tuple[str, ...]
    work: str
    bounds: dict[str, float]
    best: tuple[str, str] | None
    ties: tuple[tuple[str, str], ...]
    statement: str
    reasons: tuple[str, ...]
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True)
class Lowest:
    """The cell and workload of lowest energy among all that do the same work, bounds aside.

    ``rows`` counts them. ``ties`` are (cell, workload) that cannot be told from it,
    ``not_comparable`` those that measured under other conditions. ``refused`` says which bounds of
    the sweep it breaks. ``against_next`` and ``against_first`` hold it against the next one and
    against the first precision of the config at its workload, in words; None where there is none,
    or the two are the same. ``statement`` is the result in words.
    """

    backend: str
    model: str
    energy_status: Status
    components: tuple[str, ...]
    work: str
    cell: str
    workload: str
    rows: int
    ties: tuple[tuple[str, str], ...]
    not_comparable: tuple[tuple[str, str], ...]
    refused: tuple[str, ...]
    against_next: str | None
    against_first: str | None
    statement: str
