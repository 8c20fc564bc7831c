"""Decide when requests arrive: one vector a workload and block, made at plan time for all cells."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from llm_energy.core.errors import LlmEnergyError
from llm_energy.inputs.traffic.rates import is_few, is_other_rate
from llm_energy.inputs.traffic.trace_file import TraceRow, read_trace
from llm_energy.records import Arrivals

RAMP_S, BATCH_TIMEOUT_S = 10.0, 1.0
# Which keys a mode needs, and what it may have besides, with the value where none is given; a
# horizon that is not given is the protocol's shortest window.
EDGES = {"ramp_s": RAMP_S, "horizon_s": None, "batch_timeout_s": BATCH_TIMEOUT_S}
MODES: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "offline": ((), {}),
    "closed_loop": (("concurrency",), EDGES),
    "constant": (("rate_per_s",), EDGES),
    "poisson": (("rate_per_s",), {"seed": 0, **EDGES}),
    "gamma": (("rate_per_s", "burstiness"), {"seed": 0, **EDGES}),
    "trace": (("trace_path",), {"rate_per_s": None, "start_s": None, **EDGES}),
}
MOST_ARRIVALS = 1_000_000  # each is tokenised, served and recorded
SAID_WHERE_GIVEN = ("start_s",)  # a spec has it only then, so that older ones stay as they are


def complete(traffic: Mapping[str, Any] | None, horizon_s: float) -> dict[str, Any] | None:
    """Return a traffic with every key of its mode; None stands for what is all there at the start.

    >>> complete({"mode": "constant", "rate_per_s": 2.0}, 30.0)["horizon_s"]
    30.0
    """
    if traffic is None or dict(traffic) == {"mode": "offline"}:
        return None
    optional = {k: v for k, v in MODES[traffic["mode"]][1].items() if k not in SAID_WHERE_GIVEN}
    if "horizon_s" in optional:
        optional["horizon_s"] = horizon_s
    return optional | {key: value for key, value in traffic.items() if value is not None}


def expected_requests(traffic: Mapping[str, Any]) -> int | None:
    """Return how many requests a rate brings on average; None where no rate decides it.

    >>> expected_requests({"mode": "poisson", "rate_per_s": 2.0, "ramp_s": 5.0, "horizon_s": 10.0})
    30
    """
    if traffic.get("rate_per_s") is None or "ramp_s" not in traffic:
        return None
    return max(1, math.ceil(traffic["rate_per_s"] * (traffic["ramp_s"] + traffic["horizon_s"])))


def takes_lengths(parameters: Mapping[str, Any], prompts: Mapping[str, Any]) -> bool:
    """Return whether a trace gives each request its prompt and output length, besides its time.

    It does where prompts are ``synthetic`` and ``input_tokens`` is left out.
    """
    mode = (parameters["traffic_simulation"] or {}).get("mode")
    lengths_free = prompts["source"] == "synthetic" and prompts["input_tokens"] is None
    return mode == "trace" and lengths_free


def are_drawn(traffic: Mapping[str, Any]) -> bool:
    """Return whether arrivals are random, so that each block has a draw of its own."""
    return "seed" in MODES[traffic["mode"]][1]


def make_arrivals(traffic: Mapping[str, Any], root: Path = Path(), block: int = 1) -> Arrivals:
    """Make the arrivals of a complete traffic in one block; those that are not drawn are alike.

    The window begins when the ramp ends, whether anybody comes then or not, and lasts for the
    horizon: begun with an arrival, it would hold half a request or more too many. Nothing arrives
    after it. In a closed loop requests arrive as others end, so there is no vector.
    Raises LlmEnergyError for a trace that cannot be read or ends too early.
    """
    mode, ramp_s, horizon_s = (traffic[key] for key in ("mode", "ramp_s", "horizon_s"))
    begin_s, end_s = ramp_s, ramp_s + horizon_s
    if mode == "closed_loop":
        return Arrivals(mode, begin_s, end_s, concurrency=traffic["concurrency"])
    if mode == "trace":
        return _replayed(traffic, root)
    times_s, _ = _before(end_s, itertools.accumulate(_gaps_s(traffic, block)))
    return Arrivals(mode, begin_s, end_s, times_s, rate_per_s=traffic["rate_per_s"])


def gap_variation(times_s: Sequence[float]) -> float | None:
    """Return the coefficient of variation of the gaps between arrivals, sample SD over mean.

    0 for a constant rate; 1 is expected of Poisson arrivals, 1 / sqrt(burstiness) of gamma ones.
    None with fewer than three arrivals.

    >>> gap_variation([0.0, 1.0, 3.0])
    0.47140452079103173
    """
    gaps_s = [b - a for a, b in itertools.pairwise(times_s)]
    if len(gaps_s) < 2 or not (mean_s := statistics.fmean(gaps_s)):
        return None
    return statistics.stdev(gaps_s) / mean_s


def _gaps_s(traffic: Mapping[str, Any], block: int) -> Iterator[float]:
    """Yield gaps without end: one pattern for a seed and block, faster or slower by the rate.

    Gamma gaps have shape k = burstiness and mean 1 / rate, as in vLLM's ``bench serve``
    (https://docs.vllm.ai/en/v0.11.2/cli/bench/serve/), but they are not rescaled afterwards so that
    the last request comes at a fixed time: what the draw gave is recorded as the realised rate.
    """
    mean_s = 1 / traffic["rate_per_s"]
    # A stream of its own: prompts and sampling have other seeds.
    random = Random(f"arrivals {traffic.get('seed')} block {block}")
    while True:
        if traffic["mode"] == "constant":
            yield mean_s
        elif traffic["mode"] == "poisson":
            yield random.expovariate(1.0) * mean_s
        else:
            shape = traffic["burstiness"]
            yield random.gammavariate(shape, 1.0) * mean_s / shape


def _before(end_s: float, times_s: Iterable[float]) -> tuple[tuple[float, ...], bool]:
    """Return the arrivals before the end of the window, and whether any came after it."""
    taken: list[float] = []
    for time_s in times_s:
        if time_s >= end_s:
            return tuple(taken), True
        if len(taken) == MOST_ARRIVALS:
            raise LlmEnergyError(
                f"more than {MOST_ARRIVALS} requests arrive within the {end_s:g} s of ramp and "
                "window; lower rate_per_s, ramp_s or horizon_s"
            )
        taken.append(time_s)
    return tuple(taken), False


def _later(rows: Iterator[TraceRow], start_s: float | None) -> Iterator[TraceRow]:
    """Leave out what comes before ``start_s`` seconds after the first row have passed."""
    if not start_s or (first := next(rows, None)) is None:
        return rows
    return itertools.dropwhile(lambda row: row.time_s - first.time_s < start_s, rows)


def unlike_asked(traffic: Mapping[str, Any], arrivals: Arrivals) -> list[str]:
    """Say how the window of a trace differs from what was asked for, or holds too little.

    Other arrivals are drawn as asked, and a rate that brings few of them says so itself.
    """
    if arrivals.mode != "trace":
        return []
    begin_s, end_s = arrivals.begin_s, arrivals.end_s
    count = sum(begin_s <= time_s < end_s for time_s in arrivals.times_s)
    found = []
    if is_few(count):
        found.append(f"its window of {end_s - begin_s:.4g} s holds only {count} of its requests")
    if is_other_rate(count, arrivals.rate_per_s, end_s - begin_s):
        rate = f"{count / (end_s - begin_s):.3g}/s arrive in its window"
        found.append(f"{rate}, where {arrivals.rate_per_s:g}/s were asked for")
    return found


def _replayed(traffic: Mapping[str, Any], root: Path) -> Arrivals:
    """Replay a trace, stretched by one factor where a rate is asked for.

    It begins with the first request that comes ``start_s`` after the file's first, or later.
    With a rate, the mean gap of as many rows as that rate brings becomes 1 / rate: the trace keeps
    its bursts and its lengths, and only its clock runs faster or slower.
    """
    path = root / traffic["trace_path"]
    ramp_s, horizon_s, rate_per_s = (traffic[k] for k in ("ramp_s", "horizon_s", "rate_per_s"))
    rows, factor = _later(read_trace(path), traffic.get("start_s")), 1.0
    first = list(itertools.islice(rows, (expected_requests(traffic) or 0) + 1))
    start_s = first[0].time_s if first else 0.0
    if rate_per_s is not None and len(first) > 1 and first[-1].time_s > start_s:
        factor = (len(first) - 1) / rate_per_s / (first[-1].time_s - start_s)
    tokens: list[tuple[int, int]] = []

    def times_s() -> Iterator[float]:
        for row in itertools.chain(first, rows):
            yield (row.time_s - start_s) * factor
            tokens.append((row.prompt_tokens, row.output_tokens))

    begin_s, end_s = ramp_s, ramp_s + horizon_s
    taken_s, whole = _before(end_s, times_s())
    if not whole:
        raise LlmEnergyError(
            f"{path}: the trace reaches {taken_s[-1] if taken_s else 0.0:.6g} s, the ramp of "
            f"{ramp_s:.6g} s and the horizon of {horizon_s:.6g} s need more; shorten them, or take "
            "a longer trace"
        )
    return Arrivals("trace", begin_s, end_s, taken_s, rate_per_s=rate_per_s, tokens=tuple(tokens))
