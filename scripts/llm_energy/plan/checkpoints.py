"""Say which checkpoints, quantised before, a sweep fetches, and which cells lack one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from llm_energy.plan.config.load import ModelEntry, PrecisionEntry
from llm_energy.records.registry.precisions import CHECKPOINTS


def checkpoint_entries(models: Iterable[ModelEntry]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return what the models stage fetches for each (model, precision) that names a checkpoint."""
    return {
        (model.id, name): {"id": model.id, "precision": name, **one}
        for model in models
        for name, one in model.checkpoints.items()
    }


def checkpoint_refusals(
    model: ModelEntry, precision: PrecisionEntry, simulated: bool
) -> Iterator[str]:
    """Say why a model has no weights of a precision that takes a checkpoint."""
    name = precision.precision
    if name in CHECKPOINTS and name not in model.checkpoints and not simulated:
        yield (
            f"model '{model.id}' names no checkpoint of the precision {name}, which is quantised "
            f"beforehand; add checkpoints: {{{name}: {{model_name: ..., revision: ...}}}} to its "
            "entry"
        )
    elif name in CHECKPOINTS and simulated:
        yield f"the simulated backend reads no checkpoint, and {name} is one; leave it out"
