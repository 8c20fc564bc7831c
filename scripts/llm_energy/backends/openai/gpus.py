"""Choose the GPUs of a server and name them for the meter, without loading any engine."""

from __future__ import annotations

import os

from llm_energy.core.errors import Unsupported


def visible_uuids(count: int) -> list[str]:
    """Return the UUIDs of the first GPUs that this process may use; Unsupported for too few.

    Follows CUDA_VISIBLE_DEVICES; an index in it counts by bus, as NVML does, and CUDA where
    CUDA_DEVICE_ORDER is PCI_BUS_ID or all GPUs are of one kind.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
        known = [
            _text(pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(index)))
            for index in range(pynvml.nvmlDeviceGetCount())
        ]
    except pynvml.NVMLError as error:
        raise Unsupported(
            f"device cuda was asked for and NVML finds no GPU here: {error}; ask for the device cpu"
        ) from None
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        known = [_one(name.strip(), known) for name in chosen.split(",") if name.strip()]
    if len(known) < count:
        raise Unsupported(f"{count} GPUs were asked for and this process may use {len(known)}")
    return known[:count]


def _one(name: str, known: list[str]) -> str:
    """Return the UUID that an entry of CUDA_VISIBLE_DEVICES means."""
    found = [known[int(name)]] if name.isdigit() and int(name) < len(known) else []
    found += [uuid for uuid in known if name.startswith("GPU-") and uuid.startswith(name)]
    if not found:
        raise Unsupported(
            f"CUDA_VISIBLE_DEVICES names {name!r}, allowed an index below {len(known)} or the UUID "
            "of a whole GPU"
        )
    return found[0]


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name
