"""The vLLM backend: its offline engine, with PagedAttention and continuous batching.

Ids go in and ids come out: vLLM gets no tokenizer, so no text is made inside a window, and requests
end at the ids of the model's ``generation_config.json``, as they do in transformers. All other
defaults of that file are kept out (``generation_config="vllm"``).
"""

from __future__ import annotations

import functools
import gc
import importlib.util
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from llm_energy.backends.base import Mark, Queue, no_mark
from llm_energy.backends.continuous import serve_all, serve_queue
from llm_energy.backends.distributed.ranks import END_S, RankFailure
from llm_energy.backends.engine_errors import (
    how_it_ended,
    reporting_out_of_memory,
    reporting_refusals,
)
from llm_energy.backends.vllm.arguments import engine_arguments, weights_folder
from llm_energy.backends.vllm.environment import set_environment
from llm_energy.backends.vllm.report import cache_tokens, check_request, describe_engine
from llm_energy.backends.vllm.scheduled import ScheduledSteps
from llm_energy.backends.vllm.token_times import TokenTimes
from llm_energy.backends.vllm.weights import (
    check_precision,
    describe_rank,
    prequantized_sha256,
)
from llm_energy.core.errors import Unsupported
from llm_energy.records import Completion, Request, Spec, Workload
from llm_energy.records.steps import StepTable

CAPABILITIES = frozenset(
    {
        "float32",
        "float16",
        "bfloat16",
        "int8",
        "int4",
        "top_k",
        "top_p",
        "min_p",
        "repetition_penalty",
        "score",
        "architecture",
        "ranks",
        "continuous_batching",
        "token_times",
        "timed_traffic",
        "steps",
    }
)


def _reporting_dead_ranks(method: Callable) -> Callable:
    """Turn what a method raises once a rank has ended into a RankFailure that says how it ended.

    vLLM raises one thing when it notices, and others at later calls.
    """

    @functools.wraps(method)
    def guarded(self: Backend, *arguments: Any) -> Any:
        try:
            return method(self, *arguments)
        except Exception:
            workers = getattr(self._engine.model_executor, "workers", ())
            ended = [
                f"rank {rank}: {how_it_ended(f'process {worker.proc.pid}', worker.proc.exitcode)}"
                for rank, worker in enumerate(workers)
                if not worker.proc.is_alive()
            ]
            if not ended:
                raise
        raise RankFailure(f"the engine has died; {'; '.join(ended)}")

    return guarded


class Backend:
    """Serve one model through vLLM's engine, at most a batch size of requests at a time.

    One engine at a time: vLLM's process group belongs to the process, and closing one engine takes
    it from every other.
    """

    def __init__(self) -> None:
        # The import itself takes seconds and belongs to the load.
        if importlib.util.find_spec("vllm") is None:
            raise ModuleNotFoundError("No module named 'vllm'", name="vllm")
        self._engine: Any = None
        self._scheduler: Any = None  # of the engine
        self._steps: Any = None  # what it let each step compute
        self._requests: tuple[Request, ...] = ()
        self._prompts: list[Any] = []
        self._events: Counter[str] = Counter()
        self._looked: Counter[str] = Counter()  # the events when they were last asked for
        self._preempted: set[str] = set()  # by the engine's own ids, which no pass uses again

    @reporting_out_of_memory
    def load(self, spec: Spec, model_folder: Path) -> dict[str, Any]:
        """Start the engine, check that it does what the spec asks, and report what it uses."""
        engine = dict(spec.engine)
        engine.pop("flow", None)
        load_in_8bit = engine.pop("load_in_8bit", False)
        folder = weights_folder(spec, model_folder)
        set_environment(engine.get("tensor_parallel_size", 1))

        from vllm import EngineArgs, LLMEngine
        from vllm.platforms import current_platform
        from vllm.usage.usage_lib import UsageContext

        device = "cuda" if current_platform.is_cuda_alike() else current_platform.device_type
        if device not in ("cpu", "cuda") or spec.device not in ("auto", device):
            raise Unsupported(
                f"device {spec.device!r} was asked for and this build of vLLM serves "
                f"{device or 'no device of this host'}"
            )
        arguments = engine_arguments(engine, folder, device) | {
            "skip_tokenizer_init": True,
            "disable_log_stats": False,  # else requests come back without their times
            "use_tqdm_on_load": False,
        }
        # It warns at each matrix product of an 8-bit model in bfloat16, which is inside the window.
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
        with reporting_refusals(f"vLLM cannot load {folder}"):
            # vllm.LLM is this engine, a chat template and a loop; the loop is ours (see generate).
            self._engine = LLMEngine.from_engine_args(
                EngineArgs(**arguments), usage_context=UsageContext.LLM_CLASS
            )
        # It would update Prometheus counters at each step and log every ten seconds.
        self._engine.logger_manager = None
        self._scheduler = self._engine.engine_core.engine_core.scheduler
        drafting = self._engine.vllm_config.speculative_config is not None
        self._steps = ScheduledSteps(self._scheduler, drafting)
        ranks = self._engine.apply_model(describe_rank)
        effective = describe_engine(self._engine.vllm_config, ranks)
        check_precision(effective, engine["dtype"], spec.asked_precision)
        if load_in_8bit:
            effective["prequantized_sha256"] = prequantized_sha256(folder)
        return effective

    def prepare(self, workload: Workload, requests: Sequence[Request]) -> dict[str, Any]:
        """Check that each request fits, and render the prompts into the engine's own inputs."""
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        try:
            self._sampling = SamplingParams(
                **workload.engine, detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY
            )
        except (TypeError, ValueError) as error:
            raise Unsupported(f"vLLM refuses the sampling parameters: {error}") from None
        config = self._engine.vllm_config
        self._samplings = [self._sampling_of(request) for request in requests]
        for request, sampling in zip(requests, self._samplings, strict=True):
            self._check_request(request, sampling.max_tokens)
        self._concurrency = min(workload.batch_size, config.scheduler_config.max_num_seqs)
        self._requests, self._preempted = tuple(requests), set()
        self._events, self._looked = Counter(), Counter()
        self._steps.drafts = dict.fromkeys(self._steps.drafts, 0)
        self._prompts = self._engine.renderer.render_cmpl(
            [TokensPrompt(prompt_token_ids=list(r.prompt_token_ids)) for r in requests]
        )
        eos = self._engine.input_processor.generation_config_fields.get("eos_token_id")
        return {
            "generation": self._effective_generation(workload.engine),
            "seed": self._sampling.seed,
            "eos_token_ids": [] if eos is None else [eos] if isinstance(eos, int) else list(eos),
            "batching": {"strategy": "continuous", "max_requests_in_flight": self._concurrency},
        }

    @reporting_out_of_memory
    @_reporting_dead_ranks
    def generate(self, mark: Mark = no_mark) -> list[Completion]:
        """Serve all requests; they arrive at the start, and those beyond the batch size queue.

        The engine holds as many requests as the largest workload needs, so a smaller batch size is
        kept by handing over the next request when one has ended. A step returns when its
        tokens are on the host, so the last one returns when all work is done. Where vLLM schedules
        asynchronously, the first step of a pass gives nothing yet, each later one gives the tokens
        of the one before, and a request that ends at an end token leaves a step under way.
        """
        arrival_s, count = time.monotonic(), len(self._prompts)
        self._times = TokenTimes(self._engine)
        ended = serve_all(self, count, self._concurrency, self._steps.log.number(count), mark)
        return [self._completion(output, place, arrival_s) for place, output in enumerate(ended)]

    @reporting_out_of_memory
    @_reporting_dead_ranks
    def serve(self, queue: Queue) -> list[Completion]:
        """Hand requests to the engine as they are due, up to a batch size, and sleep between."""
        self._times = TokenTimes(self._engine)
        served = serve_queue(self, queue, self._concurrency)
        return [self._completion(output, due.prompt, due.time_s) for due, output in served]

    def add(self, key: int, place: int, number: int) -> None:
        """Hand over the request at a place of the workload; its steps are noted under a number."""
        prompt, sampling = self._prompts[place], self._samplings[place]
        internal_id = self._engine.add_request(str(key), prompt, sampling)
        self._times.add(internal_id, str(key))
        self._steps.add(internal_id, number, len(self._requests[place].prompt_token_ids))

    def step(self) -> dict[int, Any]:
        """Let the engine do one step, count what it did, and return what it finished by key."""
        finished = [output for output in self._engine.step() if output.finished]
        self._times.note()
        self._events["steps"] += 1
        self._events["running"] += len(self._scheduler.running) + len(finished)
        # A preempted request waits to be computed again: more work than was asked for, so it is
        # counted. Not each version of vLLM tells of it in the request's metrics.
        waiting = self._scheduler.waiting
        self._preempted.update(r.request_id for r in waiting if r.num_preemptions)
        for output in finished:
            self._events["cached_prompt_tokens"] += output.num_cached_tokens or 0
        return {int(output.request_id): output for output in finished}

    def all_decode(self) -> bool:
        """Return whether each request in flight has its first token."""
        states = self._engine.output_processor.request_states.values()
        return not any(state.is_prefilling for state in states)

    def output_tokens(self, ended: Iterable[Any]) -> int:
        """Return the output tokens of what has ended and of what is in flight."""
        states = self._engine.output_processor.request_states.values()
        counted = sum(len(output.outputs[0].token_ids) for output in ended)
        return counted + sum(state.stats.num_generation_tokens for state in states)

    def abort(self, keys: Iterable[int]) -> None:
        """Forget the requests in flight."""
        self._engine.abort_request([str(key) for key in keys])

    def events(self) -> dict[str, Any]:
        """Return engine's counts since ``prepare``, and the mean by step since the last call."""
        counted, before = self._events, self._looked
        steps, running = (counted[name] - before[name] for name in ("steps", "running"))
        self._looked = counted.copy()
        return {
            "steps": counted["steps"],
            "preempted_requests": len(self._preempted),
            "cached_prompt_tokens": counted["cached_prompt_tokens"],
            "mean_running_requests": running / steps if steps else None,
            **self._steps.drafts,
        }

    def steps(self) -> StepTable | None:
        """Return the steps since the last call; None with speculative decoding."""
        return self._steps.take()

    @reporting_out_of_memory
    @_reporting_dead_ranks
    def score(self, passages: Sequence[Sequence[int]]) -> list[list[float]]:
        """Score one passage at a time, as prompts whose log-probabilities the engine gives back."""
        import torch
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        # The engine makes one token at least; 0 asks for no alternatives beside the prompt's own.
        asked = SamplingParams(
            temperature=0.0,
            max_tokens=1,
            prompt_logprobs=0,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        prompts = self._engine.renderer.render_cmpl(
            [TokensPrompt(prompt_token_ids=list(passage)) for passage in passages]
        )
        scores = []
        # An eager engine would still compile how it ranks them: 20 s, and only with a C++ compiler.
        eager = self._engine.model_config.enforce_eager
        with torch.compiler.set_stance("force_eager" if eager else "default"):
            for passage, prompt in zip(passages, prompts, strict=True):
                self._engine.add_request("quality", prompt, asked)
                while not (finished := [o for o in self._engine.step() if o.finished]):
                    pass
                given = zip(finished[0].prompt_logprobs[1:], passage[1:], strict=True)
                scores.append([place[token].logprob for place, token in given])
        return scores

    def close(self) -> None:
        """Shut the engine down, and give back its memory and its process group."""
        engine, self._engine, self._scheduler = self._engine, None, None
        self._requests, self._prompts = (), []
        if engine is not None:
            workers = getattr(engine.model_executor, "workers", ())  # of tensor parallelism
            engine.engine_core.shutdown()
            for worker in workers:  # after a failure it is a thread that ends them, some time
                worker.proc.join(END_S)
        del engine
        self._release()
        if "VLLM_ENABLE_V1_MULTIPROCESSING" in os.environ:  # vLLM has been imported
            from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

            # Also after a load that failed half-way; without an effect where all is gone.
            cleanup_dist_env_and_memory()

    def _release(self) -> None:
        gc.collect()

    def _sampling_of(self, request: Request) -> Any:
        """Return the sampling parameters of one request, which may have a length of its own."""
        if request.output_tokens is None:
            return self._sampling
        sampling = self._sampling.clone()
        sampling.max_tokens = sampling.min_tokens = request.output_tokens
        sampling.ignore_eos = True
        return sampling

    def _effective_generation(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return what the engine made of each argument; for no top_k always -1."""
        effective = {name: getattr(self._sampling, name) for name in arguments}
        if effective.get("top_k") == 0:
            effective["top_k"] = -1
        return effective

    def _check_request(self, request: Request, output_tokens: int) -> None:
        model, config = self._engine.model_config, self._engine.vllm_config
        room = cache_tokens(config)
        check_request(request, output_tokens, model.get_vocab_size(), room, model.max_model_len)

    def _completion(self, output: Any, place: int, arrival_s: float) -> Completion:
        answer, metrics = output.outputs[0], output.metrics
        # The fields that end in _ts are monotonic; metrics.arrival_time is wall clock.
        return Completion(
            request_id=self._requests[place].id,
            prompt_tokens=len(output.prompt_token_ids),
            padding_tokens=0,
            cached_prompt_tokens=output.num_cached_tokens or 0,
            output_token_ids=tuple(answer.token_ids),
            finish_reason=answer.finish_reason if answer.finish_reason != "error" else "abort",
            arrival_s=arrival_s,
            first_token_s=metrics.first_token_ts,
            last_token_s=metrics.last_token_ts,
            token_times_s=self._times.of(output),
            service_start_s=metrics.scheduled_ts,
        )
