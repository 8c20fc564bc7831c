"""A simulated engine: it takes simulated time, draws simulated power and answers with known tokens.

It batches as the workload asks: ``static`` in whole batches, ``dynamic`` continuously, with at most
``batch_size`` requests in flight.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from llm_energy.backends import STEADY_BEGIN, STEADY_END, Mark, no_mark
from llm_energy.batching import static_batches
from llm_energy.errors import OutOfMemory, Unsupported
from llm_energy.records import Completion, Request, Spec, Workload
from llm_energy.replay import model

if TYPE_CHECKING:
    from llm_energy.replay.host import SimulatedHost

LOAD_BYTES_PER_S = 4e9
START_S = 3.0  # what loading takes besides the weights
CPU_SLOWDOWN = 40.0
BYTES = {"float32": 4.0, "float16": 2.0, "bfloat16": 2.0}
QUANTISED = {"load_in_8bit": 0.6, "load_in_4bit": 0.35}  # of the bytes in the compute precision
WORSE_NLL = {"load_in_8bit": 0.004, "load_in_4bit": 0.06}  # nats per token, more than without


@dataclass
class _Answer:
    """One request while it is served: what it must become, and its times so far."""

    request: Request
    token_ids: tuple[int, ...]
    reason: str
    padding: int = 0
    done: int = 0
    first_token_s: float | None = None
    last_token_s: float | None = None


class SimulatedEngine:
    """A backend on a simulated host; what it does wrong stands in ``host.truth.engine``."""

    def __init__(self, host: SimulatedHost):
        self._host = host
        self._requests: tuple[Request, ...] = ()
        self._passes = 0
        self._events: dict[str, int] = {}

    def load(self, spec: Spec, model_folder: Path) -> dict[str, Any]:
        """Take the time that reading the weights takes, and hold the boards that the spec needs."""
        host, truth = self._host, self._host.truth.engine
        parameters = spec.workloads[0].parameters
        dtype = truth.dtype or spec.engine.get("dtype", "bfloat16")
        self._parameter_count = model.parameter_count(model_folder, truth.parameter_count)
        self._weight_bytes = self._parameter_count * BYTES[dtype] * truth.weight_factor
        for name, share in QUANTISED.items():
            if parameters["quantization"].get(name):
                self._weight_bytes *= share
        worse = [nll for name, nll in WORSE_NLL.items() if parameters["quantization"].get(name)]
        self._nll_per_token = truth.nll_per_token + sum(worse)
        count = parameters.get("sharding", {}).get("num_devices", 1)
        boards = host.boards[:count] if spec.device != "cpu" else []
        if spec.device == "cuda" and len(boards) < count:
            raise Unsupported(f"{count} boards were asked for and this host has {len(boards)}")
        self._ranks = max(1, len(boards))
        if boards and self._weight_bytes / len(boards) > 0.9 * boards[0].truth.memory_bytes:
            raise OutOfMemory(f"{self._weight_bytes:.3g} bytes of weights are more than there is")
        self._slowdown = (1.0 if boards else CPU_SLOWDOWN) / self._ranks
        host.use(boards)
        host.enter("load")
        host.advance(START_S + self._weight_bytes / LOAD_BYTES_PER_S)
        host.use(boards, round(self._weight_bytes / self._ranks * 1.2) + 2**30)
        host.enter("idle")
        host.clock()
        uuids = [board.uuid for board in boards]
        return {
            "device": "cuda:0" if boards else "cpu",
            "device_uuids": uuids if truth.board_uuids is None else list(truth.board_uuids),
            "dtype": dtype,
            "weight_bytes": round(self._weight_bytes),
            "engine_version": truth.version,
            **truth.effective,
        }

    def prepare(self, workload: Workload, requests: Sequence[Request]) -> dict[str, Any]:
        """Decide what every request will be answered with; the same in every pass."""
        low, high = (workload.parameters[f"{m}_output_tokens"] for m in ("min", "max"))
        seed = workload.parameters.get("random_seed", 0)
        self._continuous = workload.parameters["batching"]["strategy"] == "dynamic"
        self._batch_size = workload.batch_size
        self._requests = tuple(requests)
        self._planned = [self._plan(i, low, high, seed) for i in range(len(self._requests))]
        self._random = Random(f"engine {seed} {self._host.random.random()}")
        self._passes = 0
        self._events = dict.fromkeys(
            ("steps", "preempted_requests", "cached_prompt_tokens", "running_request_steps"), 0
        )
        batching: dict[str, Any] = {"strategy": "continuous" if self._continuous else "static"}
        if self._continuous:
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
        answers = [
            _Answer(request, ids, reason)
            for request, (ids, reason) in zip(self._requests, self._planned, strict=True)
        ]
        # The first passes of a workload are slower, as with caches and clocks that are still cold.
        cold = truth.cold[self._passes] if self._passes < len(truth.cold) else 0.0
        self._passes += 1
        self._pace = (1 + cold) * truth.pace * self._slowdown
        if self._continuous:
            self._serve_continuously(answers, mark)
        else:
            for rows in static_batches(len(answers), self._batch_size):
                self._serve_batch([answers[row] for row in rows])
        host.enter("idle")
        host.clock()
        return [self._completion(*one, arrival_s) for one in enumerate(answers)]

    def events(self) -> dict[str, Any]:
        """Give what was counted since ``prepare``."""
        counted = dict(self._events)
        running = counted.pop("running_request_steps")
        mean = running / counted["steps"] if counted["steps"] else None
        return counted | {"mean_running_requests": mean}

    def score(self, passages: Sequence[Sequence[int]]) -> list[list[float]]:
        """Find every token equally likely: as likely as the truth says, less so when quantised."""
        self._host.enter("prefill")
        self._host.advance(sum(self._prefill_s(len(passage)) for passage in passages))
        self._host.enter("idle")
        return [[-self._nll_per_token] * (len(passage) - 1) for passage in passages]

    def close(self) -> None:
        """Give the boards back."""
        self._requests = ()
        self._host.use([])

    def _plan(self, index: int, low: int, high: int, seed: int) -> tuple[tuple[int, ...], str]:
        """Give the token ids of an answer and why it ends there."""
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
        return tuple(random.choices(range(model.SPECIAL, model.VOCABULARY), k=length)), reason

    def _is_hit(self, index: int, share: float) -> bool:
        """Say whether a fault strikes a request: the first ``share`` of them, rounded up."""
        return bool(share) and index < math.ceil(share * len(self._requests))

    def _serve_batch(self, batch: list[_Answer]) -> None:
        """Prefill a whole batch, then decode until its longest answer is complete.

        A static batch keeps its size until the end, whoever has ended before.
        """
        width = max(len(answer.request.prompt_token_ids) for answer in batch)
        for answer in batch:
            answer.padding = width - len(answer.request.prompt_token_ids)
        self._work("prefill", len(batch), self._prefill_s(width * len(batch)))
        self._emit(batch, 1)
        done = 1
        for length in sorted({len(answer.token_ids) for answer in batch}):
            if length > done:
                steps = length - done
                self._work("decode", len(batch), steps * self._step_s(len(batch)), steps)
                self._emit(batch, steps)
                done = length

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
                tokens += len(running[-1].request.prompt_token_ids)
            if tokens:
                count, started = 1, started + len(running) - before
                step_s = self._step_s(before) if before else 0.0
                self._work("prefill", len(running), self._prefill_s(tokens) + step_s)
            else:
                count = min(len(answer.token_ids) - answer.done for answer in running)
                self._work("decode", before, count * self._step_s(before), count)
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
        host.enter(phase, batch)
        host.advance(duration_s * self._pace * max(0.5, self._random.gauss(1, jitter_sd)))
        self._events["steps"] += steps
        self._events["running_request_steps"] += steps * batch

    def _emit(self, answers: Sequence[_Answer], count: int) -> int:
        """Give each of these requests ``count`` tokens, as far as it is not complete."""
        now_s, emitted = self._host.now_s, 0
        for answer in answers:
            added = min(count, len(answer.token_ids) - answer.done)
            if added > 0:
                answer.done += added
                emitted += added
                answer.last_token_s = now_s
                if answer.first_token_s is None:
                    answer.first_token_s = now_s
        return emitted

    def _prefill_s(self, tokens: int) -> float:
        truth = self._host.truth.engine
        return truth.step_s + 2 * self._parameter_count * tokens / truth.operations_per_s

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
            first_token_s=answer.first_token_s + offset_s,
            last_token_s=answer.last_token_s + offset_s,
        )
