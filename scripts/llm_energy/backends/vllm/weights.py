"""What vLLM holds in memory: which weights, of which type, on which device."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from llm_energy.core.errors import Unsupported
from llm_energy.core.files import read_json
from llm_energy.core.libraries import loaded_libraries
from llm_energy.records.files import paths
from llm_energy.records.registry.precisions import differs


def prequantized_folder(model_folder: Path) -> Path:
    """Return the folder of a model's weights in 8 bits, which lies beside that of the whole ones.

    vLLM quantises to 4 bits while it loads, and takes 8 bits only as transformers saved them.
    """
    folder = paths.quantised_of(model_folder, "int8")
    if not (folder / "config.json").exists():
        raise Unsupported(
            "vLLM reads 8-bit weights only from a folder that was quantised before, and there is "
            f"no {folder}; scripts/quantise.py makes it"
        )
    return folder


def prequantized_sha256(folder: Path) -> str | None:
    """Return the hash of the 8-bit weights from their manifest, None where a folder has none."""
    manifest = paths.manifest_of(folder)
    return read_json(manifest)["weights_sha256"] if manifest.exists() else None


def describe_rank(model: Any) -> dict[str, Any]:
    """Say what one rank's part of the model is; runs where the weights are."""
    import torch

    device = next(model.parameters()).device
    attention = [m.attn_backend.get_name() for m in model.modules() if hasattr(m, "attn_backend")]
    cuda = device.type == "cuda"
    return {
        "device": str(device),
        "uuid": f"GPU-{torch.cuda.get_device_properties(device).uuid}" if cuda else None,
        "attention_backend": attention[0] if attention else None,
        "num_threads": torch.get_num_threads(),
        "libraries": loaded_libraries(),
        "weight_bytes": _weight_bytes(model),
    }


def _weight_bytes(model: Any) -> Counter[str]:
    """Sum the bytes of a model's weights by data type, the scales of quantised ones included.

    On CPU vLLM repacks the weights of linear layers for its kernels and leaves an empty parameter
    behind, or none where they are int8; the packed weights, of the same type and size, are counted
    by the layer's shape.
    """
    sizes: Counter[str] = Counter()
    for parameter in model.parameters():
        dtype = str(parameter.dtype).removeprefix("torch.")
        sizes[dtype] += parameter.nbytes
        states = getattr(parameter, "bnb_quant_state", {}).values()
        for scales in (getattr(state, "absmax", state) for state in states):
            sizes[str(scales.dtype).removeprefix("torch.")] += scales.nbytes
    for module in model.modules():
        weight = getattr(module, "weight", None)
        packed = hasattr(getattr(getattr(module, "scheme", None), "kernel", None), "dnnl_handler")
        if packed and weight is None:
            sizes["int8"] += module.output_size_per_partition * module.input_size_per_partition
        elif hasattr(weight, "numel") and weight.numel() == 0:
            shape = (module.output_size_per_partition, module.input_size_per_partition)
            dtype = str(weight.dtype).removeprefix("torch.")
            sizes[dtype] += shape[0] * shape[1] * weight.element_size()
    return sizes


def check_precision(effective: dict[str, Any], dtype: str, precision: str) -> None:
    """Raise Unsupported if the engine loaded another precision than it was asked for."""
    if effective["dtype"] != dtype:
        raise Unsupported(f"asked for {dtype}, the engine uses {effective['dtype']}")
    if told := differs(precision, effective["weight_bytes_by_dtype"]):
        raise Unsupported(told)
