"""Read what a checkpoint says of its own quantisation, and hold it against a precision's name.

What it says stands in ``config.json`` or, of NVIDIA's ModelOpt, in ``hf_quant_config.json``; what
is so, in the headers of its safetensors files.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm_energy.core.errors import LlmEnergyError
from llm_energy.core.files import read_object
from llm_energy.inputs.models.config import text_config
from llm_energy.inputs.models.files import MODELOPT, read_safetensors_header
from llm_energy.records.registry.precisions import PRECISIONS

SHAPE = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
FLOAT_DTYPES = ("F64", "F32", "F16", "BF16")
KEPT = ("ignore", "ignored_layers", "modules_to_not_convert", "exclude_modules")
ALGORITHMS = {"FP8": (8, 8), "NVFP4": (4, 4), "W4A16_AWQ": (4, None)}  # of ModelOpt
# What is left in 16 bits in nearly every checkpoint, and what belongs to quantised weights.
NOT_LINEAR = re.compile(r"embed|lm_head|norm|wte|wpe|bias|scale|zero|qzeros|g_idx|router|gate\.")


def read(folder: Path) -> dict[str, Any] | None:
    """Return what a folder's own files say of the quantisation, None where they say nothing.

    The keys are ``method``, ``bits`` of a weight, ``kind`` (int or float), ``group_size``,
    ``activations`` (their bits, None for 16 and more), ``calibrated`` (None where it is not told)
    and ``kept``, the modules that are not quantised. A value that is not told is None.
    """
    config = _object(folder / "config.json")
    told = config.get("quantization_config") or config.get("compression_config")
    if told and not isinstance(told, dict):
        raise LlmEnergyError(
            f"{folder / 'config.json'}: quantization_config is {told!r:.80}, allowed a mapping; "
            "fetch it again"
        )
    if not told:
        inner = _object(folder / MODELOPT).get("quantization")
        told = {"quant_method": "modelopt", **inner} if isinstance(inner, dict) else None
    if not told:
        return None
    method = str(told.get("quant_method") or told.get("quant_type") or "unnamed")
    kept = next((told[key] for key in KEPT if isinstance(told.get(key), list)), [])
    found = {
        "method": method,
        "bits": told.get("bits", told.get("w_bit")),
        "kind": "int",
        "group_size": told.get("group_size", told.get("q_group_size")),
        "activations": None,
        "calibrated": True if method in ("awq", "gptq") else None,
        "kept": [str(module) for module in kept],
    }
    return found | _OF_METHOD.get(method, lambda told: {})(told)


def differences(precision: str, folder: Path) -> list[str]:
    """Return how a folder's files differ from a precision that takes a checkpoint, as sentences."""
    wanted, told = PRECISIONS[precision], read(folder)
    methods = " or ".join(wanted.formats)
    if told is None:
        return [f"it has no quantization_config, and {precision} is a checkpoint of {methods}"]
    if told["method"] not in wanted.formats:
        return [f"its quant_method is {told['method']}, that of {precision} is {methods}"]
    found = [
        f"its quantization_config says {word} {_shown(told[key])}, {precision} is of "
        f"{_shown(asked)}"
        for key, word, asked in (
            ("bits", "bits of a weight", wanted.bits),
            ("kind", "weights of type", wanted.kind),
            ("activations", "bits of an activation", wanted.activations),
        )
        if told[key] != asked
    ]
    quantised, floats = _stored_bytes(folder, wanted.stored_as)
    if quantised.total() <= floats.total():
        found.append(
            f"its quantization_config says {_shown(told['bits'])} bits, and of its linear layers "
            f"{quantised.total()} bytes are stored as {' or '.join(wanted.stored_as)} and "
            f"{floats.total()} as {', '.join(sorted(floats)) or 'floats'}: most are not quantised"
        )
    return found


def quantised_already(precision: str, told: Mapping[str, Any]) -> str | None:
    """Say why a model that is itself quantised has no precision but its own; None where it may."""
    if told["method"] == "bitsandbytes" and precision in ("int8", "int4"):
        return None
    return (
        f"asked for {precision}, and the model's own files are quantised already "
        f"({in_words(told)}); name them under the model's checkpoints, and ask for that precision"
    )


def other_model(whole: Path, quantised: Path) -> str | None:
    """Say where a checkpoint is of another model than the one that it is named for; else None."""
    models = [text_config(_object(folder / "config.json")) for folder in (whole, quantised)]
    for key in SHAPE:
        wanted, found = (model.get(key) for model in models)
        if wanted != found and None not in (wanted, found):
            return f"the checkpoint is of another model: its {key} is {found}, the model's {wanted}"
    return None


def checkpoint_of(effective: Mapping[str, Any]) -> str | None:
    """Say in one line which checkpoint was measured, and what it says of itself; None for none."""
    about = effective.get("checkpoint")
    if not isinstance(about, Mapping):
        return None
    where = about.get("commit") or about.get("revision") or about.get("path") or "no revision"
    told = in_words(about["quantization"]) if about.get("quantization") else "not told"
    return f"{about['model_name']} at {where} ({told}; SHA-256 {about['weights_sha256'][:12]})"


def in_words(told: Mapping[str, Any]) -> str:
    """Say in one line what a checkpoint says of its quantisation.

    >>> in_words({"method": "awq", "bits": 4, "kind": "int", "group_size": 128, "activations": None,
    ...           "calibrated": True, "kept": ["lm_head"]})
    'awq, 4 bits int, group size 128, activations in 16 bits, calibrated, not quantised: lm_head'
    """
    parts = [f"{told['method']}, {_shown(told['bits'])} bits {told['kind']}"]
    parts += [f"group size {_shown(told['group_size'])}"] if told["group_size"] else []
    parts.append(f"activations in {told['activations'] or 16} bits")
    words = {True: "calibrated", False: "not calibrated", None: "calibration not told"}
    parts.append(words[told["calibrated"]])
    kept = told["kept"]
    more = f" and {len(kept) - 3} more" if len(kept) > 3 else ""
    parts += [f"not quantised: {', '.join(kept[:3])}{more}"] if kept else []
    return ", ".join(parts)


def _of_compressed_tensors(told: Mapping[str, Any]) -> dict[str, Any]:
    groups = told.get("config_groups")
    groups = groups.values() if isinstance(groups, dict) else ()
    groups = [group for group in groups if isinstance(group, dict)]
    weights = [g["weights"] for g in groups if isinstance(g.get("weights"), dict)]
    inputs = [g.get("input_activations") for g in groups]
    static = [i for i in inputs if isinstance(i, dict) and i.get("dynamic") is False]
    return {
        "bits": _one(w.get("num_bits") for w in weights),
        "kind": _one(w.get("type", "int") for w in weights),
        "group_size": _one(w.get("group_size") for w in weights),
        "activations": _one(i.get("num_bits") if isinstance(i, dict) else None for i in inputs),
        "calibrated": True if static else None,
    }


def _of_fp8(told: Mapping[str, Any]) -> dict[str, Any]:
    static = told.get("activation_scheme") == "static"
    blocks = told.get("weight_block_size")
    return {
        **{"bits": 8, "kind": "float", "activations": 8, "group_size": blocks},
        "calibrated": static,
    }


def _of_modelopt(told: Mapping[str, Any]) -> dict[str, Any]:
    algorithm = str(told.get("quant_algo"))
    bits, activations = ALGORITHMS.get(algorithm, (algorithm, None))
    kind = "int" if algorithm.startswith("W4") else "float"
    return {"bits": bits, "kind": kind, "activations": activations, "calibrated": True}


_OF_METHOD = {
    "compressed-tensors": _of_compressed_tensors,
    "fp8": _of_fp8,
    "fbgemm_fp8": _of_fp8,
    "modelopt": _of_modelopt,
    "modelopt_fp4": _of_modelopt,
    "mxfp4": lambda told: {"bits": 4, "kind": "float", "group_size": 32},
    "bitsandbytes": lambda told: {"bits": 8 if told.get("load_in_8bit") else 4},
}


def _stored_bytes(folder: Path, quantised: tuple[str, ...]) -> tuple[Counter[str], Counter[str]]:
    """Return the bytes of the linear layers' weights by data type: quantised ones, and floats."""
    packed, floats = Counter[str](), Counter[str]()
    for path in sorted(folder.glob("*.safetensors")):
        for name, tensor in read_safetensors_header(path).items():
            begin, end = tensor["data_offsets"]
            if NOT_LINEAR.search(name) or len(tensor["shape"]) < 2:
                continue
            if tensor["dtype"] in quantised:
                packed[tensor["dtype"]] += end - begin
            elif tensor["dtype"] in FLOAT_DTYPES and math.prod(tensor["shape"]) > 1:
                floats[tensor["dtype"]] += end - begin
    return packed, floats


def _one(values: Any) -> Any:
    """Return the one value that all have, or all of them in words."""
    found = list(dict.fromkeys(values))
    return found[0] if len(found) == 1 else " and ".join(map(_shown, found)) or None


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)


def _object(path: Path) -> dict[str, Any]:
    return read_object(path) if path.is_file() else {}
