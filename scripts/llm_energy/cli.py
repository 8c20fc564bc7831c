"""Run a command-line entry point so that a user's mistake ends in one message, not a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable

from llm_energy.errors import LlmEnergyError


def run(main: Callable[[], None]) -> int:
    """Call ``main`` and give the exit status: 0, or 1 after printing what the user can mend."""
    try:
        main()
    except LlmEnergyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
