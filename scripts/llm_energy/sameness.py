"""Say whether backends did the same work: the same prompts, weights and lengths, and the same ids.

Under greedy decoding in float32 two correct engines give the same ids but for numeric ties, so how
far their ids agree is evidence that a comparison of their joules compares equal work.
"""

from __future__ import annotations

import csv
import io
import itertools
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

from llm_energy.compatibility import is_greedy
from llm_energy.records import Measurement, Window, Workload

SAMPLED = "sampled, so the ids of two engines need not agree"


@dataclass(frozen=True)
class Sameness:
    """One model, precision and workload on two backends.

    ``lengths_forced`` is None where the length is free. ``requests`` counts the requests whose ids
    were compared, those of the first pass of each backend's first good repeat;
    ``identical_requests`` is the share of them with the same ids, ``prefix`` the number of leading
    ids that agree. They are None where there is nothing to compare, and ``reason`` says why.
    """

    model: str
    precision: str
    workload: str
    backends: tuple[str, str]
    same_prompts: bool
    same_weights: bool
    lengths_forced: bool | None
    requests: int
    identical_requests: float | None = None
    shortest_prefix: int | None = None
    median_prefix: float | None = None
    reason: str | None = None


def compare(measurements: Iterable[Measurement]) -> list[Sameness]:
    """Compare each pair of backends on each model, precision and workload that both were given."""
    groups: dict[tuple[str, str, str], dict[str, list[Measurement]]] = {}
    for measurement in measurements:
        spec = measurement.spec
        for workload in spec.workloads:
            key = (spec.model, spec.precision, workload.id)
            groups.setdefault(key, defaultdict(list))[spec.backend].append(measurement)
    return [
        _pair(key, pair, [sorted(found[name], key=lambda m: m.spec.repeat) for name in pair])
        for key, found in groups.items()
        for pair in itertools.combinations(found, 2)
    ]


def _pair(
    key: tuple[str, str, str], backends: tuple[str, str], repeats: Sequence[Sequence[Measurement]]
) -> Sameness:
    workload_id = key[2]
    everything = [m for side in repeats for m in side]
    workload = next(w for w in everything[0].spec.workloads if w.id == workload_id)
    windows = [_first_window(side, workload_id) for side in repeats]
    good = [window for window in windows if window]
    common = {
        "model": key[0],
        "precision": key[1],
        "workload": workload_id,
        "backends": backends,
        "same_prompts": len({m.prompts_sha256.get(workload_id) for m in everything}) == 1,
        "same_weights": len({m.weights_sha256 for m in everything}) == 1,
        "lengths_forced": _lengths_forced(workload, good),
    }
    missing = [name for name, window in zip(backends, windows, strict=True) if window is None]
    if missing:
        return Sameness(**common, requests=0, reason=f"no window of {' and '.join(missing)}")
    if not is_greedy(workload.parameters):
        return Sameness(**common, requests=0, reason=SAMPLED)
    first, second = (window.output_token_ids for window in good)
    shared = [name for name in first if name in second]
    if not shared:
        return Sameness(**common, requests=0, reason="no request was answered by both")
    prefixes = [common_prefix(first[name], second[name]) for name in shared]
    return Sameness(
        **common,
        requests=len(shared),
        identical_requests=sum(first[name] == second[name] for name in shared) / len(shared),
        shortest_prefix=min(prefixes),
        median_prefix=statistics.median(prefixes),
    )


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """Count the leading ids that two sequences share.

    >>> common_prefix([5, 6, 7], [5, 6, 9, 7])
    2
    """
    pairs = zip(first, second, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _first_window(repeats: Sequence[Measurement], workload: str) -> Window | None:
    found = (w for m in repeats for w in m.windows if w.workload == workload and w.outcome == "ok")
    return next(found, None)


def _lengths_forced(workload: Workload, windows: Sequence[Window]) -> bool | None:
    """Say whether each output is as long as it was forced to be; None where none was forced."""
    parameters = workload.parameters
    forced = parameters["max_output_tokens"]
    if parameters["min_output_tokens"] != forced or not windows:
        return None
    return all(set(w.requests.output_tokens) == {forced} for w in windows if w.requests)


HEAD = {
    "model": "Model",
    "precision": "Precision",
    "workload": "Workload",
    "backends": "Backends",
    "same_prompts": "Same prompt ids",
    "same_weights": "Same weights",
    "lengths_forced": "Lengths as forced",
    "requests": "Requests (n)",
    "identical_requests": "Identical outputs",
    "shortest_prefix": "Common prefix, shortest",
    "median_prefix": "Common prefix, median",
    "reason": "Remark",
}


def render_csv(rows: Sequence[Sameness]) -> str:
    """Give the rows as CSV, one a line, an absent value empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([field.name for field in fields(Sameness)])
    for row in rows:
        cells = {field.name: getattr(row, field.name) for field in fields(Sameness)}
        cells["backends"] = " ".join(row.backends)
        writer.writerow(["" if value is None else value for value in cells.values()])
    return out.getvalue()


def render_markdown(rows: Sequence[Sameness]) -> str:
    """Give the rows as a page with one Markdown table, or say that there is nothing to compare."""
    lines = ["# Did the backends do the same work?", ""]
    if not rows:
        return "\n".join([*lines, "Nothing to compare: fewer than two backends measured.", ""])
    lines += [f"| {' | '.join(HEAD.values())} |", f"|{' --- |' * len(HEAD)}"]
    lines += [f"| {' | '.join(_cell(name, getattr(row, name)) for name in HEAD)} |" for row in rows]
    lines += ["", "Prefixes are in tokens. Identical outputs are expected in float32 alone.", ""]
    return "\n".join(lines)


def _cell(name: str, value: object) -> str:
    if value is None:
        return "" if name == "reason" else "-"
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    if isinstance(value, tuple):
        return ", ".join(value)
    return f"{value:.1%}" if name == "identical_requests" else str(value)
