"""Test a GPU's two sensors against each other: its energy counter and the sampled power.

The counter has been seen to fall short of the integrated power while power was polled
(https://github.com/ml-energy/zeus/issues/181). So the same load runs with and without the sampler:
if sampling disturbs the counter, the two mean powers differ; if the sensors disagree, the integral
differs from the counter.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from llm_energy.core.errors import LlmEnergyError
from llm_energy.meter.meter import Meter, open_meter
from llm_energy.records import Interval, MeterSettings

LIMIT = 0.05
SAMPLING_PERIOD_S = 0.1
# Without, with, with, without: a steady drift, as of a GPU that warms up, cancels.
ORDER = (False, True, True, False)
MATRIX_SIZE = 8192
PRODUCTS_PER_WAIT = 8  # enough to keep a GPU's queue filled


@dataclass(frozen=True)
class SelfTest:
    """What one GPU's sensors said of one load, run twice without and twice with the sampler.

    Energies are sums over the two runs, each of ``duration_s``. ``ratio_counter`` is the counter's
    mean power with the sampler over that without; ``ratio_integral`` is the integral of the sampled
    power over the counter, for the same runs. Where there was no test, all are None and ``reason``
    says why.
    """

    device: str
    duration_s: float
    counter_without_j: float | None = None
    counter_with_j: float | None = None
    integral_j: float | None = None
    ratio_counter: float | None = None
    ratio_integral: float | None = None
    reason: str | None = None

    @property
    def passed(self) -> bool:
        """Return whether both ratios are known and within ``LIMIT`` of 1."""
        ratios = (self.ratio_counter, self.ratio_integral)
        return all(ratio is not None and abs(ratio - 1) <= LIMIT for ratio in ratios)


def of_gpus(gpus: Iterable[dict[str, Any]], duration_s: float) -> tuple[SelfTest, ...]:
    """Test the GPUs that a meter's ``gpus()`` gave, one by one; each takes five durations."""
    return tuple(_of_gpu(gpu["uuid"], duration_s) for gpu in gpus)


def _of_gpu(device: str, duration_s: float) -> SelfTest:
    with tempfile.TemporaryDirectory() as folder:

        def open_one(sampled: bool) -> Meter:
            period_s = SAMPLING_PERIOD_S if sampled else None
            settings = MeterSettings(codecarbon=False, sampling_period_s=period_s)
            return open_meter(settings, trace_path=Path(folder) / "self_test.trace.csv.gz")

        return self_test(open_one, device, partial(torch_load, device), duration_s)


def self_test(
    open_one: Callable[[bool], Meter],
    device: str,
    load: Callable[[float], None],
    duration_s: float,
) -> SelfTest:
    """Run ``load(duration_s)`` with and without the sampler, and compare what the sensors say.

    ``device`` is the UUID of the GPU that the load keeps busy. ``open_one(sampled)`` opens a
    meter that samples power, or does not: each run has its own, so that no sampler is about where
    there should be none. A LlmEnergyError of these two becomes the test's reason.
    """
    intervals: dict[bool, list[Interval]] = {False: [], True: []}
    try:
        load(duration_s)  # not metered: a cold GPU's power climbs, and not steadily
        for sampled in ORDER:
            intervals[sampled].append(_run(open_one(sampled), device, load, duration_s))
        counter_j = {
            sampled: math.fsum(_counter_j(interval) for interval in intervals[sampled])
            for sampled in intervals
        }
        integral_j = math.fsum(_integral_j(interval) for interval in intervals[True])
        if not all(counter_j.values()):
            raise LlmEnergyError("the energy counter stood still under load")
    except LlmEnergyError as error:
        return SelfTest(device, duration_s, reason=str(error))
    power_w = {
        sampled: counter_j[sampled] / math.fsum(i.duration_s for i in intervals[sampled])
        for sampled in intervals
    }
    return SelfTest(
        device=device,
        duration_s=duration_s,
        counter_without_j=counter_j[False],
        counter_with_j=counter_j[True],
        integral_j=integral_j,
        ratio_counter=power_w[True] / power_w[False],
        ratio_integral=integral_j / counter_j[True],
    )


def _run(meter: Meter, device: str, load: Callable[[float], None], duration_s: float) -> Interval:
    try:
        meter.restrict([device])
        with meter.interval("self_test") as metered:
            load(duration_s)
        return metered.record
    finally:
        meter.close()


def _counter_j(interval: Interval) -> float:
    (gpu,) = (part for part in interval.energy if part.component == "gpu")
    if gpu.energy_j is None:
        raise LlmEnergyError(gpu.reason)
    if gpu.whole_module:
        raise LlmEnergyError(
            "the counter is that of the whole module and the sampled power that of the GPU, so "
            "neither can be held against the other"
        )
    return gpu.energy_j


def _integral_j(interval: Interval) -> float:
    energy_j = next((s.energy_j for s in interval.trace), None)
    if energy_j is None:
        raise LlmEnergyError("the GPU's power could not be sampled throughout the load")
    return energy_j


def torch_load(device: str, duration_s: float) -> None:
    """Keep the GPU with this UUID busy with matrix products of half precision.

    Raises LlmEnergyError where PyTorch is not installed, or does not see the GPU, or fails on it.
    """
    try:
        import torch
    except ImportError:
        raise LlmEnergyError(
            "a load needs PyTorch: run this with an environment's interpreter, such as "
            ".venvs/pytorch/bin/python"
        ) from None
    seen = [torch.cuda.get_device_properties(i).uuid for i in range(torch.cuda.device_count())]
    index = next((i for i, uuid in enumerate(seen) if f"GPU-{uuid}" == device), None)
    if index is None:
        raise LlmEnergyError(f"PyTorch {torch.__version__} does not see GPU {device}")
    end_s = time.monotonic() + duration_s
    try:
        matrix = torch.ones(MATRIX_SIZE, MATRIX_SIZE, dtype=torch.float16, device=f"cuda:{index}")
        while time.monotonic() < end_s:
            for _ in range(PRODUCTS_PER_WAIT):
                matrix @ matrix
            torch.cuda.synchronize(index)
    except RuntimeError as error:  # out of memory is one
        raise LlmEnergyError(f"the load failed on {device}: {error}") from None
