"""Run several processes of one engine as children of the measuring process, and never hang on them.

The measuring process is no rank itself: it holds the meter, tells every rank what to do, and waits
for their answers. So whatever happens to a rank, dying inside a collective operation included, the
measuring process is free to notice it, end the others by their ids, and say why.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from llm_energy.backends.engine_errors import how_it_ended
from llm_energy.core.errors import LlmEnergyError, OutOfMemory, Unsupported
from llm_energy.records.files.paths import SCRIPTS

MODULE = "llm_energy.backends.distributed.rank"
# How long ranks that work together may take to answer once one of them has failed; they answer at
# once if they failed alike, and never if they wait for the one that failed.
PATIENCE_S = 10.0
END_S = 30.0  # how long a rank may take to close its engine


class RankFailure(LlmEnergyError):
    """A rank ended, or failed in a way that leaves the others waiting for it."""


# Of the failures of one call, the first kind here is the cause, and the others follow from it.
KINDS: dict[str, type[LlmEnergyError]] = {
    "oom": OutOfMemory,
    "ended": RankFailure,
    "unsupported": Unsupported,
    "failed": RankFailure,
}


class Ranks:
    """Hold the processes of one engine; ``together`` says that they work on every request jointly.

    ``module`` is the backend's, imported in each rank. A rank sees its own share of the processors
    this process may use, and, where ranks don't work together, its own GPU alone.
    """

    def __init__(self, module: str, count: int, together: bool):
        self._together = together
        self._problem: str | None = None
        self._meeting = Path(tempfile.mkdtemp(prefix="llm-energy-ranks-"))
        self._processes: list[subprocess.Popen[bytes]] = []
        self._connections: list[Connection] = []
        try:
            for rank in range(count):
                self._start(module, rank, count)
        except BaseException:
            self.end()
            raise

    @property
    def pids(self) -> list[int]:
        """Return the process ids, by rank."""
        return [process.pid for process in self._processes]

    def call(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Let every rank call a method, with its own arguments, and give their answers by rank.

        Returns when all have answered. Raises what the ranks raised, OutOfMemory and Unsupported as
        themselves and the rest as RankFailure; after a rank's end, every later call raises too.
        """
        if self._problem:
            raise RankFailure(self._problem)
        answers: dict[int, tuple[str, Any]] = {}
        for rank, connection in enumerate(self._connections):
            with contextlib.suppress(OSError):  # it has ended, and reading will say so
                connection.send((method, arguments[rank]))
        patience_s = None
        while len(answers) < len(self._connections):
            waiting = {c: r for r, c in enumerate(self._connections) if r not in answers}
            ready = wait(list(waiting), patience_s)
            if not ready:
                break
            for connection in ready:
                answers[waiting[connection]] = self._answer(waiting[connection], connection, method)
            if self._together and any(kind != "ok" for kind, _ in answers.values()):
                patience_s = PATIENCE_S
        failures = {rank: a for rank, a in answers.items() if a[0] != "ok"}
        if failures:
            self._fail(failures, complete=len(answers) == len(self._connections))
        return [answers[rank][1] for rank in range(len(self._connections))]

    def end(self) -> None:
        """End every rank: kindly by closing its connection, and after a while by its id."""
        for connection in self._connections:
            connection.close()
        deadline_s = time.monotonic() + (0 if self._problem else END_S)
        for process in self._processes:
            try:
                process.wait(max(0.0, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._problem = self._problem or "the ranks were ended"
        self._processes, self._connections = [], []
        shutil.rmtree(self._meeting, ignore_errors=True)

    def _start(self, module: str, rank: int, count: int) -> None:
        ours, theirs = socket.socketpair()
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(SCRIPTS), *sys.path]),
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(count if self._together else 1),
            "LLM_ENERGY_MEETING": str(self._meeting / "store"),
        }
        if not self._together:
            environment["CUDA_VISIBLE_DEVICES"] = own_gpu(
                os.environ.get("CUDA_VISIBLE_DEVICES"), rank
            )
        cpus = share(sorted(os.sched_getaffinity(0)), rank, count)
        numbers = ",".join(map(str, cpus))
        command = [sys.executable, "-m", MODULE, module, str(theirs.fileno()), numbers]
        with theirs:
            self._processes.append(
                subprocess.Popen(
                    command,
                    env=environment,
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    stdout=2,
                )
            )
        self._connections.append(Connection(ours.detach()))

    def _answer(self, rank: int, connection: Connection, method: str) -> tuple[str, Any]:
        try:
            return connection.recv()
        except (EOFError, OSError):
            return "ended", f"{self._epitaph(rank)} during {method}"

    def _epitaph(self, rank: int) -> str:
        """Say how a rank ended whose connection is gone."""
        process = self._processes[rank]
        try:
            status = process.wait(END_S)
        except subprocess.TimeoutExpired:
            return f"process {process.pid} closed its connection"
        return how_it_ended(f"process {process.pid}", status)

    def _fail(self, failures: dict[int, tuple[str, Any]], complete: bool) -> None:
        """Raise the cause; where a rank is gone or stuck, end them all before."""
        kinds = list(KINDS)
        rank = min(failures, key=lambda r: (kinds.index(failures[r][0]), r))
        kind, reason = failures[rank]
        reason = f"rank {rank}: {reason}"
        if not complete or any(k == "ended" for k, _ in failures.values()):
            self._problem = f"the ranks were ended after a failure: {reason}"
            self.end()
        raise KINDS[kind](reason)


def share(cpus: Sequence[int], rank: int, count: int) -> Sequence[int]:
    """Return a rank's part of the processors, the same number for each.

    >>> share([0, 1, 2, 3, 4], 1, 2)
    [2, 3]
    >>> share([0], 1, 2)
    [0]
    """
    size = max(1, len(cpus) // count)
    return cpus[rank * size : (rank + 1) * size] or cpus[-1:]


def own_gpu(visible: str | None, rank: int) -> str:
    """Return the one GPU that a rank may see, of those that this process may.

    >>> own_gpu("3,5", 1), own_gpu(None, 1), own_gpu("3", 1)
    ('5', '1', '')
    """
    if visible is None:
        return str(rank)
    names = [name.strip() for name in visible.split(",") if name.strip()]
    return names[rank] if rank < len(names) else ""
