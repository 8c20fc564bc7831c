"""Run a command, and end it with all of its descendants when whoever started it is gone.

    python -m llm_energy.backends.served.keeper COMMAND [ARGUMENT ...]

Its standard input is a pipe that the owner holds open. Once that is closed, by the owner or by its
death of any kind, or once the command has ended, everything that the command started is ended too,
in whatever session it lies: a subreaper inherits each process whose parent is gone (prctl(2)).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import psutil

SET_PDEATHSIG, SET_CHILD_SUBREAPER = 1, 36  # of prctl(2)
END_S = 10.0  # that a server may take to end by itself, before it is killed


def main(command: Sequence[str]) -> int:
    """Keep ``command`` and give its exit status, 128 and the signal where one ended it."""
    prctl = ctypes.CDLL(None).prctl
    prctl(SET_CHILD_SUBREAPER, 1)
    # A signal wakes the wait below, and ends the command as the owner's death does.
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        # Else the command would outlive a keeper that is killed itself.
        preexec_fn=lambda: prctl(SET_PDEATHSIG, signal.SIGKILL),
    )
    select.select([0, told, os.pidfd_open(child.pid)], [], [])
    _end(child)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _end(child: subprocess.Popen[bytes]) -> None:
    """Ask the command to end, and after a while kill it and all that is left of it."""
    if child.poll() is None:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(END_S)
    while left := psutil.Process().children(recursive=True):
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        child.poll()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.01)
    child.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
