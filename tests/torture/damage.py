"""Damage bytes for the tests that draw what comes in, in the environment of an engine too."""

from __future__ import annotations

import os
from collections.abc import Callable

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("FUZZ", "0"))
PIECES = [b"", b",", b"\n", b'"', b"\0", b"\xff", b"-", b"1e999", b"nan", b"9" * 5000, b"[" * 5000]


def fuzz(few: int) -> settings:
    """Draw so many examples, or FUZZ of them; a test's own folder serves them all."""
    return settings(
        max_examples=EXAMPLES or few,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def damaged(draw: Callable, content: bytes) -> bytes:
    """Return bytes of which some are replaced, up to three times."""
    for _ in range(draw(st.integers(1, 3))):
        begin = draw(st.integers(0, len(content)))
        length = draw(st.integers(0, 12))
        new = draw(st.sampled_from(PIECES) | st.binary(max_size=4))
        content = content[:begin] + new + content[begin + length :]
    return content
