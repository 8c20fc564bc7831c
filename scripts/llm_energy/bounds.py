"""Bound from below what decoding can cost: energy floor, board roofline, use of the peak rates.

Each token must read the weights and its context from the board's memory, and multiply by the
weights. What is left out here (attention, activations, whatever else the board does) costs more, so
a measured energy below the floor, or a rate above the peak, shows a mistake and not a record.

Symbols: a step reads the weights once for all requests of a batch, so a token reads
``weight_bytes / batch_size + kv_bytes * context_tokens``, and computes two floating-point
operations for each parameter (Pope et al., Efficiently Scaling Transformer Inference, 2022,
arXiv:2211.05102).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

# One access to HBM2, with its share of opening rows: O'Connor et al., Fine-Grained DRAM, MICRO-50,
# 2017, section 2 (doi:10.1145/3123939.3124545). GDDR5 takes 14 pJ there. Newer HBM takes somewhat
# less than HBM2, which all else that a board draws power for outweighs many times.
MEMORY_ENERGY_J_PER_BIT = 3.92e-12
# More than the last-level cache of any board below; what is in there need not be read again.
CACHE_BYTES = 128 * 2**20
# Tensor cores multiply 4-bit numbers at most four times as fast as 16-bit ones (NVIDIA Blackwell
# architecture technical brief, 2024).
QUANTISED_SPEED_UP = 4

# Models whose every layer attends to the whole context and keeps plain keys and values of it.
PLAIN_ATTENTION = {"llama", "mistral", "opt", "phi3", "qwen2", "qwen3", "qwen3_moe", "mixtral"}


@dataclass(frozen=True)
class Board:
    """The peak rates of a board, as its maker gives them: dense, on 16-bit numbers."""

    bandwidth_bytes_per_s: float
    peak_flop_per_s: float
    power_w: float
    source: str


# By source, and then by the name that NVML gives, without "NVIDIA": GB/s, TFLOP/s, W.
DATA_SHEETS: dict[str, dict[str, tuple[float, float, float]]] = {
    "NVIDIA V100 Tensor Core GPU, data sheet, 2020": {
        "Tesla V100-SXM2-16GB": (900, 125, 300),
        "Tesla V100-SXM2-32GB": (900, 125, 300),
        "Tesla V100-PCIE-16GB": (900, 112, 250),
        "Tesla V100-PCIE-32GB": (900, 112, 250),
    },
    "NVIDIA T4 Tensor Core GPU, data sheet, 2019": {"Tesla T4": (320, 65, 70)},
    "NVIDIA A100 Tensor Core GPU, data sheet, 2021": {
        "A100-SXM4-40GB": (1555, 312, 400),
        "A100-SXM4-80GB": (2039, 312, 400),
        "A100-PCIE-40GB": (1555, 312, 250),
        "A100 80GB PCIe": (1935, 312, 300),
    },
    "NVIDIA A10 Tensor Core GPU, data sheet, 2021": {"A10": (600, 125, 150)},
    "NVIDIA A30 Tensor Core GPU, data sheet, 2021": {"A30": (933, 165, 165)},
    "NVIDIA A40, data sheet, 2021": {"A40": (696, 149.7, 300)},
    "NVIDIA RTX A6000, data sheet, 2021": {"RTX A6000": (768, 154.8, 300)},
    "NVIDIA L4 Tensor Core GPU, data sheet, 2023": {"L4": (300, 121, 72)},
    "NVIDIA L40S, data sheet, 2023": {"L40S": (864, 362, 350)},
    "NVIDIA H100 Tensor Core GPU, data sheets, 2022 and 2024": {
        "H100 80GB HBM3": (3350, 989.4, 700),
        "H100 PCIe": (2000, 756, 350),
        "H100 NVL": (3900, 835.5, 400),
    },
    "NVIDIA H200 Tensor Core GPU, data sheet, 2024": {
        "H200": (4800, 989.4, 700),
        "H200 NVL": (4800, 835.5, 600),
    },
    "NVIDIA DGX B200, data sheet, 2024": {"B200": (8000, 2250, 1000)},
    # With sums in 16 bits, twice as fast as with sums in 32: the peak is never set too low.
    "NVIDIA Ampere GA102 GPU architecture, white paper, 2021": {
        "GeForce RTX 3090": (936, 142, 350)
    },
    "NVIDIA Ada GPU architecture, white paper, 2022": {"GeForce RTX 4090": (1008, 330.3, 450)},
}
BOARDS = {
    name: Board(gb_per_s * 1e9, tflop_per_s * 1e12, power_w, source)
    for source, boards in DATA_SHEETS.items()
    for name, (gb_per_s, tflop_per_s, power_w) in boards.items()
}


def board_named(name: Any, *, quantised: bool = False) -> Board | None:
    """Give the board with NVML's ``name``, or None for one that is not known here.

    For quantised weights its peak rate is that of the smallest numbers it could multiply.

    >>> board_named("NVIDIA H100 80GB HBM3").power_w
    700
    >>> board_named("NVIDIA A100-SXM4-40GB MIG 1g.5gb") is None
    True
    """
    board = BOARDS.get(str(name).removeprefix("NVIDIA "))
    if board is None or not quantised:
        return board
    return replace(board, peak_flop_per_s=QUANTISED_SPEED_UP * board.peak_flop_per_s)


@dataclass(frozen=True)
class Demand:
    """The least that a model makes its boards do.

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
        """Give the least number of decoding steps; a request's first token is the prefill's."""
        return max(0, self.output_tokens - self.requests) / self.batch_size


def read_bytes(demand: Demand, work: Work, boards: int) -> float:
    """Give the least bytes that the boards' memories must deliver to decode."""
    per_step = max(0.0, demand.weight_bytes - boards * CACHE_BYTES)
    return per_step * work.steps + demand.kv_bytes * work.context_tokens


def decode_flop(demand: Demand, work: Work) -> float:
    """Give the least floating-point operations for the output tokens."""
    return 2 * (demand.body_parameters + demand.head_parameters) * work.output_tokens


def prefill_flop(demand: Demand, work: Work) -> float:
    """Give the least floating-point operations for the prompts, the last token's head left out."""
    return 2 * demand.body_parameters * max(0, work.prompt_tokens - work.requests)


def floor_j(read_bytes: float, flop: float, boards: Sequence[Board], limit_w: float) -> float:
    """Give the least energy: memory accesses, and operations at the board's best rate per joule.

    ``limit_w`` is what the boards together may draw; below it their operations are as cheap as at
    their peak rate, since a limited board slows down to run more efficiently.
    """
    peak = sum(board.peak_flop_per_s for board in boards)
    power_w = min(limit_w, sum(board.power_w for board in boards))
    return 8 * read_bytes * MEMORY_ENERGY_J_PER_BIT + flop * power_w / peak


def roofline_j(read_bytes: float, flop: float, boards: Sequence[Board], limit_w: float) -> float:
    """Give the energy of boards that draw their limit and are held up by memory or arithmetic only.

    The time is that of the roofline model (Williams et al., CACM 52(4), 2009).
    """
    return limit_w * max(memory_use(read_bytes, 1.0, boards), compute_use(flop, 1.0, boards))


def memory_use(read_bytes: float, duration_s: float, boards: Sequence[Board]) -> float:
    """Give the model bandwidth utilisation (MBU): bytes per second over the peak bandwidth."""
    return read_bytes / duration_s / sum(board.bandwidth_bytes_per_s for board in boards)


def compute_use(flop: float, duration_s: float, boards: Sequence[Board]) -> float:
    """Give the model FLOP utilisation (MFU): operations per second over the peak rate."""
    return flop / duration_s / sum(board.peak_flop_per_s for board in boards)
