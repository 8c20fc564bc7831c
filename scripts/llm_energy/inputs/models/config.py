"""Read what a model's own files say of it before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llm_energy.core.errors import RecordError
from llm_energy.core.files import read_object

CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_sequence_length")


def model_config(source: dict[str, Any]) -> dict[str, Any]:
    """Read the ``config.json`` of a model that lies in a folder; empty for any other source."""
    path = Path(source.get("path", ""), "config.json").expanduser()
    return read_object(path) if source["kind"] == "folder" and path.is_file() else {}


def text_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return a ``config.json`` with that of its language model, where it has several, on top."""
    inner = config.get("text_config")
    return {**config, **(inner if isinstance(inner, dict) else {})}


def context_length(config: dict[str, Any]) -> int | None:
    """Return the most tokens that a model can attend to, as its ``config.json`` says, or None."""
    text = text_config(config)
    return next((text[key] for key in CONTEXT_KEYS if isinstance(text.get(key), int)), None)


def has_chat_template(folder: Path) -> bool:
    """Return whether a tokenizer's files hold a chat template."""
    if any((folder / name).is_file() for name in ("chat_template.jinja", "chat_template.json")):
        return True
    try:
        return bool(read_object(folder / "tokenizer_config.json").get("chat_template"))
    except RecordError:
        return False
