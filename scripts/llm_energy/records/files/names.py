"""Say which names of sweeps, models, backends, precisions, cells and repeats may become paths."""

from __future__ import annotations

import re
from typing import Any

from llm_energy.core.errors import RecordError

_ID = r"(?!\S*--)[a-z0-9][a-z0-9._-]{0,63}"
ID = re.compile(_ID)
CELL = re.compile(r"[a-z0-9][a-z0-9._-]{0,200}")  # three ids joined by --
SWEEP = re.compile(rf"(?!models\Z){_ID}")
REPEAT = re.compile(r"r[0-9]{2,6}")
ALLOWED = (
    "at most 64 lower-case letters, digits, '.', '_' and '-', the first a letter or a digit, "
    "without '--'"
)


def numeric_order(name: str) -> list[tuple[str, int]]:
    """Return what sorts names by the numbers in them.

    >>> sorted(["b16", "b2", "b2-long"], key=numeric_order)
    ['b2', 'b2-long', 'b16']
    """
    return [(text, int(number or 0)) for text, number in re.findall(r"(\D*)(\d*)", name)]


def require(pattern: re.Pattern[str], key: str, value: Any) -> None:
    """Raise a RecordError that names ``key`` unless ``value`` is a text of this pattern alone."""
    if not isinstance(value, str) or not pattern.fullmatch(value):
        allowed = {REPEAT: "r01, r02, ...", CELL: "model--backend--precision, each of them an id"}
        raise RecordError(f"{key}: found {value!r:.80}, allowed {allowed.get(pattern, ALLOWED)}")


def schema_of(pattern: re.Pattern[str]) -> dict[str, Any]:
    """Return the JSON Schema of such a name."""
    return {"pattern": rf"^(?:{pattern.pattern})\Z"}
