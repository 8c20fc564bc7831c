"""Say what a study of sensors shows, and how the harness stands against the bare engine.

    python tests/gpu/sensor_findings.py docs/measurements/h200-sensors.tar.gz
    python tests/gpu/sensor_findings.py docs/measurements/h200-harness.json

The first is what ``sensor_study.py`` left, in one archive; the second is that of ``harness.py``.
"""

from __future__ import annotations

import argparse
import json
import math
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean, linear_regression, median, stdev
from typing import Any, NamedTuple

SETTLED_S = 1.2  # after a load the clock has come back, and a mean over one second has forgotten it
HOT_S, WARM_S = 1.0, 6.0  # a hot idle of 5 s
UNSURE_S = 0.012  # a reading so near a tick may hold it or not
POLL_S = 0.1
SHARP_S = 0.03  # bounds of a tick that are of use
PULSES = ("0.1 s", "0.13 s")


class Row(NamedTuple):
    """One reading of the GPU; without a temperature where only fields were read."""

    before_s: float
    after_s: float
    energy_mj: int
    energy_us: int
    average_mw: int
    average_us: int
    instant_mw: int
    instant_us: int
    temperature_c: int | None = None
    memory_temperature_c: int | None = None
    sm_clock_mhz: int | None = None


class Tick(NamedTuple):
    """A change of the counter: between which two times it came, and what it shows since then."""

    after_s: float
    before_s: float
    energy_mj: int

    @property
    def time_s(self) -> float:
        """Give the middle of the two."""
        return (self.after_s + self.before_s) / 2


def stages(archive: Path) -> dict[str, Any]:
    """Give the stages of a study by name."""
    with tarfile.open(archive) as content:
        return {
            Path(member.name).stem: json.load(content.extractfile(member))
            for member in content
            if member.isfile()
        }


def rows(found: Sequence[Sequence[Any]]) -> list[Row]:
    """Give stored readings their names."""
    return [Row(*values) for values in found]


def series(study: dict[str, Any]) -> dict[str, list[Row]]:
    """Give every series of readings of a study."""
    cooling = study["cooling"]
    return {
        **{name: rows(study[name]["rows"]) for name in ("idle-bare", "idle-context", "steps")},
        **{f"pulses, {name}": rows(study["pulses"][name]["rows"]) for name in PULSES},
        "cold": rows(cooling["cold"]),
        **{f"after {s} s": rows(cooling[f"after {s} s"]["rows"]) for s in (3, 10, 40)},
    }


def ticks(readings: Sequence[Row]) -> list[Tick]:
    """Give the changes of the counter. A reading shows it as it was somewhere within its call."""
    return [
        Tick(a.before_s, b.after_s, b.energy_mj)
        for a, b in pairwise(readings)
        if a.energy_mj != b.energy_mj
    ]


@dataclass(frozen=True)
class Grid:
    """The moments at which the counter moves, evenly spaced."""

    origin_s: float
    period_s: float

    def passed(self, time_s: float) -> float:
        """Give how many periods have passed, as a number with a fraction."""
        return (time_s - self.origin_s) / self.period_s

    def off_s(self, tick: Tick) -> float:
        """Give how far outside its own bounds the grid has a tick."""
        nearest_s = self.origin_s + round(self.passed(tick.time_s)) * self.period_s
        return max(tick.after_s - nearest_s, nearest_s - tick.before_s, 0.0)


def sharp(every: dict[str, list[Row]]) -> list[Tick]:
    """Give the ticks that two readings close to each other bound."""
    seen = [tick for one in every.values() for tick in ticks(one)]
    return [tick for tick in seen if tick.before_s - tick.after_s < SHARP_S]


def grid(seen: Sequence[Tick]) -> Grid:
    """Fit the grid to ticks."""
    found = Grid(seen[0].time_s, 0.1)
    for _ in range(3):
        slope, intercept = linear_regression(
            [round(found.passed(tick.time_s)) for tick in seen], [tick.time_s for tick in seen]
        )
        found = Grid(found.origin_s + (intercept - found.origin_s), slope)
    return found


def stamps(all_series: dict[str, list[Row]], wall_s: float) -> tuple[list[float], int, int]:
    """Give how many ms after the begin of its call each stamp of the counter lies.

    Then, of the readings that show what the one before showed, how many bear a later stamp, and how
    many there are.
    """
    readings = [row for one in all_series.values() for row in one]
    after_ms = [(row.energy_us / 1e6 - wall_s - row.before_s) * 1e3 for row in readings]
    same = [
        (a, b)
        for one in all_series.values()
        for a, b in pairwise(one)
        if a.energy_mj == b.energy_mj
    ]
    return after_ms, sum(b.energy_us > a.energy_us for a, b in same), len(same)


class Sensed(NamedTuple):
    """The counter's power over a stretch, and two other sensors' over it, as shares of that."""

    counter_w: float
    instant: float
    average: float


def sensed(readings: Sequence[Row], begin_s: float, end_s: float) -> Sensed:
    """Hold the two power fields, read ten times a second, against the counter between two ticks.

    The mean over a second lags by half of one, so it is taken so much later. The current power is
    the mean over all phases of reading.
    """
    first, *_, last = [t for t in ticks(readings) if begin_s <= t.time_s <= end_s]
    counter_w = (last.energy_mj - first.energy_mj) / 1e3 / (last.time_s - first.time_s)
    step = max(1, round(POLL_S / median(b.before_s - a.before_s for a, b in pairwise(readings))))
    instant = [r.instant_mw for r in readings if first.time_s <= r.before_s <= last.time_s]
    average = [r.average_mw for r in readings if first.time_s <= r.before_s - 0.5 <= last.time_s]
    phases = [fmean(instant[phase::step]) for phase in range(step)]
    return Sensed(counter_w, fmean(phases) / 1e3 / counter_w, fmean(average) / 1e3 / counter_w)


def pulse_w(study: dict[str, Any], name: str) -> float:
    """Give what the counter says that each second of work took, beyond waiting, under pulses."""
    work = study["pulses"][name]["work"]
    begin_s, end_s = work[10][0], work[-2][0]
    busy_s = math.fsum(end - begin for begin, end in work[10:-2])
    found = sensed(series(study)[f"pulses, {name}"], begin_s, end_s)
    idle_w = mean_w(rows(study["idle-context"]["rows"]), 0, 99)
    return (found.counter_w - idle_w) * (end_s - begin_s) / busy_s


class Step(NamedTuple):
    """When, after a load ended, each field had come down by half; how long the mean took to."""

    instant_s: float
    average_s: float
    width_s: float


def falls(study: dict[str, Any]) -> list[Step]:
    """Give the step responses of both power fields at the ends of the loads."""
    found, readings = [], rows(study["steps"]["rows"])
    for _, end_s in study["steps"]["work"]:
        later = [row for row in readings if end_s <= row.before_s <= end_s + 1.8]
        if not later:
            continue

        def crossing(field: str, share: float, later: list[Row] = later, end_s=end_s) -> float:
            high, low = getattr(later[0], field), getattr(later[-1], field)
            level = low + share * (high - low)
            return next(r.after_s for r in later if getattr(r, field) <= level) - end_s

        width_s = (crossing("average_mw", 0.1) - crossing("average_mw", 0.9)) / 0.8
        found.append(Step(crossing("instant_mw", 0.5), crossing("average_mw", 0.5), width_s))
    return found


def idle_slope(*cooled: Sequence[Row]) -> tuple[float, float, int]:
    """Fit idle power over temperature, W per degree; with its standard error and the readings."""
    kept = [r for one in cooled for r in one if r.before_s - one[0].before_s >= SETTLED_S]
    x, y = [r.temperature_c for r in kept], [r.instant_mw / 1e3 for r in kept]
    slope, intercept = linear_regression(x, y)
    rest = math.fsum((b - intercept - slope * a) ** 2 for a, b in zip(x, y, strict=True))
    spread = math.fsum((a - fmean(x)) ** 2 for a in x)
    return slope, math.sqrt(rest / (len(x) - 2) / spread), len(x)


def mean_w(readings: Sequence[Row], begin_s: float, end_s: float) -> float:
    """Give the mean of the current power between two times from the first reading on."""
    origin_s = readings[0].before_s
    return fmean(r.instant_mw for r in readings if begin_s <= r.before_s - origin_s <= end_s) / 1e3


def polled(windows: Sequence[dict[str, Any]], at: Grid) -> list[tuple[str, float, float | None]]:
    """Give each window's way of polling, its power by the clock, and by the ticks inside it.

    The latter is None where an edge is so near a tick that it may count on either side.
    """
    found = []
    for window in windows:
        first, last = Row(*window["first"]), Row(*window["last"])
        joules = (last.energy_mj - first.energy_mj) / 1e3
        passed = [
            at.passed(row.after_s - (row.after_s - row.before_s) / 2) for row in (first, last)
        ]
        unsure = any(abs(p - round(p)) * at.period_s < UNSURE_S for p in passed)
        count = math.floor(passed[1]) - math.floor(passed[0])
        by_ticks = None if unsure else joules / (count * at.period_s)
        found.append((window["how"], joules / (last.before_s - first.before_s), by_ticks))
    return found


def sensor_lines(study: dict[str, Any]) -> Iterator[str]:
    """Say what a study shows, a line a finding."""
    gpu, every, cooling = study["gpu"], series(study), study["cooling"]
    yield f"{gpu['name']}, driver {gpu['driver']}, limit {gpu['power_limit_w']:.0f} W"
    after_ms, later, same = stamps(every, gpu["wall_minus_monotonic_s"])
    yield (
        f"the counter's stamp: {min(after_ms):.1f} to {max(after_ms):.1f} ms after the call began; "
        f"later in {later} of {same} readings that show the same value as the one before"
    )
    seen = sharp(every)
    at = grid(seen)
    off_ms = max(at.off_s(tick) for tick in seen) * 1e3
    wide_ms = median(tick.before_s - tick.after_s for tick in seen) * 1e3
    yield (
        f"the counter moves every {at.period_s * 1e3:.3f} ms: of {len(seen)} ticks over "
        f"{seen[-1].time_s - seen[0].time_s:.0f} s, each known to {wide_ms:.0f} ms (median), none "
        f"is more than {off_ms:.1f} ms off an even grid"
    )
    for state in ("waiting", "loaded"):
        found = polled(cooling[f"polling {state}"], at)
        plain, by_ticks = [w for _, w, _ in found], [w for _, _, w in found if w is not None]
        yield (
            f"windows of 5 s, {state}: {min(plain):.1f} to {max(plain):.1f} W by the clock, "
            f"{min(by_ticks):.1f} to {max(by_ticks):.1f} W by their ticks ({len(by_ticks)} of "
            f"{len(plain)})"
        )
        for how in ("none", "10 Hz", "100 Hz"):
            told = [w for h, _, w in found if h == how and w is not None]
            yield f"  polled {how}: {', '.join(f'{w:.2f} W' for w in told)}"
    steps = falls(study)
    yield (
        f"after the end of a load (n = {len(steps)}) the current power has halved within "
        f"{max(s.instant_s for s in steps) * 1e3:.0f} ms, the mean power after "
        f"{median(s.average_s for s in steps) * 1e3:.0f} ms; it is a mean over "
        f"{median(s.width_s for s in steps):.2f} s"
    )
    for name, begin_s, end_s in stretches(study, every):
        one = sensed(every[name], begin_s, end_s)
        yield (
            f"{name}: {one.counter_w:.1f} W by the counter, of which the current power gives "
            f"{one.instant:.3f}, the mean power {one.average:.3f}"
        )
    for name in PULSES:
        yield f"pulses, {name}: {pulse_w(study, name):.0f} W beyond waiting in each second of work"
    yield (
        f"waiting: {mean_w(every['idle-bare'], 0, 99):.1f} W without a context, "
        f"{mean_w(every['idle-context'], 0, 99):.1f} W with one and 40 GiB"
    )
    after = [every[f"after {s} s"] for s in (3, 10, 40)]
    slope, error, count = idle_slope(every["cold"], *after)
    yield f"idle power over temperature: {slope:.2f} ± {error:.2f} W per °C, n = {count}"
    for load_s, one in zip((3, 10, 40), after, strict=True):
        drop = next(r for r in one if r.before_s - one[0].before_s >= 0.2)
        yield (
            f"after {load_s} s of load: {one[0].temperature_c} °C, {drop.temperature_c} °C 0.2 s "
            f"later; {mean_w(one, HOT_S, WARM_S):.2f} W from 1 to 6 s, "
            f"{mean_w(one[-30:], 0, 9):.2f} W in the last 3 s, at {one[-1].temperature_c} °C"
        )
    for name, time_us in study["calls"]["waiting_us"].items():
        loaded_us = study["calls"]["loaded_us"][name]
        yield (
            f"call, {name}: median {time_us['median']:.0f} us waiting, "
            f"{loaded_us['median']:.0f} us loaded; 95 % within {loaded_us['p95']:.0f} us"
        )
    for window in study["others"]["windows"]:
        zeus, carbon = (window[f"{n}_j"] / window["counter_j"] for n in ("zeus", "codecarbon"))
        yield (
            f"{window['counter_j']:.1f} J in 6 s, {window['state']}: Zeus {zeus:.6f}, CodeCarbon "
            f"{carbon:.6f} times that"
        )


def stretches(
    study: dict[str, Any], every: dict[str, list[Row]]
) -> Iterator[tuple[str, float, float]]:
    """Give which stretches of which series are integrated."""
    for name in ("idle-bare", "idle-context"):
        yield name, every[name][0].before_s + SETTLED_S, every[name][-1].before_s - SETTLED_S
    work = study["steps"]["work"]
    yield "steps", work[0][0] + 4.0, work[-1][0]
    for name in PULSES:
        one = study["pulses"][name]
        yield f"pulses, {name}", one["work"][0][0] + SETTLED_S, one["work"][-1][1] - SETTLED_S


class Against(NamedTuple):
    """Ours over theirs at one batch size, and how far two windows of one side lie apart at most."""

    batch_size: int
    rate: float
    joules: float
    spread_rate: float
    spread_joules: float


def against(found: dict[str, Any]) -> list[Against]:
    """Hold the harness against the bare engine at each batch size."""
    result = []
    for size in sorted({turn["batch_size"] for turn in found["turns"]}):
        of: dict[str, list[tuple[float, float]]] = {"ours": [], "theirs": []}
        for turn in found["turns"]:
            if turn["batch_size"] == size:
                tokens = turn["output_tokens"]
                pair = (tokens / turn["duration_s"], turn["energy_j"] / tokens)
                of[turn["arm"]].append(pair)
        rates, joules = (
            {arm: [pair[place] for pair in pairs] for arm, pairs in of.items()} for place in (0, 1)
        )
        result.append(
            Against(
                size,
                fmean(rates["ours"]) / fmean(rates["theirs"]),
                fmean(joules["ours"]) / fmean(joules["theirs"]),
                *(max(max(v) / min(v) - 1 for v in one.values()) for one in (rates, joules)),
            )
        )
    return result


def harness_lines(found: dict[str, Any]) -> Iterator[str]:
    """Say how the harness stands against the bare engine, a line a batch size."""
    each = against(found)
    for one in each:
        yield (
            f"batch size {one.batch_size}: ours over theirs {one.rate:.4f} in tokens/s, "
            f"{one.joules:.4f} in J/token; two windows of one side differ by up to "
            f"{one.spread_rate:.2%} and {one.spread_joules:.2%}"
        )
    for name in ("rate", "joules"):
        ratios = [getattr(one, name) for one in each]
        half = 2.776 * stdev(ratios) / math.sqrt(len(ratios))  # Student's t, 4 degrees of freedom
        yield f"{name}: mean of {len(ratios)} ratios {fmean(ratios):.4f} ± {half:.4f} (95 %)"
    hot = rows(found["hot"])
    slope, error, count = idle_slope(hot)
    yield (
        f"both engines waiting: {mean_w(rows(found['cool']), 0, 99):.1f} W before, "
        f"{mean_w(hot, HOT_S, WARM_S):.1f} W from 1 to 6 s after the last window, "
        f"{mean_w(hot[-50:], 0, 9):.1f} W in the last 5 s of "
        f"{hot[-1].before_s - hot[0].before_s:.0f}; "
        f"{slope:.2f} ± {error:.2f} W per °C, n = {count}"
    )


def main() -> None:
    """Parse the command line and print the findings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("found", type=Path)
    path = parser.parse_args().found
    if path.suffix == ".json":
        lines = harness_lines(json.loads(path.read_text(encoding="utf-8")))
    else:
        lines = sensor_lines(stages(path))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
