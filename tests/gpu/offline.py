"""Plan sweeps here and measure them on a host that can fetch nothing, not even Snakemake.

    python tests/gpu/offline.py plan CONFIG...             # where the workflow runs
    python tests/gpu/offline.py measure SWEEP --for-s 500   # where the GPU is

What `measure` leaves lies as the workflow would leave it, below ``results/``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from llm_energy.core.files import read_json, write_json


def plan(path: Path, **changes: Any) -> None:
    """Freeze the specs of a sweep config, and write in which order its repeats are measured.

    ``changes`` replace sections of the config.
    """
    import yaml

    from llm_energy.plan.config.load import load_sweep
    from llm_energy.plan.freeze import write_plan
    from llm_energy.plan.plan import installed_engine, make_plan
    from llm_energy.records.registry.order import block_rank

    config = yaml.safe_load(path.read_text(encoding="utf-8")) | changes
    sweep = load_sweep(config, [str(path)])
    planned = make_plan(sweep, installed_engine(ROOT, sweep.device, provided=True))
    write_plan(planned, ROOT)
    order = sorted(
        ((cell.cell, repeat) for cell in planned.plan.planned for repeat in cell.repeats),
        key=lambda pair: block_rank(sweep.order_seed, pair[1], pair[0]),
    )
    write_json(ROOT / "results" / sweep.name / "order.json", order)


def measure(sweep: str, for_s: float, repeat_s: float) -> None:
    """Measure the missing repeats in order, while another of ``repeat_s`` fits into ``for_s``."""
    end_s = time.monotonic() + for_s
    folder = Path("results", sweep)
    for cell, repeat in read_json(folder / "order.json"):
        model, backend, _ = cell.split("--")
        out = folder / backend / "measurements" / cell / f"{repeat}.json"
        if out.exists():
            continue
        if time.monotonic() + repeat_s > end_s:
            return
        measure_one(folder, model, folder / "specs" / cell / f"{repeat}.json", out)


def measure_one(
    folder: Path, model: str, spec: Path, out: Path, environment: dict[str, str] | None = None
) -> None:
    """Measure one repeat in a process of its own; make its model and prompts if there are none."""
    manifest = Path("results/models", model, "manifest.json")
    prompts = folder / "prompts" / f"{model}.json"
    if not manifest.exists():
        _python("tests/gpu/model.py", "model", model, manifest.parent)
    if not prompts.exists():
        _python("tests/gpu/model.py", "prompts", prompts.with_suffix(".request.json"), prompts)
    arrivals = folder / "arrivals.json"
    timed = ("--arrivals", arrivals) if arrivals.exists() else ()
    out.parent.mkdir(parents=True, exist_ok=True)
    _python(
        "scripts/measure.py",
        *("--spec", spec),
        *("--manifest", manifest),
        *("--prompts", prompts),
        *("--plan", folder / "plan.json"),
        *timed,
        *("--out", out),
        environment=environment,
    )


def _python(*command: str | Path, environment: dict[str, str] | None = None) -> None:
    """Run a script in a process of its own, so that no CUDA context of it stays behind."""
    subprocess.run([sys.executable, *map(str, command)], check=True, env=environment)


def main() -> None:
    """Parse the command line and do one of the steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    steps = parser.add_subparsers(dest="step", required=True)
    step = steps.add_parser("plan")
    step.add_argument("configs", type=Path, nargs="+")
    step = steps.add_parser("measure")
    step.add_argument("sweep")
    step.add_argument("--for-s", type=float, default=3600.0, help="end before so many seconds")
    step.add_argument("--repeat-s", type=float, default=300.0, help="longest time of a repeat")
    arguments = parser.parse_args()
    if arguments.step == "plan":
        for config in arguments.configs:
            plan(config)
    else:
        measure(arguments.sweep, arguments.for_s, arguments.repeat_s)


if __name__ == "__main__":
    main()
