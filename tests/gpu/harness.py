"""Hold this project's windows against the engine as a user runs it, in turn, on one GPU.

    python tests/gpu/harness.py SWEEP OUT.json

Ours is the vLLM backend, in this process, under the whole protocol of a repeat.
Theirs is ``vllm.LLM`` with its defaults, the engine's core in a process of its own, and nothing but
two readings of the energy counter around its passes. Both engines stay loaded, each with its part
of the memory, and one serves at a time: ours, theirs, theirs, ours, for every workload of the
sweep's first cell, whose model and prompts must be there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from llm_energy.core.files import write_json
from llm_energy.measure.protocol import run_repeat
from llm_energy.meter.meter import open_meter
from llm_energy.records import MeterSettings, PromptSet, Protocol, Spec, read_record

WINDOW_S = 8.0
MEMORY_SHARE = 0.4  # of the GPU, for each of the two engines
TURNS = ("ours", "theirs", "theirs", "ours")
COOL_S, HOT_S = 5.0, 25.0  # how long both wait before the first window and after the last
ANSWER = "answer: "
PROTOCOL = Protocol(
    preflight_max_wait_s=0.0,
    window_min_duration_s=WINDOW_S,
    deep_idle_duration_s=0.0,
    loaded_idle_duration_s=0.0,
    hot_idle_duration_s=0.0,
    warmup_min_passes=1,
    warmup_max_passes=1,
    thermal_policy="none",
)


class Loaded:
    """Be a backend whose engine is loaded already, and stays so."""

    def __init__(self, backend: Any, effective: dict[str, Any]):
        self._backend = backend
        self._effective = effective

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def load(self, spec: Spec, model_folder: Path) -> dict[str, Any]:
        """Say what is loaded."""
        return self._effective

    def close(self) -> None:
        """Leave the engine as it is."""


class Ours:
    """Serve windows as a repeat of this project does."""

    def __init__(self, spec: Spec, prompts: PromptSet, model_folder: Path):
        from llm_energy.backends.vllm.backend import Backend

        share = {"gpu_memory_utilization": MEMORY_SHARE}
        self._spec = replace(spec, engine=spec.engine | share, protocol=PROTOCOL)
        self._prompts, self._folder = prompts, model_folder
        backend = Backend()
        self._backend = Loaded(backend, backend.load(self._spec, model_folder))

    def window(self, workload: str) -> dict[str, Any]:
        """Measure one window of a workload, after one pass that is not measured."""
        (asked,) = (one for one in self._spec.workloads if one.id == workload)
        with tempfile.TemporaryDirectory() as folder:
            settings = MeterSettings(codecarbon=False)
            meter = open_meter(settings, trace_path=Path(folder) / "harness.trace.csv.gz")
            try:
                repeat = run_repeat(
                    replace(self._spec, workloads=(asked,)),
                    self._folder,
                    self._prompts.requests,
                    self._backend,
                    meter,
                    outputs=Path(folder),
                )
            finally:
                meter.close()
        if repeat.outcome != "ok":
            raise RuntimeError(repeat.reason)
        (window,) = repeat.windows
        if window.outcome != "ok":
            raise RuntimeError(window.reason)
        (gpu,) = (part for part in window.interval.energy if part.component == "gpu")
        return {
            "passes": window.passes,
            "output_tokens": sum(window.requests.output_tokens),
            "duration_s": window.interval.duration_s,
            "energy_j": gpu.energy_j,
        }


class Theirs:
    """Serve windows in a process that knows nothing of this project."""

    def __init__(self, spec: Spec, model_folder: Path):
        most = spec.engine["max_num_seqs"]
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--theirs", model_folder, str(most)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def window(self, requests: list[list[int]], output_tokens: int) -> dict[str, Any]:
        """Have it measure one window of these prompts, after one pass that is not measured."""
        self._process.stdin.write(json.dumps([requests, output_tokens]) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End it, and its engine with it."""
        self._process.stdin.close()
        self._process.wait(60)

    def _answer(self) -> dict[str, Any]:
        for line in self._process.stdout:  # vLLM writes there too
            if line.startswith(ANSWER):
                return json.loads(line.removeprefix(ANSWER))
        raise RuntimeError(f"bare vLLM ended with {self._process.wait()}")


def serve_bare(model: str, most: int) -> None:
    """Be the other process: serve what stdin asks for by ``vllm.LLM`` as it comes."""
    import pynvml
    from vllm import LLM, SamplingParams

    llm = LLM(
        model,
        dtype="bfloat16",
        max_num_seqs=most,
        skip_tokenizer_init=True,
        generation_config="vllm",
        enable_prefix_caching=False,  # passes repeat their prompts
        gpu_memory_utilization=MEMORY_SHARE,
    )
    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    print(f"{ANSWER}{{}}", flush=True)
    for line in sys.stdin:
        requests, output_tokens = json.loads(line)
        prompts = [{"prompt_token_ids": ids} for ids in requests]
        sampling = SamplingParams(
            temperature=0.0,
            max_tokens=output_tokens,
            min_tokens=output_tokens,
            ignore_eos=True,
            detokenize=False,
        )
        llm.generate(prompts, sampling, use_tqdm=False)
        tokens = passes = 0
        begin_mj = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        begin_s = end_s = time.monotonic()
        while end_s - begin_s < WINDOW_S:
            answers = llm.generate(prompts, sampling, use_tqdm=False)
            end_s = time.monotonic()
            tokens += sum(len(answer.outputs[0].token_ids) for answer in answers)
            passes += 1
        end_mj = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        found = {
            "passes": passes,
            "output_tokens": tokens,
            "duration_s": end_s - begin_s,
            "energy_j": (end_mj - begin_mj) / 1e3,
        }
        print(ANSWER + json.dumps(found), flush=True)


def hold_against(sweep: str, out: Path) -> None:
    """Measure all turns of all workloads, saving after each workload."""
    from sensor_study import COLUMNS, Gpu

    folder = Path("results", sweep)
    path = next(p for p in sorted((folder / "specs").glob("*/r01.json")) if "fp8" not in str(p))
    spec = read_record(Spec, path)
    prompts = read_record(PromptSet, folder / "prompts" / f"{spec.model}.json")
    model_folder = Path("results/models", spec.model, "files")
    gpu = Gpu()
    found: dict[str, Any] = {"columns": COLUMNS, "turns": [], "memory_share": MEMORY_SHARE}
    theirs = Theirs(spec, model_folder)  # first: our engine changes the environment
    try:
        ours = Ours(spec, prompts, model_folder)
        time.sleep(1.0)
        found["cool"] = gpu.poll(COOL_S, 0.1, gpu.row)
        for workload in sorted(spec.workloads, key=lambda one: one.requests):
            requests = [list(r.prompt_token_ids) for r in prompts.requests[workload.id]]
            asked = workload.parameters["max_output_tokens"]
            for arm in TURNS:
                begin_s = time.monotonic()
                mine = arm == "ours"
                one = ours.window(workload.id) if mine else theirs.window(requests, asked)
                if one["output_tokens"] != one["passes"] * len(requests) * asked:
                    raise RuntimeError(f"{arm}, {workload.id}: lengths are not as asked")
                found["turns"].append({"arm": arm, "batch_size": workload.batch_size, **one})
                rate = one["output_tokens"] / one["duration_s"]
                joules = one["energy_j"] / one["output_tokens"]
                print(
                    f"{arm} {workload.id}: {rate:.1f} tokens/s, {joules:.5f} J/token, "
                    f"{time.monotonic() - begin_s:.1f} s",
                    flush=True,
                )
            write_json(out, found)
        found["hot"] = gpu.poll(HOT_S, 0.1, gpu.row)
        write_json(out, found)
    finally:
        theirs.close()


def main() -> None:
    """Parse the command line; measure, or be the other process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sweep", nargs="?")
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--theirs", nargs=2, metavar=("MODEL", "MOST"))
    arguments = parser.parse_args()
    if arguments.theirs:
        os.environ.pop("VLLM_ENABLE_V1_MULTIPROCESSING", None)
        serve_bare(arguments.theirs[0], int(arguments.theirs[1]))
    else:
        hold_against(arguments.sweep, arguments.out)


if __name__ == "__main__":
    main()
