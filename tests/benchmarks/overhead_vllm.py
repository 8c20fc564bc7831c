"""Compare the vllm backend's tokens/s with those of a bare ``LLM.generate``, in pairs.

    .venvs/vllm/bin/python tests/benchmarks/overhead_vllm.py results/models/<model>/files

Both engines live in this process, are given the same arguments, and take turns in a seeded random
order on the same requests, so that what disturbs the host disturbs both alike. Prints, for each
batch size, the geometric mean of the paired ratios of tokens/s (ours over bare; 1 is equal) with
its 95 % t-interval, the same ratio by the process's CPU time (steadier on a shared host, with
OMP_NUM_THREADS=1), and the median tokens/s of both. Also prints what starting costs.
"""

from __future__ import annotations

import argparse
import functools
import gc
import math
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from llm_energy import backends
from llm_energy.records import (
    SCHEMA_VERSION,
    MeterSettings,
    Protocol,
    Request,
    Spec,
    Workload,
)

PROMPT_TOKENS = 32
# Student's t for 95 %, two-sided, by degrees of freedom
T_95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


def load_spec(dtype: str, max_num_seqs: int, quantization: str | None) -> Spec:
    """Give a spec with the load arguments that both engines get."""
    engine = {
        "dtype": dtype,
        "quantization": quantization,
        "max_num_seqs": max_num_seqs,
        "tensor_parallel_size": 1,
        "enable_prefix_caching": False,
        "seed": 1,
    }
    return Spec(
        schema_version=SCHEMA_VERSION,
        sweep="overhead",
        cell="overhead",
        model="model",
        backend="vllm",
        precision=dtype,
        repeat=1,
        seed=1,
        device="auto",
        engine=engine,
        workloads=(),
        notes=(),
        protocol=Protocol(),
        meter=MeterSettings(),
    )


def timed(function: Callable[[], object]) -> tuple[float, float]:
    """Give the wall and CPU seconds of one call, with no garbage collection inside."""
    gc.collect()
    gc.disable()
    begin, begin_cpu = time.monotonic(), time.process_time()
    function()
    durations_s = time.monotonic() - begin, time.process_time() - begin_cpu
    gc.enable()
    return durations_s


def ratio(ours_s: list[float], bare_s: list[float]) -> str:
    """Give the geometric mean of bare over ours in pairs, with its 95 % t-interval."""
    logs = [math.log(b / o) for o, b in zip(ours_s, bare_s, strict=True)]
    middle = statistics.fmean(logs)
    half = T_95[len(logs) - 1] * statistics.stdev(logs) / math.sqrt(len(logs))
    low, centre, high = (math.exp(middle + x) for x in (-half, 0, half))
    return f"{centre:.3f} [{low:.3f}, {high:.3f}]"


def main() -> int:
    """Run the comparison and print one line a batch size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--quantization")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--pairs", type=int, default=6, choices=range(2, 11))
    parser.add_argument("--output-tokens", type=int, default=32)
    options = parser.parse_args()
    order = random.Random(1)

    spec = load_spec(options.dtype, max(options.batch_sizes), options.quantization)
    ours = backends.create("vllm")
    begin = time.monotonic()
    effective = ours.load(spec, options.model)
    print(f"load with the import of vllm: {time.monotonic() - begin:.1f} s")

    from vllm import LLM, SamplingParams

    begin = time.monotonic()
    bare = LLM(
        str(options.model),
        generation_config="vllm",
        max_model_len=effective["max_model_len"],
        enforce_eager=effective["enforce_eager"],
        distributed_executor_backend="uni",
        **{"kv_cache_memory_bytes": 2**30} if effective["device"] == "cpu" else {},
        **spec.engine,
    )
    print(f"bare engine, vllm already imported: {time.monotonic() - begin:.1f} s")
    native = {
        "temperature": 0.0,
        "max_tokens": options.output_tokens,
        "min_tokens": options.output_tokens,
        "ignore_eos": True,
    }
    for batch_size in options.batch_sizes:
        requests = [
            Request(f"r{i}", tuple(order.choices(range(10, 500), k=PROMPT_TOKENS)))
            for i in range(batch_size)
        ]
        universal = {"batching": {"batch_size": batch_size}}
        ours.prepare(Workload("w", batch_size, universal, native), requests)
        prompts = [{"prompt_token_ids": list(r.prompt_token_ids)} for r in requests]
        sampling = SamplingParams(**native, detokenize=False)
        calls = {
            "ours": ours.generate,
            "bare": functools.partial(bare.generate, prompts, sampling, use_tqdm=False),
        }
        for call in calls.values():
            call()
        durations_s: dict[str, list[tuple[float, float]]] = {"ours": [], "bare": []}
        for _ in range(options.pairs):
            for name in order.sample(sorted(calls), 2):
                durations_s[name].append(timed(calls[name]))
        wall, cpu = ({n: [d[i] for d in durations_s[n]] for n in durations_s} for i in (0, 1))
        tokens = batch_size * options.output_tokens
        print(
            f"batch {batch_size}: ours/bare {ratio(wall['ours'], wall['bare'])}, "
            f"by CPU time {ratio(cpu['ours'], cpu['bare'])}; "
            f"ours {tokens / statistics.median(wall['ours']):.1f}, "
            f"bare {tokens / statistics.median(wall['bare']):.1f} tokens/s",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
