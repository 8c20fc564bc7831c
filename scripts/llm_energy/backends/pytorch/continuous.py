"""Continuous batching on PyTorch: Transformers' own scheduler and paged cache, stepped in turn.

``generate_batch`` would run them in a thread of its own and tell only when a request has ended.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from llm_energy.backends.base import Mark, Queue
from llm_energy.backends.continuous import serve_all, serve_queue
from llm_energy.backends.steps import StepLog
from llm_energy.core.errors import Unsupported
from llm_energy.records import Completion, Request

STEP_TOKENS = 2048  # of prompts and answers in one step; a longer prompt takes several
NO_TOKEN = -1
BANS = "SuppressTokensLogitsProcessor"  # which looks at no request's tokens


class InFlight(NamedTuple):
    """A request that the engine works on; ``times_s`` are those of its tokens, on the host."""

    place: int
    number: int
    start_s: float
    times_s: list[float]


class Ended(NamedTuple):
    """What came of a request; ``stopped`` tells that it ended with an end token."""

    request: InFlight
    output_token_ids: tuple[int, ...]
    stopped: bool


class ContinuousEngine:
    """Transformers' continuous batching of one workload (a ``StepEngine``).

    Its cache has room for ``most`` of the longest requests, so none is ever sent back to wait. An
    answer of a forced length is one without end tokens, as it is in static batches. Raises
    Unsupported for what Transformers would leave out without a word.
    """

    def __init__(
        self,
        model: Any,
        config: Any,
        requests: Sequence[Request],
        end_tokens: Sequence[int],
        most: int,
        log: StepLog,
    ) -> None:
        from transformers import ContinuousBatchingConfig

        logging.getLogger("ContinuousBatchingLogger").setLevel(logging.ERROR)
        self._requests, self._most, self._log, self._model = requests, most, log, model
        own = {request.output_tokens for request in requests}
        least, self._most_tokens = config.min_new_tokens or 0, config.max_new_tokens
        self._forced = None not in own or least == self._most_tokens
        if not self._forced and least:
            raise Unsupported(
                "transformers' continuous batching knows no shortest answer; set "
                f"min_output_tokens to 0 or to max_output_tokens, which is {self._most_tokens}"
            )
        config = copy.copy(config)
        config.min_new_tokens = None
        config.eos_token_id = NO_TOKEN if self._forced or not end_tokens else list(end_tokens)
        if self._forced and end_tokens:
            config.suppress_tokens = list(end_tokens)
        self._ends = frozenset(() if self._forced else end_tokens)
        tokens = max(len(r.prompt_token_ids) + self._tokens_of(r) for r in requests)
        asked = ContinuousBatchingConfig(
            max_requests_per_batch=most,
            max_batch_tokens=max(STEP_TOKENS, most),
            allow_block_sharing=False,
            use_async_batching=False,
            use_cuda_graph=False,
            auto_switch_to_flash=False,
            safety_margin=0.0,
        )
        asked.num_blocks = most * (tokens // asked.page_size + 1) + 1
        _check_processors(model, config)
        self._manager = model.init_continuous_batching(config, asked)
        self._manager.warmup()  # which makes the cache
        self._processor = self._manager.batch_processor
        self.settings = {
            "strategy": "continuous",
            "max_requests_in_flight": most,
            "max_batch_tokens": asked.max_batch_tokens,
            "kv_cache_page_tokens": asked.page_size,
            "kv_cache_blocks": asked.num_blocks,
        }
        self._flying: dict[int, InFlight] = {}
        self._held: dict[int, int] = {}
        self._counted = self._looked = (0, 0)

    def generate(self, first: int, arrival_s: float, mark: Mark) -> list[Completion]:
        """Serve all requests, which arrived together and are numbered from ``first`` on."""
        ended = serve_all(self, len(self._requests), self._most, first, mark)
        return [self._completion(one, arrival_s) for one in ended]

    def serve(self, queue: Queue) -> list[Completion]:
        """Serve requests as they are due."""
        served = serve_queue(self, queue, self._most)
        return [self._completion(one, arrival.time_s) for arrival, one in served]

    def _completion(self, ended: Ended, arrival_s: float) -> Completion:
        flying = ended.request
        request = self._requests[flying.place]
        return Completion(
            request_id=request.id,
            prompt_tokens=len(request.prompt_token_ids),
            padding_tokens=0,
            cached_prompt_tokens=0,
            output_token_ids=ended.output_token_ids,
            finish_reason="stop" if ended.stopped else "length",
            arrival_s=arrival_s,
            first_token_s=flying.times_s[0],
            last_token_s=flying.times_s[-1],
            token_times_s=tuple(flying.times_s),
            service_start_s=flying.start_s,
        )

    def _tokens_of(self, request: Request) -> int:
        return request.output_tokens or self._most_tokens

    def add(self, key: int, place: int, number: int) -> None:
        """Hand over the request at a place of the workload; its steps are noted under a number."""
        request = self._requests[place]
        self._manager.add_request(
            list(request.prompt_token_ids), str(key), max_new_tokens=self._tokens_of(request)
        )
        self._flying[key] = InFlight(place, number, time.monotonic(), [])
        self._held[key] = 0

    def step(self) -> dict[int, Ended]:
        """Do one forward pass over what is scheduled; its tokens are on the host afterwards."""
        processor, start_s = self._processor, time.monotonic()
        if not processor.prepare_next_batch():
            raise RuntimeError("transformers scheduled none of the requests in flight")
        batch = processor.inputs_and_outputs.requests_in_batch
        states = [(int(future.state.request_id), future.state) for future in batch]
        tokens = {key: state.position_offset - self._held[key] for key, state in states}
        processor._generation_step(self._model)
        processor.update_batch()
        end_s = time.monotonic()
        self._log.note(start_s, end_s, tokens, self._about)
        self._counted = (self._counted[0] + 1, self._counted[1] + len(self._flying))
        ended = {}
        for key, state in states:
            self._held[key] = state.position_offset
            flying = self._flying[key]
            if len(state.generated_tokens) > len(flying.times_s):
                flying.times_s.append(end_s)
            if state.status.name == "FINISHED":
                ids = tuple(state.generated_tokens)
                ended[key] = Ended(self._flying.pop(key), ids, ids[-1] in self._ends)
                self._manager.get_result()
        return ended

    def _about(self, key: int) -> tuple[int, int, int]:
        flying = self._flying[key]
        prompt = len(self._requests[flying.place].prompt_token_ids)
        return flying.number, prompt, self._held[key]

    def all_decode(self) -> bool:
        """Return whether every request in flight has its first token."""
        return all(flying.times_s for flying in self._flying.values())

    def output_tokens(self, ended: Iterable[Ended]) -> int:
        """Return the output tokens of what has ended and of what is in flight."""
        in_flight = sum(len(flying.times_s) for flying in self._flying.values())
        return in_flight + sum(len(one.output_token_ids) for one in ended)

    def events(self) -> dict[str, Any]:
        """Return the steps so far, and the mean of running requests by step since the last call."""
        steps, running = (now - then for now, then in zip(self._counted, self._looked, strict=True))
        self._looked = self._counted
        mean = running / steps if steps else None
        return {"steps": self._counted[0], "mean_running_requests": mean}

    def abort(self, keys: Iterable[int]) -> None:
        """Forget the requests in flight."""
        self._processor.fail_all_requests(RuntimeError("the pass was given up"))
        self._flying.clear()
        self._held.clear()


def _check_processors(model: Any, config: Any) -> None:
    """Raise Unsupported for a parameter of each token's choice that the engine would not obey.

    It leaves some out, and gives others all requests of a step as if they were one.
    """
    asked = model._get_logits_processor(config)
    names = [type(one).__name__ for one in asked if not one.supports_continuous_batching]
    if unknown := sorted(set(names) - {BANS}):
        raise Unsupported(
            f"transformers' continuous batching does not do what {', '.join(unknown)} does; use "
            "batching.strategy static or dynamic, or remove the parameter"
        )
