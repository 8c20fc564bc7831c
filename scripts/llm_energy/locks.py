"""Let one process at a time measure on a host, and one process at a time measure a repeat."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

HOST_LOCK = "llm-energy-measure"

# What file systems without locks answer, among them Lustre mounted without `flock`.
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)


@contextlib.contextmanager
def exclusive_host(name: str = HOST_LOCK) -> Iterator[float]:
    """Hold the host-wide measuring lock; yield the seconds spent waiting for it.

    It is a name among Linux's abstract sockets (unix(7)): the same one for every user and under
    every TMPDIR that a batch system gives its jobs. The kernel drops it when the process ends,
    however it ends, so none is ever left behind. Such names belong to a network namespace
    (network_namespaces(7)): containers that have their own don't see each other's lock, and what
    overlapped there is for check P01 to find.
    """
    begin = time.monotonic()
    with _socket() as lock:
        while not _bind(lock, name):
            _wait_for_the_end(name)
        lock.listen(socket.SOMAXCONN)
        yield time.monotonic() - begin


def host_is_free(name: str = HOST_LOCK) -> bool:
    """Say whether nobody measures on this host just now, without waiting."""
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


def _wait_for_the_end(name: str) -> None:
    """Come back when the process that holds ``name`` lets it go: it never answers, it only ends."""
    with _socket() as waiting, contextlib.suppress(ConnectionError):
        waiting.connect(f"\0{name}")
        waiting.recv(1)


@contextlib.contextmanager
def exclusive_file(path: Path) -> Iterator[bool]:
    """Hold the lock file ``path``, and remove it afterwards; yield whether it had to be waited for.

    It holds on every node that shares the file system, as far as that has locks; where it has
    none, nothing is held.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    waited = False
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
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
