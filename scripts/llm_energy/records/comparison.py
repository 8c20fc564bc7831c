"""The record of the compare stage: pairs of cells with their ratios, and the views over a sweep.

Conventions are those of ``records``. A ratio is always ``other / reference`` of one quantity;
its interval by itself holds the truth in 95 of 100 cases. What is said in words is plain text, not
markup: whoever shows it must escape it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llm_energy.records import Status
from llm_energy.records.recommendation import Lowest, Recommendation

# A choice is between precisions and batch sizes at once.
Contrast = Literal["precision", "batch_size", "model", "backend", "choice", "sweep"]
# ``less`` and ``more`` are beyond noise after the correction for how many were compared.
ComparisonOutcome = Literal[
    "less", "more", "not_distinguishable", "too_few_pairs", "not_comparable"
]
UNTOLD = ("not_distinguishable", "too_few_pairs")


@dataclass(frozen=True)
class Side:
    """One side of a comparison: a cell and workload, its ``n`` usable repeats, and its own mean.

    ``mean`` is over all its repeats, in the unit of the metric; the ratio is over pairs alone.
    """

    cell: str
    model: str
    backend: str
    precision: str
    workload: str
    batch_size: int
    n: int
    mean: float


@dataclass(frozen=True)
class Difference:
    """One thing that a comparison holds fixed and that the two sides do not share."""

    field: str
    reference: str
    other: str


@dataclass(frozen=True)
class LeftOut:
    """A block that did not enter a comparison, and why."""

    block: int
    reason: str


@dataclass(frozen=True)
class Comparison:
    """One quantity of two sides, paired by block.

    ``contrast`` says in what they differ on purpose. ``metric`` is its name in ``metrics.json``;
    ``outcome`` says what is beyond noise after the correction, or why that cannot be said.
    ``family`` names the comparisons that are corrected together (see ``Family``). ``blocks`` are
    the repeat numbers that entered, ``n`` of them, and ``left_out`` the others, each with its
    reason. ``ratio`` is the geometric mean over blocks of other over reference, ``ci_low`` and
    ``ci_high`` its 95 % interval, ``p`` its two-sided p-value, ``p_adjusted`` the same after Holm's
    correction over the family. ``smallest_detectable_percent`` is the true difference that would be
    found in 4 of 5 such sweeps, correction included. ``log_sd`` is the standard deviation of the
    paired log-ratios, ``degrees_of_freedom`` those of the interval. All of them are None without
    two pairs. ``scope`` says what the interval speaks for: the one ``session`` of its blocks, or
    other ``sessions`` like these, of which each counts once. ``differs`` says, for
    ``not_comparable``, which fields differ. ``verdict`` is the result in words, ``notes`` what a
    reader must know to use it. A throughput or latency has no ``energy_status`` and no
    ``components``.
    """

    contrast: Contrast
    family: str
    metric: str
    energy_status: Status | None
    components: tuple[str, ...]
    reference: Side
    other: Side
    outcome: ComparisonOutcome
    verdict: str
    n: int
    blocks: tuple[int, ...]
    left_out: tuple[LeftOut, ...]
    differs: tuple[Difference, ...]
    ratio: float | None
    ci_low: float | None
    ci_high: float | None
    p: float | None
    p_adjusted: float | None
    smallest_detectable_percent: float | None
    log_sd: float | None
    degrees_of_freedom: float | None
    notes: tuple[str, ...]
    scope: Literal["session", "sessions"] | None = None


@dataclass(frozen=True)
class Family:
    """Comparisons that answer one question and are corrected together for their number.

    ``noise_percent`` is the typical standard deviation of a paired log-ratio in the family, and
    ``noise_degrees_of_freedom`` how strongly each pair's own is drawn to it: 0 not at all, None
    entirely (all pairs are equally noisy).
    """

    id: str
    contrast: Contrast
    title: str
    metric: str
    energy_status: Status | None
    components: tuple[str, ...]
    comparisons: int
    found: int
    noise_percent: float | None
    noise_degrees_of_freedom: float | None


@dataclass(frozen=True)
class CrossoverPoint:
    """The ratio of a precision to the reference precision at one batch size."""

    batch_size: int
    workload: str
    n: int
    ratio: float
    ci_low: float | None
    ci_high: float | None
    outcome: ComparisonOutcome


@dataclass(frozen=True)
class Crossover:
    """Where, along the batch size, a precision starts or stops to save energy.

    ``kind`` says what the points show beyond noise: ``saves`` or ``costs`` at every batch size,
    ``starts_saving`` or ``stops_saving`` on the way up, ``several`` changes, or ``undecided``.
    ``batch_size`` is where the ratio is 1, interpolated in the logarithm of the batch size, for the
    two kinds that cross it once; ``ci_*`` hold it in 95 of 100 cases, and an end that lies outside
    the batch sizes measured is None.
    """

    model: str
    backend: str
    reference_precision: str
    precision: str
    metric: str
    energy_status: Status
    components: tuple[str, ...]
    points: tuple[CrossoverPoint, ...]
    kind: Literal["saves", "costs", "starts_saving", "stops_saving", "several", "undecided"]
    batch_size: float | None
    ci_low: float | None
    ci_high: float | None
    statement: str


@dataclass(frozen=True)
class RankedRow:
    """One cell and workload under several denominators; ``ranks`` count from 1, the least first."""

    cell: str
    workload: str
    values: dict[str, float]
    ranks: dict[str, int]


@dataclass(frozen=True)
class RankChange:
    """Two rows that change places, beyond their intervals, from one metric to another."""

    metric: str
    first: tuple[str, str]
    second: tuple[str, str]
    statement: str


@dataclass(frozen=True)
class Ranking:
    """The cells and workloads of one backend in the order of their joules, by each of ``metrics``.

    The first metric is the headline; ``changes`` are the rows that another metric puts in another
    order. ``changes_total`` counts them all where only the clearest are listed.
    """

    backend: str
    energy_status: Status
    components: tuple[str, ...]
    metrics: tuple[str, ...]
    rows: tuple[RankedRow, ...]
    changes: tuple[RankChange, ...]
    changes_total: int


@dataclass(frozen=True)
class ParetoPoint:
    """One cell and workload by its energy and a second quantity, each with its interval.

    ``dominated_by`` is a (cell, workload) that is at least as good in both and better in one; None
    for a point on the front.
    """

    cell: str
    workload: str
    precision: str
    batch_size: int
    energy_j: float
    energy_ci_low_j: float | None
    energy_ci_high_j: float | None
    against: float
    against_ci_low: float | None
    against_ci_high: float | None
    dominated_by: tuple[str, str] | None


@dataclass(frozen=True)
class ParetoFront:
    """Joules per output token against a latency (less is better) or tokens/s (more is better).

    All points do the same ``work``, said in words.
    """

    backend: str
    model: str
    energy_status: Status
    components: tuple[str, ...]
    work: str
    against: str
    better: Literal["less", "more"]
    points: tuple[ParetoPoint, ...]

    @property
    def places(self) -> list[tuple[str, str, Status, tuple[str, ...]]]:
        """Return the rows on the front by cell, workload, status and components, fastest first."""
        sign = 1 if self.better == "less" else -1
        best = [point for point in self.points if point.dominated_by is None]
        best.sort(key=lambda point: sign * point.against)
        return [(p.cell, p.workload, self.energy_status, self.components) for p in best]


@dataclass(frozen=True)
class Limits:
    """How far one cell and workload is from what physics and its hardware allow.

    ``floor_j`` and ``roofline_j`` are joules per output token, as is ``energy_j``, the measured
    joules of the GPUs alone. ``times_floor`` is ``energy_j / floor_j``, ``mbu`` and ``mfu`` the
    model's bandwidth and FLOP utilisation, 0 to 1. ``rates`` says where the hardware's rates come
    from: a data sheet, or a copy timed on the host. What cannot be had is None, with ``reason``.
    ``fault`` is set for what is physically impossible.
    """

    cell: str
    workload: str
    n: int
    energy_j: float | None
    floor_j: float | None
    roofline_j: float | None
    times_floor: float | None
    times_roofline: float | None
    mbu: float | None
    mfu: float | None
    rates: str | None
    reason: str | None
    fault: str | None


@dataclass(frozen=True)
class Figure:
    """One quantity of two sides: their own means, and the ratio of the ``n`` blocks they share.

    ``outcome`` is that of the comparison. It is None without one, where ``ratio`` is that of the
    means and has no interval.
    """

    metric: str
    reference: float | None
    other: float | None
    n: int
    ratio: float | None
    ci_low: float | None
    ci_high: float | None
    outcome: ComparisonOutcome | None


@dataclass(frozen=True)
class Answer:
    """One cell and workload against another, in energy, speed, latency, quality and memory.

    ``reference`` and ``other`` are (cell, workload). The first figure is of energy; those that
    neither side has are left out. ``repeats_needed`` is how many would tell a difference in energy
    like the one seen, None where it was told, or is not known. ``statement`` is all of it in words.
    """

    contrast: Contrast
    reference: tuple[str, str]
    other: tuple[str, str]
    energy_status: Status | None
    components: tuple[str, ...]
    figures: tuple[Figure, ...]
    repeats_needed: int | None
    statement: str


@dataclass(frozen=True)
class HeldFixed:
    """One condition of the measurements: the values that were found over the whole sweep."""

    field: str
    title: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Comparisons:
    """Everything that the compare stage says about one sweep.

    ``findings`` are the main results in words, the most important first. ``held_fixed`` lists every
    condition that comparability looks at; one with several values is fixed only within a cell.
    ``lowest`` has one entry for each piece of work, as ``recommendations`` has, in the same order.
    ``answers`` hold each entry of an axis against the first one. Files of older versions have
    neither.
    """

    schema_version: int
    sweep: str
    simulated: bool
    findings: tuple[str, ...]
    held_fixed: tuple[HeldFixed, ...]
    families: tuple[Family, ...]
    comparisons: tuple[Comparison, ...]
    crossovers: tuple[Crossover, ...]
    rankings: tuple[Ranking, ...]
    pareto: tuple[ParetoFront, ...]
    limits: tuple[Limits, ...]
    recommendations: tuple[Recommendation, ...]
    lowest: tuple[Lowest, ...] = ()
    answers: tuple[Answer, ...] = ()
