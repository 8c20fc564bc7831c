"""Write folders that look like a checkpoint quantised before; no engine could run them."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

from llm_energy.records.registry.precisions import PRECISIONS

SIZES = {"F32": 4, "BF16": 2, "F16": 2, "U8": 1, "I8": 1, "I32": 4, "F8_E4M3": 1}


def write_safetensors(path: Path, tensors: dict[str, tuple[str, list[int]]]) -> None:
    """Write zeros of the given dtypes and shapes in the safetensors format."""
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, shape) in tensors.items():
        size = SIZES[dtype] * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))


def write_checkpoint(
    folder: Path, precision: str, config: dict[str, Any] | None, stored_as: str | None = None
) -> Path:
    """Write a checkpoint that says ``config``; its linear layer is ``stored_as`` the named type."""
    folder.mkdir(exist_ok=True)
    dtype = stored_as or PRECISIONS[precision].stored_as[0]
    weight = [64 * 2 // SIZES[dtype], 128] if dtype != "BF16" else [64, 128]
    tensors = {
        "model.embed_tokens.weight": ("BF16", [512, 64]),
        "model.layers.0.mlp.up_proj.weight": (dtype, weight),
        "model.layers.0.mlp.up_proj.weight_scale": ("BF16", [64, 1]),
        "lm_head.weight": ("BF16", [512, 64]),
    }
    write_safetensors(folder / "model.safetensors", tensors)
    told = {} if config is None else {"quantization_config": config}
    (folder / "config.json").write_text(
        json.dumps({"model_type": "llama", "hidden_size": 64, "vocab_size": 512} | told)
    )
    (folder / "tokenizer.json").write_text("{}")
    return folder
