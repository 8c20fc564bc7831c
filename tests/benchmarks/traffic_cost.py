"""Measure what timed traffic costs the engine: the times of the tokens, and the harness around it.

    python tests/benchmarks/traffic_cost.py BACKEND FOLDER

First the same requests are served with and without noting when each token came, in pairs (see
pairs.py). Prints the share of the serving thread's CPU time that the noting takes, of which at most
1 % is asked for, and the median of the paired ratios of tokens/s (with over without) with its
quartiles, of which at least 0.99. Then Poisson traffic arrives at a rate near what the engine
serves at most. Prints the harness's share, which is the part of the time that was neither inside
the engine nor slept: the queue, the batching, the marks. At most 2 % are asked for.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent / "scripts"), str(TESTS)]

from pairs import paired_times, speed_ratio
from support.subject import Subject

from llm_energy.backends import base
from llm_energy.backends.pytorch import batches
from llm_energy.inputs.traffic import arrivals as traffic
from llm_energy.measure.arrival_queue import ArrivalQueue

PROMPT_TOKENS = 32
NEAR = 0.8  # of the rate at which all that is there is served
LEAST_RATIO, MOST_SHARE = 0.99, 0.02


class Watch:
    """Add up the time inside a function, by some clock, and let it be."""

    def __init__(self, function, clock=time.perf_counter) -> None:
        self.function, self.clock, self.total_s = function, clock, 0.0

    def __call__(self, *arguments, **named):
        begin_s = self.clock()
        try:
            return self.function(*arguments, **named)
        finally:
            self.total_s += self.clock() - begin_s


def passes(subject: Subject) -> dict[str, Callable[[], object]]:
    """Return one pass with the noting of times and one without.

    The PyTorch backend makes completions from the times, so there the model is called as the
    backend calls it, with the streamer that notes them and without any.
    """
    engine = subject.engine
    if subject.name == "pytorch":
        [batch] = engine._batches

        def generate(streamer: batches.StepClock | None) -> None:
            engine.model.generate(
                batch.input_ids,
                attention_mask=batch.attention_mask,
                generation_config=engine._config,
                streamer=streamer,
            )

        return {
            "with": lambda: generate(batches.StepClock()),
            "without": lambda: generate(None),
        }
    from llm_energy.backends.vllm.token_times import TokenTimes

    note = TokenTimes.note

    def serve(replacement: Callable[[TokenTimes], None]) -> None:
        TokenTimes.note = replacement
        engine.generate()
        TokenTimes.note = note

    return {"with": lambda: serve(note), "without": lambda: serve(lambda self: None)}


def times_ratio(subject: Subject, pairs: int) -> float:
    """Print and give the paired ratio of tokens/s with times over that without."""
    served = passes(subject)
    ratio = speed_ratio(paired_times(served["with"], served["without"], pairs))
    print(f"{subject.name}: {ratio} of the tokens/s without the tokens' times", flush=True)
    return ratio.median


def noting_share(subject: Subject) -> float:
    """Print and give the share of a pass's CPU time that noting takes; noise hardly moves it."""
    if subject.name == "pytorch":
        owner, name = batches.StepClock, "put"
    else:
        from llm_energy.backends.vllm.token_times import TokenTimes as owner

        name = "note"
    original = getattr(owner, name)
    watch = Watch(original, time.thread_time)
    setattr(owner, name, lambda *arguments: watch(*arguments))
    whole = Watch(subject.engine.generate, time.thread_time)
    for _ in range(3):
        whole()
    setattr(owner, name, original)
    share = watch.total_s / whole.total_s
    print(f"{subject.name}: noting takes {share:.3%} of the serving thread's CPU time", flush=True)
    return share


def harness_share(subject: Subject, rate_per_s: float, horizon_s: float) -> float:
    """Print and give the share of the time of Poisson traffic spent awake outside the engine."""
    asked = {"mode": "poisson", "rate_per_s": rate_per_s, "ramp_s": 1.0, "horizon_s": horizon_s}
    arrivals = traffic.make_arrivals(traffic.complete(asked, horizon_s))
    engine, sleep = subject.engine, Watch(time.sleep)
    prompts = len(engine._requests)
    queue = ArrivalQueue(arrivals, prompts, time.monotonic, sleep, lambda label: None)
    if subject.name == "pytorch":
        inside = [engine.model.generate] = [Watch(engine.model.generate)]
        queue.step = called_back = Watch(queue.step)
    else:
        core = engine._engine
        inside = [core.step, core.add_request] = [Watch(core.step), Watch(core.add_request)]
        called_back = Watch(lambda: None)
    begin_s = time.perf_counter()
    served = engine.serve(queue)
    total_s = time.perf_counter() - begin_s
    # The queue's step is called from inside the model's loop, where it is the harness's own time.
    engine_s = sum(watch.total_s for watch in inside) - called_back.total_s
    share = 1 - (engine_s + sleep.total_s) / total_s
    tokens = sum(len(completion.output_token_ids) for completion in served)
    print(
        f"{subject.name}: harness {share:.2%} of {total_s:.1f} s at {rate_per_s:.2f} requests/s "
        f"({len(served)} served, {tokens / total_s:.0f} tokens/s, {sleep.total_s / total_s:.0%} "
        "slept)",
        flush=True,
    )
    return share


def main() -> int:
    """Run both measurements; exit 1 if one costs more than is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("backend", choices=sorted(base.MODULES))
    parser.add_argument("model", type=Path, help="folder of a model")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--output-tokens", type=int, default=16)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--horizon", type=float, default=15.0)
    options = parser.parse_args()
    order = random.Random(1)

    engine = base.create(options.backend)
    subject = Subject(options.backend, frozenset(), options.model, engine).load("float32")
    prompts = [order.choices(range(10, 500), k=PROMPT_TOKENS) for _ in range(options.batch_size)]
    asked = {"batch_size": options.batch_size, "max_output_tokens": options.output_tokens}
    subject.prepare(prompts, **asked)
    noting = noting_share(subject)
    ratio = times_ratio(subject, options.pairs)
    pass_s = statistics.median(own for own, _ in paired_times(engine.generate, lambda: None, 3))
    given = {"mode": "poisson", "batch_timeout_s": 0.1}
    subject.prepare(prompts, traffic=given, strategy="dynamic", **asked)
    share = harness_share(subject, NEAR * options.batch_size / pass_s, options.horizon)
    engine.close()
    return int(min(ratio, 1 - noting) < LEAST_RATIO or share > MOST_SHARE)


if __name__ == "__main__":
    sys.exit(main())
