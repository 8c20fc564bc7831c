"""Share a window's joules out to its requests, by what the engine computed for each in every step.

A step's joules are split by the work in it: arithmetic and bytes moved, both as the time that they
take at the hardware's peak rates, so that neither counts double. What is computed for nobody is
charged to those for whose sake it is. Nothing here is measured but the sum, which is kept exactly.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from llm_energy.analysis.energy.accounting import nearest_idle_w, sums
from llm_energy.analysis.energy.limits import demand, gpus_of
from llm_energy.analysis.energy.roofline import MACHINE_BALANCE
from llm_energy.analysis.evidence.windows import DTYPE_BYTES, WindowEvidence, mapping, number
from llm_energy.records import Interval, Status, Window
from llm_energy.records.power_trace import Sample
from llm_energy.records.steps import Run, StepTable

LONGEST_GAP_S = 1.0  # between samples of the power trace: beyond it a mean power is no worse
SHORTEST_REST_S = 0.1  # between steps: a GPU that rests for less is not yet seen to do so
Power = Literal["power trace", "mean power"]


class Cost(NamedTuple):
    """How the parts of a step's work weigh against each other, all as bytes read.

    ``token`` is the arithmetic of one, ``row`` that of the next token's choice, ``pair`` the
    attention of one token to another. ``held`` are the keys and values of a token in the cache,
    ``weights`` are read once a step, for all requests of it alike.
    """

    token: float
    row: float
    pair: float
    held: float
    weights: float

    def of(self, tokens: int, context: int) -> float:
        """Return the weight of a row's own work in a step, after ``context`` tokens."""
        pairs = tokens * context + tokens * (tokens + 1) / 2
        return tokens * self.token + self.row + pairs * self.pair + (context + tokens) * self.held

    def growth(self, tokens: int) -> float:
        """Return by how much that weighs more in the next step, of as many tokens."""
        return tokens * (tokens * self.pair + self.held)


@dataclass(frozen=True)
class Attribution:
    """A window's joules by request, ``requests_j`` in the order of its table, and what is left.

    ``idle_j`` were drawn while no step ran, or one that computed for none of these requests.
    ``status`` says how the sum of all is known, ``power`` what tells its course in time;
    ``assumptions`` name what the shares take for granted.
    """

    requests_j: tuple[float, ...]
    idle_j: float
    status: Status
    power: Power
    assumptions: tuple[str, ...] = ()

    @property
    def idle_of_requests_j(self) -> tuple[float, ...]:
        """Return the idle joules shared out in proportion to what each request took, to be added.

        Zero for all where none took any.
        """
        total_j = math.fsum(self.requests_j)
        share = self.idle_j / total_j if total_j else 0.0
        return tuple(energy_j * share for energy_j in self.requests_j)


def attribute(
    case: WindowEvidence, table: StepTable, samples: Mapping[str, Sequence[Sample]]
) -> Attribution:
    """Share out the measured joules of a window, of all its components, or else the estimated ones.

    ``samples`` are those of the power trace by device; without them the power is taken as constant.
    """
    (status, total_j), cost = joules(case.window), cost_of(case)
    steps_j, power = energy_of_steps(case, table, samples)
    *requests_j, nobody_j = shared(table, cost[0], steps_j, len(case.window.requests.request_id))
    between_j = max(0.0, total_j - float(steps_j.sum()))  # below 0 by rounding alone
    return Attribution(tuple(requests_j), between_j + nobody_j, status, power, cost[1])


def cost_of(case: WindowEvidence) -> tuple[Cost, tuple[str, ...]]:
    """Return what the work of a window's requests weighs, and what had to be assumed for that."""
    assumed = []
    gpus = list(gpus_of(case).values())
    balance = MACHINE_BALANCE
    if gpus:
        flop_per_s = sum(gpu.peak_flop_per_s for gpu in gpus)
        balance = flop_per_s / sum(gpu.bandwidth_bytes_per_s for gpu in gpus)
    else:
        assumed.append(f"no data sheet of the hardware: {balance:g} operations for each byte")
    used, needed = case.measurement.effective, demand(case)
    size = DTYPE_BYTES.get(str(used.get("dtype")), 2)
    resident = number(used, "weight_bytes") or 1.0
    if needed is None:
        parameters = case.expected.parameter_count or case.measurement.parameter_count
        parameters = parameters or resident / size
        assumed.append("the architecture is not recorded: all parameters count, no keys and values")
        return Cost(2 * parameters / balance, 0.0, 0.0, 0.0, resident), tuple(assumed)
    pair = 4 * _attention_width(mapping(used, "architecture")) if needed.kv_bytes else 0.0
    if not needed.kv_bytes:
        assumed.append("the keys and values of this architecture are not counted")
    cost = Cost(
        token=2 * needed.body_parameters / balance,
        row=2 * needed.head_parameters / balance,
        pair=pair / balance,
        held=needed.kv_bytes,
        weights=needed.weight_bytes,
    )
    return cost, tuple(assumed)


def _attention_width(architecture: Mapping[str, Any]) -> float:
    """Return the numbers of all query heads of all layers."""
    heads = number(architecture, "num_attention_heads") or 0
    each = number(architecture, "head_dim")
    width = heads * each if each else number(architecture, "hidden_size") or 0
    return (number(architecture, "num_hidden_layers") or 0) * width


def energy_of_steps(
    case: WindowEvidence, table: StepTable, samples: Mapping[str, Sequence[Sample]]
) -> tuple[Any, Power]:
    """Return the joules of each step inside the window, an array of (steps,), and how they came.

    In a rest that sensors can resolve the engine draws what it draws while it waits; all else of
    the window's joules lies in time as the power of the trace's devices does.
    """
    import numpy

    interval, (status, total_j) = case.window.interval, joules(case.window)
    begin_s, end_s = interval.start_s, interval.end_s
    starts_s, ends_s = (
        numpy.clip(numpy.array(times_s), begin_s, end_s) for times_s in (table.start_s, table.end_s)
    )
    rests_s = numpy.append(begin_s, ends_s), numpy.append(starts_s, end_s)
    rests_s = [edges_s[rests_s[1] - rests_s[0] > SHORTEST_REST_S] for edges_s in rests_s]
    idle = nearest_idle_w(case.measurement, case.window, status)
    rested_j = idle[1] * float((rests_s[1] - rests_s[0]).sum()) if idle else 0.0
    if not 0 < rested_j < total_j:
        rested_j, rests_s = 0.0, [edges_s[:0] for edges_s in rests_s]
    course = _course(interval, samples, *rests_s)
    drawn = course or (lambda times_s: times_s)
    busy = drawn(end_s) - drawn(begin_s) - (drawn(rests_s[1]) - drawn(rests_s[0])).sum()
    total_j -= rested_j
    found = (drawn(ends_s) - drawn(starts_s)) * (total_j / busy if busy > 0 else 0.0)
    return found, "power trace" if course else "mean power"


def joules(window: Window) -> tuple[Status, float]:
    """Return the measured joules of a window, or else the estimated ones, or else 0."""
    known = sums(window.interval)
    status: Status = "measured" if "measured" in known else "estimated"
    return status, known[status].energy_j if known else 0.0


def _course(
    interval: Interval, samples: Mapping[str, Sequence[Sample]], begins_s: Any, ends_s: Any
) -> Callable[[Any], Any] | None:
    """Return the energy up to any time by the power trace, None where it has too long a gap.

    What the sensors show in a rest and just after its end, since they lag, is passed over.
    """
    import numpy

    devices = [samples.get(one.device, ()) for one in interval.trace]
    gaps_s = [one.longest_gap_s for one in interval.trace]
    if not gaps_s or any(gap_s is None or gap_s > LONGEST_GAP_S for gap_s in gaps_s):
        return None
    known = []
    for one in devices:
        points = [(s.time_s, s.power_w) for s in one if s.power_w is not None]
        at_s, power_w = numpy.array(points).reshape(-1, 2).T
        rest = numpy.searchsorted(begins_s, at_s) - 1
        until_s = numpy.append(ends_s, -numpy.inf)[rest]  # the last is before all
        busy = at_s > until_s + SHORTEST_REST_S
        known.append((at_s[busy], power_w[busy]))
    if not all(len(at_s) for at_s, _ in known):
        return None
    return lambda times_s: sum(_energy_j(*one, times_s) for one in known)


def _energy_j(at_s: Any, power_w: Any, times_s: Any) -> Any:
    """Integrate a power up to these times, by the trapezoid rule, constant before and after."""
    import numpy

    between_j = numpy.diff(at_s) * (power_w[1:] + power_w[:-1]) / 2
    until_j = numpy.concatenate([[0.0], numpy.cumsum(between_j)])
    place = numpy.clip(numpy.searchsorted(at_s, times_s, "right") - 1, 0, len(at_s) - 1)
    now_w = numpy.interp(times_s, at_s, power_w)
    return until_j[place] + (times_s - at_s[place]) * (power_w[place] + now_w) / 2


class _Piece(NamedTuple):
    """A part of a request's weight in ``steps`` from ``first`` on, by ``growth`` more in each."""

    request: int | None
    first: int
    steps: int
    weight: float
    growth: float


def shared(table: StepTable, cost: Cost, steps_j: Any, requests: int) -> list[float]:
    """Return the joules of each of a window's ``requests``, from those of each step.

    The last ones are nobody's: of a request that is not in the window's table, or without any work.
    """
    import numpy

    own = [run for run in table.runs if _tokens(run)]
    pieces = [
        _Piece(*run[:3], cost.of(_tokens(run), run.context_tokens), cost.growth(_tokens(run)))
        for run in own
    ]
    pieces += _padding(table, cost)
    rows = numpy.zeros(len(table.start_s))
    for run in own:
        rows[run.first_step : run.first_step + run.steps] += 1
    weights = numpy.where(rows > 0, float(cost.weights), 0.0)
    lines = []
    for piece in pieces:
        place = slice(piece.first, piece.first + piece.steps)
        line = piece.weight + piece.growth * numpy.arange(piece.steps)
        weights[place] += line
        lines.append((piece.request, place, line))
    of_weight_j = numpy.divide(steps_j, weights, out=numpy.zeros(len(rows)), where=weights > 0)
    of_row_j = numpy.divide(
        of_weight_j * cost.weights, rows, out=numpy.zeros(len(rows)), where=rows > 0
    )
    found = [0.0] * (requests + 1)
    found[-1] = float(numpy.sum(steps_j, where=weights <= 0))
    for request, place, line in lines:
        found[-1 if request is None else request] += float(of_weight_j[place] @ line)
    for run in own:
        steps = slice(run.first_step, run.first_step + run.steps)
        found[-1 if run.request is None else run.request] += float(of_row_j[steps].sum())
    return found


def _tokens(run: Run) -> int:
    return run.prefill_tokens + run.decode_tokens


def _padding(table: StepTable, cost: Cost) -> Iterator[_Piece]:
    """Yield what is computed for nobody, as parts of the requests that it is charged to.

    A row that has ended goes on for the sake of all that have not, alike. The pads of a shorter
    prompt are there for the longer ones, for each by how much longer it is; where there is none any
    more, the row bears its own.
    """
    if not any(table.padding_tokens) and not any(table.context_padding):
        return
    coming = sorted(table.runs, key=lambda run: run.first_step, reverse=True)
    edges = {run.first_step for run in coming} | {run.first_step + run.steps for run in coming}
    running: list[Run] = []
    for begin, end in pairwise(sorted(edges)):
        running = [run for run in running if run.first_step + run.steps > begin]
        while coming and coming[-1].first_step == begin:
            running.append(coming.pop())
        now = [_advanced(run, begin - run.first_step) for run in running]
        for request, (weight, growth) in _charged(now, cost).items():
            yield _Piece(request, begin, end - begin, weight, growth)


def _advanced(run: Run, steps: int) -> Run:
    """Return a run as it is so many steps later."""
    return run._replace(
        context_tokens=run.context_tokens + steps * _tokens(run),
        context_padding=run.context_padding + steps * run.padding_tokens,
    )


def _charged(runs: Sequence[Run], cost: Cost) -> dict[int | None, tuple[float, float]]:
    """Return by request the weight of a step's padding that it is to bear, and how that grows."""
    alive = {n: run.context_tokens + _tokens(run) for n, run in enumerate(runs) if _tokens(run)}
    found: dict[int | None, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for place, run in enumerate(runs):
        if not (run.padding_tokens or run.context_padding):
            continue
        tokens, context = _tokens(run), run.context_tokens
        all_tokens = tokens + run.padding_tokens
        wasted = cost.of(all_tokens, context + run.context_padding), cost.growth(all_tokens)
        bearers = dict.fromkeys(alive, 1.0)
        if tokens:
            wasted = wasted[0] - cost.of(tokens, context), wasted[1] - cost.growth(tokens)
            bearers = {other: float(length - alive[place]) for other, length in alive.items()}
        bearers = {other: part for other, part in bearers.items() if part > 0} or {place: 1.0}
        whole = sum(bearers.values())
        for other, part in bearers.items():
            for k in (0, 1):
                found[runs[other].request][k] += wasted[k] * part / whole
    return {request: (weight, growth) for request, (weight, growth) in found.items()}
