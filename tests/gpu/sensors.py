"""Hold a GPU's counter against its sampled power, and its idle power with and without a context.

python tests/gpu/sensors.py OUT.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from llm_energy.core.serialize import to_dict
from llm_energy.measure.doctor.self_test import torch_load
from llm_energy.meter.meter import Meter, open_meter
from llm_energy.records import Interval, MeterSettings

SETTLE_S = 5.0  # power climbs after a load begins, and clocks fall a while after one ended
IDLE_S = 10.0
LENGTHS_S = (60.0, 30.0, 10.0, 5.0)
LOAD_S = 90.0
CONTEXT = (
    "import time, torch; torch.zeros(1, device='cuda'); print('ready', flush=True); time.sleep(60)"
)


def examine(meter: Meter) -> dict[str, Any]:
    """Meter idling without and with a CUDA context, then four lengths of one steady load."""
    meter.measure_ticks()
    gpus = meter.gpus()
    intervals = [_idle(meter, "idle without a context")]
    with _beside(sys.executable, "-c", CONTEXT):
        intervals.append(_idle(meter, "idle with a context"))
    with _beside(sys.executable, __file__, "--load", gpus[0]["uuid"]):
        time.sleep(SETTLE_S)
        intervals += _nested(meter, LENGTHS_S)
    meter.close_trace()
    return to_dict({"gpus": gpus, "intervals": intervals, "report": meter.report()})


def _idle(meter: Meter, name: str) -> Interval:
    time.sleep(SETTLE_S)
    with meter.interval(name) as interval:
        time.sleep(IDLE_S)
    return interval.record


def _nested(meter: Meter, lengths_s: Sequence[float]) -> list[Interval]:
    """Meter intervals of these lengths, longest first, that begin together; give shortest first."""
    if not lengths_s:
        return []
    begin_s = time.monotonic()
    with meter.interval(f"load, {lengths_s[0]:g} s") as interval:
        shorter = _nested(meter, lengths_s[1:])
        time.sleep(max(0.0, begin_s + lengths_s[0] - time.monotonic()))
    return [*shorter, interval.record]


@contextmanager
def _beside(*command: str) -> Iterator[None]:
    """Run a command beside this process, from when it says "ready" until the block ends."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        if process.stdout.readline().strip() != "ready":
            raise RuntimeError(f"{' '.join(command)} ended with {process.wait()}")
        yield
    finally:
        process.kill()
        process.wait()


def main() -> None:
    """Parse the command line; examine the GPUs, or be the load beside that."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--load", metavar="UUID", help="only load this GPU, until ended")
    arguments = parser.parse_args()
    if arguments.load:
        torch_load(arguments.load, 1.0)
        print("ready", flush=True)
        torch_load(arguments.load, LOAD_S)
        return
    with tempfile.TemporaryDirectory() as folder:
        settings = MeterSettings(codecarbon=False)
        meter = open_meter(settings, trace_path=Path(folder) / "sensors.trace.csv.gz")
        try:
            found = examine(meter)
        finally:
            meter.close()
    arguments.out.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
