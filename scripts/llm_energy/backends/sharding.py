"""What a way of spreading a cell over devices needs, as far as it is known before it loads."""

from __future__ import annotations

from typing import Any

from llm_energy.inputs.models.config import text_config
from llm_energy.records import Sharding


def refusals(
    sharding: Sharding, backend: str, parameters: dict[str, Any], config: dict[str, Any]
) -> list[str]:
    """Say why a backend cannot serve a cell in this way; ``config`` is the model's, or empty."""
    found = []
    name = f"sharding.strategy {sharding.strategy}"
    # Where the measuring process starts the ranks, each of them goes by its own clock.
    own_ranks = sharding.strategy == "data_parallel"
    if sharding.strategy == "tensor_parallel":
        pytorch = backend == "pytorch"
        own_ranks = pytorch
        if pytorch and any(parameters["quantization"].values()):
            found.append(f"{name} shards no weights of bitsandbytes on PyTorch; use vllm")
        if pytorch and parameters["batching"]["strategy"] == "continuous":
            found.append(f"{name} batches nothing continuously on PyTorch; use vllm")
        if problem := heads_problem(config, sharding.num_devices, key_value_too=pytorch):
            found.append(f"{name}: {problem}")
    traffic = parameters.get("traffic_simulation") or {}
    if own_ranks and traffic.get("mode", "offline") != "offline":
        found.append(f"{name} serves requests that are all there at once, not timed arrivals")
    return found


def heads_problem(config: dict[str, Any], ranks: int, key_value_too: bool = True) -> str | None:
    """Say why not, as far as the model's ``config.json`` tells; None where nothing speaks against.

    Every engine gives each rank the same number of query heads. Transformers does so with key-value
    heads too (``key_value_too``); vLLM copies these where there are fewer than ranks.

    >>> heads_problem({"num_attention_heads": 9, "num_key_value_heads": 3}, 3)
    >>> heads_problem({"num_attention_heads": 9}, 2)
    "the model's 9 query heads cannot be shared out among 2 ranks; take a number that divides 9"
    """
    text = text_config(config)
    counts = {"query": text.get("num_attention_heads")}
    if key_value_too:
        counts["key-value"] = text.get("num_key_value_heads")
    for name, count in counts.items():
        if isinstance(count, int) and count % ranks:
            return (
                f"the model's {count} {name} heads cannot be shared out among {ranks} ranks; "
                f"take a number that divides {count}"
            )
    return None
