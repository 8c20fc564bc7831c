"""What vLLM reads from the environment of its process."""

from __future__ import annotations

import atexit
import functools
import importlib.util
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from llm_energy.backends.distributed.ranks import share

# vLLM reads these once, while it is imported; what the user has set stays.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",  # the model is a folder: nothing may be looked up or fetched
    "VLLM_NO_USAGE_STATS": "1",  # no report to anyone, and no thread that would send it
    "VLLM_LOGGING_LEVEL": "ERROR",  # it warns once for each weight that is cast while it is loaded
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
}


def environment(ranks: int) -> dict[str, str]:
    """Return what an engine of so many ranks needs, the user's own settings before ours."""
    # Without groups each rank of a tensor-parallel model on CPU is bound to one core.
    groups = cpu_groups(sorted(os.sched_getaffinity(0)), ranks)
    asked = ENVIRONMENT | {"VLLM_CPU_OMP_THREADS_BIND": groups}
    package = importlib.util.find_spec("vllm")
    if package and package.origin and (links := preload(Path(package.origin).parents[1])):
        asked["LD_PRELOAD"] = links
    return {name: os.environ.get(name, value) for name, value in asked.items()}


def set_environment(ranks: int) -> None:
    """Prepare this process for an engine of so many ranks; call it before vLLM is imported."""
    os.environ.update(environment(ranks))
    # One process: what is measured and what is asked of the engine must be in the same place.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"


@functools.cache
def preload(packages: Path) -> str | None:
    """Return an LD_PRELOAD for a folder of packages whose path cannot stand in one, else None.

    vLLM's CPU build writes the paths of its allocator and of PyTorch's OpenMP there for the
    processes that it starts (vllm/platforms/cpu.py, 0.32), and leaves it as it is where it names
    them; the loader splits it at blanks and colons (ld.so(8)). So links stand for them, which are
    gone when this process ends.
    """
    wanted = ("vllm/libs/libtcmalloc*.so*", "torch.libs/libgomp*.so*", "torch/lib/libgomp*.so*")
    found = [next(iter(sorted(packages.glob(pattern))), None) for pattern in wanted]
    on_gpus = (packages / "torch/lib/libtorch_cuda.so").exists()
    if on_gpus or not any(found) or not re.search(r"[\s:]", str(packages)):
        return None
    folder = Path(tempfile.mkdtemp(prefix="preload-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    links = {folder / library.name: library for library in found if library}
    for link, library in links.items():
        link.symlink_to(library)
    return ":".join(map(str, links))


def cpu_groups(cpus: Sequence[int], ranks: int) -> str:
    """Share the CPUs out among the ranks, in vLLM's notation.

    >>> cpu_groups([0, 1, 2, 3], 2)
    '0,1|2,3'
    """
    return "|".join(",".join(map(str, share(cpus, rank, ranks))) for rank in range(ranks))
