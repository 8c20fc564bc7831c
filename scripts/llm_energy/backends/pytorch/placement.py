"""Where PyTorch puts a model: on one GPU, in layers over several, or sharded over ranks."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from llm_energy.core.errors import Unsupported
from llm_energy.records import Spec

# How long a rank waits for another in one operation: far longer than any takes, and no hang.
OPERATION_TIMEOUT_S = 600.0


def device_for(torch: Any, wanted: str, dtype: str) -> str:
    """Return ``cuda`` or ``cpu``; Unsupported where it is not there or lacks the dtype."""
    present = torch.cuda.is_available()
    if wanted == "cuda" and not present:
        raise Unsupported("device 'cuda' was asked for and PyTorch finds none on this host")
    device = "cuda" if present and wanted != "cpu" else "cpu"
    # Before compute capability 8.0 a GPU only emulates bfloat16, which says nothing about it.
    native = device == "cpu" or torch.cuda.is_bf16_supported(including_emulation=False)
    if dtype == "bfloat16" and not native:
        raise Unsupported("this GPU has no bfloat16 arithmetic; use float16 or float32")
    return device


def placement(torch: Any, spec: Spec, device: str) -> dict[str, Any]:
    """Return the arguments of ``from_pretrained`` that place the model; raises Unsupported."""
    count = spec.sharding.num_devices
    if spec.engine.get("tp_plan"):
        _check_gpus(torch, device, count)
        _join(torch, device)
        from transformers.distributed import DistributedConfig

        return {"distributed_config": DistributedConfig(tp_size=count)}
    if spec.engine.get("device_map"):
        if device == "cpu":
            raise Unsupported("device_map spreads layers over GPUs, and the CPU is one device")
        _check_gpus(torch, device, count)
        # Only these GPUs, and neither the host's memory nor its disk.
        free_bytes = {index: torch.cuda.mem_get_info(index)[0] for index in range(count)}
        return {"device_map": spec.engine["device_map"], "max_memory": free_bytes}
    return {"device_map": {"": "cuda:0" if device == "cuda" else "cpu"}}


def leave(torch: Any) -> None:
    """Take this rank out of its group; without effect where there is none."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def check_spread(model: Any, device_uuids: list[str], spec: Spec) -> None:
    """Raise Unsupported if the model is not spread as asked: a rank or a GPU would be wasted."""
    count = spec.sharding.num_devices
    sharded = any(hasattr(parameter, "to_local") for parameter in model.parameters())
    if spec.engine.get("tp_plan") and not sharded:
        raise Unsupported(
            f"transformers has no tensor-parallel plan for {type(model).__name__}: every rank "
            "would hold and compute all of it"
        )
    if spec.engine.get("device_map") and len(device_uuids) != count:
        raise Unsupported(
            f"the layers were placed on {len(device_uuids)} of {count} GPUs; the model is too "
            "small to be spread over more"
        )


def _check_gpus(torch: Any, device: str, count: int) -> None:
    if device == "cuda" and count > torch.cuda.device_count():
        raise Unsupported(
            f"{count} GPUs were asked for and PyTorch sees {torch.cuda.device_count()}"
        )


def _join(torch: Any, device: str) -> None:
    """Form the group of ranks, through a file and the host's loopback interface alone."""
    if torch.distributed.is_initialized():
        return
    if "LLM_ENERGY_MEETING" not in os.environ:
        raise Unsupported("tensor parallelism takes a process for each rank, and this is one alone")
    rank = int(os.environ["RANK"])
    for library in ("GLOO", "NCCL"):
        os.environ.setdefault(f"{library}_SOCKET_IFNAME", "lo")
    options = {}
    if device == "cuda":
        torch.cuda.set_device(rank)
        options["device_id"] = torch.device("cuda", rank)
    torch.distributed.init_process_group(
        "nccl" if device == "cuda" else "gloo",
        init_method=f"file://{os.environ['LLM_ENERGY_MEETING']}",
        rank=rank,
        world_size=int(os.environ["WORLD_SIZE"]),
        timeout=timedelta(seconds=OPERATION_TIMEOUT_S),
        **options,
    )
