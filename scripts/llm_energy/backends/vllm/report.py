"""What vLLM says of itself once it has started."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from llm_energy.backends.arguments import effective_arguments
from llm_energy.backends.base import architecture
from llm_energy.backends.engine_errors import check_prompt
from llm_energy.core.errors import OutOfMemory, Unsupported
from llm_energy.records import Request


def describe_engine(config: Any, ranks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what a started engine uses: device, weights, and the settings of its work.

    ``config`` is its VllmConfig, ``ranks`` what ``describe_rank`` says of each part of the model.
    """
    import torch
    import vllm

    weight_bytes: Counter[str] = Counter()
    for rank in ranks:
        weight_bytes.update(rank["weight_bytes"])
    return {
        "device": ranks[0]["device"],
        "device_uuids": [rank["uuid"] for rank in ranks if rank["uuid"]],
        "dtype": str(config.model_config.dtype).removeprefix("torch."),
        "quantization": config.model_config.quantization,
        "weight_bytes": weight_bytes.total(),
        "weight_bytes_by_dtype": dict(sorted(weight_bytes.items())),
        "architecture": architecture(config.model_config.hf_text_config),
        "attention_backend": ranks[0]["attention_backend"],
        "num_threads": ranks[0]["num_threads"],
        **ranks[0]["libraries"],
        "engine_version": vllm.__version__,
        "torch_version": torch.__version__,
        "max_num_seqs": config.scheduler_config.max_num_seqs,
        "max_num_batched_tokens": config.scheduler_config.max_num_batched_tokens,
        "enable_chunked_prefill": config.scheduler_config.enable_chunked_prefill,
        "async_scheduling": bool(config.scheduler_config.async_scheduling),
        "max_model_len": config.model_config.max_model_len,
        "enable_prefix_caching": config.cache_config.enable_prefix_caching,
        "kv_cache_dtype": str(config.cache_config.cache_dtype),
        "kv_cache_block_tokens": config.cache_config.block_size,
        "kv_cache_tokens": cache_tokens(config),
        "tensor_parallel_size": config.parallel_config.tensor_parallel_size,
        "seed": config.model_config.seed,
        "speculative_method": getattr(config.speculative_config, "method", None),
        "arguments": effective_arguments("vllm", config),
        "enforce_eager": config.model_config.enforce_eager,
        "compilation_mode": config.compilation_config.mode.name,
        "cudagraph_mode": config.compilation_config.cudagraph_mode.name,
    }


def cache_tokens(config: Any) -> int:
    """Return how many tokens the KV cache has room for."""
    cache = config.cache_config
    return (cache.num_gpu_blocks - 1) * cache.block_size  # one block stands for "none"


def check_request(
    request: Request, output_tokens: int, vocabulary: int, cache: int, context: int
) -> None:
    """Raise where a request can't be served whole; the last three are numbers of tokens."""
    check_prompt(request, vocabulary)
    prompt = len(request.prompt_token_ids)
    needed = prompt + output_tokens
    asked = f"request {request.id}: {prompt} prompt tokens and {output_tokens} output tokens"
    if needed > cache:  # the engine would preempt this request for ever
        raise OutOfMemory(
            f"{asked} are more than the KV cache of {cache} tokens; raise kv_cache_memory_bytes"
        )
    if needed > context:  # the engine would cut the output short
        raise Unsupported(f"{asked} are more than the model's context of {context}")
