"""Run the real measuring process on an engine that only lets a little time pass.

    python tests/support/fake_measure.py --spec ... (the arguments of scripts/measure.py)

It prints "ready" when everything is imported and the measuring begins.
"""

from __future__ import annotations

import functools
import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]

import measure as script
from support import builders
from support.simulated import SimulatedBackend

from llm_energy.backends import base
from llm_energy.core import locks
from llm_energy.measure import run
from llm_energy.records import MeterSettings, Protocol, Spec, write_record

# Of one test process and those that it starts, which thus wait for no other measurement.
HOST_LOCK = os.environ.setdefault("HOST_LOCK_OF_TEST", f"llm-energy-test-measure-{os.getpid()}")

PROTOCOL = Protocol(
    preflight_max_wait_s=0,
    window_min_duration_s=0.03,
    deep_idle_duration_s=0.02,
    loaded_idle_duration_s=0.02,
    hot_idle_duration_s=0.02,
    warmup_min_passes=1,
    warmup_max_passes=2,
    thermal_policy="none",
)


class HostClock:
    """The host's own clock in the form of the simulated one."""

    __call__ = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)


class Backend(SimulatedBackend):
    """An engine whose load and passes take some milliseconds."""

    def __init__(self) -> None:
        super().__init__(HostClock(), (0.004,), load_s=0.02)


def write_repeat(folder: Path, repeat: int = 1, **protocol) -> tuple[list[str], Path]:
    """Write all that one repeat needs; give the arguments of scripts/measure.py, and the output."""
    settings = Protocol(**(vars(PROTOCOL) | protocol))
    spec: Spec = builders.spec(
        repeat=repeat,
        workloads=(builders.workload("b1"), builders.workload("b8")),
        protocol=settings,
        meter=MeterSettings(codecarbon=False, sampling_period_s=None),
    )
    out = folder / "measurements" / f"r{repeat:02d}.json"
    paths = {name: folder / f"{name}.json" for name in ("spec", "manifest", "prompts", "plan")}
    write_record(paths["spec"], spec)
    write_record(paths["manifest"], builders.manifest())
    write_record(paths["prompts"], builders.prompt_set("m", ["b1", "b8"]))
    write_record(paths["plan"], builders.plan([("pytorch", "float32")], repeat))
    named = [part for name, path in paths.items() for part in (f"--{name}", str(path))]
    return [*named, "--out", str(out)], out


if __name__ == "__main__":
    base.MODULES["pytorch"] = "support.fake_measure"
    run.exclusive_host = functools.partial(locks.exclusive_host, HOST_LOCK)
    print("ready", flush=True)
    sys.exit(script.main())
