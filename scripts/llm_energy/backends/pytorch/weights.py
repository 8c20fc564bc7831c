"""What PyTorch really loaded: bytes, precision and place of a model's weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from llm_energy.core.errors import Unsupported

QUANTIZED_MODULES = ("Linear8bitLt", "Linear4bit")  # of bitsandbytes


def bytes_by_dtype(model: Any) -> dict[str, int]:
    """Count the bytes that the weights hold in memory, by dtype."""
    sizes: Counter[str] = Counter()
    for tensor in _resident_tensors(model):
        sizes[_name(tensor.dtype)] += tensor.nbytes
    return dict(sorted(sizes.items()))


def computing_dtype(model: Any) -> str:
    """Return the dtype of most floating-point parameters; quantised weights are not among them."""
    elements: Counter[str] = Counter()
    for parameter in model.parameters():
        if parameter.is_floating_point():
            elements[_name(parameter.dtype)] += parameter.numel()
    return elements.most_common(1)[0][0]


def quantized_modules(model: Any) -> dict[str, int] | None:
    """Count the modules whose weights really are integers, by class; None where there is none."""
    kinds = Counter(
        type(module).__name__
        for module in model.modules()
        if type(module).__name__ in QUANTIZED_MODULES and not module.weight.is_floating_point()
    )
    return dict(kinds) or None


def check_placement(model: Any, device: str, device_map: dict[str, str] | None) -> None:
    """Raise Unsupported if any weight is elsewhere than on ``device``, ``cpu`` or ``cuda``.

    Accelerate moves what does not fit to the host or the disk, and fetches it again at each use.
    """
    placed = {parameter.device.type for parameter in model.parameters()}
    placed |= {place for place in (device_map or {}).values() if place in ("cpu", "disk")}
    if placed - {device}:
        elsewhere = ", ".join(sorted(placed - {device}))
        raise Unsupported(
            f"the model does not fit on {device}: part of it was placed on {elsewhere}"
        )


def check_precision(effective: dict[str, Any], dtype: str, quantization: dict | None) -> None:
    """Raise Unsupported if the engine loaded another precision than it was asked for."""
    if effective["dtype"] != dtype:
        raise Unsupported(f"asked for {dtype}, the engine loaded {effective['dtype']}")
    if not quantization:
        return
    wanted = "Linear4bit" if quantization.get("load_in_4bit") else "Linear8bitLt"
    if wanted not in (effective["quantization"] or {}):
        raise Unsupported(
            f"asked for {quantization}, and the engine quantised no module of this architecture"
        )


def _resident_tensors(model: Any) -> Iterator[Any]:
    """Yield each tensor in memory once: parameters, buffers, and the scales of quantised weights.

    bitsandbytes keeps scales as attributes of a parameter (``SCB``, ``quant_state``), where the
    model's own count of its bytes does not look.
    """
    seen: set[tuple[int, int]] = set()
    waiting: list[Any] = [*model.parameters(), *model.buffers()]
    while waiting:
        item = waiting.pop()
        if hasattr(item, "to_local"):  # the part of a sharded tensor that this rank holds
            item = item.to_local()
        if hasattr(item, "data_ptr"):
            if (item.data_ptr(), item.nbytes) not in seen:
                seen.add((item.data_ptr(), item.nbytes))
                yield item
            waiting += [getattr(item, name, None) for name in ("SCB", "quant_state")]
        elif item is not None:
            waiting += [getattr(item, name, None) for name in ("absmax", "code", "state2")]


def _name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")
