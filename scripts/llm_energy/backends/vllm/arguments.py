"""The arguments that vLLM's engine is started with, in process and behind its server alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llm_energy.backends.vllm.weights import prequantized_folder
from llm_energy.core.errors import Unsupported
from llm_energy.records import Spec

# A fixed size, so that repeats are alike; ``kv_cache_memory_bytes`` in the spec's engine arguments
# or VLLM_CPU_KVCACHE_SPACE replace it. On a GPU vLLM takes what the weights leave.
CPU_KV_CACHE_BYTES = 2**30


def weights_folder(spec: Spec, model_folder: Path) -> Path:
    """Return the folder of the weights, which for 8 bits is that of weights quantised before."""
    if spec.engine.get("load_in_8bit"):
        return prequantized_folder(model_folder)
    if any(w.parameters["quantization"]["load_in_8bit"] for w in spec.workloads):
        raise Unsupported(
            "8-bit weights were asked for, and the engine arguments lack load_in_8bit, without "
            "which vLLM would quantise to 4 bits"
        )
    return model_folder


def engine_arguments(engine: dict[str, Any], folder: Path, device: str) -> dict[str, Any]:
    """Return the engine's arguments by name: our defaults, and over them those of the spec."""
    ranks = engine.get("tensor_parallel_size", 1)
    arguments: dict[str, Any] = {
        "model": str(folder),
        "generation_config": "vllm",
        "max_model_len": -1,  # the model's own, or less where the KV cache holds no more
        "enforce_eager": device == "cpu",  # compiling takes minutes there, at each start
        "distributed_executor_backend": "uni" if ranks == 1 else "mp",
        "tensor_parallel_size": ranks,
    }
    if device == "cpu":
        arguments["kv_cache_memory_bytes"] = CPU_KV_CACHE_BYTES
    return arguments | engine
