"""The power trace: its rows, its file, and what it says of an interval.

The file has one comment line with units and methods, one line of column names, and one row for each
sample of each device. While it grows it is plain text under ``partial_path``; when complete it is
gzip-compressed under its own name.
"""

from __future__ import annotations

import gzip
import math
import os
import statistics
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from itertools import pairwise
from operator import or_
from pathlib import Path
from typing import NamedTuple

from llm_energy.core.errors import RecordError
from llm_energy.records import TraceSummary

UNITS = (
    "time_s: s on CLOCK_MONOTONIC, at the middle of the power reading; power_w: W; "
    "temperature_c: degrees Celsius; sm_clock_mhz, memory_clock_mhz: MHz; utilization_percent: %; "
    "clock_event_reasons: bit mask of NVML"
)


class Sample(NamedTuple):
    """What one device showed at one moment; None for what could not be read."""

    time_s: float
    device: str
    power_w: float | None
    temperature_c: float | None
    sm_clock_mhz: int | None
    memory_clock_mhz: int | None
    utilization_percent: float | None
    clock_event_reasons: int | None


ROUNDING = 1e-6  # of differences of times, by far
Point = tuple[float, float]  # time in s, power in W
COLUMNS = ",".join(Sample._fields) + "\n"


def partial_path(path: Path) -> Path:
    """Name the file that grows while ``path`` is not complete.

    >>> partial_path(Path("r01.trace.csv.gz")).name
    'r01.trace.csv.partial'
    """
    return path.with_suffix(".partial")


def header(period_s: float, methods: Mapping[str, str]) -> str:
    """Return the first two lines; ``methods`` says for each device how its power is read."""
    power = ", ".join(f"{device} {method}" for device, method in methods.items())
    return f"# {UNITS}; period_s: {period_s:g}; power by: {power}\n{COLUMNS}"


def row(sample: Sample) -> str:
    """Return the line of one sample; an empty field is a value that could not be read.

    >>> row(Sample(1.5, "GPU-a", 300.25, 41, 1980, None, 99, 4))
    '1.500000,GPU-a,300.25,41,1980,,99,4\\n'
    """
    values = ("" if value is None else str(value) for value in sample[1:])
    return f"{sample.time_s:.6f},{','.join(values)}\n"


def parse(line: str) -> Sample:
    """Read one row; ValueError where it is none."""
    time_s, device, power, temperature, sm_clock, memory_clock, utilization, reasons = line.rstrip(
        "\n"
    ).split(",")
    return Sample(
        float(time_s),
        device,
        float(power) if power else None,
        float(temperature) if temperature else None,
        int(sm_clock) if sm_clock else None,
        int(memory_clock) if memory_clock else None,
        float(utilization) if utilization else None,
        int(reasons) if reasons else None,
    )


def read(path: str | Path) -> Iterator[Sample]:
    """Return the samples of a complete trace, or of a partial one up to its last whole line.

    Raises a RecordError that names the file and the line where it is no trace.
    """
    path, number = Path(path), 0
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                if not line.endswith("\n"):
                    return  # whoever wrote it was killed at this point
                if number > 2:
                    yield parse(line)
                elif number == 2 and line != COLUMNS:
                    raise ValueError(f"the columns are {line.strip()!r}, not {COLUMNS.strip()!r}")
    except FileNotFoundError:
        raise RecordError(f"{path}: no such file") from None
    except (ValueError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise RecordError(f"{path}, line {number}: not a power trace ({error})") from None


def pack(path: Path) -> None:
    """Compress the partial file of ``path`` to ``path`` itself, atomically.

    Equal rows give equal bytes. A last line that a killed writer left unfinished is dropped.
    """
    partial = partial_path(path)
    text = partial.read_bytes()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as stream:
            stream.write(gzip.compress(text[: text.rfind(b"\n") + 1], mtime=0))
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    partial.unlink()


def summarise(samples: Iterable[Sample], start_s: float, end_s: float) -> tuple[TraceSummary, ...]:
    """Say what the samples show between the two times, one summary a device, by device.

    Give the samples around the interval too: they tell the power at its edges. Each device's must
    come in the order of time. A sample without a power counts for all but power and energy.
    """
    devices: dict[str, list[Sample]] = {}
    for sample in samples:
        devices.setdefault(sample.device, []).append(sample)
    return tuple(_summary(device, devices[device], start_s, end_s) for device in sorted(devices))


def _summary(device: str, samples: list[Sample], start_s: float, end_s: float) -> TraceSummary:
    inside = [s for s in samples if start_s <= s.time_s <= end_s]
    points = [(s.time_s, s.power_w) for s in samples if s.power_w is not None]
    powers = [(time_s, power_w) for time_s, power_w in points if start_s <= time_s <= end_s]
    temperatures = [s.temperature_c for s in inside if s.temperature_c is not None]
    utilizations = [s.utilization_percent for s in inside if s.utilization_percent is not None]
    reasons = [s.clock_event_reasons for s in inside if s.clock_event_reasons is not None]
    moments = [start_s, *(time_s for time_s, _ in powers), end_s]
    return TraceSummary(
        device=device,
        samples=len(powers),
        longest_gap_s=max(later - earlier for earlier, later in pairwise(moments)),
        energy_j=_integral(points, powers, start_s, end_s),
        max_power_w=max((power_w for _, power_w in powers), default=None),
        max_temperature_c=max(temperatures, default=None),
        clock_event_reasons=reduce(or_, reasons) if reasons else None,
        utilization_percent=statistics.fmean(utilizations) if utilizations else None,
    )


def _integral(
    points: Sequence[Point], inside: Sequence[Point], start_s: float, end_s: float
) -> float | None:
    """Integrate power by the trapezoid rule, in J; None where the samples do not carry that far."""
    if len(inside) < 2:
        return None
    before = max((point for point in points if point[0] < start_s), default=None)
    after = min((point for point in points if point[0] > end_s), default=None)
    period_s = statistics.median(b - a for (a, _), (b, _) in pairwise(inside))
    first_w = _power_at(start_s, inside[0], before, period_s)
    last_w = _power_at(end_s, inside[-1], after, period_s)
    if first_w is None or last_w is None:
        return None
    line = [(start_s, first_w), *inside, (end_s, last_w)]
    return math.fsum((b - a) * (p + q) / 2 for (a, p), (b, q) in pairwise(line))


def _power_at(edge_s: float, inside: Point, outside: Point | None, period_s: float) -> float | None:
    """Return the power at an edge: between the samples on its two sides, or that of the one inside.

    The latter within one sampling period only: beyond it, nothing was seen.
    """
    if outside is not None:
        share = (edge_s - inside[0]) / (outside[0] - inside[0])
        return inside[1] + share * (outside[1] - inside[1])
    return inside[1] if abs(edge_s - inside[0]) <= period_s * (1 + ROUNDING) else None
