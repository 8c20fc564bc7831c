"""Compare the tokens per second of static and continuous batches on PyTorch, by lengths.

    OMP_NUM_THREADS=1 python tests/benchmarks/batching.py FOLDER

The same requests are served both ways in turns (see pairs.py), at most ``--batch-size`` at once:
once with answers of one length, and once with mixed ones, where a static batch lasts until its
longest answer ends. Prints the median of the paired ratios (continuous over static) and quartiles.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT.parent / "scripts"), str(ROOT)]

from pairs import paired_times, speed_ratio
from support.subject import Subject

from llm_energy.backends import base
from llm_energy.backends.pytorch.backend import CAPABILITIES

LONGEST = 64  # output tokens


def main(argv: list[str] | None = None) -> int:
    """Print both ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path, help="folder of a model")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=10)
    arguments = parser.parse_args(argv)

    ways = {name: _subject(arguments) for name in ("continuous", "static")}
    draw = random.Random(1)
    prompts = [range(100, 100 + draw.randint(16, 128)) for _ in range(arguments.requests)]
    mixed = [draw.randint(1, LONGEST) for _ in prompts]
    for name, lengths in (("of one length", [LONGEST] * len(prompts)), ("mixed", mixed)):
        for strategy, subject in ways.items():
            asked = {"strategy": strategy, "batch_size": arguments.batch_size}
            subject.prepare(prompts, lengths=lengths, max_output_tokens=LONGEST, **asked)
        calls = (subject.engine.generate for subject in ways.values())
        times = paired_times(*calls, arguments.pairs)
        rate = sum(lengths) / min(ours for ours, _ in times)
        print(
            f"answers {name}: continuous over static {speed_ratio(times)}, {rate:.1f} tokens/s",
            flush=True,
        )
    return 0


def _subject(arguments: argparse.Namespace) -> Subject:
    subject = Subject("pytorch", CAPABILITIES, arguments.model, base.create("pytorch"))
    return subject.load(arguments.precision)


if __name__ == "__main__":
    sys.exit(main())
