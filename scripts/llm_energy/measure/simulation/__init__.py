"""A simulated host with a known truth: the pipeline's own test bench, and never a measurement."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from llm_energy.core.files import sha256_json
from llm_energy.records import Spec

if TYPE_CHECKING:
    from llm_energy.measure.simulation.host import SimulatedHost


def open_host(spec: Spec) -> SimulatedHost:
    """Open the host that a spec of the backend ``simulated`` runs on.

    All repeats of all cells get the same hardware; its noise depends on the cell and the repeat.
    Its calendar begins now, so that the order of the repeats is the real one.
    """
    # Here, since the stages that prepare a simulated model need none of it.
    from llm_energy.measure.simulation.host import SimulatedHost
    from llm_energy.measure.simulation.truth import GpuTruth, Truth

    seed = int(sha256_json([spec.cell, spec.repeat, spec.seed])[:12], 16)
    gpus = () if spec.device == "cpu" else (GpuTruth(),)
    return SimulatedHost(Truth(gpus=gpus), seed, epoch_s=time.time())
