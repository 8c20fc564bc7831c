"""Published joules per output token, to hold a measurement of a like model against."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

SAME_WEIGHTS = 0.1  # how far, relatively, a model's weights may be from those of an anchor


@dataclass(frozen=True)
class Anchor:
    """GPU joules per output token of one model on GPUs of one kind, by batch size.

    ``gpu`` is NVML's name of the GPU; weights are 16-bit.
    """

    model: str
    gpu: str
    gpus: int
    weight_bytes: float
    energy_per_output_token_j: Mapping[int, float]


# vLLM 0.11, bfloat16, the task lm-arena-chat: J.-W. Chung et al., ML.ENERGY Leaderboard v3.0, 2025,
# https://github.com/ml-energy/leaderboard; the benchmark is described in arXiv:2505.06371.
SOURCE = "ML.ENERGY Leaderboard v3.0"
H100, B200 = "NVIDIA H100 80GB HBM3", "NVIDIA B200"
ANCHORS = (
    Anchor(
        "Llama 3.1 8B", H100, 1, 16.06e9, {8: 0.455, 32: 0.165, 128: 0.095, 256: 0.077, 512: 0.070}
    ),
    Anchor("Qwen3 32B", H100, 2, 65.5e9, {8: 1.627, 256: 0.228}),
    Anchor("Llama 3.1 70B", H100, 4, 141.1e9, {8: 3.759, 256: 0.479, 1024: 0.373}),
    Anchor("Llama 3.1 8B", B200, 1, 16.06e9, {8: 0.391, 128: 0.098, 512: 0.060, 2048: 0.047}),
)


def anchor_of(gpu: str, gpus: int, weight_bytes: float) -> Anchor | None:
    """Return the anchor whose GPUs are the same and whose weights are about as large, or None."""
    for anchor in ANCHORS:
        size = weight_bytes / anchor.weight_bytes
        if (anchor.gpu, anchor.gpus) == (gpu, gpus) and abs(size - 1) < SAME_WEIGHTS:
            return anchor
    return None


def at_batch_size(anchor: Anchor, batch_size: int) -> float | None:
    """Interpolate an anchor's joules per output token, None outside its batch sizes.

    Both logarithms are taken, since the energy falls about as a power of the batch size.

    >>> at_batch_size(ANCHORS[0], 8)
    0.455
    >>> round(at_batch_size(ANCHORS[0], 64), 3)
    0.125
    """
    points = sorted(anchor.energy_per_output_token_j.items())
    for (low, low_j), (high, high_j) in pairwise(points):
        if low <= batch_size <= high:
            share = math.log(batch_size / low) / math.log(high / low)
            return low_j * (high_j / low_j) ** share
    return None
