"""Say what can be measured on this host and how well, each finding with its remedy."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llm_energy.core.locks import HOST_LOCK, host_is_free
from llm_energy.environments import registry
from llm_energy.measure.doctor.self_test import SelfTest
from llm_energy.meter.meter import Meter
from llm_energy.records import ComponentEnergy, Condition, Interval, MeterReport

Word = Literal["measured", "estimated", "unavailable", "good", "problem"]

NAMES = {"gpu": "GPU energy", "cpu": "CPU energy", "dram": "memory energy"}
LINE = 100


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: how it stands, what was found, and what would mend it."""

    about: str
    word: Word
    found: str
    remedy: str | None = None


@dataclass(frozen=True)
class Examination:
    """What was read on the host, before any of it is judged."""

    idle: Interval
    gpus: tuple[dict[str, Any], ...]
    report: MeterReport
    conditions: tuple[Condition, ...]
    settings: dict[str, Any]
    self_tests: tuple[SelfTest, ...] = ()


def findings(seen: Examination, root: Path) -> list[Finding]:
    """Judge everything that was read; ``root`` holds the environments."""
    return [
        *_energy(seen.idle),
        *_gpus(seen),
        *_self_tests(seen.self_tests),
        *_conditions(seen.conditions),
        *_settings(seen.settings),
        _lock(HOST_LOCK),
        *_engines(root),
    ]


def _energy(idle: Interval) -> Iterator[Finding]:
    """Say of each component whether its joules are measured, and its power while idle."""
    for part in idle.energy:
        about = NAMES[part.component] + (f" of {part.device}" if part.device else "")
        if part.energy_j is None:
            yield Finding(about, "unavailable", *_reason_and_remedy(part))
            continue
        power_w = part.energy_j / idle.duration_s
        _, remedy = _reason_and_remedy(part) if part.reason else ("", None)
        found = f"{power_w:.1f} W idle by {part.method}"
        if part.reason:
            found += f" ({part.reason})" if remedy is None else ""
        yield Finding(about, part.status, found, remedy)


def _reason_and_remedy(part: ComponentEnergy) -> tuple[str, str | None]:
    """Part a reason from the commands that it ends with, where a sensor knows them."""
    reason, _, remedy = (part.reason or "").partition("; until the next boot: ")
    return reason, f"until the next boot: {remedy}" if remedy else None


def _gpus(seen: Examination) -> Iterator[Finding]:
    for gpu in seen.gpus:
        uuid = str(gpu.get("uuid"))
        tick_s = seen.report.counter_tick_s.get(uuid)
        if tick_s is None:
            yield Finding(
                f"counter of {uuid}",
                "problem",
                "its energy counter did not move while it was watched",
                "without it the sampled power is the only sensor: prefer another GPU",
            )
        else:
            # A window is wrong by one tick at most (docs/uncertainty.md).
            yield Finding(
                f"counter of {uuid}",
                "good",
                f"moves every {1e3 * tick_s:.0f} ms: a window of 30 s is known to "
                f"{tick_s / 30:.2%} at worst, one of 2 s to {tick_s / 2:.1%}",
            )
        limit_w, default_w = gpu.get("power_limit_w"), gpu.get("default_power_limit_w")
        if limit_w and default_w and limit_w != default_w:
            yield Finding(
                f"power limit of {uuid}",
                "problem",
                f"{limit_w:g} W, the default is {default_w:g} W",
                f"sudo nvidia-smi -i {uuid} -pl {default_w:g}",
            )
        if gpu.get("persistence_mode") is False:
            yield Finding(
                f"persistence of {uuid}",
                "problem",
                "off: the driver unloads between repeats and resets the counter",
                f"sudo nvidia-smi -i {uuid} -pm 1",
            )


def _self_tests(tests: Sequence[SelfTest]) -> Iterator[Finding]:
    for test in tests:
        about = f"self-test of {test.device}"
        if test.reason:
            yield Finding(about, "unavailable", test.reason)
            continue
        found = (
            f"under load the counter gives {test.ratio_counter:.3f} times as much with sampling as "
            f"without, and the sampled power {test.ratio_integral:.3f} times the counter"
        )
        remedy = "set meter.sampling_period_s to null, and trust the counter alone"
        word, mend = ("good", None) if test.passed else ("problem", remedy)
        yield Finding(about, word, found, mend)


def _conditions(conditions: Sequence[Condition]) -> Iterator[Finding]:
    for condition in conditions:
        yield Finding(
            condition.name.replace("_", " "),
            "good" if condition.ok else "problem",
            condition.found,
            None if condition.ok else f"allowed is {condition.allowed}",
        )


def _settings(settings: dict[str, Any]) -> Iterator[Finding]:
    known = {name: value for name, value in settings.items() if value is not None}
    if known:
        yield Finding(
            "processor settings", "good", ", ".join(f"{n} {v}" for n, v in sorted(known.items()))
        )


def _lock(name: str) -> Finding:
    """Try the host-wide lock without waiting for it."""
    if host_is_free(name):
        return Finding("measuring lock", "good", "free: nothing measures on this host")
    return Finding(
        "measuring lock",
        "problem",
        "held: something measures on this host now, and what is said above is disturbed",
        f"wait for it; who holds it: sudo ss -xlp | grep {name}",
    )


def _engines(root: Path) -> Iterator[Finding]:
    """Say which backends are installed, for the kind of device that this host has."""
    variant = registry.variant()
    for backend in dict.fromkeys(name.removesuffix("-cpu") for name in registry.ENGINES):
        name = registry.environment_name(backend, variant)
        version = registry.pinned_version(root, name, registry.engine_package(name))
        if registry.is_installed(root, name):
            found = f"{registry.engine_package(name)} {version} in .venvs/{name}"
            yield Finding(f"backend {backend}", "good", found)
        elif backend in registry.CUDA_ONLY and variant == "cpu":
            found = "it needs an NVIDIA GPU, and this host shows none"
            yield Finding(f"backend {backend}", "unavailable", found)
        else:
            command = registry.install_command(backend)
            yield Finding(f"backend {backend}", "unavailable", "not installed", command)


def conclusion(found: Sequence[Finding]) -> str:
    """Say in one sentence what a measurement on this host is worth."""
    energy = {
        word: sorted({f.about.partition(" of ")[0] for f in found if _is_energy(f, word)})
        for word in ("measured", "estimated", "unavailable")
    }
    if not energy["measured"]:
        start = "Nothing can be measured here: every joule will be an estimate"
        start += f" ({', '.join(energy['estimated'])})." if energy["estimated"] else " or absent."
    else:
        start = f"Measured here: {', '.join(energy['measured'])}."
        if energy["estimated"]:
            start += f" Estimated: {', '.join(energy['estimated'])}."
    problems = sum(f.word == "problem" for f in found)
    if not problems:
        return f"{start} No problem was found."
    return f"{start} {problems} {'problem' if problems == 1 else 'problems'} to look at."


def _is_energy(finding: Finding, word: str) -> bool:
    return finding.word == word and finding.about.partition(" of ")[0] in NAMES.values()


def idle_interval(
    meter: Meter, duration_s: float, sleep: Callable[[float], None] = time.sleep
) -> Interval:
    """Meter an idle stretch, and with it the power that the host draws while it does nothing."""
    with meter.interval("deep_idle") as interval:
        sleep(duration_s)
    return interval.record


def table(found: Sequence[Finding]) -> str:
    """Lay the findings out for a terminal, one a line, each remedy below what it mends."""
    widest = max(len(finding.about) for finding in found)
    lines = []
    for finding in found:
        start = f"{finding.word:11}  {finding.about:{widest}}  "
        lines += textwrap.wrap(
            start + finding.found, LINE, subsequent_indent=" " * len(start), break_on_hyphens=False
        )
        if finding.remedy:
            # Not wrapped: a command is copied as it stands.
            lines.append(" " * len(start) + f"-> {finding.remedy}")
    return "\n".join(lines)
