"""The life of a server that is measured: started, waited for, and ended with all its processes."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence

from llm_energy.backends.engine_errors import SIGNALS, how_it_ended
from llm_energy.backends.served import keeper
from llm_energy.core.errors import LlmEnergyError
from llm_energy.records.files.paths import SCRIPTS

HOST = "127.0.0.1"  # nobody else's machine may ask a server that is measured
LOOK_S = 0.25  # between two looks at a server that starts
TAIL_BYTES = 64 * 1024  # of what the server said, that is kept
EPITAPH_S = 5.0  # that a dying server may take to be dead, once its connections broke


class ServerFailure(LlmEnergyError):
    """A server ended, stalled, or answered otherwise than it was asked."""


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


class Server:
    """Own the processes of one server; ``command`` may hold ``{port}``.

    ``key_name`` is the variable of its environment in which the server looks for its key, which
    lies there and nowhere else. Its output goes to a file that has no name, so none is left behind.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], key_name: str
    ) -> None:
        self.port = free_port()
        self.url = f"http://{HOST}:{self.port}"
        self.key = secrets.token_urlsafe(32)
        self._said = tempfile.TemporaryFile()  # noqa: SIM115
        path = os.pathsep.join(filter(None, [str(SCRIPTS), os.environ.get("PYTHONPATH")]))
        arguments = [argument.replace("{port}", str(self.port)) for argument in command]
        self._keeper = subprocess.Popen(
            [sys.executable, "-P", "-m", keeper.__name__, *arguments],
            env=os.environ | {"PYTHONPATH": path} | environment | {key_name: self.key},
            stdin=subprocess.PIPE,
            stdout=self._said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Return the id of the process above all of the server's."""
        return self._keeper.pid

    def wait_ready(self, healthy: Callable[[], bool], limit_s: float) -> None:
        """Look again and again whether it is healthy; ServerFailure if it ends or takes longer."""
        deadline_s = time.monotonic() + limit_s
        while not healthy():
            if (epitaph := self.epitaph()) is not None:
                raise ServerFailure(f"{epitaph} before it was ready{self.last_words()}")
            if time.monotonic() > deadline_s:
                raise ServerFailure(
                    f"the server was not ready within {limit_s:g} s{self.last_words()}"
                )
            time.sleep(LOOK_S)

    def epitaph(self, wait_s: float = 0.0) -> str | None:
        """Say how the server ended, None while it lives; ``wait_s`` is time for it to be dead."""
        try:
            status = self._keeper.wait(wait_s) if wait_s else self._keeper.poll()
        except subprocess.TimeoutExpired:
            return None
        if status is None:
            return None
        if status - 128 in SIGNALS:  # as the keeper tells of a command that one ended
            status = 128 - status
        return how_it_ended("the server", status)

    def output(self) -> str:
        """Return the end of what the server said, its key taken out."""
        size = os.fstat(self._said.fileno()).st_size
        said = os.pread(self._said.fileno(), TAIL_BYTES, max(0, size - TAIL_BYTES))
        return said.decode("utf-8", "replace").replace(self.key, "***")

    def last_words(self, lines: int = 5) -> str:
        """Return the last lines that the server said, to stand at the end of a sentence."""
        said = [line.strip() for line in self.output().splitlines() if line.strip()]
        return ". It last said: " + " | ".join(said[-lines:]) if said else ", and it said nothing"

    def end(self) -> None:
        """End the server and all that it started; a second time does nothing."""
        if self._said.closed:
            return
        self._keeper.stdin.close()
        try:
            self._keeper.wait(2 * keeper.END_S)
        except subprocess.TimeoutExpired:  # a keeper that was stopped, say
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._keeper.pid, signal.SIGKILL)
            self._keeper.wait()
        self._said.close()


class Elsewhere:
    """A server that somebody else has started: its address and key, and nothing of its life."""

    def __init__(self, url: str, key: str) -> None:
        self.url, self.key = url, key

    def epitaph(self, wait_s: float = 0.0) -> None:
        """Return None, since how it ended can't be known."""

    def last_words(self) -> str:
        """Return nothing, since what it said can't be read."""
        return ""
