"""Hold one window against what its hardware allows: floor, roofline, and use of the peak rates."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from llm_energy.analysis.energy import roofline
from llm_energy.analysis.energy.accounting import work
from llm_energy.analysis.evidence.windows import (
    DTYPE_BYTES,
    WindowEvidence,
    in_flight,
    mapping,
    number,
)

COPIED = "memory copies timed on the host"


@dataclass(frozen=True)
class WindowLimits:
    """What the work of a window takes at least, in J, and how much of the rates it used.

    ``energy_j`` are the measured joules of what did the work, None unless all of it was measured.
    Without a data sheet there is no roofline and no use of the arithmetic; ``rates`` names the
    source of the rates.
    """

    energy_j: float | None
    floor_j: float
    roofline_j: float | None
    mbu: float | None
    mfu: float | None
    rates: str

    @property
    def fault(self) -> str | None:
        """Say what is physically impossible, None where nothing is.

        A processor's cache may be larger than the model, so on one nothing is impossible.
        """
        if self.rates == COPIED:
            return None
        if self.energy_j is not None and self.energy_j < self.floor_j:
            return "fewer joules than the floor"
        if (self.mbu or 0) > 1 or (self.mfu or 0) > 1:
            return "more work than the GPUs can do"
        return None


def window_limits(case: WindowEvidence) -> WindowLimits | str:
    """Return the limits of one window, or the reason why they are not known."""
    measurement, duration_s = case.measurement, case.window.interval.duration_s
    if not duration_s > 0 or not work(case.window).output_tokens:
        return "no output token in the window"
    if measurement.effective.get("speculative_method"):
        return "speculative decoding reads less than once a token"
    needed = demand(case)
    if needed is None:
        return "the model's architecture or its resident bytes are not recorded"
    served = served_work(case)
    gpus = [part for part in case.window.interval.energy if part.component == "gpu"]
    if measurement.effective.get("device_uuids") or any(p.energy_j is not None for p in gpus):
        return _of_gpus(case, needed, served)
    return _of_processor(case, needed, served)


def _of_gpus(
    case: WindowEvidence, needed: roofline.Demand, served: roofline.Work
) -> WindowLimits | str:
    gpus, unknown = _gpus(case)
    if unknown or not gpus:
        return f"no data sheet of {unknown or 'the GPUs'} in hardware.json"
    kinds = list(gpus.values())
    limit_w = sum(_limit_w(case, uuid, gpu) for uuid, gpu in gpus.items())
    read = roofline.read_bytes(needed, served, len(kinds))
    flop = roofline.decode_flop(needed, served)
    all_flop = flop + roofline.prefill_flop(needed, served)
    duration_s = case.window.interval.duration_s
    return WindowLimits(
        energy_j=_measured_j(case, ("gpu",)),
        floor_j=roofline.floor_j(read, flop, kinds, limit_w),
        roofline_j=roofline.roofline_j(read, all_flop, kinds, limit_w),
        mbu=roofline.memory_use(read, duration_s, kinds),
        mfu=roofline.compute_use(all_flop, duration_s, kinds),
        rates="; ".join(dict.fromkeys(gpu.source for gpu in kinds)),
    )


def _of_processor(
    case: WindowEvidence, needed: roofline.Demand, served: roofline.Work
) -> WindowLimits | str:
    """Return the memory's part alone; ordinary memory takes no less than that of a GPU."""
    rate = case.measurement.host.copy_bytes_per_s
    if not rate:
        return "the host's memory was not timed"
    read = roofline.read_bytes(needed, served, 0)
    return WindowLimits(
        energy_j=_measured_j(case, ("cpu", "dram")),
        floor_j=8 * read * roofline.MEMORY_ENERGY_J_PER_BIT,
        roofline_j=None,
        mbu=read / case.window.interval.duration_s / rate,
        mfu=None,
        rates=COPIED,
    )


def gpu_energy_j(case: WindowEvidence) -> float | None:
    """Add the joules of the GPUs, None unless each was measured."""
    return _measured_j(case, ("gpu",))


def _measured_j(case: WindowEvidence, components: tuple[str, ...]) -> float | None:
    parts = [part for part in case.window.interval.energy if part.component in components]
    if not parts or any(part.status != "measured" for part in parts):
        return None
    total = math.fsum(part.energy_j for part in parts)
    return total if math.isfinite(total) else None


def gpus_of(case: WindowEvidence) -> dict[str, roofline.Gpu]:
    """Return the metered GPUs by UUID, nothing unless each has a data sheet."""
    found, unknown = _gpus(case)
    return {} if unknown else found


def _gpus(case: WindowEvidence) -> tuple[dict[str, roofline.Gpu], str | None]:
    """Return the metered GPUs that have a data sheet, and the name of one that has none."""
    quantised = case.measurement.effective.get("quantization") is not None
    quantised = quantised or any(case.workload.parameters["quantization"].values())
    described = {gpu.get("uuid"): gpu for gpu in case.measurement.host.gpus}
    found = {}
    for part in case.window.interval.energy:
        if part.component == "gpu":
            name = described.get(part.device, {}).get("name")
            gpu = roofline.gpu_named(name, quantised=quantised)
            if gpu is None:
                return found, f"'{name}'"
            found[str(part.device)] = gpu
    return found, None


def _limit_w(case: WindowEvidence, uuid: str, gpu: roofline.Gpu) -> float:
    described = {gpu.get("uuid"): gpu for gpu in case.measurement.host.gpus}
    return number(described.get(uuid, {}), "power_limit_w") or gpu.power_w


def demand(case: WindowEvidence) -> roofline.Demand | None:
    """Return the least demand of the model; None where it is not described."""
    used = case.measurement.effective
    told = mapping(used, "architecture")
    architecture = {name: told[name] for name in told if (number(told, name) or -1) > 0}
    architecture |= {k: told[k] for k in ("model_type", "tie_word_embeddings") if k in told}
    resident, size = number(used, "weight_bytes"), DTYPE_BYTES.get(str(used.get("dtype")))
    parameters = case.expected.parameter_count or case.measurement.parameter_count
    if not (architecture and resident and size and parameters):
        return None
    cache = str(used.get("kv_cache_dtype") or "auto")
    kv_size = 1 if "8" in cache else DTYPE_BYTES.get(cache, size)
    return roofline.demand(architecture, parameters, int(resident), size, kv_size)


def served_work(case: WindowEvidence) -> roofline.Work:
    """Return what was served in the window, all requests together."""
    table = case.window.requests
    context = 0
    # Of timed traffic, as if the tokens inside the window were each answer's first: they had the
    # shortest context.
    outputs = table.output_tokens_inside or table.output_tokens
    lengths = Counter(zip(table.prompt_tokens, outputs, strict=True))
    for (prompt, output), count in lengths.items():
        decoded = max(0, output - 1)
        context += count * (decoded * prompt + decoded * (decoded + 1) // 2)
    done = work(case.window)
    return roofline.Work(
        requests=len(table.request_id),
        batch_size=in_flight(case),
        prompt_tokens=done.prompt_tokens - sum(table.cached_prompt_tokens),
        output_tokens=done.output_tokens,
        context_tokens=context,
    )
