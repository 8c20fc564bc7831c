"""How far the outputs of a precision agree with those of the same model and backend in float32."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

from llm_energy.analysis.equivalence import common_prefix
from llm_energy.records import Measurement, Spec, Verdict, Window, is_greedy, read_record

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
