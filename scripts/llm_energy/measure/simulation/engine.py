"""A simulated engine: it takes simulated time, draws simulated power and answers with known tokens.

It batches as the workload asks: ``static`` in whole batches, ``dynamic`` continuously, with at most
``batch_size`` requests in flight.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from llm_energy.backends.base import STEADY_BEGIN, STEADY_END, Arrival, Mark, Queue, no_mark
from llm_energy.backends.batching import due_static_batch, static_batches
from llm_energy.backends.steps import Span, StepLog, evenly
from llm_energy.core.errors import OutOfMemory, Unsupported
from llm_energy.inputs.models import simulated
from llm_energy.measure.simulation.requests import TrueWork, mixed_seconds, prefill_seconds
from llm_energy.records import Completion, Request, Spec, Workload
from llm_energy.records.steps import StepTable

if TYPE_CHECKING:
    from llm_energy.measure.simulation.host import SimulatedHost

LOAD_BYTES_PER_S = 4e9
START_S = 3.0  # what loading takes besides the weights
CPU_SLOWDOWN = 40.0
BYTES = {"float32": 4.0, "float16": 2.0, "bfloat16": 2.0}
QUANTISED = {"int8": 0.6, "fp8": 0.6, "int4": 0.35}  # of the bytes in the compute precision
WORSE_NLL = {"int8": 0.004, "fp8": 0.004, "int4": 0.06}  # nats per token, more than without


@dataclass
class _Answer:
    """One request while it is served: what it must become, and its times so far."""

    request: Request
    token_ids: tuple[int, ...]
    reason: str
    number: int
    padding: int = 0
    done: int = 0
    start_s: float = 0.0
    times_s: list[float] = field(default_factory=list)


class SimulatedEngine:
    """A backend on a simulated host; what it does wrong stands in ``host.truth.engine``."""

    def __init__(self, host: SimulatedHost):
        self._host = host
        self._requests: tuple[Request, ...] = ()
        self._passes = 0
        self._events: dict[str, int] = {}
        self._looked: dict[str, int] = {}  # the events when they were last asked for
        self._stalls: list[tuple[float, float]] = []
        self._steps, self._spans = StepLog(), list[Span]()
        self.true_work = TrueWork()

    def load(self, spec: Spec, model_folder: Path) -> dict[str, Any]:
        """Take the time that reading the weights takes, and hold the GPUs that the spec needs."""
        host, truth = self._host, self._host.truth.engine
        parameters = spec.workloads[0].parameters
        dtype = truth.dtype or spec.engine.get("dtype", "bfloat16")
        self._parameter_count = simulated.parameter_count(model_folder, truth.parameter_count)
        self._weight_bytes = self._parameter_count * BYTES[dtype] * truth.weight_factor
        precision = spec.asked_precision
        self._weight_bytes *= QUANTISED.get(precision, 1.0)
        self._nll_per_token = truth.nll_per_token + WORSE_NLL.get(precision, 0.0)
        count = parameters.get("sharding", {}).get("num_devices", 1)
        gpus = host.gpus[:count] if spec.device != "cpu" else []
        if spec.device == "cuda" and len(gpus) < count:
            raise Unsupported(f"{count} GPUs were asked for and this host has {len(gpus)}")
        self._ranks = max(1, len(gpus))
        if gpus and self._weight_bytes / len(gpus) > 0.9 * gpus[0].truth.memory_bytes:
            raise OutOfMemory(f"{self._weight_bytes:.3g} bytes of weights are more than there is")
        self._slowdown = (1.0 if gpus else CPU_SLOWDOWN) / self._ranks
        host.use(gpus)
        host.enter("load")
        host.advance(START_S + self._weight_bytes / LOAD_BYTES_PER_S)
        host.use(gpus, round(self._weight_bytes / self._ranks * 1.2) + 2**30)
        host.enter("idle")
        host.clock()
        uuids = [gpu.uuid for gpu in gpus]
        return {
            "device": "cuda:0" if gpus else "cpu",
            "device_uuids": uuids if truth.gpu_uuids is None else list(truth.gpu_uuids),
            "dtype": dtype,
            "weight_bytes": round(self._weight_bytes),
            "engine_version": truth.version,
            **truth.effective,
        }

    def prepare(self, workload: Workload, requests: Sequence[Request]) -> dict[str, Any]:
        """Decide what every request will be answered with; the same in every pass."""
        low, high = (workload.parameters[f"{m}_output_tokens"] for m in ("min", "max"))
        seed = workload.parameters.get("random_seed", 0)
        self._continuous = workload.parameters["batching"]["strategy"] != "static"
        self._batch_size = workload.batch_size
        self._traffic = workload.parameters.get("traffic_simulation") or {}
        self._requests = tuple(requests)
        self._planned = [self._plan(i, low, high, seed) for i in range(len(self._requests))]
        self._random = Random(f"engine {seed} {self._host.random.random()}")
        self._passes = 0
        self._events = dict.fromkeys(
            ("steps", "preempted_requests", "cached_prompt_tokens", "running_request_steps"), 0
        )
        self._looked = dict(self._events)
        batching: dict[str, Any] = {"strategy": "continuous" if self._continuous else "static"}
        if self._continuous or self._traffic:
            batching["max_requests_in_flight"] = self._batch_size
        else:
            rows = static_batches(len(requests), self._batch_size)
            batching["batch_sizes"] = [len(batch) for batch in rows]
        generation = workload.engine | self._host.truth.engine.generation
        return {"generation": generation, "seed": seed, "batching": batching}

    def generate(self, mark: Mark = no_mark) -> list[Completion]:
        """Serve all requests; they arrive at the start, and those beyond the batch size queue."""
        host, truth = self._host, self._host.truth.engine
        arrival_s = host.clock()
        first = self._steps.number(len(self._requests))
        answers = [self._answer(place, first + place) for place in range(len(self._requests))]
        # The first passes of a workload are slower, as with caches and clocks that are still cold.
        cold = truth.cold[self._passes] if self._passes < len(truth.cold) else 0.0
        self._passes += 1
        self._pace = (1 + cold) * truth.pace * self._slowdown
        if self._continuous:
            self._serve_continuously(answers, mark)
        else:
            for rows in static_batches(len(answers), self._batch_size):
                for _ in self._batch_steps([answers[row] for row in rows]):
                    pass
        host.enter("idle")
        host.clock()
        return [self._completion(*one, arrival_s) for one in enumerate(answers)]

    def serve(self, queue: Queue) -> list[Completion]:
        """Serve timed traffic; the engine does nothing during its stalls, whoever waits."""
        host, truth = self._host, self._host.truth.engine
        begin_s = host.clock()
        self._pace = truth.pace * self._slowdown
        self._stalls = [(begin_s + at_s, begin_s + at_s + for_s) for at_s, for_s in truth.stalls]
        served: list[tuple[Arrival, _Answer]] = []
        if self._continuous:
            self._serve_arrivals(queue, served)
        else:
            while arrivals := queue.next_batch(self._due):
                batch = [self._answer(arrival.prompt, arrival.number) for arrival in arrivals]
                for _ in self._batch_steps(batch, leap=False):
                    queue.step()
                host.enter("idle")
                queue.step(ended=len(batch))
                served += zip(arrivals, batch, strict=True)
        self._stalls = []
        served.sort(key=lambda pair: pair[0].number)
        return [self._completion(a.prompt, answer, a.time_s) for a, answer in served]

    def events(self) -> dict[str, Any]:
        """Return the counts since ``prepare``, and the mean by step since the last call."""
        counted, before = dict(self._events), self._looked
        self._looked = dict(counted)
        running = counted.pop("running_request_steps") - before["running_request_steps"]
        steps = counted["steps"] - before["steps"]
        return counted | {"mean_running_requests": running / steps if steps else None}

    def steps(self) -> StepTable:
        """Return the steps since the last call."""
        return self._steps.take()

    def score(self, passages: Sequence[Sequence[int]]) -> list[list[float]]:
        """Find every token equally likely: as likely as the truth says, less so when quantised."""
        self._host.enter("prefill")
        self._host.advance(sum(self._prefill_s(len(passage)) for passage in passages))
        self._host.enter("idle")
        return [[-self._nll_per_token] * (len(passage) - 1) for passage in passages]

    def close(self) -> None:
        """Return the GPUs back."""
        self._requests = ()
        self._host.use([])

    def _plan(self, index: int, low: int, high: int, seed: int) -> tuple[tuple[int, ...], str]:
        """Return the token ids of an answer and why it ends there."""
        request, truth = self._requests[index], self._host.truth.engine
        random = Random(f"tokens {seed} {request.id}")
        forced = low == high or truth.never_stops
        length = high if forced else random.randint(max(1, low), high)
        reason = "length" if length == high else "stop"
        if self._is_hit(index, truth.short_share):
            length = max(1, length - 1)
        if self._is_hit(index, truth.stop_share):
            length, reason = max(1, length // 2), "stop"
        if self._is_hit(index, truth.abort_share):
            reason = "abort"
        if truth.repeated_tokens:
            return (7,) * length, reason
        return tuple(
            random.choices(range(simulated.SPECIAL, simulated.VOCABULARY), k=length)
        ), reason

    def _is_hit(self, index: int, share: float) -> bool:
        """Return whether a fault strikes a request: the first ``share`` of them, rounded up."""
        return bool(share) and index < math.ceil(share * len(self._requests))

    def _due(self, waiting: Sequence[Arrival], now_s: float) -> tuple[int, float | None]:
        times_s = [arrival.time_s for arrival in waiting]
        timeout_s = self._traffic["batch_timeout_s"]
        return due_static_batch(times_s, now_s, self._batch_size, timeout_s)

    def _batch_steps(self, batch: list[_Answer], leap: bool = True) -> Iterator[None]:
        """Prefill a whole batch, then decode until its longest answer is complete.

        A static batch keeps its size until the end, whoever has ended before. Yields after each
        step, or with ``leap`` after each of as many as go by until another answer is complete.
        """
        width = max(len(answer.request.prompt_token_ids) for answer in batch)
        for answer in batch:
            answer.padding = width - len(answer.request.prompt_token_ids)
        self._start(batch)
        self._spans.clear()
        self._work("prefill", len(batch), self._prefill_s(width * len(batch)))
        prompts = {answer.number: len(answer.request.prompt_token_ids) for answer in batch}
        seconds = prefill_seconds(prompts, self._token_s, self._host.truth.engine.step_s)
        self.true_work.add(self._begin_s, self._host.now_s, seconds)
        self._emit(batch, 1)
        done = 1
        yield
        lengths = sorted({len(answer.token_ids) for answer in batch})
        for length in lengths if leap else range(2, lengths[-1] + 1):
            if length > done:
                steps = length - done
                self._work("decode", len(batch), steps * self._step_s(len(batch)), steps)
                left = [answer.number for answer in batch if len(answer.token_ids) > done]
                self.true_work.add(self._begin_s, self._host.now_s, dict.fromkeys(left, 1.0))
                self._emit(batch, steps)
                done = length
                yield
        self._steps.static_batch(
            [*prompts],
            [*prompts.values()],
            [len(answer.token_ids) for answer in batch],
            self._spans,
        )

    def _serve_arrivals(self, queue: Queue, served: list[tuple[Arrival, _Answer]]) -> None:
        """Let what is due join at each step while there is room, as the others decode on."""
        room = min(self._batch_size, self._host.truth.engine.running_limit or self._batch_size)
        running: list[_Answer] = []
        while True:
            arrivals = queue.take(room - len(running))
            if not (running or arrivals):
                self._host.enter("idle")
                if not queue.wait():
                    return
                continue
            joining = [self._answer(arrival.prompt, arrival.number) for arrival in arrivals]
            served += zip(arrivals, joining, strict=True)
            self._start(joining)
            tokens = sum(len(answer.request.prompt_token_ids) for answer in joining)
            step_s = self._step_s(len(running)) if running else 0.0
            step_s += self._prefill_s(tokens) if joining else 0.0
            running += joining
            self._work("prefill" if joining else "decode", len(running), step_s)
            self._note(running, 1)
            self._emit(running, 1)
            left = [answer for answer in running if answer.done < len(answer.token_ids)]
            queue.step(ended=len(running) - len(left))
            running = left

    def _serve_continuously(self, answers: list[_Answer], mark: Mark) -> None:
        """Let requests join at each step while there is room, as the others decode on."""
        truth = self._host.truth.engine
        room = min(self._batch_size, truth.running_limit or self._batch_size)
        waiting, running = deque(answers), []
        started = emitted = 0
        begun = finished = False
        while waiting or running:
            before, tokens = len(running), 0
            while waiting and len(running) < room and tokens < truth.step_tokens:
                running.append(waiting.popleft())
                self._start(running[-1:])
                tokens += len(running[-1].request.prompt_token_ids)
            if tokens:
                count, started = 1, started + len(running) - before
                step_s = self._step_s(before) if before else 0.0
                self._work("prefill", len(running), self._prefill_s(tokens) + step_s)
            else:
                count = min(len(answer.token_ids) - answer.done for answer in running)
                self._work("decode", before, count * self._step_s(before), count)
            self._note(running, count)
            emitted += self._emit(running, count)
            running = [answer for answer in running if answer.done < len(answer.token_ids)]
            if not begun and started >= self._batch_size:
                begun = True
                mark(STEADY_BEGIN, emitted)
            ended = started - len(running)
            if not finished and begun and ended >= len(answers) - self._batch_size - 1 > 0:
                finished = True
                mark(STEADY_END, emitted)

    def _work(self, phase: str, batch: int, duration_s: float, steps: int = 1) -> None:
        host, jitter_sd = self._host, self._host.truth.engine.jitter_sd
        self._stall()
        host.enter(phase, batch)
        self._begin_s = host.now_s
        host.advance(duration_s * self._pace * max(0.5, self._random.gauss(1, jitter_sd)))
        self._events["steps"] += steps
        self._events["running_request_steps"] += steps * batch

    def _stall(self) -> None:
        for begin_s, end_s in self._stalls:
            if begin_s <= self._host.now_s < end_s:
                self._host.enter("idle")
                self._host.advance(end_s - self._host.now_s)

    def _note(self, running: Sequence[_Answer], steps: int) -> None:
        """Note the steps of continuous batching since the work began, before their tokens."""
        prompts = {one.number: len(one.request.prompt_token_ids) for one in running}
        held = {
            one.number: prompts[one.number] + one.done - 1 if one.done else 0 for one in running
        }
        tokens = {one.number: 1 if one.done else prompts[one.number] for one in running}
        begin_s, end_s = self._begin_s, self._host.now_s
        self._steps.note(begin_s, end_s, tokens, lambda n: (n, prompts[n], held[n]), steps)
        truth = self._host.truth.engine
        read_s = self._weight_bytes / truth.bandwidth_bytes_per_s
        joining = {one.number: prompts[one.number] for one in running if not one.done}
        decoding = [one.number for one in running if one.done]
        rates = (self._token_s, truth.step_s, read_s, truth.sequence_s)
        self.true_work.add(begin_s, end_s, mixed_seconds(joining, decoding, *rates))

    def _answer(self, place: int, number: int) -> _Answer:
        return _Answer(self._requests[place], *self._planned[place], number)

    def _start(self, answers: Sequence[_Answer]) -> None:
        for answer in answers:
            answer.start_s = self._host.now_s

    def _emit(self, answers: Sequence[_Answer], count: int) -> int:
        """Return each of these requests ``count`` tokens, as far as it is not complete.

        They come at equal distances since the work on them began.
        """
        spans, emitted = evenly(self._begin_s, self._host.now_s, count), 0
        self._spans += spans
        times_s = [end_s for _, end_s in spans]
        for answer in answers:
            added = min(count, len(answer.token_ids) - answer.done)
            answer.done += added
            emitted += added
            answer.times_s += times_s[:added]
        return emitted

    @property
    def _token_s(self) -> float:
        return 2 * self._parameter_count / self._host.truth.engine.operations_per_s

    def _prefill_s(self, tokens: int) -> float:
        truth = self._host.truth.engine
        return truth.step_s + self._token_s * tokens

    def _step_s(self, batch: int) -> float:
        truth = self._host.truth.engine
        read_s = self._weight_bytes / truth.bandwidth_bytes_per_s
        return truth.step_s + read_s + truth.sequence_s * batch

    def _completion(self, index: int, answer: _Answer, arrival_s: float) -> Completion:
        truth = self._host.truth.engine
        prompt_tokens, offset_s = len(answer.request.prompt_token_ids), truth.clock_offset_s
        cached = prompt_tokens // 2 if self._is_hit(index, truth.cached_share) else 0
        self._events["cached_prompt_tokens"] += cached
        self._events["preempted_requests"] += self._is_hit(index, truth.preempted_share)
        return Completion(
            request_id=answer.request.id,
            prompt_tokens=prompt_tokens - self._is_hit(index, truth.cut_share),
            padding_tokens=answer.padding,
            cached_prompt_tokens=cached,
            output_token_ids=answer.token_ids,
            finish_reason=answer.reason,
            arrival_s=arrival_s + offset_s,
            first_token_s=answer.times_s[0] + offset_s,
            last_token_s=answer.times_s[-1] + offset_s,
            token_times_s=tuple(time_s + offset_s for time_s in answer.times_s),
            service_start_s=answer.start_s + offset_s,
        )
