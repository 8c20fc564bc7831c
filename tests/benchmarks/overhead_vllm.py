"""Compare the tokens per second of the vllm backend with a bare ``LLM.generate``.

    python tests/benchmarks/overhead_vllm.py FOLDER

Both engines live in this process, are given the same arguments, and serve the same requests in
turns (see pairs.py). Prints, for each batch size, the median of the paired ratios (backend over
bare) with its quartiles; at least 0.98 is asked for. Also prints what starting costs.
"""

from __future__ import annotations

import argparse
import functools
import random
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT.parent / "scripts"), str(ROOT)]

from pairs import LEAST, paired_times, speed_ratio
from support.subject import Subject

from llm_energy.backends import base
from llm_energy.backends.vllm.arguments import CPU_KV_CACHE_BYTES
from llm_energy.backends.vllm.backend import CAPABILITIES

PROMPT_TOKENS = 32


def main(argv: list[str] | None = None) -> int:
    """Print one line a batch size, and exit 1 if a ratio is below LEAST."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path, help="folder of a model")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--output-tokens", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=20, help="pairs at each batch size")
    arguments = parser.parse_args(argv)
    order = random.Random(1)

    subject = Subject("vllm", CAPABILITIES, arguments.model, base.create("vllm"))
    begin = time.monotonic()
    loaded = subject.load(arguments.precision, batch_size=max(arguments.batch_sizes)).effective
    print(f"load with the import of vllm: {time.monotonic() - begin:.1f} s", flush=True)

    from vllm import LLM, SamplingParams

    native = dict(subject.loaded)
    native.pop("load_in_8bit")  # ours: it chooses the folder
    begin = time.monotonic()
    bare = LLM(
        str(arguments.model),
        generation_config="vllm",
        max_model_len=loaded["max_model_len"],
        enforce_eager=loaded["enforce_eager"],
        distributed_executor_backend="uni",
        **{"kv_cache_memory_bytes": CPU_KV_CACHE_BYTES} if loaded["device"] == "cpu" else {},
        **native,
    )
    print(f"bare engine, vllm already imported: {time.monotonic() - begin:.1f} s", flush=True)
    enough = True
    for batch_size in arguments.batch_sizes:
        prompts = [order.choices(range(10, 500), k=PROMPT_TOKENS) for _ in range(batch_size)]
        subject.prepare(prompts, batch_size=batch_size, max_output_tokens=arguments.output_tokens)
        sampling = SamplingParams(**subject.passed, detokenize=False)
        inputs = [{"prompt_token_ids": ids} for ids in prompts]
        plain = functools.partial(bare.generate, inputs, sampling, use_tqdm=False)
        times = paired_times(subject.engine.generate, plain, arguments.pairs)
        ratio = speed_ratio(times)
        rate = batch_size * arguments.output_tokens / statistics.median(ours for ours, _ in times)
        print(
            f"batch {batch_size}: {ratio} of the bare engine's tokens/s, {rate:.1f} tokens/s",
            flush=True,
        )
        enough = enough and ratio.median >= LEAST
    return 0 if enough else 1


if __name__ == "__main__":
    sys.exit(main())
