"""A simulated host with a known truth, under which the real meter and the real protocol run.

Its clock moves only when something is done: a sleep, or a pass of the simulated engine. What the
sensors show at any time follows from what the devices drew until then, which is known in closed
form, so the right answer of every measurement is known as well.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from llm_energy.core.errors import BackendUnavailable
from llm_energy.measure.simulation.gpus import Gpu
from llm_energy.measure.simulation.nvml import make_nvml
from llm_energy.measure.simulation.power import History
from llm_energy.measure.simulation.sampler import VirtualSampler
from llm_energy.measure.simulation.sysfs import Activity, Package, Trees
from llm_energy.measure.simulation.truth import Truth
from llm_energy.records import Host
from llm_energy.records.registry.engines import is_simulated

START_S = 1000.0  # of the monotonic clock: a host that has been up for a while
EPOCH_S = 1_767_225_600.0  # 2026-01-01, unless the caller gives another beginning
IDLE_CORES, BUSY_CORES = 0.01, 1.0


class SimulatedHost:
    """One host, with GPUs, sockets, clocks and an engine that all follow ``truth`` and ``seed``.

    ``at(time_s, action)`` schedules something that happens to it, such as a counter that is reset.
    """

    simulated = True

    def __init__(self, truth: Truth | None = None, seed: int = 0, epoch_s: float = EPOCH_S):
        self.truth = truth or Truth()
        self.random = Random(f"host {seed}")
        self._now_s = START_S
        self._wall_offset_s = epoch_s - START_S
        self._actions: list[tuple[float, Callable[[SimulatedHost], None]]] = []
        self._phase: tuple[str, int] = ("idle", 0)
        self._loaded = False
        self._fresh_s = -1.0
        factor = 1 + self.random.gauss(0, self.truth.repeat_sd)
        self.gpus = [
            Gpu(gpu, index, self.random, factor, self._now)
            for index, gpu in enumerate(self.truth.gpus)
        ]
        self.in_use: list[Gpu] = []
        self.sampler_pauses: list[tuple[float, float]] = []
        self._used = self.gpus
        self.packages = [
            Package(package, self.random, factor, START_S) for package in self.truth.packages
        ]
        self.activity = Activity(self.truth)
        self.nvml = make_nvml(self.gpus, self._now, os.getpid())
        if not self.gpus:
            self.nvml.init_error = 9
        folder = Path(tempfile.mkdtemp(prefix="simulated-host-"))
        self._remove = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._trees = Trees(folder, self.truth, self.packages, self.random)
        self.sysfs, self.procfs = self._trees.sysfs, self._trees.procfs
        self._enter()

    # what a machine offers (llm_energy.measure.host.Machine)

    def clock(self) -> float:
        """Return the simulated monotonic time in s; whoever asks may look at the files next."""
        self._refresh()
        return self._now_s

    def wall_clock(self) -> float:
        """Return the simulated seconds since 1970-01-01 UTC."""
        return self._now_s + self._wall_offset_s

    def sleep(self, duration_s: float) -> None:
        """Let time pass."""
        self.advance(duration_s)
        self._refresh()

    def start_sampler(self, path: Path, period_s: float, devices: Sequence[str]) -> VirtualSampler:
        """Begin a power trace that is sampled in simulated time."""
        gpus = [gpu for gpu in self.gpus if gpu.uuid in set(devices)]
        return VirtualSampler(path, period_s, gpus, self._now, self.sampler_pauses)

    def create_backend(self, name: str, flow: str | None = None) -> Any:
        """Make the simulated engine, the only one that runs on a simulated host."""
        from llm_energy.measure.simulation.engine import SimulatedEngine

        if not is_simulated(name):
            raise BackendUnavailable(f"a simulated host runs the backend 'simulated', not '{name}'")
        self._engine = SimulatedEngine(self)
        return self._engine

    def describe(self, repository: Path, gpus: tuple[dict[str, Any], ...]) -> Host:
        """Describe the simulated hardware and the real software."""
        from llm_energy.measure import host

        return dataclasses.replace(
            host.describe(repository, gpus),
            hostname="simulated",
            boot_id=None,
            os="simulated",
            kernel="simulated",
            cpu_model="Simulated processor",
            cpu_count=self.truth.cpu_count,
            memory_bytes=self.truth.memory_bytes,
            settings=host.settings(self.sysfs, self.procfs),
        )

    def copy_bytes_per_s(self) -> None:
        """Time nothing: simulated memory copies at no rate."""

    def close(self) -> None:
        """Remove the files."""
        self._trees.close()
        self._remove()

    @property
    def now_s(self) -> float:
        """Return the simulated monotonic time, for those who look at no file."""
        return self._now_s

    # what happens on it

    def at(self, time_s: float, action: Callable[[SimulatedHost], None]) -> None:
        """Do ``action`` when the clock passes ``time_s``."""
        self._actions.append((time_s, action))
        self._actions.sort(key=lambda entry: entry[0])

    def advance(self, duration_s: float) -> None:
        """Let the present state last for ``duration_s`` more."""
        end_s = self._now_s + duration_s
        while self._actions and self._actions[0][0] <= end_s:
            time_s, action = self._actions.pop(0)
            self._pass_until(max(time_s, self._now_s))
            action(self)
            self._enter()
            for gpu in self.gpus:
                gpu.refresh()
        self._pass_until(end_s)

    def enter(self, phase: str, batch: int = 0) -> None:
        """Let the GPUs in use do something else: ``idle``, ``load``, ``prefill``, ``decode``."""
        if (phase, batch) != self._phase:
            self._phase = (phase, batch)
            self._enter()

    def use(self, gpus: Sequence[Gpu], bytes_each: int = 0) -> None:
        """Let the engine run on these GPUs and hold memory on each, 0 while it only loads."""
        for gpu in self.gpus:
            gpu.own_bytes = bytes_each if gpu in gpus else 0
        self.in_use, self._loaded = list(gpus), bytes_each > 0
        self._used = self.in_use or self._used
        self._enter()

    def let_in(self, gpu: Gpu, pid: int, power_w: float, held_bytes: int) -> None:
        """Let a foreign process compute on a GPU from now on."""
        self._trees.add_process(pid)
        gpu.tenants[pid] = (power_w, held_bytes)
        gpu.refresh()

    def step_wall_clock(self, by_s: float) -> None:
        """Set the wall clock forward, as a time server may; the monotonic clock stays."""
        self._wall_offset_s += by_s

    def change(self, **changes: Any) -> None:
        """Change what the rest of the host does from now on; the keys are those of Truth."""
        self.truth = dataclasses.replace(self.truth, **changes)

    # what is true

    def truth_energy_j(
        self, component: str, begin_s: float, end_s: float, device: str | None = None
    ) -> float:
        """Return the joules that a component drew, exactly.

        ``gpu`` is the GPUs that the engine used, all of them before there was one. ``device``
        narrows it to one GPU (by UUID) or one socket (``package-0``).
        """
        histories = self._histories(component, device)
        return sum(h.energy_j(end_s) - h.energy_j(begin_s) for h in histories)

    def request_energy_j(self, begin_s: float, end_s: float) -> dict[int, float]:
        """Return what the GPUs drew for each request, by the number that the engine's steps have.

        What they drew between steps is nobody's.
        """
        drawn = functools.partial(self.truth_energy_j, "gpu")
        return self._engine.true_work.energy_j(drawn, begin_s, end_s)

    def idle_energy_j(self, begin_s: float, end_s: float) -> float:
        """Return what the engine's GPUs would have drawn with the model loaded and no request."""
        return sum(
            gpu.history.energy_at_level_j(gpu.loaded_idle_level_w, begin_s, end_s)
            for gpu in self._used
        )

    def _histories(self, component: str, device: str | None) -> list[History]:
        if component == "gpu":
            if device is None:
                return [gpu.history for gpu in self._used]
            return [gpu.history for gpu in self.gpus if gpu.uuid == device]
        chosen = [
            package
            for socket, package in enumerate(self.packages)
            if device in (None, f"package-{socket}")
        ]
        found = [package.cpu if component == "cpu" else package.dram for package in chosen]
        return [history for history in found if history]

    def _now(self) -> float:
        return self._now_s

    def _pass_until(self, time_s: float) -> None:
        own_cores = IDLE_CORES if self._phase[0] == "idle" else BUSY_CORES
        self.activity.count(self.truth, time_s - self._now_s, own_cores)
        self._now_s = time_s

    def _enter(self) -> None:
        phase, batch = self._phase
        for gpu in self.gpus:
            if gpu in self.in_use:
                gpu.enter(phase, batch, self._loaded)
            else:
                gpu.enter("idle")
        own_cores = IDLE_CORES if phase == "idle" else BUSY_CORES
        busy_cores = own_cores + self.truth.foreign_busy_per_s
        for package in self.packages:
            share = 0.0 if phase == "idle" else 0.5
            package.enter(self._now_s, busy_cores / len(self.packages), share)

    def _refresh(self) -> None:
        if self._now_s != self._fresh_s:
            self._trees.refresh(self._now_s, self.activity)
            self._fresh_s = self._now_s
