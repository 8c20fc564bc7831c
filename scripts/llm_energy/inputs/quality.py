"""How well a loaded model predicts a fixed text: what the joules that a precision saves may cost.

Each token of the text is predicted from the true tokens before it (teacher forcing), so engines and
precisions are asked exactly the same, and nothing is sampled. See ``docs/quality.md``.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from llm_energy.core.errors import LlmEnergyError
from llm_energy.core.files import sha256_file, sha256_json
from llm_energy.inputs.prompts import sets
from llm_energy.records import Quality, QualitySettings, QualityText

BUILTIN = sets.ROOT / "config" / "quality" / "prose-v1.jsonl"
PASSAGE_TOKENS = 512  # longer passages are cut: an engine holds all logits of one at once


def make_text(
    tokenizer: Any, settings: QualitySettings, limit: int | None, base: Path = Path()
) -> QualityText:
    """Tokenise the first ``tokens`` ids of a text, passage by passage, without a chat template.

    The text's path is relative to ``base``; ``limit`` is the model's context.
    """
    path = base / Path(settings.path).expanduser() if settings.path else BUILTIN
    longest = min(PASSAGE_TOKENS, (limit or PASSAGE_TOKENS + 1) - 1)  # engines add one token
    left = settings.tokens
    passages = []
    length = count = 0
    for passage in sets.read_file(path, sets.DEFAULT_COLUMN):
        whole = tuple(tokenizer(passage.text)["input_ids"])
        length, count = length + len(passage.text.encode()), count + len(whole)
        ids = whole[: min(longest, left)]
        if len(ids) > 1:
            passages.append(ids)
            left -= len(ids)
    if not passages:
        raise LlmEnergyError(f"{path}: no passage has two tokens or more; give a longer text")
    return QualityText(path.stem, sha256_file(path), tuple(passages), length / count)


def measure_quality(backend: Any, text: QualityText) -> Quality:
    """Let a loaded backend score the text; what prevents it is a reason and not an exception."""
    asked = sum(len(passage) - 1 for passage in text.passages)
    blank = {
        "text": text.name,
        "text_sha256": text.sha256,
        "token_ids_sha256": _hash(text),
        "bytes_per_token": text.bytes_per_token,
    }

    def absent(reason: str) -> Quality:
        return Quality(**blank, tokens=0, total_nll=None, reason=reason)

    if not hasattr(backend, "score"):
        return absent("the backend gives no log-probabilities")
    try:
        scored = backend.score(text.passages)
    except Exception as error:  # after the windows: nothing of it may cost what was measured
        return absent(f"{type(error).__name__}: {error}")
    found = [value for passage in scored for value in passage]
    if len(found) != asked:
        return absent(f"the backend scored {len(found)} of {asked} tokens")
    total_nll = -math.fsum(found)
    if not math.isfinite(total_nll):
        return absent(f"the log-probabilities sum to {-total_nll}")
    return Quality(**blank, tokens=asked, total_nll=total_nll)


def is_score_of(quality: Quality | None, text: QualityText | None) -> bool:
    """Return whether a score is of this very text; no score is of no text."""
    if quality is None or text is None:
        return quality is None and text is None
    return quality.token_ids_sha256 == _hash(text)


def _hash(text: QualityText) -> str:
    return sha256_json(text.passages)
