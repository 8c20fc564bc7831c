"""Whether a model's attention heads can be shared out evenly among tensor-parallel ranks."""

from __future__ import annotations

from typing import Any


def heads_problem(config: dict[str, Any], ranks: int, key_value_too: bool = True) -> str | None:
    """Say why not, as far as the model's ``config.json`` tells; None where nothing speaks against.

    Every engine gives each rank the same number of query heads. Transformers does so with key-value
    heads too (``key_value_too``); vLLM copies these where there are fewer than ranks.

    >>> heads_problem({"num_attention_heads": 9, "num_key_value_heads": 3}, 3)
    >>> heads_problem({"num_attention_heads": 9}, 2)
    "the model's 9 query heads cannot be shared out among 2 ranks; take a number that divides 9"
    """
    text = {**config, **(config.get("text_config") or {})}
    counts = {"query": text.get("num_attention_heads")}
    if key_value_too:
        counts["key-value"] = text.get("num_key_value_heads")
    for name, count in counts.items():
        if isinstance(count, int) and count % ranks:
            return (
                f"the model's {count} {name} heads cannot be shared out among {ranks} ranks; "
                f"take a number that divides {count}"
            )
    return None
