"""Which files make a model, how they are taken from a folder, and what their headers say.

Only safetensors weights are taken: unlike pickled ones they cannot run code when they are read.
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from llm_energy.errors import LlmEnergyError
from llm_energy.files import read_json

WHOLE_WEIGHTS = "model.safetensors"
SHARDED_WEIGHTS = "model-*-of-*.safetensors"
SHARD_INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_config.json"  # of peft
CONFIG_FILES = ("config.json", "generation_config.json")
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
WANTED_FILES = (WHOLE_WEIGHTS, SHARDED_WEIGHTS, SHARD_INDEX, *CONFIG_FILES, *TOKENIZER_FILES)


def read_safetensors_header(path: Path) -> dict[str, dict[str, Any]]:
    """Give ``dtype``, ``shape`` and ``data_offsets`` of every tensor in a safetensors file.

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
        end = max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
        if end == 0 or path.stat().st_size != 8 + length + end:
            raise ValueError(f"{path.stat().st_size} bytes, the header says {8 + length + end}")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise LlmEnergyError(
            f"{path.name}: not a whole safetensors file ({error}); fetch it again"
        ) from None
    return header


def take(origin: Path, target: Path, where: str) -> None:
    """Copy or link what makes a model from one folder into another; ``where`` begins each error."""
    names = sorted(path.name for path in origin.iterdir() if path.is_file())
    wanted = {name for name in names if matches(name, WANTED_FILES)}
    if WHOLE_WEIGHTS in wanted:  # transformers prefers it to shards; so do we
        wanted -= {n for n in wanted if matches(n, (SHARDED_WEIGHTS, SHARD_INDEX))}
        weights = {WHOLE_WEIGHTS}
    elif SHARD_INDEX in wanted:
        weights = set(read_json(origin / SHARD_INDEX)["weight_map"].values())
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
    for name in sorted(wanted):
        path = (origin / name).resolve()
        if name in weights:
            # a second name for the same bytes: no copy of gigabytes, and no dangling link either
            with contextlib.suppress(OSError):
                os.link(path, target / name)
                continue
        shutil.copyfile(path, target / name)


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Tell whether a file's name is one of the patterns."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def listing(names: Iterable[str]) -> str:
    """Name up to twelve files, in order."""
    names = sorted(names)
    shown = ", ".join(names[:12]) or "nothing"
    return shown + (f" and {len(names) - 12} more" if len(names) > 12 else "")
