"""Bound from below what decoding can cost: energy floor, GPU roofline, use of the peak rates.

Each token must read the weights and its context from the GPU's memory, and multiply by the
weights. What is left out here (attention, activations, whatever else the GPU does) costs more, so
a measured energy below the floor, or a rate above the peak, shows a mistake and not a record.

Symbols: a step reads the weights once for all requests of a batch, so a token reads
``weight_bytes / batch_size + kv_bytes * context_tokens``, and computes two floating-point
operations for each parameter (Pope et al., Efficiently Scaling Transformer Inference, 2022,
arXiv:2211.05102).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

# The constants and data sheets, each with its source; the standard library alone can read them.
HARDWARE = json.loads(Path(__file__).with_name("hardware.json").read_text(encoding="utf-8"))
MEMORY_ENERGY_J_PER_BIT = HARDWARE["memory_energy_j_per_bit"]["value"]
CACHE_BYTES = HARDWARE["cache_bytes"]["value"]
MACHINE_BALANCE = HARDWARE["machine_balance_flop_per_byte"]["value"]
QUANTISED_SPEED_UP = HARDWARE["quantised_speed_up"]["value"]

# Models whose every layer attends to the whole context and keeps plain keys and values of it.
PLAIN_ATTENTION = {"llama", "mistral", "opt", "phi3", "qwen2", "qwen3", "qwen3_moe", "mixtral"}


@dataclass(frozen=True)
class Gpu:
    """The peak rates of a GPU, as its maker gives them: dense, on 16-bit numbers."""

    bandwidth_bytes_per_s: float
    peak_flop_per_s: float
    power_w: float
    source: str


# By the name that NVML gives, without "NVIDIA".
GPUS = {
    name: Gpu(
        bandwidth_bytes_per_s=rates["gb_per_s"] * 1e9,
        peak_flop_per_s=rates["tflop_per_s"] * 1e12,
        power_w=rates["power_w"],
        source=sheet["source"],
    )
    for sheet in HARDWARE["boards"]
    for name, rates in sheet["rates"].items()
}


def gpu_named(name: Any, *, quantised: bool = False) -> Gpu | None:
    """Return the GPU with NVML's ``name``, or None for one that is not known here.

    For quantised weights its peak rate is that of the smallest numbers it could multiply.

    >>> gpu_named("NVIDIA H100 80GB HBM3").power_w
    700
    >>> gpu_named("NVIDIA A100-SXM4-40GB MIG 1g.5gb") is None
    True
    """
    gpu = GPUS.get(str(name).removeprefix("NVIDIA "))
    if gpu is None or not quantised:
        return gpu
    return replace(gpu, peak_flop_per_s=QUANTISED_SPEED_UP * gpu.peak_flop_per_s)


@dataclass(frozen=True)
class Demand:
    """The least that a model makes its GPUs do.

    ``weight_bytes`` are read at each step, ``body_parameters`` multiplied for each token that is
    read or made, ``head_parameters`` for each that is made, ``kv_bytes`` read for each token of a
    made token's context.
    """

    weight_bytes: float
    body_parameters: float
    head_parameters: float
    kv_bytes: float = 0.0


def demand(
    architecture: Mapping[str, Any],
    parameters: int,
    weight_bytes: int,
    bytes_per_number: int,
    bytes_per_kv_number: int,
) -> Demand | None:
    """Read the least demand off a model's configuration, None where that does not say enough.

    ``architecture`` has the names of Hugging Face's ``config.json``. Of an untied input embedding
    single rows are read, so it does not count; of a layer of experts a token needs
    ``num_experts_per_tok``, whichever they are. The keys and values count only for models that are
    known to keep them plainly.
    """
    get = architecture.get
    hidden, vocabulary, layers = get("hidden_size"), get("vocab_size"), get("num_hidden_layers")
    if not (hidden and vocabulary and layers) or "tie_word_embeddings" not in architecture:
        return None
    table = hidden * vocabulary
    tables = 1 if get("tie_word_embeddings") else 2
    idle = 0.0  # parameters of experts that a token may do without
    experts = get("num_experts") or get("num_local_experts") or get("n_routed_experts") or 1
    if experts > 1:
        width = get("moe_intermediate_size") or get("intermediate_size")
        needed = get("num_experts_per_tok")
        if not width or not needed:
            return None
        # Three matrices make up an expert: gate, up and down.
        idle = layers * (experts - needed) * 3 * hidden * width
    unread_bytes = (tables - 1) * table * bytes_per_number + weight_bytes * idle / parameters
    kv_bytes = 0.0
    heads = get("num_attention_heads")
    if str(get("model_type")) in PLAIN_ATTENTION and not get("sliding_window") and heads:
        kv_numbers = 2 * layers * (get("num_key_value_heads") or heads)
        kv_bytes = kv_numbers * (get("head_dim") or hidden // heads) * bytes_per_kv_number
    return Demand(
        weight_bytes=max(0.0, weight_bytes - unread_bytes),
        body_parameters=max(0.0, parameters - tables * table - idle),
        head_parameters=table,
        kv_bytes=kv_bytes,
    )


@dataclass(frozen=True)
class Work:
    """What was served, all requests together.

    ``prompt_tokens`` are those that were computed, not taken from a cache. ``context_tokens`` adds,
    over the output tokens after each request's first, how many tokens came before.
    """

    requests: int
    batch_size: int
    prompt_tokens: int
    output_tokens: int
    context_tokens: int

    @property
    def steps(self) -> float:
        """Return the least number of decoding steps; a request's first token is the prefill's."""
        return max(0, self.output_tokens - self.requests) / self.batch_size


def read_bytes(demand: Demand, work: Work, gpus: int) -> float:
    """Return the least bytes that the GPUs' memories must deliver to decode."""
    per_step = max(0.0, demand.weight_bytes - gpus * CACHE_BYTES)
    return per_step * work.steps + demand.kv_bytes * work.context_tokens


def decode_flop(demand: Demand, work: Work) -> float:
    """Return the least floating-point operations for the output tokens."""
    return 2 * (demand.body_parameters + demand.head_parameters) * work.output_tokens


def prefill_flop(demand: Demand, work: Work) -> float:
    """Return least floating-point operations for the prompts, the last token's head left out."""
    return 2 * demand.body_parameters * max(0, work.prompt_tokens - work.requests)


def floor_j(read_bytes: float, flop: float, gpus: Sequence[Gpu], limit_w: float) -> float:
    """Return the least energy: memory accesses, and operations at the GPU's best rate per joule.

    ``limit_w`` is what the GPUs together may draw; below it their operations are as cheap as at
    their peak rate, since a limited GPU slows down to run more efficiently.
    """
    peak = sum(gpu.peak_flop_per_s for gpu in gpus)
    power_w = min(limit_w, sum(gpu.power_w for gpu in gpus))
    return 8 * read_bytes * MEMORY_ENERGY_J_PER_BIT + flop * power_w / peak


def roofline_j(read_bytes: float, flop: float, gpus: Sequence[Gpu], limit_w: float) -> float:
    """Return the energy of GPUs that draw their limit and are held up by memory or arithmetic only.

    The time is that of the roofline model (Williams et al., CACM 52(4), 2009).
    """
    return limit_w * max(memory_use(read_bytes, 1.0, gpus), compute_use(flop, 1.0, gpus))


def memory_use(read_bytes: float, duration_s: float, gpus: Sequence[Gpu]) -> float:
    """Return the model bandwidth utilisation (MBU): bytes per second over the peak bandwidth."""
    return read_bytes / duration_s / sum(gpu.bandwidth_bytes_per_s for gpu in gpus)


def compute_use(flop: float, duration_s: float, gpus: Sequence[Gpu]) -> float:
    """Return the model FLOP utilisation (MFU): operations per second over the peak rate."""
    return flop / duration_s / sum(gpu.peak_flop_per_s for gpu in gpus)
