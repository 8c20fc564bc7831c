"""Say with which memory allocator and OpenMP library a process really runs."""

from __future__ import annotations

import re
from pathlib import Path

ALLOCATOR = re.compile(r"lib(?:tc|je|mi)malloc[^/\n]*$", re.MULTILINE)
OPENMP = re.compile(r"lib(?:g|i)?omp[^/\n]*$", re.MULTILINE)
C_LIBRARY = "of the C library"


def loaded_libraries(maps: Path = Path("/proc/self/maps")) -> dict[str, str]:
    """Return ``memory_allocator`` and ``openmp``: file names, or those of several in order.

    ``maps`` are the files that a process has mapped (proc(5)). Where the system tells none,
    nothing is returned; a process without OpenMP has no ``openmp``.
    """
    try:
        mapped = maps.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    found = {"memory_allocator": _names(ALLOCATOR, mapped) or C_LIBRARY}
    openmp = _names(OPENMP, mapped)
    return found | ({"openmp": openmp} if openmp else {})


def _names(pattern: re.Pattern[str], mapped: str) -> str:
    return ", ".join(sorted(set(pattern.findall(mapped))))
