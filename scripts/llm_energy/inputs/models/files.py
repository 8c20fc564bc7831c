"""Which files make a model, how they are taken from a folder, and what their headers say.

Only safetensors weights are taken: unlike pickled ones they cannot run code when they are read.
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
import math
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from llm_energy.core.errors import LlmEnergyError
from llm_energy.core.files import read_json

WHOLE_WEIGHTS = "model.safetensors"
SHARDED_WEIGHTS = "model-*-of-*.safetensors"
SHARD_INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_config.json"  # of peft
MODELOPT = "hf_quant_config.json"  # what NVIDIA's ModelOpt says of its quantisation
CONFIG_FILES = ("config.json", "generation_config.json", MODELOPT)
VOCABULARY_FILES = ("tokenizer.json", "*.model", "vocab.json", "vocab.txt")
TOKENIZER_FILES = (
    *VOCABULARY_FILES,
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "*.jinja",
)
# By https://github.com/huggingface/safetensors; a dtype that is not here is taken as it is.
DTYPE_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64"), 64),
}
WANTED_FILES = (WHOLE_WEIGHTS, SHARDED_WEIGHTS, SHARD_INDEX, *CONFIG_FILES, *TOKENIZER_FILES)


def read_safetensors_header(path: Path) -> dict[str, dict[str, Any]]:
    """Return ``dtype``, ``shape`` and ``data_offsets`` of every tensor in a safetensors file.

    A file shorter than its header says raises LlmEnergyError. Format: 8 bytes little-endian header
    length, the header as JSON, the data (https://huggingface.co/docs/safetensors).
    """
    try:
        with open(path, "rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > path.stat().st_size - 8:
                raise ValueError("it ends inside its header")
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        for name, tensor in header.items():
            _check_tensor(name, tensor)
        end = max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
        if end == 0 or path.stat().st_size != 8 + length + end:
            raise ValueError(f"{path.stat().st_size} bytes, the header says {8 + length + end}")
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise LlmEnergyError(
            f"{path.name}: not a whole safetensors file ({error}); fetch it again"
        ) from None
    return header


def _check_tensor(name: str, tensor: Any) -> None:
    """Raise ValueError where a header's entry cannot be that of a tensor."""
    numbers = {"shape": tensor["shape"], "data_offsets": tensor["data_offsets"]}
    for key, found in numbers.items():
        if not isinstance(found, list) or any(type(n) is not int or n < 0 for n in found):
            raise ValueError(f"{name[:80]} has the {key} {found!r:.80}, allowed integers >= 0")
    begin, end = numbers["data_offsets"]
    if not isinstance(tensor["dtype"], str) or begin > end:
        raise ValueError(f"{name[:80]} has the dtype {tensor['dtype']!r:.80} from {begin} to {end}")
    bits = DTYPE_BITS.get(tensor["dtype"])
    if bits is not None and (needed := -(-math.prod(numbers["shape"]) * bits // 8)) != end - begin:
        raise ValueError(
            f"{name[:80]} of {tensor['dtype']} {numbers['shape']!s:.80} takes "
            f"{needed if needed < 10**18 else 'too many'} bytes and has {end - begin}"
        )


def _shards(origin: Path, where: str) -> set[str]:
    """Return the names of the files that an index tells weights to lie in."""
    index = read_json(origin / SHARD_INDEX)
    parts = index.get("weight_map") if isinstance(index, dict) else None
    if (
        not isinstance(parts, dict)
        or not parts
        or not all(isinstance(n, str) for n in parts.values())
    ):
        raise LlmEnergyError(
            f"{where}: {SHARD_INDEX} has no weight_map from tensors to files; fetch it again"
        )
    return set(parts.values())


def choose(origin: Path, where: str) -> tuple[set[str], set[str]]:
    """Return the names of all files in a folder that make a model, and those of its weights.

    A folder that lacks some raises LlmEnergyError, whose message begins with ``where``.
    """
    names = sorted(path.name for path in origin.iterdir() if path.is_file())
    wanted = {name for name in names if matches(name, WANTED_FILES)}
    if WHOLE_WEIGHTS in wanted:  # transformers prefers it to shards; so do we
        wanted -= {n for n in wanted if matches(n, (SHARDED_WEIGHTS, SHARD_INDEX))}
        weights = {WHOLE_WEIGHTS}
    elif SHARD_INDEX in wanted:
        weights = _shards(origin, where)
        wanted -= {n for n in wanted if matches(n, (SHARDED_WEIGHTS,))} - weights
    elif ADAPTER in names:
        raise LlmEnergyError(
            f"{where}: an adapter ({ADAPTER}) without the model that it adapts. Merge it into its "
            "base model (merge_and_unload of peft), save the result and its tokenizer into one "
            "folder, and name that"
        )
    else:
        raise LlmEnergyError(
            f"{where}: no safetensors weights ({WHOLE_WEIGHTS}, or {SHARD_INDEX} with its shards); "
            f"found {listing(names)}. Save the model with save_pretrained of transformers"
        )
    for name in (*sorted(weights), "config.json"):
        if name not in wanted:
            raise LlmEnergyError(f"{where}: {name} is missing; found {listing(names)}")
    if not any(matches(name, VOCABULARY_FILES) for name in wanted):
        raise LlmEnergyError(
            f"{where}: no tokenizer ({', '.join(VOCABULARY_FILES)}); found {listing(names)}. "
            "Save the tokenizer into the same folder"
        )
    return wanted, weights


def take(origin: Path, target: Path, where: str) -> None:
    """Copy or link what makes a model from one folder into another; ``where`` begins each error."""
    wanted, weights = choose(origin, where)
    for name in sorted(wanted):
        path = (origin / name).resolve()
        if name in weights:
            # a second name for the same bytes: no copy of gigabytes, and no dangling link either
            with contextlib.suppress(OSError):
                os.link(path, target / name)
                continue
        shutil.copyfile(path, target / name)


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Return whether a file's name is one of the patterns."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def listing(names: Iterable[str]) -> str:
    """Name up to twelve files, in order."""
    names = sorted(names)
    shown = ", ".join(names[:12]) or "nothing"
    return shown + (f" and {len(names) - 12} more" if len(names) > 12 else "")
