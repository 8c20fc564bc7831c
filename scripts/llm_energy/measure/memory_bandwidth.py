"""Time how fast this host copies memory, where no data sheet says what its processors can read."""

from __future__ import annotations

import ctypes
import os
import time
from concurrent.futures import ThreadPoolExecutor

TOTAL_BYTES = 512 * 2**20  # copied at once by all threads; several times most last-level caches
MOST_THREADS = 32  # a socket's memory is busy long before
ROUNDS = 3


def copy_bytes_per_s(total_bytes: int = TOTAL_BYTES) -> float | None:
    """Return the best of three copies, by all processors at once, in bytes read per second.

    A copy reads each byte and writes it; McCalpin's STREAM counts both, this counts the reads,
    doubled, so that the figure is STREAM's (J. D. McCalpin, Memory Bandwidth and Machine Balance,
    IEEE TCCA Newsletter, 1995). Takes some tenths of a second, and is called before anything is
    metered. None where memory does not suffice or the C library has no ``memcpy``.
    """
    threads = min(MOST_THREADS, len(os.sched_getaffinity(0)))
    size = total_bytes // threads // 2
    try:
        # Through ctypes, since that releases the interpreter's lock while memory is copied.
        copy = ctypes.CDLL(None).memcpy
        copy.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
        copy.restype = ctypes.c_void_p
        buffers = [(ctypes.create_string_buffer(size), bytearray(size)) for _ in range(threads)]
    except (AttributeError, MemoryError, OSError):
        return None
    pairs = [(ctypes.addressof(a), (ctypes.c_char * size).from_buffer(b)) for a, b in buffers]

    def once(pair: tuple[int, ctypes.Array]) -> None:
        copy(pair[0], ctypes.addressof(pair[1]), size)

    best_s = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(once, pairs))  # the first copy finds pages that are not there yet
        for _ in range(ROUNDS):
            begin_s = time.perf_counter()
            list(pool.map(once, pairs))
            best_s = min(best_s, time.perf_counter() - begin_s)
    return 2 * size * threads / best_s
