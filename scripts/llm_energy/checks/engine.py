"""Checks of the engine and the workload: was the work that was asked for the work that was done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from llm_energy.checks.catalogue import Case, Finding, Trace, check

DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
FLOAT_TOLERANCE = 0.25  # buffers, padded vocabularies and tied embeddings stay well within this
QUANTISED_AT_MOST = 0.95  # of the bytes that the same weights have in the compute precision


@check(
    "E03",
    "window",
    "invalid",
    "precision differs from the one asked for",
    "Ask for a precision that this device has, or correct the backend's dtype argument.",
)
def other_precision(case: Case) -> Finding | None:
    """Find an engine that computes in another dtype than its spec asks for."""
    asked = case.measurement.spec.engine.get("dtype")
    used = case.measurement.effective.get("dtype")
    if asked is None or _dtype(asked) == _dtype(used):
        return None
    return Finding({"asked": asked, "used": used}, "warning" if used is None else "invalid")


@check(
    "E04",
    "window",
    "invalid",
    "quantisation not applied",
    "The resident weights are not as small as asked: the engine ignored the quantisation.",
)
def not_quantised(case: Case) -> Finding | None:
    """Compare the resident bytes of the weights with what the precision promises.

    A quantised model keeps its embeddings in the compute precision, so it is only certain to be
    smaller than the same model unquantised. A float model that is far from its expected size is a
    warning.
    """
    parameters = case.workload.parameters
    resident = case.measurement.effective.get("weight_bytes")
    count, size = case.current.parameter_count, DTYPE_BYTES.get(parameters["fp_precision"])
    if count is None or size is None or not isinstance(resident, int):
        return None
    evidence = {
        "weight_bytes": resident,
        "unquantised_bytes": count * size,
        "ratio": resident / (count * size),
    }
    if any(parameters["quantization"].values()):
        return Finding(evidence) if evidence["ratio"] > QUANTISED_AT_MOST else None
    return Finding(evidence, "warning") if abs(evidence["ratio"] - 1) > FLOAT_TOLERANCE else None


@check(
    "E11",
    "window",
    "invalid",
    "output length differs from the forced one",
    "Joules per token of unequal lengths are not the same work; see the engine's length options.",
)
def other_length(case: Case) -> Finding | None:
    """Find requests whose output is not as long as minimum and maximum together force it to be."""
    forced = case.forced_output_tokens
    return _requests(case, "output_tokens", lambda n: forced is not None and n != forced)


@check(
    "E12",
    "window",
    "invalid",
    "early stop in a forced length",
    "The engine obeyed a stop token; it must be ignored where the length is forced.",
)
def early_stop(case: Case) -> Finding | None:
    """Find requests that a stop token ended though their length is forced."""
    forced = case.forced_output_tokens is not None
    return _requests(case, "finish_reason", lambda reason: forced and reason == "stop")


@check(
    "E14",
    "window",
    "invalid",
    "prompt cut or changed",
    "The engine must get the prompt's token ids whole; look at its context length.",
)
def other_prompt_length(case: Case) -> Finding | None:
    """Find requests whose prompt has not as many tokens as the prompt set gave it."""
    wanted, table = case.current.prompt_tokens, case.window.requests
    if wanted is None:
        return None
    pairs = zip(table.request_id, table.prompt_tokens, strict=True)
    wrong = {name: n for name, n in pairs if n != wanted.get(name)}
    return Finding({"count": len(wrong), "prompt_tokens": _some(wrong)}) if wrong else None


@check(
    "E15",
    "sweep",
    "invalid",
    "not the same work",
    "Measure again what was measured with other prompts or weights.",
)
def not_the_same_work(traces: Sequence[Trace]) -> Iterator[tuple[Trace, Finding]]:
    """Find a model, or a workload of it, whose measurements differ in weights or prompt ids."""
    for name, place in (
        ("weights_sha256", lambda t: t.model),
        ("prompts_sha256", lambda t: (t.model, t.key.workload)),
    ):
        hashes: dict[Any, set[str | None]] = {}
        for trace in traces:
            hashes.setdefault(place(trace), set()).add(getattr(trace, name))
        for trace in traces:
            found = hashes[place(trace)]
            if len(found) > 1:
                yield trace, Finding({name: sorted(map(str, found))})


@check(
    "E18",
    "window",
    "invalid",
    "token counts without their ids",
    "Count output tokens from the ids that the engine returns.",
)
def counts_without_ids(case: Case) -> Finding | None:
    """Find requests of the first pass whose count differs from the ids kept of it."""
    ids, table = case.window.output_token_ids, case.window.requests
    first: dict[str, int] = {}
    for name, count in zip(table.request_id, table.output_tokens, strict=True):
        first.setdefault(name, count)
    wrong = {n: c for n, c in first.items() if n not in ids or len(ids[n]) != c}
    wrong |= {name: 0 for name in ids if name not in first}
    return Finding({"count": len(wrong), "output_tokens": _some(wrong)}) if wrong else None


@check(
    "E19",
    "window",
    "invalid",
    "failed requests",
    "Energy was spent on requests without an answer; find out why they failed.",
)
def failed_requests(case: Case) -> Finding | None:
    """Find requests that were aborted, or have no row, or no output."""
    table = case.window.requests
    expected = case.window.passes * case.workload.requests
    rows = zip(table.finish_reason, table.output_tokens, strict=True)
    answered = sum(reason != "abort" and tokens > 0 for reason, tokens in rows)
    if answered == expected == len(table.request_id):
        return None
    return Finding({"expected": expected, "answered": answered, "rows": len(table.request_id)})


@check(
    "E29",
    "window",
    "warning",
    "warm-up not converged",
    "Raise protocol.warmup_max_passes, or look for what slows single passes down.",
)
def not_warm(case: Case) -> Finding | None:
    """Find a window that began though its warm-up passes still differed."""
    if case.window.warmup_converged is not False:
        return None
    return Finding({"warmup_durations_s": [str(d) for d in case.window.warmup_durations_s]})


def _dtype(name: Any) -> str:
    return str(name).removeprefix("torch.")


def _requests(case: Case, column: str, wrong) -> Finding | None:
    """Collect the requests whose value in one column is wrong."""
    table = case.window.requests
    rows = zip(table.request_id, getattr(table, column), strict=True)
    found = [(name, value) for name, value in rows if wrong(value)]
    return Finding({"count": len(found), column: _some(dict(found))}) if found else None


def _some(found: dict[str, Any]) -> dict[str, Any]:
    """Keep five examples, so that evidence stays readable."""
    return dict(list(found.items())[:5])
