"""Run a command-line entry point so that a user's mistake ends in one message, not a traceback."""

from __future__ import annotations

import gc
import io
import signal
import sys
import warnings
from collections.abc import Callable

from llm_energy.core.errors import LlmEnergyError
from llm_energy.core.files import NO_ROOM, ROOM_REMEDY


def run(main: Callable[[], None]) -> int:
    """Call ``main`` and return the exit status: 0, or 1 after printing what the user can mend.

    Ctrl-C is 130, as a shell has it.
    """
    escape_what_lacks()
    # PyTorch imports the module pynvml, at which the distribution of that name warns of itself.
    warnings.filterwarnings("ignore", message="The pynvml package is deprecated")
    try:
        main()
    except LlmEnergyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror}; {ROOM_REMEDY}", file=sys.stderr)
        return 1
    return 0


def escape_what_lacks() -> None:
    """Let what the output's encoding lacks, such as ± in ASCII, be written as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def run_stage(main: Callable[[], None]) -> int:
    """Do as ``run`` for a stage that holds many records.

    No record refers back to itself, so the collector of cycles would walk all of them in vain.
    """
    gc.disable()
    try:
        return run(main)
    finally:
        gc.enable()
