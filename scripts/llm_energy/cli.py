"""Run a command-line entry point so that a user's mistake ends in one message, not a traceback."""

from __future__ import annotations

import gc
import sys
import warnings
from collections.abc import Callable

from llm_energy.errors import LlmEnergyError


def run(main: Callable[[], None]) -> int:
    """Call ``main`` and give the exit status: 0, or 1 after printing what the user can mend."""
    # PyTorch imports the module pynvml, at which the distribution of that name warns of itself.
    warnings.filterwarnings("ignore", message="The pynvml package is deprecated")
    try:
        main()
    except LlmEnergyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def run_stage(main: Callable[[], None]) -> int:
    """Do as ``run`` for a stage that holds many records.

    No record refers back to itself, so the collector of cycles would walk all of them in vain.
    """
    gc.disable()
    try:
        return run(main)
    finally:
        gc.enable()
