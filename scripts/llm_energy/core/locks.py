"""Let one process at a time measure on a host or measure a repeat, and one run have a sweep."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from llm_energy.core.errors import LlmEnergyError
from llm_energy.core.units import readable_duration

HOST_LOCK = "llm-energy-measure"

SAY_PERIOD_S = 600.0
RETRY_S = 0.2

# What file systems without locks answer, among them Lustre mounted without `flock`.
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)


@contextlib.contextmanager
def exclusive_host(
    name: str = HOST_LOCK, say: Callable[[str], None] = lambda text: None
) -> Iterator[float]:
    """Hold the host-wide measuring lock; yield the seconds spent waiting for it.

    ``say`` is told who has it, when the waiting begins and every SAY_PERIOD_S.

    It is a name among Linux's abstract sockets (unix(7)): the same one for every user and under
    every TMPDIR that a batch system gives its jobs. The kernel drops it when the process ends,
    however it ends, so none is ever left behind. Such names belong to a network namespace
    (network_namespaces(7)): containers that have their own don't see each other's lock, and what
    overlapped there is for check P01 to find.
    """
    begin = time.monotonic()
    with _socket() as lock:
        said_s = -math.inf
        while not _bind(lock, name):
            if time.monotonic() - said_s >= SAY_PERIOD_S:
                said_s = time.monotonic()
                waited_s = round(said_s - begin)
                since = f", for {readable_duration(waited_s)} so far" if waited_s else ""
                say(f"waiting for the host, where {_holder(name)} measures{since}")
            _wait_for_the_end(name, said_s + SAY_PERIOD_S - time.monotonic())
        lock.listen(socket.SOMAXCONN)
        yield time.monotonic() - begin


def host_is_free(name: str = HOST_LOCK) -> bool:
    """Return whether nobody measures on this host just now, without waiting."""
    with _socket() as probe:
        return _bind(probe, name)


def _socket() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)


def _bind(lock: socket.socket, name: str) -> bool:
    try:
        lock.bind(f"\0{name}")
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return False
    return True


def _wait_for_the_end(name: str, seconds: float) -> None:
    """Return when the process that holds ``name`` lets it go, or after some seconds.

    It never answers, it only ends. One that doesn't listen, which is no measurement of ours, is
    asked again a little later.
    """
    with _socket() as waiting:
        waiting.settimeout(max(seconds, RETRY_S))
        try:
            waiting.connect(f"\0{name}")
            waiting.recv(1)
        except ConnectionError:
            time.sleep(RETRY_S)
        except TimeoutError:
            pass


def _holder(name: str) -> str:
    """Return which process listens under ``name``, as far as it can be known."""
    try:
        with _socket() as asking:
            asking.settimeout(RETRY_S)
            asking.connect(f"\0{name}")
            found = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    except OSError:
        return "a process that can't be asked"
    return f"process {struct.unpack('3i', found)[0]}"


@contextlib.contextmanager
def exclusive_file(path: Path) -> Iterator[bool]:
    """Hold the lock file ``path``, and remove it afterwards; yield whether it had to be waited for.

    It holds on every node that shares the file system, as far as that has locks; where it has
    none, nothing is held.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    waited = False
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except IsADirectoryError:
            raise LlmEnergyError(
                f"{path}: is a folder where a lock file belongs; remove it, then run the same "
                "command again"
            ) from None
        try:
            waited |= _lock(descriptor)
            if not _is_at(descriptor, path):  # its holder before us removed it
                continue
            try:
                yield waited
            finally:
                path.unlink(missing_ok=True)
            return
        finally:
            os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Take the lock of an open file; say whether somebody else had it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return True
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return False


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def hold_sweep(sweep: str, folder: Path = Path()) -> str | None:
    """Hold a sweep of the project in ``folder`` for a run until this process ends, however it does.

    Snakemake's own lock stays behind where its process is killed. One that names files of this
    sweep is of a run that has ended, if that was on this host: else it would hold the sweep. It is
    taken away then, and the sentence returned that says so. Raises LlmEnergyError where another run
    has the sweep, or may have it.
    """
    path = folder / ".snakemake" / "llm-energy" / f"{sweep}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        owner = json.loads(os.pread(descriptor, 4096, 0))
        run = f"process {owner['process']} on {owner['host']}, since {owner['since']}"
    except (ValueError, TypeError, KeyError):
        owner, run = {}, "an unknown process"
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LlmEnergyError(
            f"sweep {sweep}: another run has it ({run}). Wait until that ends, or give this config "
            "another `name`"
        ) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    left = [lock for lock in folder.glob(".snakemake/locks/*.lock") if _is_of_sweep(lock, sweep)]
    if left and owner.get("host") != socket.gethostname():
        raise LlmEnergyError(
            f"sweep {sweep}: {left[0]} was left by {run}, and whether that still runs can't be "
            "seen from here. If not: the same command with --unlock, then the same command again"
        )
    for lock in left:
        lock.unlink(missing_ok=True)
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    content = {"host": socket.gethostname(), "process": os.getpid(), "since": since}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(content).encode(), 0)  # and stays open: the lock ends with it
    if not left:
        return None
    return f"Sweep {sweep}: its last run was killed ({run}); this one goes on from there."


def _is_of_sweep(lock: Path, sweep: str) -> bool:
    """Return whether one of Snakemake's locks names a file of a sweep."""
    try:
        return f"\nresults/{sweep}/" in "\n" + lock.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
