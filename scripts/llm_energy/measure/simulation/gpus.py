"""Simulated GPUs: what they do, what they draw, and what their sensors make of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from random import Random
from typing import Any

from llm_energy.measure.simulation.power import Fluctuation, History
from llm_energy.measure.simulation.truth import GpuTruth

DRIVER_BYTES = 60 * 2**20
# Power is averaged over the last quarter of each period (arXiv:2312.02741 on A100 and H100).
POWER_PERIOD_S, POWER_SPAN_S = 0.1, 0.025
HALF_BATCH = 32  # requests at which half of the decoding power's range is reached

REASONS = {
    "idle": 0x1,
    "power": 0x4,
    "sync_boost": 0x10,
    "sw_thermal": 0x20,
    "hw_thermal": 0x40,
    "power_brake": 0x80,
}


def gpu_uuid(index: int) -> str:
    """Name a simulated GPU.

    >>> gpu_uuid(1)
    'GPU-51000000-0000-4000-8000-000000000001'
    """
    return f"GPU-51000000-0000-4000-8000-{index:012x}"


class Gpu:
    """One simulated GPU; it is its own NVML handle, and cannot be hashed, as NVML's cannot.

    ``errors`` maps NVML function names to the error code that they end in. ``tenants`` are foreign
    processes by id, with the power and the bytes that they use.
    """

    __hash__ = None

    def __init__(
        self,
        truth: GpuTruth,
        index: int,
        random: Random,
        repeat_factor: float,
        clock: Callable[[], float],
    ):
        self.truth = truth
        self.index = index
        self.uuid = gpu_uuid(index)
        self.pci_bus_id = f"00000000:{index + 1:02X}:00.0"
        self.limit_w = truth.limit_w
        self.throttled_share = dict(truth.throttled_share)
        self.stuck = False
        self.own_bytes = 0
        self.tenants: dict[int, tuple[float, int]] = {}
        self.errors: dict[str, int] = {}
        self.loaded_idle_level_w = truth.loaded_idle_w * repeat_factor
        self._clock = clock
        self._factor = repeat_factor
        self._phase = ("idle", 0, False)
        self._phase_s = random.random() * (truth.tick_s or 1)
        self._base_mj = random.randrange(10**8, 10**11)
        self._zero_j = self._lost_j = 0.0
        self._blind_s = (0.0, 0.0)
        self._polled_since_s: float | None = None
        self._shown_mj = self._base_mj
        self._throttled_s: dict[str, float] = {}
        self._shares: dict[str, float] = {}
        self._since_s = clock()
        fluctuation = Fluctuation(random, truth.noise_sd, truth.noise_time_s, truth.drift_per_s)
        level_w, state = self._level()
        self.history = History(
            fluctuation,
            truth.cooling,
            clock(),
            level_w,
            state,
            truth.slope_w_per_c,
            self.loaded_idle_level_w,
        )

    # what the host does to it

    def enter(self, phase: str, batch: int = 0, loaded: bool = False) -> None:
        """Do something else from now on; ``loaded`` says that weights and a context stay on it."""
        if self._phase != (phase, batch, loaded):
            self._phase = (phase, batch, loaded)
            self.refresh()

    def refresh(self) -> None:
        """Take up what has been changed from outside: a limit, a tenant, a throttle."""
        now_s = self._clock()
        for cause, share in self._shares.items():
            held_s = self._throttled_s.get(cause, 0.0)
            self._throttled_s[cause] = held_s + share * (now_s - self._since_s)
        level_w, state = self._level()
        self._since_s = now_s
        self.history.set(now_s, level_w, state)

    def alter(self, **changes: Any) -> None:
        """Change what is true of it from now on; the keys are those of GpuTruth."""
        self.truth = dataclasses.replace(self.truth, **changes)
        self.loaded_idle_level_w = self.truth.loaded_idle_w * self._factor
        self.history.cool(self._clock(), self.truth.cooling)
        self.refresh()

    def reset_counter(self) -> None:
        """Let the energy counter begin at 0, as after a reload of the driver."""
        self._zero_j, self._lost_j, self._base_mj = self._energy_j(self._clock()), 0.0, 0
        self._shown_mj = 0

    def poll(self, polled: bool) -> None:
        """Return whether a sampler polls the power from now on, which may disturb the counter."""
        if self._polled_since_s is not None:
            self._lost_j += self._polled_j(self._clock())
        self._polled_since_s = self._clock() if polled else None

    # what its sensors show

    def counter_mj(self) -> int:
        """Read the energy counter as it stood at its last tick; the reading may disturb it."""
        truth, now_s = self.truth, self._clock()
        if self.stuck:
            return self._shown_mj
        seen_s = now_s
        if truth.tick_s:
            seen_s = math.floor((now_s - self._phase_s) / truth.tick_s) * truth.tick_s
            seen_s += self._phase_s
        begin_s, end_s = self._blind_s
        if truth.read_blind_s:
            self._lost_j += self._energy_j(min(now_s, end_s)) - self._energy_j(begin_s)
            self._blind_s = (now_s, now_s + truth.read_blind_s)
        energy_j = self._energy_j(seen_s) - self._zero_j - self._lost_j - self._polled_j(now_s)
        self._shown_mj = max(self._shown_mj, self._base_mj + int(energy_j * 1e3))
        return self._shown_mj

    def power_w(self, time_s: float, span_s: float = POWER_SPAN_S) -> float:
        """Return the power that was shown at a time: the mean over ``span_s`` before an update."""
        end_s = math.floor(time_s / POWER_PERIOD_S) * POWER_PERIOD_S
        mean_w = self.history.mean_power_w(end_s - span_s, end_s)
        return self.truth.gain * self.truth.power_gain * mean_w

    def throttled_s(self, cause: str) -> float:
        """Return for how many seconds a cause has held the clocks down, since the start."""
        share = self._shares.get(cause, 0.0)
        return self._throttled_s.get(cause, 0.0) + share * (self._clock() - self._since_s)

    def memory_used_bytes(self) -> int:
        """Return the bytes that all processes hold on the GPU."""
        return DRIVER_BYTES + self.own_bytes + sum(used for _, used in self.tenants.values())

    def _energy_j(self, time_s: float) -> float:
        return self.truth.gain * self.history.energy_j(time_s)

    def _polled_j(self, now_s: float) -> float:
        if self._polled_since_s is None or not self.truth.poll_blind_share:
            return 0.0
        polled_j = self._energy_j(now_s) - self._energy_j(self._polled_since_s)
        return self.truth.poll_blind_share * polled_j

    def _level(self) -> tuple[float, Any]:
        """Return the power level and (reasons, SM clock in MHz, utilisation in percent)."""
        truth, (phase, batch, loaded) = self.truth, self._phase
        low, high = truth.decode_w
        idle_w = truth.loaded_idle_w if loaded else truth.deep_idle_w
        level_w = {
            "idle": idle_w,
            "load": truth.load_w,
            "prefill": truth.prefill_w,
            "decode": low + (high - low) * batch / (batch + HALF_BATCH),
        }[phase]
        level_w = level_w * self._factor + sum(power for power, _ in self.tenants.values())
        busy = phase != "idle" or bool(self.tenants)
        self._shares = dict(self.throttled_share) if busy else {}
        if level_w > self.limit_w:
            level_w, self._shares = self.limit_w, self._shares | {"power": 1.0}
        reasons = sum(REASONS.get(cause, 0) for cause, share in self._shares.items() if share)
        slow, fast = truth.clock_mhz
        fast = round(fast * (1 - 0.3 * max(self._shares.values(), default=0.0)))
        if not busy:
            return level_w, (REASONS["idle"], slow, 0)
        return level_w, (reasons, fast, {"load": 20}.get(phase, 97))
