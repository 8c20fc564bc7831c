"""A simulated model: a folder without weights, and a tokenizer that needs no vocabulary."""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import Any

from llm_energy.core.files import read_object, sha256_file, sha256_json, write_json
from llm_energy.records import SCHEMA_VERSION, ModelManifest

CONFIG = "config.json"
CONTEXT_TOKENS = 131_072
VOCABULARY = 32_000
BEGIN, SPECIAL = 1, 8  # the first ids stand for no word


def write_files(model: dict[str, Any], folder: Path) -> None:
    """Write all that a simulated model consists of."""
    config = {
        "model_type": "simulated",
        "parameter_count": model["source"]["parameter_count"],
        "max_position_embeddings": CONTEXT_TOKENS,
        "vocab_size": VOCABULARY,
    }
    write_json(folder / CONFIG, config)


def describe(model: dict[str, Any], source: dict[str, Any], folder: Path) -> ModelManifest:
    """Return the manifest; its hashes tell models of different sizes apart."""
    config = sha256_file(folder / CONFIG)
    return ModelManifest(
        schema_version=SCHEMA_VERSION,
        model=model["id"],
        model_name=model["model_name"],
        source=source,
        files={CONFIG: config},
        weights_sha256=config,
        tokenizer_sha256=sha256_json([Tokenizer.__name__, VOCABULARY]),
        weight_bytes=0,
        parameter_count=read_object(folder / CONFIG)["parameter_count"],
        dtype=None,
        converted_by=None,
        notes=("simulated: there are no weights",),
    )


def is_simulated(folder: Path) -> bool:
    """Return whether a model's folder holds a simulated model."""
    config = folder / CONFIG
    return config.is_file() and read_object(config).get("model_type") == "simulated"


def parameter_count(folder: Path, otherwise: int) -> int:
    """Read the size of a simulated model; ``otherwise`` where the folder holds none."""
    if not is_simulated(folder):
        return otherwise
    return read_object(folder / CONFIG)["parameter_count"]


class Tokenizer:
    """Turn each word and each sign into one id, its hash; it has the calls of a real tokenizer.

    >>> Tokenizer()("to be, or not")["input_ids"][:1]
    [1]
    >>> len(Tokenizer()("to be, or not", add_special_tokens=False)["input_ids"])
    5
    """

    chat_template = "<user> ... <assistant>"

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        """Return ``input_ids``."""
        words = re.findall(r"\w+|[^\w\s]", text)
        ids = [SPECIAL + zlib.crc32(word.encode()) % (VOCABULARY - SPECIAL) for word in words]
        return {"input_ids": [BEGIN, *ids] if add_special_tokens else ids}

    def apply_chat_template(
        self, messages: list[dict[str, str]], tokenize: bool, **options: Any
    ) -> Any:
        """Frame one message as a chat does; text, or ``input_ids`` of it."""
        text = f"<user>\n{messages[0]['content']}\n<assistant>\n"
        return self(text) if tokenize else text
