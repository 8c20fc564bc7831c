"""Checks of the work: were the requests answered that were asked, and their tokens counted."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from llm_energy.analysis.checks.catalogue import Finding, check
from llm_energy.analysis.evidence.windows import (
    WindowEvidence,
    WindowSummary,
    integers,
    is_continuous,
    mapping,
    number,
    some,
)

CUT_SHARE = 0.3
WASTED_SHARE = 0.5
# Greedy text of a small model repeats itself; one id from the first token to the last of most
# requests is no text. Shorter outputs prove nothing.
SAME_ID_TOKENS = 16
# The most likely of undefined logits is the first id.
FIRST_ID_TOKENS = 8

EXPLAINED = {
    "E23": "Closed by construction: output tokens are counted from the ids that the engine made, "
    "so none of them can be hidden, whatever they stand for.",
}


@check(
    "E11",
    "window",
    "invalid",
    "output length differs from the forced one",
    "Joules per token of unequal lengths are not the same work; see the engine's length options.",
)
def other_length(case: WindowEvidence) -> Finding | None:
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
def early_stop(case: WindowEvidence) -> Finding | None:
    """Find requests that a stop token ended though their length is forced."""
    forced = case.forced_output_tokens is not None
    return _requests(case, "finish_reason", lambda reason: forced and reason == "stop")


@check(
    "E13",
    "window",
    "warning",
    "answers cut at the longest length",
    "Raise max_output_tokens, or force a length: joules per response of cut answers say little.",
)
def cut_answers(case: WindowEvidence) -> Finding | None:
    """Find a free output length that over 30 % of the requests did not end by themselves in."""
    reasons = case.window.requests.finish_reason
    cut = reasons.count("length")
    if case.forced_output_tokens is not None or cut <= CUT_SHARE * len(reasons):
        return None
    return Finding({"cut": cut, "of": len(reasons)})


@check(
    "E14",
    "window",
    "invalid",
    "prompt cut or changed",
    "The engine must get the prompt's token ids whole; look at its context length.",
)
def other_prompt_length(case: WindowEvidence) -> Finding | None:
    """Find requests whose prompt has not as many tokens as the prompt set gave it, or no room."""
    wanted, table = case.expected.prompt_tokens, case.window.requests
    if wanted is not None:
        pairs = zip(table.request_id, table.prompt_tokens, strict=True)
        if wrong := {name: n for name, n in pairs if n != wanted.get(name)}:
            return Finding({"count": len(wrong), "prompt_tokens": some(wrong)})
    context = number(case.measurement.effective, "max_model_len")
    if context is None or context <= 0:
        return None
    longest = max(map(operator.add, table.prompt_tokens, table.output_tokens), default=0)
    if longest <= context:
        return None
    return Finding({"longest_request": longest, "max_model_len": context})


@check(
    "E15",
    "sweep",
    "invalid",
    "not the same work",
    "Measure again what was measured with other prompts, arrivals or weights.",
)
def not_the_same_work(
    summaries: Sequence[WindowSummary],
) -> Iterator[tuple[WindowSummary, Finding]]:
    """Find a model, or a workload, whose measurements differ in weights, prompt ids or arrivals."""
    for name, place in (
        ("weights_sha256", lambda t: t.model),
        ("prompts_sha256", lambda t: (t.model, t.key.workload, t.resampled and t.key.repeat)),
        ("arrivals_sha256", lambda t: (t.key.workload, t.key.repeat)),  # each block has its own
    ):
        hashes: dict[Any, set[str | None]] = {}
        for summary in summaries:
            hashes.setdefault(place(summary), set()).add(getattr(summary, name))
        for summary in summaries:
            found = hashes[place(summary)]
            if len(found) > 1:
                yield summary, Finding({name: sorted(map(str, found))})


@check(
    "E17",
    "window",
    "note",
    "padding",
    "Order prompts by length, batch them dynamically, or use a backend that does not pad.",
)
def padding(case: WindowEvidence) -> Finding | None:
    """Find pad tokens that were counted as output, which is invalid, or that cost much of the work.

    The latter are more pad than prompt tokens, or static batches of which less than half the rows'
    output steps were useful, since they wait for their longest answer.
    """
    if counted := _pads_counted(case):
        return Finding({"count": len(counted), "pad_tokens": some(counted)}, "invalid")
    table = case.window.requests
    pads, prompts = sum(table.padding_tokens), sum(table.prompt_tokens)
    wasted = {}
    if pads > WASTED_SHARE * (pads + prompts):
        wasted["padding_share"] = pads / (pads + prompts)
    if (occupancy := _batch_occupancy(case)) is not None and occupancy < 1 - WASTED_SHARE:
        wasted["batch_occupancy"] = occupancy
    return Finding(wasted) if wasted else None


@check(
    "E18",
    "window",
    "invalid",
    "token counts without their ids",
    "Count output tokens from the ids that the engine returns.",
)
def counts_without_ids(case: WindowEvidence) -> Finding | None:
    """Find requests of the first pass whose count differs from the ids kept of it.

    Counts by the usage block of a server that gives no ids are a note.
    """
    if case.window.effective.get("token_source") == "usage" and not case.window.output_token_ids:
        return Finding({"token_source": "usage"}, "note")
    ids, table = case.window.output_token_ids, case.window.requests
    first: dict[str, int] = {}
    for name, count in zip(table.request_id, table.output_tokens, strict=True):
        first.setdefault(name, count)
    wrong = {n: c for n, c in first.items() if n not in ids or len(ids[n]) != c}
    wrong |= {name: 0 for name in ids if name not in first}
    return Finding({"count": len(wrong), "output_tokens": some(wrong)}) if wrong else None


@check(
    "E19",
    "window",
    "invalid",
    "failed requests",
    "Energy was spent on requests without an answer; find out why they failed.",
)
def failed_requests(case: WindowEvidence) -> Finding | None:
    """Find requests that were aborted, or have no row, or no output."""
    table = case.window.requests
    expected = case.window.passes * case.workload.requests
    if case.window.traffic is not None:  # every request of the traffic is served to its end
        expected = len(table.request_id)
    rows = zip(table.finish_reason, table.output_tokens, strict=True)
    answered = sum(reason != "abort" and tokens > 0 for reason, tokens in rows)
    if answered == expected == len(table.request_id):
        return None
    return Finding({"expected": expected, "answered": answered, "rows": len(table.request_id)})


@check(
    "E20",
    "window",
    "warning",
    "output that is no text",
    "Look at the answers: a broken kernel, precision or checkpoint makes such output.",
)
def degenerate(case: WindowEvidence) -> Finding | None:
    """Find ids outside the vocabulary, which is invalid, and answers that are one id throughout.

    Repetition is usual where a small model decodes greedily, so only the extreme counts: the first
    id alone in every answer, as undefined logits give it, or any one id in most long answers.
    """
    answers = case.window.output_token_ids
    vocabulary = number(mapping(case.measurement.effective, "architecture"), "vocab_size")
    highest = float("inf") if vocabulary is None else vocabulary
    strange = {
        name: [min(ids), max(ids)]
        for name, ids in answers.items()
        if ids and (min(ids) < 0 or max(ids) >= highest)
    }
    if strange:
        return Finding({"count": len(strange), "lowest_and_highest": some(strange)}, "invalid")
    if answers and all(len(i) >= FIRST_ID_TOKENS and not any(i) for i in answers.values()):
        return Finding({"only_id": 0, "of": len(answers)})
    same = {
        name: ids[0]
        for name, ids in answers.items()
        if len(ids) >= SAME_ID_TOKENS and len(set(ids)) == 1
    }
    if 2 * len(same) <= len(answers):
        return None
    return Finding({"count": len(same), "of": len(answers), "only_id": some(same)})


def _requests(case: WindowEvidence, column: str, wrong: Callable[[Any], bool]) -> Finding | None:
    """Collect the requests whose value in one column is wrong."""
    values = getattr(case.window.requests, column)
    strange = set(filter(wrong, set(values)))  # most columns have few different values
    if not strange:
        return None
    rows = zip(case.window.requests.request_id, values, strict=True)
    found = [(name, value) for name, value in rows if value in strange]
    return Finding({"count": len(found), column: some(dict(found))})


def _pads_counted(case: WindowEvidence) -> dict[str, int]:
    """Return, by request, how many pads follow the end of its answer; a forced length has none."""
    ends = set(integers(case.window.effective, "eos_token_ids"))
    pad = number(case.measurement.effective, "pad_token_id")
    if case.forced_output_tokens is not None or not ends or pad is None:
        return {}
    found = {}
    for name, ids in case.window.output_token_ids.items():
        end = next((place for place, token in enumerate(ids) if token in ends), len(ids))
        after = ids[end + 1 :]
        if after and set(after) == {pad}:
            found[name] = len(after)
    return found


def _batch_occupancy(case: WindowEvidence) -> float | None:
    """Return the share of a static batch's output steps in which a row was still being answered."""
    strategy = case.workload.parameters["batching"]["strategy"]
    if case.window.traffic is not None:
        return None
    if strategy != "static" or is_continuous(case) or not case.workload.requests:
        return None
    lengths, size = case.window.requests.output_tokens, case.workload.batch_size
    if size == 1:  # nobody to wait for
        return 1.0
    steps = 0
    for start in range(0, len(lengths), case.workload.requests):
        one_pass = lengths[start : start + case.workload.requests]
        for begin in range(0, len(one_pass), size):
            batch = one_pass[begin : begin + size]
            steps += len(batch) * max(batch)
    return sum(lengths) / steps if steps else None
