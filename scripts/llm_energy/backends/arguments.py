"""Name the arguments of each engine that an entry of a sweep may set, and how each is read back.

The list is closed: it has none that fetches, loads or runs what the sweep's own files do not hold,
none that a universal parameter decides, and none whose effect the engine does not tell afterwards.
``tests/engines`` holds names, types and choices equal to those of the installed engine.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Whose value decides an argument, by the key of the config; an entry may not decide it again.
DECIDED_BY = {
    "attention_mask": "prompts",
    "batch_size": "parameters.batching.batch_size",
    "cache_implementation": "backends[].flow",
    "data_parallel_size": "parameters.sharding",
    "device": "device",
    "device_map": "parameters.sharding",
    "do_sample": "parameters.decoder.do_sample",
    "dtype": "precisions",
    "load_in_4bit": "precisions",
    "load_in_8bit": "precisions",
    "max_batch_size": "parameters.batching.batch_size",
    "max_new_tokens": "parameters.max_output_tokens",
    "max_num_seqs": "parameters.batching.batch_size",
    "max_tokens": "parameters.max_output_tokens",
    "min_new_tokens": "parameters.min_output_tokens",
    "min_p": "parameters.decoder.min_p",
    "min_tokens": "parameters.min_output_tokens",
    "model": "models",
    "no_repeat_ngram_size": "parameters.decoder.no_repeat_ngram_size",
    "pipeline_parallel_size": "parameters.sharding",
    "quantization": "precisions",
    "quantization_config": "precisions",
    "repetition_penalty": "parameters.decoder.repetition_penalty",
    "revision": "models[].revision",
    "seed": "parameters.random_seed",
    "temperature": "parameters.decoder.temperature",
    "tensor_parallel_size": "parameters.sharding",
    "tokenizer": "models",
    "top_k": "parameters.decoder.top_k",
    "top_p": "parameters.decoder.top_p",
    "torch_dtype": "precisions",
    "tp_plan": "parameters.sharding",
}


@dataclass(frozen=True)
class Argument:
    """One argument: its ``type``, its limits or choices, and where the loaded engine keeps it.

    ``kept`` is a path of attributes of what the engine calls its configuration. A ``mapping`` has
    exactly these ``keys``, whose own ``kept`` are attributes of what it is kept as.
    """

    type: str
    kept: str
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()
    keys: Mapping[str, Argument] = field(default_factory=dict)

    @property
    def allowed(self) -> str:
        """Say what values it takes.

        >>> Argument("integer", "", least=1).allowed
        'an integer >= 1'
        """
        if self.choices:
            return ", ".join(self.choices)
        if self.keys:
            each = (f"{name} ({key.allowed})" for name, key in self.keys.items())
            return f"a mapping of {', '.join(each)}"
        words = {"boolean": "true or false", "integer": "an integer", "number": "a number"}
        limits = [
            f"{sign} {limit:g}"
            for sign, limit in ((">=", self.least), ("<=", self.most))
            if limit is not None
        ]
        return f"{words[self.type]} {' and '.join(limits)}".strip()

    def takes(self, value: Any) -> bool:
        """Return whether a value is one that the argument takes."""
        if self.choices:
            return isinstance(value, str) and value in self.choices
        if self.keys:
            same = isinstance(value, Mapping) and value.keys() == self.keys.keys()
            return same and all(key.takes(value[name]) for name, key in self.keys.items())
        if self.type == "boolean" or isinstance(value, bool):
            return self.type == "boolean" and isinstance(value, bool)
        kinds = (int,) if self.type == "integer" else (int, float)
        return (
            isinstance(value, kinds)
            and math.isfinite(value)
            and (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
        )

    def read(self, config: Any) -> Any:
        """Read it back from an engine's configuration; None where there is nothing of the kind."""
        found = functools.reduce(getattr, self.kept.split("."), config)
        if found is None or not self.keys:
            return found
        return {name: key.read(found) for name, key in self.keys.items()}


MOST = 2**53  # beyond it JSON's numbers are no longer exact
ARGUMENTS: dict[str, dict[str, Argument]] = {
    "pytorch": {
        "attn_implementation": Argument(
            "string", "_attn_implementation", choices=("eager", "sdpa")
        ),
    },
    "vllm": {
        "async_scheduling": Argument("boolean", "scheduler_config.async_scheduling"),
        "block_size": Argument("integer", "cache_config.block_size", 1, MOST),
        "disable_sliding_window": Argument("boolean", "model_config.disable_sliding_window"),
        "enable_chunked_prefill": Argument("boolean", "scheduler_config.enable_chunked_prefill"),
        "enable_prefix_caching": Argument("boolean", "cache_config.enable_prefix_caching"),
        "enforce_eager": Argument("boolean", "model_config.enforce_eager"),
        "gpu_memory_utilization": Argument(
            "number", "cache_config.gpu_memory_utilization", 0.01, 1
        ),
        "kv_cache_memory_bytes": Argument("integer", "cache_config.kv_cache_memory_bytes", 1, MOST),
        "kv_cache_dtype": Argument(
            "string",
            "cache_config.cache_dtype",
            choices=("auto", "bfloat16", "fp8", "fp8_e4m3", "fp8_e5m2"),
        ),
        "max_model_len": Argument("integer", "model_config.max_model_len", 1, MOST),
        "max_num_batched_tokens": Argument(
            "integer", "scheduler_config.max_num_batched_tokens", 1, MOST
        ),
        "scheduling_policy": Argument(
            "string", "scheduler_config.policy", choices=("fcfs", "priority")
        ),
        # Drafts by looking the last tokens up in what came before them, which loads nothing.
        "speculative_config": Argument(
            "mapping",
            "speculative_config",
            keys={
                "method": Argument("string", "method", choices=("ngram",)),
                "num_speculative_tokens": Argument("integer", "num_speculative_tokens", 1, 64),
                "prompt_lookup_min": Argument("integer", "prompt_lookup_min", 1, 64),
                "prompt_lookup_max": Argument("integer", "prompt_lookup_max", 1, 64),
            },
        ),
    },
}


def arguments_of(engine: str) -> Mapping[str, Argument]:
    """Return the arguments that an entry of an engine may set, none where there are none."""
    return ARGUMENTS.get(engine, {})


def effective_arguments(engine: str, config: Any) -> dict[str, Any]:
    """Read every argument that may be set back from the configuration of a loaded engine."""
    return {name: argument.read(config) for name, argument in arguments_of(engine).items()}
