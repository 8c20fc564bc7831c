"""Run a module of the meter in a process of its own, where it disturbs the measured one least."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from llm_energy.records.files.paths import SCRIPTS


def start(module: str, arguments: Sequence[str], **streams: Any) -> subprocess.Popen[bytes]:
    """Start ``python -m module``; ``streams`` are those of Popen. Raises OSError."""
    old = os.environ.get("PYTHONPATH")
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module, *arguments],
        env=os.environ | {"PYTHONPATH": f"{SCRIPTS}{os.pathsep}{old}" if old else str(SCRIPTS)},
        bufsize=0,
        # Else Ctrl-C would end it at once, and the end of what it samples would be missing.
        start_new_session=True,
        **streams,
    )


def give_way() -> None:
    """Let the measured process go first, and disturb one core at most, always the same."""
    os.nice(10)
    with contextlib.suppress(OSError):  # a sandbox may forbid it, and samples come all the same
        # The last core: the first ones serve most interrupts, and what starts first runs there. On
        # a core of its own choice each time, it would wake up another one ten times a second.
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
