"""Compare the speed of a backend with and without the notes that it takes of its steps.

    .venvs/vllm-cpu/bin/python tests/benchmarks/steps_cost.py vllm FOLDER
    .venvs/pytorch-cpu/bin/python tests/benchmarks/steps_cost.py pytorch FOLDER

One engine serves the same requests in turns, in pairs (see pairs.py), with all that notes its steps
switched on and off. Prints, for each batch size, the median of the paired ratios of speed with its
quartiles, and what the notes themselves take of a pass, which no other work on the host blurs.
Exits with 1 where they take more than MOST of it.
"""

from __future__ import annotations

import argparse
import functools
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT.parent / "scripts"), str(ROOT), str(ROOT / "benchmarks")]

from pairs import paired_times, speed_ratio
from support.subject import Subject

from llm_energy.backends import base

MOST = 0.005  # of a pass, that noting its steps may take
PROMPT_TOKENS = 32


def main(argv: list[str] | None = None) -> int:
    """Print one line a batch size, and exit 1 if noting takes more than MOST."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("backend", choices=base.MODULES)
    parser.add_argument("model", type=Path, help="folder of a model")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--output-tokens", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=20, help="pairs at each batch size")
    arguments = parser.parse_args(argv)
    capabilities = import_module(base.module_of(arguments.backend)).CAPABILITIES
    engine = base.create(arguments.backend)
    if not hasattr(engine, "steps"):
        print(f"{arguments.backend} does not tell its steps")
        return 0
    subject = Subject(arguments.backend, capabilities, arguments.model, engine)
    subject.load(arguments.precision, batch_size=max(arguments.batch_sizes))
    order, cheap = random.Random(1), True
    for size in arguments.batch_sizes:
        # twice as many requests as fit, of different lengths, so that batches change
        prompts = [order.choices(range(10, 500), k=PROMPT_TOKENS) for _ in range(2 * size)]
        lengths = [order.randint(1, arguments.output_tokens) for _ in prompts]
        asked = {"batch_size": size, "max_output_tokens": arguments.output_tokens}
        subject.prepare(prompts, lengths=lengths, **asked)
        ratio = speed_ratio(
            paired_times(engine.generate, functools.partial(bare, engine), arguments.pairs)
        )
        share, step_s = share_of_notes(engine)
        print(
            f"{arguments.backend}, batch {size}: {ratio} of the speed without notes; they take "
            f"{100 * share:.3f} % of a pass, {1e6 * share * step_s:.0f} us of a step of "
            f"{1e3 * step_s:.1f} ms",
            flush=True,
        )
        cheap = cheap and share <= MOST
    engine.close()
    return 0 if cheap else 1


class Timer:
    """Add up the time of calls."""

    def __init__(self) -> None:
        self.spent_s = 0.0

    def timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return what does the same, and takes its time."""

        def timed(*given: Any) -> Any:
            begin_s = time.perf_counter()
            try:
                return call(*given)
            finally:
                self.spent_s += time.perf_counter() - begin_s

        return timed


def noting(engine: Any) -> dict[tuple[Any, str], Callable[..., Any]]:
    """Return what notes the steps of an engine, by holder and name, with what to do without."""
    if hasattr(engine, "_scheduler"):  # what it wraps, so that nothing of ours is left
        names = ("schedule", "update_from_output")
        return {(engine._scheduler, n): getattr(engine._scheduler, n).args[0] for n in names}
    return {(engine, "_note"): lambda *batch: None}


@contextmanager
def replaced(calls: Mapping[tuple[Any, str], Callable[..., Any]]) -> Iterator[None]:
    """Let other calls stand under these names for a while."""
    kept = {(holder, name): getattr(holder, name) for holder, name in calls}
    for (holder, name), call in calls.items():
        setattr(holder, name, call)
    try:
        yield
    finally:
        for (holder, name), call in kept.items():
            setattr(holder, name, call)


def bare(engine: Any) -> None:
    """Serve once without any note."""
    with replaced(noting(engine)):
        engine.generate()


def share_of_notes(engine: Any) -> tuple[float, float]:
    """Return the part of a pass in which its steps are noted, and how long a step is in s."""
    engine.steps()
    outer, inner, timed = Timer(), Timer(), {}
    for (holder, name), plain in noting(engine).items():
        note = getattr(holder, name)
        if isinstance(note, functools.partial):  # what it wraps is no note
            note = functools.partial(note.func, inner.timed(plain))
        timed[holder, name] = outer.timed(note)
    with replaced(timed):
        begin_s = time.perf_counter()
        engine.generate()
        lasted_s = time.perf_counter() - begin_s
    return (outer.spent_s - inner.spent_s) / lasted_s, lasted_s / len(engine.steps().start_s)


if __name__ == "__main__":
    sys.exit(main())
