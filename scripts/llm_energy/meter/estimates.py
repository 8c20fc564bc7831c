"""Estimate CPU and memory energy with CodeCarbon's power models, and look up its grid factors.

Only CodeCarbon's hardware models are used, never its tracking: a started tracker, and also a task
of it, runs threads in the measured process, applies its own clock, and may give nothing without an
error. The models (https://docs.codecarbon.io, methodology):

- CPU ``cpu_load``: TDP * (0.1 + 0.9 * load^3), with the load of the whole machine. Here the load is
  the mean over the whole interval, where the tracker would cube one-second loads and average those.
- CPU ``constant``: half the TDP. For a CPU it does not know, the TDP is 4 W a thread.
- DRAM: 5 W for each memory module guessed from the size of the memory; it knows no load.
"""

from __future__ import annotations

import difflib
import json
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llm_energy.core.errors import LlmEnergyError
from llm_energy.meter.sensors import Absent, Sensor, unavailable
from llm_energy.records import ComponentEnergy, MeterSettings

CPU_MODES = ("cpu_load", "constant")
GRID_FACTORS = "data/private_infra/global_energy_mix.json"


@dataclass(frozen=True)
class _Reading:
    """The mean power up to this reading in W, and why the next mean did not begin, if it did not.

    A power that is a text says why there is none.
    """

    power_w: float | str | None
    problem: str | None


class PowerModel:
    """Turn the mean power of a CodeCarbon hardware model over an interval into estimated joules.

    ``hardware`` has ``start()`` and ``total_power()``, the mean power since the start. The duration
    is always the meter's own.
    """

    def __init__(self, component: str, method: str, hardware: Any):
        self._component = component
        self._method = method
        self._hardware = hardware

    def read(self) -> _Reading:
        """End one mean, which began with the reading before, and begin the next."""
        # Two separate attempts: the next mean must begin also where the last one failed.
        power_w = _attempt(lambda: self._hardware.total_power().W)
        return _Reading(power_w, _attempt(self._hardware.start))

    def energy(
        self, first: _Reading, last: _Reading, duration_s: float
    ) -> tuple[ComponentEnergy, ...]:
        """Return the mean power between two readings times ``duration_s``, in J.

        ``duration_s`` may be that of a part of what lies between them: it gets the same power.
        """
        power_w = last.power_w
        error = first.problem or (power_w if isinstance(power_w, str) else None)
        # A model may also answer a failure with None or 0 W; no running machine has that power.
        if not error and not (power_w and math.isfinite(power_w) and power_w > 0):
            error = f"{power_w} W"
        if error:
            return (unavailable(self._component, f"CodeCarbon's model gave {error}"),)
        return (
            ComponentEnergy(
                self._component, "machine", "estimated", self._method, power_w * duration_s
            ),
        )


def open_estimates(settings: MeterSettings) -> tuple[Sensor, ...]:
    """Set up the estimates of CPU and DRAM (takes about 2 s, most of it CodeCarbon's start)."""
    if not settings.codecarbon:
        reason = "estimates are switched off (meter.codecarbon is false)"
    else:
        try:
            return _open_codecarbon()
        except ImportError as error:
            reason = f"codecarbon is not installed ({error})"
        except Exception as error:  # no failure of an estimate may end a run
            reason = f"CodeCarbon could not be set up: {_describe(error)}"
    return (Absent("cpu", reason), Absent("dram", reason))


def _open_codecarbon() -> tuple[Sensor, ...]:
    from codecarbon import OfflineEmissionsTracker
    from codecarbon.core.resource_tracker import ResourceTracker
    from codecarbon.external.hardware import CPU
    from codecarbon.external.ram import RAM

    _forget_slurm()
    # Its import sets the level to INFO, and the tracker logs before it obeys its own log_level.
    logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
    tracker = OfflineEmissionsTracker(
        tracking_mode="machine",
        # Without its lock file: a stale one would turn the tracker off, and the lock takes over
        # the process's signal handlers.
        allow_multiple_runs=True,
        # Else RAPL, which has its own sensor here, or nothing.
        force_mode_cpu_load=True,
        output_methods=[],
        output_dir=".",
        log_level="critical",
    )
    # Only these two of its set-up: GPUs have their own sensor, and CodeCarbon's would misread a
    # GPU chosen by UUID. Nothing is started, so no country is needed either.
    tracker._populate_system_metadata()
    resources = ResourceTracker(tracker)
    resources.set_RAM_tracking()
    resources.set_CPU_tracking()
    cpus = [item for item in tracker._hardware if isinstance(item, CPU)]
    rams = [item for item in tracker._hardware if isinstance(item, RAM)]
    return (_cpu_estimate(cpus), _dram_estimate(rams))


def _forget_slurm() -> None:
    """Let the models ask for the machine, and not for what SLURM has granted of it.

    Inside a job they run ``scontrol``: an image may lack it, and what it says may change between
    repeats on the same machine.
    """
    from codecarbon.core import util
    from codecarbon.external import ram

    for module in (util, ram):  # both hold what was in the environment at their import
        module.SLURM_JOB_ID = None


def _cpu_estimate(hardware: list[Any]) -> Sensor:
    if not hardware:
        return Absent("cpu", "CodeCarbon has no model for this CPU")
    mode, tdp_w = hardware[0]._mode, hardware[0]._tdp
    if mode not in CPU_MODES:
        return Absent("cpu", f"CodeCarbon would use {mode!r}, which is not one of its models")
    return PowerModel("cpu", f"codecarbon_{mode}(tdp_w={tdp_w:g})", hardware[0])


def _dram_estimate(hardware: list[Any]) -> Sensor:
    if not hardware:
        return Absent("dram", "CodeCarbon has no model for this memory")
    power_w = hardware[0].total_power().W
    return PowerModel("dram", f"codecarbon_ram_model(power_w={power_w:g})", hardware[0])


def carbon_intensity(settings: MeterSettings) -> dict[str, Any] | None:
    """Return the CO2-equivalent of electricity as ``{"g_per_kwh", "source"}``, or None if unknown.

    The config's own factor comes first, then the yearly mean of the config's country from the table
    that CodeCarbon carries. Raises LlmEnergyError for a country that is not in that table.
    """
    if settings.carbon_intensity_g_per_kwh is not None:
        return {"g_per_kwh": settings.carbon_intensity_g_per_kwh, "source": "config"}
    if settings.country_iso_code is None:
        return None
    try:
        import codecarbon
        from codecarbon.input import DataSource
    except ImportError:
        return None
    with open(DataSource.get_ressource_path("codecarbon", GRID_FACTORS), encoding="utf-8") as file:
        table = json.load(file)
    code = settings.country_iso_code
    if code not in table:
        near = difflib.get_close_matches(code.upper(), table, n=3, cutoff=0.5)
        raise LlmEnergyError(
            f"meter.country_iso_code: found {code!r}, allowed a three-letter ISO 3166 code in "
            f"CodeCarbon's table" + (f"; did you mean {', '.join(near)}?" if near else "")
        )
    country = table[code]
    source = (
        f"codecarbon {codecarbon.__version__} {GRID_FACTORS.rpartition('/')[2]}: "
        f"{country['country_name']}, {country['year']}"
    )
    return {"g_per_kwh": country["carbon_intensity"], "source": source}


def _attempt(call: Callable[[], Any]) -> Any:
    """Call; give the answer, or in words why there is none: no estimate may end a run."""
    try:
        return call()
    except Exception as error:
        return _describe(error)


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
