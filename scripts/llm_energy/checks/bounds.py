"""Checks against physics and against what others have published."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence

from llm_energy import anchors, bounds
from llm_energy.checks.accounting import work
from llm_energy.checks.catalogue import Case, Finding, Trace, check
from llm_energy.checks.engine import DTYPE_BYTES
from llm_energy.checks.reported import in_flight, mapping, number

FAR = 5.0
# The anchors' prompts are about as long as their outputs; of longer ones the prefill would weigh.
LONGEST_PROMPTS = 2


@check(
    "E25",
    "window",
    "invalid",
    "below the physical floor",
    "Something is miscounted: the boards that were metered, the tokens, or the prompts computed.",
)
def below_floor(case: Case) -> Finding | None:
    """Find fewer joules than memory and arithmetic take, or more work than the boards can do.

    Needs boards that are in the table, all of them metered, and the model's architecture.
    """
    energy_j, duration_s = _gpu_energy_j(case), case.window.interval.duration_s
    boards, demand = _boards(case), _demand(case)
    if energy_j is None or not boards or demand is None or not duration_s > 0:
        return None
    work = _work(case)
    if not work.output_tokens or case.measurement.effective.get("speculative_method"):
        return None
    read = bounds.read_bytes(demand, work, len(boards))
    flop = bounds.decode_flop(demand, work)
    limit_w = sum(_limit_w(case, uuid, board) for uuid, board in boards.items())
    kinds = list(boards.values())
    floor_j = bounds.floor_j(read, flop, kinds, limit_w)
    all_flop = flop + bounds.prefill_flop(demand, work)
    evidence = {
        "energy_j": energy_j,
        "floor_j": floor_j,
        "roofline_j": bounds.roofline_j(read, all_flop, kinds, limit_w),
        "x_floor": energy_j / floor_j if floor_j > 0 else None,
        "mbu": bounds.memory_use(read, duration_s, kinds),
        "mfu": bounds.compute_use(all_flop, duration_s, kinds),
    }
    impossible = energy_j < floor_j or evidence["mbu"] > 1 or evidence["mfu"] > 1
    return Finding(evidence) if impossible else None


@check(
    "E26",
    "window",
    "warning",
    "far from published measurements",
    "Find the cause before you publish: another load on the board, a stalled engine, a unit.",
)
def far_from_anchor(case: Case) -> Finding | None:
    """Find joules per output token five times above, or below, those published of a like cell.

    Those are of a busy engine; one that waits for requests needs any number of joules a token.
    """
    if case.window.traffic is not None:
        return None
    energy_j, boards = _gpu_energy_j(case), _boards(case)
    resident = number(case.measurement.effective, "weight_bytes")
    unquantised = not any(case.workload.parameters["quantization"].values())
    if energy_j is None or not boards or not resident or not unquantised:
        return None
    if DTYPE_BYTES.get(str(case.measurement.effective.get("dtype"))) != 2:
        return None
    names = {str(gpu["name"]) for gpu in case.measurement.host.gpus if gpu.get("uuid") in boards}
    anchor = anchors.anchor_of(names.pop(), len(boards), resident) if len(names) == 1 else None
    published_j = anchors.at_batch_size(anchor, in_flight(case)) if anchor else None
    if anchor is None or published_j is None:
        return None
    work = _work(case)
    if not 0 < work.prompt_tokens <= LONGEST_PROMPTS * work.output_tokens:
        return None
    measured_j = energy_j / work.output_tokens
    if 1 / FAR <= measured_j / published_j <= FAR:
        return None
    return Finding(
        {
            "energy_per_output_token_j": measured_j,
            "published_j": published_j,
            "of": f"{anchor.model}, {anchor.boards} x {anchor.board}, batch {work.batch_size}",
            "source": anchors.SOURCE,
        }
    )


@check(
    "E31",
    "sweep",
    "warning",
    "far from the other repeats of its cell",
    "Find what was different: one of the two kinds of repeat did not do the cell's work.",
)
def far_from_other_repeats(traces: Sequence[Trace]) -> Iterator[tuple[Trace, Finding]]:
    """Find joules per output token five times above, or below, the median of the other repeats."""
    groups: dict[tuple[str, str], list[Trace]] = {}
    for trace in traces:
        value_j = trace.energy_per_output_token_j
        if value_j is not None and 0 < value_j < math.inf:
            groups.setdefault((trace.key.cell, trace.key.workload), []).append(trace)
    for group in groups.values():
        values_j = [trace.energy_per_output_token_j for trace in group]
        for place, trace in enumerate(group):
            others_j = values_j[:place] + values_j[place + 1 :]
            usual_j = statistics.median(others_j or values_j)
            if not 1 / FAR <= values_j[place] / usual_j <= FAR:
                evidence = {"energy_per_output_token_j": values_j[place], "others_j": usual_j}
                yield trace, Finding(evidence)


def _gpu_energy_j(case: Case) -> float | None:
    """Add the joules of the boards, None unless each was measured."""
    parts = [part for part in case.window.interval.energy if part.component == "gpu"]
    if not parts or any(part.status != "measured" for part in parts):
        return None
    return number({"sum": sum(part.energy_j for part in parts)}, "sum")


def _boards(case: Case) -> dict[str, bounds.Board]:
    """Give the metered boards by UUID, nothing unless each is in the table."""
    quantised = case.measurement.effective.get("quantization") is not None
    quantised = quantised or any(case.workload.parameters["quantization"].values())
    described = {gpu.get("uuid"): gpu for gpu in case.measurement.host.gpus}
    found = {}
    for part in case.window.interval.energy:
        if part.component == "gpu":
            name = described.get(part.device, {}).get("name")
            board = bounds.board_named(name, quantised=quantised)
            if board is None:
                return {}
            found[str(part.device)] = board
    return found


def _limit_w(case: Case, uuid: str, board: bounds.Board) -> float:
    described = {gpu.get("uuid"): gpu for gpu in case.measurement.host.gpus}
    return number(described.get(uuid, {}), "power_limit_w") or board.power_w


def _demand(case: Case) -> bounds.Demand | None:
    """Give the least demand of the model; None where the engine does not describe it."""
    used = case.measurement.effective
    told = mapping(used, "architecture")
    architecture = {name: told[name] for name in told if (number(told, name) or -1) > 0}
    architecture |= {k: told[k] for k in ("model_type", "tie_word_embeddings") if k in told}
    resident, size = number(used, "weight_bytes"), DTYPE_BYTES.get(str(used.get("dtype")))
    parameters = case.current.parameter_count
    if not (architecture and resident and size and parameters):
        return None
    cache = str(used.get("kv_cache_dtype") or "auto")
    kv_size = 1 if "8" in cache else DTYPE_BYTES.get(cache, size)
    return bounds.demand(architecture, parameters, int(resident), size, kv_size)


def _work(case: Case) -> bounds.Work:
    table = case.window.requests
    context = 0
    # Of timed traffic, as if the tokens inside the window were each answer's first: they had the
    # shortest context.
    outputs = table.output_tokens_inside or table.output_tokens
    for prompt, output in zip(table.prompt_tokens, outputs, strict=True):
        decoded = max(0, output - 1)
        context += decoded * prompt + decoded * (decoded + 1) // 2
    done = work(case.window)
    return bounds.Work(
        requests=len(table.request_id),
        batch_size=in_flight(case),
        prompt_tokens=done.prompt_tokens - sum(table.cached_prompt_tokens),
        output_tokens=done.output_tokens,
        context_tokens=context,
    )
