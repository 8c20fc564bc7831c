"""What a checkpoint for TensorRT-LLM holds: its ids, its context, the size of its weights.

The engine runs in a process of its own, so the weights on the GPU cannot be asked. Their bytes
are worked out from the headers of the files that it loads.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

from llm_energy.core.files import read_object
from llm_energy.inputs.models.files import read_safetensors_header

# Names of types in safetensors files, and their bytes.
# https://github.com/huggingface/safetensors/blob/v0.4.5/safetensors/src/tensor.rs
FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
OTHERS = {"F8_E4M3": 1, "F8_E5M2": 1, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


class Checkpoint:
    """A folder of safetensors as Transformers writes it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        config = self._read("config.json")
        # A model with more than text keeps its language part's settings in a mapping of their own.
        text = config.get("text_config", config)
        generation = self._read("generation_config.json")
        self.context = int(text.get("max_position_embeddings") or 2**31)
        self.vocabulary = int(text["vocab_size"])
        end = generation.get("eos_token_id", text.get("eos_token_id"))
        self.end_ids = [] if end is None else [end] if isinstance(end, int) else list(end)

    def weights(self, dtype: str) -> dict[str, Any]:
        """Return the bytes of the weights when their floats are kept in ``dtype``."""
        sizes: Counter[str] = Counter()
        for path in sorted(self._folder.glob("*.safetensors")):
            for about in read_safetensors_header(path).values():
                count, kept = math.prod(about["shape"]), about["dtype"]
                if kept in FLOATS:
                    sizes[dtype] += count * DTYPE_BYTES[dtype]
                else:
                    sizes[kept.lower()] += count * OTHERS.get(kept, 1)
        return {
            "weight_bytes": sizes.total(),
            "weight_bytes_by_dtype": dict(sorted(sizes.items())),
            "weight_bytes_from": "the headers of the checkpoint",
        }

    def _read(self, name: str) -> dict[str, Any]:
        path = self._folder / name
        return read_object(path) if path.exists() else {}
