"""Wait until the host is fit to measure on, and say what did not hold when the waiting ended."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from llm_energy.meter.meter import Glance, GpuGlance
from llm_energy.meter.nvidia.state import USED_MEMORY_BYTES
from llm_energy.records import Condition, Preflight

POLL_S = 1.0
MIB, GIB = 2**20, 2**30

# With less, at least one of two processors is free for what is measured.
MAX_LOAD_PER_CPU = 0.5
MIN_MEMORY_BYTES = GIB
MIN_DISK_BYTES = GIB
# Clocks held down by heat or by the power supply: hardware slowdown (0x8), thermal slowdown by
# software (0x20) and by hardware (0x40), power brake (0x80); NVML API reference,
# nvmlClocksEventReasons.
HELD_DOWN = 0x8 | 0x20 | 0x40 | 0x80


class GpuRule(NamedTuple):
    """One condition on a reading of every GPU."""

    name: str
    reading: str
    allowed: str
    holds: Callable[[Any], bool]
    show: Callable[[Any], str]


GPU_RULES = (
    GpuRule(
        "board_processes",
        "foreign_processes",
        "no process of others that computes",
        lambda ids: not ids,
        lambda ids: f"processes {', '.join(map(str, ids))}" if ids else "none",
    ),
    GpuRule(
        "board_utilization",
        "utilization_percent",
        "0 %",
        lambda percent: percent == 0,
        lambda percent: f"{percent:g} %",
    ),
    GpuRule(
        "board_memory",
        "held_bytes",
        f"below {USED_MEMORY_BYTES // MIB} MiB in use before the load, displays apart",
        lambda used: used < USED_MEMORY_BYTES,
        lambda used: f"{used / MIB:.0f} MiB",
    ),
    GpuRule(
        "board_clocks",
        "clock_event_reasons",
        "not held down by heat or power brake",
        lambda reasons: not reasons & HELD_DOWN,
        lambda reasons: f"clock event reasons {reasons:#x}",
    ),
    GpuRule("board_mig", "mig", "off", lambda mig: not mig, lambda mig: "on" if mig else "off"),
)
# What no waiting mends.
LASTING = frozenset({"board_mig", "board_temperature", "disk"})


@dataclass(frozen=True)
class Look:
    """One look at the host after a wait; ``before`` is the look before it, if there was one."""

    wait_s: float
    now: Glance
    before: Glance | None
    disk_free_bytes: int | None

    def judge(self, devices: Collection[str] | None = None) -> Preflight:
        """Judge the host, with all of its GPUs or with these alone."""
        gpus = self.now.gpus
        if devices is not None:
            gpus = tuple(gpu for gpu in gpus if gpu.device in devices)
        now = replace(self.now, gpus=gpus)
        return Preflight(self.wait_s, tuple(conditions(now, self.before, self.disk_free_bytes)))


def preflight(
    glance: Callable[[], Glance],
    max_wait_s: float,
    folder: Path,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> Look:
    """Look once a second until all conditions hold, at most for ``max_wait_s`` seconds.

    ``folder`` is where the outputs go. Which GPUs a repeat uses is not known before its load, so
    all of the host's are waited for; judge the look again once it is.
    """
    begin_s = clock()
    before: Glance | None = None
    while True:
        now = glance()
        look = Look(clock() - begin_s, now, before, free_disk_bytes(folder))
        # One look does not tell whether the swap in use is growing.
        unsure = before is None and bool(now.swap_used_bytes)
        fit = not unsure and all(c.ok or c.name in LASTING for c in look.judge().conditions)
        if fit or look.wait_s >= max_wait_s:
            return look
        before = now
        sleep(min(POLL_S, max_wait_s - look.wait_s))


def conditions(
    now: Glance, before: Glance | None, disk_free_bytes: int | None
) -> Iterator[Condition]:
    """Judge one look at the host; ``before`` is the look before it.

    What this host does not let one read is not among them, except the temperature of its GPUs.
    """
    for rule in GPU_RULES:
        yield from _over_gpus(rule, now.gpus)
    if now.gpus:
        unread = [gpu.device for gpu in now.gpus if gpu.temperature_c is None]
        found = f"not readable on {', '.join(unread)}" if unread else "readable"
        yield Condition("board_temperature", not unread, found, "readable")
    if now.load_per_cpu is not None:
        yield Condition(
            "host_load",
            now.load_per_cpu < MAX_LOAD_PER_CPU,
            f"{now.load_per_cpu:.2f} per CPU",
            f"below {MAX_LOAD_PER_CPU} per CPU",
        )
    if now.memory_available_bytes is not None:
        yield _at_least("host_memory", now.memory_available_bytes, MIN_MEMORY_BYTES)
    if now.swap_used_bytes is not None:
        then = before.swap_used_bytes if before else None
        growth = 0 if then is None else now.swap_used_bytes - then
        found = f"{now.swap_used_bytes / MIB:.0f} MiB in use, grown by {growth / MIB:.0f} MiB"
        yield Condition("swap", growth <= 0, found, "not growing")
    if disk_free_bytes is not None:
        yield _at_least("disk", disk_free_bytes, MIN_DISK_BYTES)


def free_disk_bytes(folder: Path) -> int | None:
    """Return room in the file system of ``folder``, also where that folder is yet to be made."""
    for place in (folder.absolute(), *folder.absolute().parents):
        try:
            return shutil.disk_usage(place).free
        except OSError:
            continue
    return None


def _over_gpus(rule: GpuRule, gpus: tuple[GpuGlance, ...]) -> Iterator[Condition]:
    """Judge all GPUs by one rule; ``found`` lists those that break it, or else all."""
    read = {gpu.device: getattr(gpu, rule.reading) for gpu in gpus}
    known = {device: value for device, value in read.items() if value is not None}
    bad = {device: value for device, value in known.items() if not rule.holds(value)}
    if known:
        found = "; ".join(f"{device}: {rule.show(v)}" for device, v in (bad or known).items())
        yield Condition(rule.name, not bad, found, rule.allowed)


def _at_least(name: str, found_bytes: int, least_bytes: int) -> Condition:
    found, least = f"{found_bytes / GIB:.1f} GiB", f"at least {least_bytes / GIB:.0f} GiB"
    return Condition(name, found_bytes >= least_bytes, found, least)
