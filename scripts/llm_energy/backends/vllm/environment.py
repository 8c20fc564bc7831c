"""What vLLM reads from the environment of its process."""

from __future__ import annotations

import os
from collections.abc import Sequence

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
    return {name: os.environ.get(name, value) for name, value in asked.items()}


def set_environment(ranks: int) -> None:
    """Prepare this process for an engine of so many ranks; call it before vLLM is imported."""
    os.environ.update(environment(ranks))
    # One process: what is measured and what is asked of the engine must be in the same place.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"


def cpu_groups(cpus: Sequence[int], ranks: int) -> str:
    """Share the CPUs out among the ranks, in vLLM's notation.

    >>> cpu_groups([0, 1, 2, 3], 2)
    '0,1|2,3'
    """
    return "|".join(",".join(map(str, share(cpus, rank, ranks))) for rank in range(ranks))
