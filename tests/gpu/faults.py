"""Provoke on a real GPU what the checks must see, each beside a healthy twin.

python tests/gpu/faults.py plan      # where the workflow's environment is
python tests/gpu/faults.py provoke   # where the GPU is
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import yaml
from offline import ROOT, measure_one, plan, read_json

CONFIG = Path(__file__).with_name("faults.yaml")
NO_GPU = "GPU-00000000-0000-0000-0000-000000000000"

# By name of the fault: what its protocol has otherwise.
FAULTS = {
    "healthy": {},
    "tenant": {},
    "short": {"window_min_duration_s": 1},
    "cold": {"warmup_min_passes": 0, "warmup_max_passes": 0, "thermal_policy": "none"},
    "no-board": {},
}


def plan_all() -> None:
    """Freeze one small sweep a fault."""
    settings = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["protocol"]
    for name, changes in FAULTS.items():
        plan(CONFIG, name=f"h100-faults-{name}", protocol=settings | changes)


def provoke(name: str) -> None:
    """Measure the sweep of one fault while it is there."""
    folder = Path("results", f"h100-faults-{name}")
    ((cell, repeat),) = read_json(folder / "order.json")
    model, backend, _ = cell.split("--")
    environment = os.environ | ({"CUDA_VISIBLE_DEVICES": NO_GPU} if name == "no-board" else {})
    with ExitStack() as stack:
        if name == "tenant":
            stack.callback(_tenant().kill)
        measure_one(
            folder,
            model,
            folder / "specs" / cell / f"{repeat}.json",
            folder / backend / "measurements" / cell / f"{repeat}.json",
            environment,
        )


def _tenant() -> subprocess.Popen:
    """Start a process that keeps the first GPU busy, and wait until it does."""
    sys.path.insert(0, str(ROOT / "scripts"))
    from llm_energy.meter.meter import open_meter
    from llm_energy.records import MeterSettings

    meter = open_meter(MeterSettings(codecarbon=False, sampling_period_s=None))
    (gpu, *_) = meter.gpus()
    meter.close()
    command = [sys.executable, "tests/gpu/sensors.py", "--load", gpu["uuid"]]
    tenant = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    if tenant.stdout.readline().strip() != "ready":
        raise RuntimeError(f"the load ended with {tenant.wait()}")
    return tenant


def main() -> None:
    """Plan, or provoke every fault."""
    if sys.argv[1:] == ["plan"]:
        plan_all()
    elif sys.argv[1:] == ["provoke"]:
        for name in FAULTS:
            provoke(name)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
