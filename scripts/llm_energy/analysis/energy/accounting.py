"""Add up the joules of an interval, measured and estimated apart, and the power while idle."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from llm_energy.records import Interval, Measurement, Status, Window
from llm_energy.records.registry.metrics import COMPONENTS

Answer = TypeVar("Answer")
STATUSES: tuple[Status, ...] = ("measured", "estimated")
LOADED_IDLE = ("loaded_idle_before", "loaded_idle_after")


@dataclass(frozen=True)
class Sum:
    """The joules of the components of one status; ``parts`` are their (component, device) pairs.

    ``component_j`` splits the sum by component, over its devices.
    """

    energy_j: float
    parts: frozenset[tuple[str, str | None]]
    component_j: dict[str, float] = field(default_factory=dict, compare=False)

    @property
    def components(self) -> tuple[str, ...]:
        """Return the names of the components, each once, GPU first."""
        names = {component for component, _ in self.parts}
        known = [name for name in COMPONENTS if name in names]
        return (*known, *sorted(names - COMPONENTS.keys()))


def remembered(function: Callable[[Interval], Answer]) -> Callable[[Interval], Answer]:
    """Answer again what was asked of the same interval: the checks of a window ask dozens of times.

    The answer stays with the interval, beside its fields, as that of a ``cached_property`` does.
    Nobody may change it.
    """
    name = f"_{function.__module__}.{function.__qualname__}"

    @functools.wraps(function)
    def ask(interval: Interval) -> Answer:
        known = vars(interval)
        if name not in known:
            known[name] = function(interval)
        return known[name]

    return ask


@remembered
def sums(interval: Interval) -> dict[Status, Sum]:
    """Add the joules of an interval by status; a status without any component is left out."""
    found: dict[Status, Sum] = {}
    for status in STATUSES:
        known = [part for part in interval.energy if part.status == status]
        if known:
            joules: dict[str, list[float]] = {}
            for part in known:
                joules.setdefault(part.component, []).append(part.energy_j)
            component_j = {name: math.fsum(values) for name, values in joules.items()}
            total_j = math.fsum([part.energy_j for part in known])
            parts = frozenset([(part.component, part.device) for part in known])
            found[status] = Sum(total_j, parts, component_j)
    return found


@dataclass(frozen=True)
class Work:
    """What a window's joules were spent on."""

    requests: int
    prompt_tokens: int
    output_tokens: int


def work(window: Window) -> Work:
    """Count what a window holds: of timed traffic only what came between its edges.

    There, a request counts where its last token came, its prompt where its first one did, and each
    output token where it came. At an edge, some work is on the other side of it than what it is
    counted for; ``window.traffic`` says of how many requests.
    """
    table, interval = window.requests, window.interval
    if window.traffic is None:
        return Work(len(table.request_id), sum(table.prompt_tokens), sum(table.output_tokens))

    def inside(time_s: float | None) -> bool:
        return time_s is not None and interval.start_s < time_s <= interval.end_s

    prompts = zip(table.prompt_tokens, table.first_token_s, strict=True)
    return Work(
        requests=sum(map(inside, table.last_token_s)),
        prompt_tokens=sum(tokens for tokens, first_s in prompts if inside(first_s)),
        output_tokens=sum(table.output_tokens_inside),
    )


def loaded_idle_power_w(
    measurement: Measurement, status: Status, parts: frozenset[tuple[str, str | None]]
) -> tuple[float | None, str | None]:
    """Return the power with the model loaded and no request, or None and the reason.

    It is the mean of the powers before and after the windows, the one before where there is no
    other. Each must come from the same parts with the same status as the window that it is taken
    from, since another scope would subtract something else.
    """
    powers = []
    for name in LOADED_IDLE:
        interval = baseline(measurement, name)
        if interval is None:
            if not powers:
                return None, f"no baseline {name}"
            continue
        same = sums(interval).get(status)
        if same is None or same.parts != parts:
            return None, f"baseline {name} has not the same {status} components as the window"
        if not interval.duration_s > 0:
            return None, f"baseline {name} lasted {interval.duration_s} s"
        powers.append(same.energy_j / interval.duration_s)
    return math.fsum(powers) / len(powers), None


def nearest_idle_w(
    measurement: Measurement, window: Window, status: Status
) -> tuple[str, float] | None:
    """Return what the waiting engine drew nearest in time to a window, and in which idle interval.

    The window's own hot idle is right behind it; else it is the baseline before or after all
    windows. None where none has the window's components in that status.
    """
    interval, same = window.interval, sums(window.interval).get(status)

    def gap_s(idle: Interval) -> float:
        return max(interval.start_s - idle.end_s, idle.start_s - interval.end_s)

    baselines = [idle for name in LOADED_IDLE if (idle := baseline(measurement, name))]
    for idle in filter(None, (window.hot_idle, *sorted(baselines, key=gap_s))):
        total = sums(idle).get(status)
        if same and total and total.parts == same.parts and idle.duration_s > 0:
            return idle.name, total.energy_j / idle.duration_s
    return None


def baseline(measurement: Measurement, name: str) -> Interval | None:
    """Return the idle interval of that name, None where it was not taken."""
    return next((b for b in measurement.baselines if b.name == name), None)


def powers_w(interval: Interval | None, component: str, status: Status) -> dict[str, float]:
    """Return the mean power of each device of a component in that status, in W.

    What has no finite, positive power is left out; whether that is a fault is M09's to say.
    """
    return _all_powers_w(interval).get((component, status), {}) if interval else {}


@remembered
def _all_powers_w(interval: Interval) -> dict[tuple[str, Status], dict[str, float]]:
    found: dict[tuple[str, Status], dict[str, float]] = {}
    for part in interval.energy if interval.duration_s > 0 else ():
        if part.energy_j is not None:
            power_w = part.energy_j / interval.duration_s
            if 0 < power_w < math.inf:
                kind = (part.component, part.status)
                found.setdefault(kind, {})[str(part.device)] = power_w
    return found
