"""One rank: a process that holds a backend and does what the measuring process tells it.

    python -m llm_energy.backends.distributed.rank MODULE DESCRIPTOR CPU,CPU,...

It answers each ``(method, arguments)`` on the connection with ``(kind, result or reason)``, a load
with what it serves besides, and ends when the connection does.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from llm_energy.core.errors import OutOfMemory, Unsupported
from llm_energy.core.files import sha256_json
from llm_energy.core.serialize import to_dict
from llm_energy.records import Spec

PR_SET_PDEATHSIG = 1  # prctl(2): which signal a process gets when its parent ends


def main(argv: Sequence[str]) -> None:
    """Serve until the connection ends."""
    module, descriptor, cpus = argv
    os.set_inheritable(int(descriptor), False)  # else an engine's own child would hold it open
    # A rank that is stuck in a collective operation reads no connection: it would keep its GPU.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the parent ends us
    with contextlib.suppress(OSError):  # a sandbox may forbid it
        os.sched_setaffinity(0, {int(cpu) for cpu in cpus.split(",")})
    gc.disable()  # a collection inside a window would be charged to the model
    follows = os.environ["WORLD_SIZE"] != "1" and os.environ["RANK"] != "0"
    backend = None
    with Connection(int(descriptor)) as connection:
        while True:
            try:
                method, arguments = connection.recv()
            except (EOFError, OSError):
                break
            try:
                if backend is None:
                    backend = _create(module)
                result = getattr(backend, method)(*arguments)
                if method == "load":
                    result = _identity(module, arguments[0], result), result
                if follows and method == "generate":
                    result = None  # the same as rank 0's, which is asked for
                answer = ("ok", result)
            except Exception as error:  # all of it is the parent's to judge
                answer = _failure(error)
            if method != "generate":
                gc.collect()
            with contextlib.suppress(OSError):
                connection.send(answer)
    if backend is not None:
        backend.close()


def _create(module: str) -> Any:
    try:
        return importlib.import_module(module).Backend()
    except ImportError as error:
        raise Unsupported(f"its backend cannot be imported ({error})") from None


def _identity(module: str, spec: Spec, effective: dict[str, Any]) -> dict[str, str]:
    """Say what this process serves, for the parent to hold against the others."""
    return {
        "backend": module.rpartition(".")[2],
        "model": spec.model,
        "spec_sha256": sha256_json(to_dict(spec)),
        "device_kind": effective["device"].partition(":")[0],
    }


def _failure(error: Exception) -> tuple[str, str]:
    if isinstance(error, OutOfMemory):
        return "oom", str(error)
    if isinstance(error, Unsupported):
        return "unsupported", str(error)
    return "failed", f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    main(sys.argv[1:])
