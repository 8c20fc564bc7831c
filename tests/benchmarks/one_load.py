"""Compare one load per repeat with one fresh process per configuration.

Measures a sweep of precisions x batch sizes on one model twice, in turn for each precision: once as
the pipeline does it (one process loads the model and measures every batch size) and once with a
process of its own for every batch size. Prints the wall times and the ratio; at most one half is
asked for.

What is saved is the start of three processes in four, so the ratio grows with the work of a window:
with much work the two are alike. By default there is little work, as in a quick look at a model;
--output-tokens sets it.

    make bench runs it on the default model; results/models/<model> must exist.
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from llm_energy.environments import registry
from llm_energy.plan import freeze, plan
from llm_energy.plan.config.load import load_sweep
from llm_energy.records import write_record

PRECISIONS = ["float32", "float16", "bfloat16", "int8", "int4"]
BATCH_SIZES = [1, 2, 4, 8]
MOST = 0.5


def main() -> int:
    """Run the comparison and print it; give 1 if the ratio is above MOST."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--window", type=float, default=0.5, help="window length in seconds")
    parser.add_argument("--output-tokens", type=int, default=2, help="output tokens a request")
    parser.add_argument("--precisions", nargs="+", default=PRECISIONS, choices=PRECISIONS)
    arguments = parser.parse_args()
    sweep = yaml.safe_load((ROOT / "config/config.yaml").read_text(encoding="utf-8"))
    sweep["name"] = "one-load"
    sweep["backends"] = ["pytorch"]
    sweep["precisions"] = arguments.precisions
    sweep["workloads"] = [
        {"id": f"b{size}", "requests": 8, "batching": {"batch_size": size}} for size in BATCH_SIZES
    ]
    sweep["parameters"] |= {
        "max_output_tokens": arguments.output_tokens,
        "min_output_tokens": arguments.output_tokens,
    }
    sweep["protocol"] = sweep["protocol"] | {
        "repeats": 1,
        "window_min_duration_s": arguments.window,
        "warmup_min_passes": 1,
        "warmup_max_passes": 1,
    }
    loaded = load_sweep(sweep, root=ROOT)
    the_plan = plan.make_plan(loaded, plan.installed_engine(ROOT, loaded.device, False))
    with tempfile.TemporaryDirectory() as folder:
        ratio = _compare(the_plan, Path(folder))
    print(f"ratio together / apart: {ratio:.2f}")
    return int(ratio > MOST)


def _compare(the_plan: plan.Planning, folder: Path) -> float:
    """Measure each cell both ways; give the sum of the one's wall times over the other's."""
    freeze.write_plan(the_plan, folder)
    (folder / "results/models").symlink_to(ROOT / "results/models")
    python = registry.interpreter(ROOT, registry.environment_name("pytorch", "cpu"))
    prompts = folder / "results/one-load/prompts/prompts.json"
    model = next(iter(the_plan.models))
    files = f"results/models/{model}"
    _run(
        folder, python, "prompts.py",
        "--request", f"results/one-load/prompts/{model}.request.json",
        "--model-folder", f"{files}/files", "--manifest", f"{files}/manifest.json",
        "--out", prompts,
    )  # fmt: skip

    def measure(spec) -> float:
        path = folder / "spec.json"
        write_record(path, spec)
        begin = time.monotonic()
        _run(
            folder, python, "measure.py", "--spec", path, "--prompts", prompts,
            "--manifest", f"{files}/manifest.json", "--plan", "results/one-load/plan.json",
            "--out", "out.json",
        )  # fmt: skip
        return time.monotonic() - begin

    together_s = apart_s = 0.0
    for spec in the_plan.specs.values():
        one = measure(spec)
        each = [measure(dataclasses.replace(spec, workloads=(w,))) for w in spec.workloads]
        print(f"{spec.precision:9} together {one:6.1f} s   apart {sum(each):6.1f} s", flush=True)
        together_s += one
        apart_s += sum(each)
    print(f"{'all':9} together {together_s:6.1f} s   apart {apart_s:6.1f} s")
    return together_s / apart_s


def _run(folder: Path, python: Path, script: str, *arguments) -> None:
    command = [python, ROOT / "scripts" / script, *arguments]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())
