"""Write a tiny model again as a checkpoint in the published format of compressed-tensors.

The format is that of `int-quantized` (https://github.com/vllm-project/compressed-tensors): each
linear layer has int8 weights with one scale a row, activations are scaled for each token while it
runs. Needs numpy and safetensors.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

INT8 = {"num_bits": 8, "type": "int", "symmetric": True}
CONFIG: dict[str, Any] = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "quantization_status": "compressed",
    "ignore": ["lm_head"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {**INT8, "strategy": "channel", "dynamic": False},
            "input_activations": {**INT8, "strategy": "token", "dynamic": True},
        }
    },
}


def write_w8a8(origin: Path, folder: Path) -> Path:
    """Round the linear layers of the model in ``origin`` to int8, and write it into ``folder``."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    shutil.copytree(origin, folder)
    tensors = {}
    for name, weight in load_file(origin / "model.safetensors").items():
        if "_proj." not in name:
            tensors[name] = weight
            continue
        scale = np.abs(weight).max(1, keepdims=True) / 127
        tensors[name] = np.rint(weight / scale).astype(np.int8)
        tensors[f"{name}_scale"] = scale.astype(np.float32)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = CONFIG
    (folder / "config.json").write_text(json.dumps(config))
    return folder
