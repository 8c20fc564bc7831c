"""What a model and its prompts are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from llm_energy.core.serialize import ONLY_WHERE_SET


@dataclass(frozen=True)
class ModelManifest:
    """Say where a model's files came from and what they are, by hash.

    ``weights_sha256`` is the hash of the sorted list of (file name, SHA-256) of the weight files;
    ``tokenizer_sha256`` likewise. ``notes`` tell what a reader must know, such as a conversion.
    ``quantization`` is what the files say of their own quantisation
    (``inputs/models/quantization.py``), None where they are not quantised.
    """

    schema_version: int
    model: str
    model_name: str
    source: dict[str, Any]
    files: dict[str, str]
    weights_sha256: str
    tokenizer_sha256: str
    weight_bytes: int
    parameter_count: int | None
    dtype: str | None
    converted_by: dict[str, str] | None
    notes: tuple[str, ...]
    quantization: dict[str, Any] | None = field(default=None, metadata=ONLY_WHERE_SET)


@dataclass(frozen=True)
class Request:
    """One prompt as the engine gets it: token ids, special tokens and template included.

    ``output_tokens`` is the length that its answer must have, None where the workload's holds.
    """

    id: str
    prompt_token_ids: tuple[int, ...]
    output_tokens: int | None = None

    def identity(self) -> list[Any]:
        """Return what makes a request another one: its prompt's ids, and a length of its own."""
        own = [] if self.output_tokens is None else [self.output_tokens]
        return [self.id, self.prompt_token_ids, *own]


@dataclass(frozen=True)
class QualityText:
    """A fixed text as token ids, passage by passage; ``sha256`` is the hash of its file.

    ``bytes_per_token`` are the UTF-8 bytes of the whole text over all of its tokens.
    """

    name: str
    sha256: str
    passages: tuple[tuple[int, ...], ...]
    bytes_per_token: float | None = None


@dataclass(frozen=True)
class PromptSet:
    """The requests of every workload for one model, tokenised once and given to every backend.

    ``requests`` are by ``Workload.prompts_key``: the workload's id, with the block where each has
    its own. ``sha256`` is, likewise, the hash of the list of (id, prompt token ids). ``quality`` is
    the text that is scored outside the windows, None where that is switched off.
    ``request_sha256`` is the hash of what the plan asked, None where an older version wrote it.
    """

    schema_version: int
    model: str
    tokenizer_sha256: str
    source: dict[str, Any]
    requests: dict[str, tuple[Request, ...]]
    sha256: dict[str, str]
    quality: QualityText | None = None
    request_sha256: str | None = None
