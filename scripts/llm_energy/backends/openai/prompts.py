"""Write prompts as text for servers that take no token ids, of the same ids when they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llm_energy.core.errors import Unsupported
from llm_energy.records import Request


def tokenizer_of(model_folder: Path) -> Any:
    """Return the tokenizer of a model's folder; Unsupported where it has none of this format."""
    from tokenizers import Tokenizer

    path = model_folder / "tokenizer.json"
    if not path.is_file():
        raise Unsupported(
            f"this kind of server takes prompts as text, and {path}, by which their ids are "
            "verified, is not there; take a model with a tokenizer.json, or a server that takes ids"
        )
    return Tokenizer.from_file(str(path))


def text_of(request: Request, tokenizer: Any) -> str:
    """Return a text that is read as the request's very ids; Unsupported where there is none.

    The tokenizer adds what it adds on the server too, such as a token for the beginning.
    """
    ids = list(request.prompt_token_ids)
    for skip_special_tokens in (True, False):
        text = tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)
        if tokenizer.encode(text).ids == ids:
            return text
    raise Unsupported(
        f"request {request.id}: this kind of server takes prompts as text, and no text gives these "
        f"{len(ids)} token ids again; take prompts of a source other than synthetic, or a server "
        "that takes ids"
    )
