"""Compare the tokens per second of the pytorch backend with a bare ``model.generate`` loop.

    python tests/benchmarks/overhead_pytorch.py FOLDER

Both serve the same padded tensors with the same arguments on the same loaded model, in turns (see
pairs.py). Prints the median of the paired ratios (backend over bare) with its quartiles; at least
0.98 is asked for. On a busy host OMP_NUM_THREADS=1 and more pairs of fewer output tokens give the
narrower quartiles.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT.parent / "scripts"), str(ROOT)]

from pairs import LEAST, paired_times, speed_ratio
from support.subject import Subject

from llm_energy.backends import base
from llm_energy.backends.pytorch.backend import CAPABILITIES


def bare(subject: Subject) -> Callable[[], object]:
    """Return the loop that a user would write around the prepared tensors."""
    import torch

    engine = subject.engine

    def loop() -> list[list[list[int]]]:
        torch.manual_seed(1)
        with torch.inference_mode():
            return [
                engine.model.generate(
                    batch.input_ids,
                    attention_mask=batch.attention_mask,
                    generation_config=engine._config,
                ).tolist()
                for batch in engine._batches
            ]

    return loop


def main(argv: list[str] | None = None) -> int:
    """Print the ratio at batch sizes 1 and 8, and exit 1 if one is below LEAST."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path, help="folder of a model")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--output-tokens", type=int, default=16)
    parser.add_argument("--pairs", type=int, default=30, help="pairs at each batch size")
    arguments = parser.parse_args(argv)

    subject = Subject("pytorch", CAPABILITIES, arguments.model, base.create("pytorch"))
    subject.load(arguments.precision)
    enough = True
    for batch_size in (1, 8):
        prompts = [range(100, 132 + i) for i in range(batch_size)]
        subject.prepare(prompts, batch_size=batch_size, max_output_tokens=arguments.output_tokens)
        times = paired_times(subject.engine.generate, bare(subject), arguments.pairs)
        ratio = speed_ratio(times)
        rate = batch_size * arguments.output_tokens / statistics.median(ours for ours, _ in times)
        print(
            f"batch {batch_size}: {ratio} of the bare loop's tokens/s, {rate:.1f} tokens/s",
            flush=True,
        )
        enough = enough and ratio.median >= LEAST
    return 0 if enough else 1


if __name__ == "__main__":
    sys.exit(main())
