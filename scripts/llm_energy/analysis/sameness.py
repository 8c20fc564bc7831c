"""Say whether backends did the same work: the same prompts, weights and lengths, and the same ids.

Under greedy decoding in float32 two correct engines give the same ids but for numeric ties, so how
far their ids agree is evidence that a comparison of their joules compares equal work.
"""

from __future__ import annotations

import itertools
import statistics
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm_energy.records import Measurement, Spec, Verdict, Window, is_greedy, read_record

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


class Side:
    """What is compared of one backend's repeats of one model, precision and workload."""

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self.parameters = parameters
        self.prompts: dict[int, str | None] = {}  # by repeat, since each may have its own
        self.weights: set[str] = set()
        self.lengths: set[int] = set()
        self.ids: dict[str, array[int]] | None = None
        self.repeat: int | None = None

    def add(self, measurement: Mapping[str, Any], workload: str) -> None:
        """Take up a repeat: its hashes and, of the first good one, what came out."""
        repeat = measurement["spec"]["repeat"]
        self.prompts[repeat] = measurement["prompts_sha256"].get(workload)
        self.weights.add(measurement["weights_sha256"])
        for window in measurement["windows"]:
            if (window["workload"], window["outcome"]) != (workload, "ok"):
                continue
            if self.repeat is None or repeat < self.repeat:
                self.repeat = repeat
                self.lengths = set(window["requests"]["output_tokens"])
                answers = window["output_token_ids"].items()
                self.ids = {name: array("q", ids) for name, ids in answers}


def compare(measurements: Iterable[Mapping[str, Any]]) -> list[Sameness]:
    """Compare each pair of backends on each model, precision and workload that both were given.

    A measurement is given as its JSON says it, since to check all of it is not this stage's; no
    more is kept of it than is compared.
    """
    groups: dict[tuple[str, str, str], dict[str, Side]] = {}
    for measurement in measurements:
        spec = measurement["spec"]
        for workload in spec["workloads"]:
            sides = groups.setdefault((spec["model"], spec["precision"], workload["id"]), {})
            if spec["backend"] not in sides:
                sides[spec["backend"]] = Side(workload["parameters"])
            sides[spec["backend"]].add(measurement, workload["id"])
    return [
        _pair(key, pair, [sides[name] for name in pair])
        for key, sides in groups.items()
        for pair in itertools.combinations(sides, 2)
    ]


def _pair(key: tuple[str, str, str], backends: tuple[str, str], sides: Sequence[Side]) -> Sameness:
    parameters, missing = sides[0].parameters, [side.ids is None for side in sides]
    common = {
        "model": key[0],
        "precision": key[1],
        "workload": key[2],
        "backends": backends,
        "same_prompts": _same_prompts(parameters, *sides),
        "same_weights": len(set().union(*(side.weights for side in sides))) == 1,
        "lengths_forced": _lengths_forced(parameters, sides),
    }
    if any(missing):
        names = " and ".join(itertools.compress(backends, missing))
        return Sameness(**common, requests=0, reason=f"no window of {names}")
    if not is_greedy(parameters):
        return Sameness(**common, requests=0, reason=SAMPLED)
    first, second = (side.ids for side in sides)
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


def _same_prompts(parameters: Mapping[str, Any], first: Side, second: Side) -> bool:
    """Return whether two sides were asked the same; in each repeat, where each has its own."""
    if not parameters.get("resample_prompts"):
        return len({*first.prompts.values(), *second.prompts.values()}) == 1
    shared = first.prompts.keys() & second.prompts.keys()
    return bool(shared) and all(first.prompts[k] == second.prompts[k] for k in shared)


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """Count the leading ids that two sequences share.

    >>> common_prefix([5, 6, 7], [5, 6, 9, 7])
    2
    """
    pairs = zip(first, second, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _lengths_forced(parameters: Mapping[str, Any], sides: Sequence[Side]) -> bool | None:
    """Return whether each output is as long as it was forced to be; None where none was forced."""
    forced, good = parameters["max_output_tokens"], [s for s in sides if s.ids is not None]
    if parameters["min_output_tokens"] != forced or not good:
        return None
    return all(side.lengths == {forced} for side in good)


REFERENCE = "float32"  # the id of the precision that the others of a backend are held against
Outputs = dict[tuple[str, str], dict[str, tuple[int, ...]]]


def reference_outputs(verdicts: Iterable[Verdict]) -> Outputs:
    """Return the outputs in float32, by model and workload, of the first usable window of each.

    Reads one measurement a model where all is well; ``verdicts`` are of one backend.
    """
    first: dict[tuple[str, str], str] = {}
    for verdict in verdicts:
        model, _, precision = verdict.cell.split("--")
        usable = verdict.outcome == "ok" and verdict.verdict != "invalid"
        if precision == REFERENCE and usable:
            first.setdefault((model, verdict.workload), verdict.measurement)
    found: Outputs = {}
    for path in dict.fromkeys(first.values()):
        measurement = read_record(Measurement, path)
        for window in measurement.windows:
            place = (measurement.spec.model, window.workload)
            if first.get(place) == path:
                found[place] = window.output_token_ids
    return found


def agreement(spec: Spec, window: Window, references: Outputs) -> float | None:
    """Return the mean share of an output up to the first token that differs from float32's.

    1 is the same text throughout. None without a float32 cell of the model, and with sampling.
    """
    reference = references.get((spec.model, window.workload))
    workload = next(w for w in spec.workloads if w.id == window.workload)
    if not reference or not is_greedy(workload.parameters):
        return None
    shares = [
        common_prefix(ids, reference[request]) / max(len(ids), len(reference[request]))
        for request, ids in window.output_token_ids.items()
        if reference.get(request)
    ]
    return statistics.fmean(shares) if shares else None
