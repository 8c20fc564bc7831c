"""The TensorRT-LLM backend: NVIDIA's LLM API.

Written from the documentation and source of TensorRT-LLM and not yet run on a GPU; what it uses of
the package, with the source of each entry, is in ``tests/support/tensorrt_api.yaml``. Ids go in and
ids come out: the engine gets no tokenizer.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm_energy.backends.base import Mark, Queue, no_mark
from llm_energy.backends.engine_errors import (
    check_prompt,
    reporting_out_of_memory,
    reporting_refusals,
)
from llm_energy.backends.tensorrt.passes import Pass
from llm_energy.backends.tensorrt.request_times import Times, engine_times
from llm_energy.backends.tensorrt.statistics import Statistics
from llm_energy.backends.tensorrt.traffic import Traffic
from llm_energy.backends.tensorrt.weights import Checkpoint
from llm_energy.core.errors import Unsupported
from llm_energy.records import Completion, Request, Spec, Workload

CAPABILITIES = frozenset(
    {
        "float32",
        "float16",
        "bfloat16",
        "top_k",
        "top_p",
        "continuous_batching",
        "score",
        "timed_traffic",
    }
)
KV_CACHE = "kv_cache_config."  # before the arguments that go to the cache's configuration
# More than most windows have; by default all but the last 1000 are dropped before they are read.
KEPT_ITERATIONS = 100_000
FINISH_REASONS = {"stop": "stop", "length": "length"}  # all others are no whole answer


class Backend:
    """Serve one model through the LLM API, at most a batch size of requests at a time."""

    def __init__(self) -> None:
        # The import itself takes seconds and belongs to the load.
        if importlib.util.find_spec("tensorrt_llm") is None:
            raise ModuleNotFoundError("No module named 'tensorrt_llm'", name="tensorrt_llm")
        self._llm: Any = None
        self._requests: tuple[Request, ...] = ()
        self._events: Counter[str] = Counter()

    @reporting_out_of_memory
    def load(self, spec: Spec, model_folder: Path) -> dict[str, Any]:
        """Start the engine, check that it does what the spec asks, and report what it uses."""
        engine = dict(spec.engine)
        del engine["flow"]  # there is but one
        if spec.device == "cpu":
            raise Unsupported("device 'cpu' was asked for and TensorRT-LLM needs an NVIDIA GPU")
        self._checkpoint = Checkpoint(model_folder)
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the model is a folder: nothing is fetched
        import tensorrt_llm

        with reporting_refusals(f"TensorRT-LLM cannot load {model_folder}"):
            self._llm = self._start(tensorrt_llm, model_folder, engine)
        self._statistics = Statistics(self._llm)
        effective, dtype = self._effective(tensorrt_llm), spec.engine["dtype"]
        if effective["dtype"] != dtype:
            raise Unsupported(f"asked for {dtype}, the engine uses {effective['dtype']}")
        return effective

    def prepare(self, workload: Workload, requests: Sequence[Request]) -> dict[str, Any]:
        """Check that each request fits, and make the sampling parameters that all of them have."""
        try:
            self._sampling = self._sampling_of(workload.engine)
            own = {
                n: self._sampling_of(workload.engine | {"max_tokens": n, "min_tokens": n})
                for n in {request.output_tokens for request in requests} - {None}
            }
        except (TypeError, ValueError) as error:
            raise Unsupported(f"TensorRT-LLM refuses the sampling parameters: {error}") from None
        for request in requests:
            self._check_request(request, request.output_tokens or workload.engine["max_tokens"])
        self._concurrency = min(workload.batch_size, self._llm.args.max_batch_size)
        self._requests, self._events = tuple(requests), Counter()
        self._asked = [
            (list(r.prompt_token_ids), own.get(r.output_tokens, self._sampling)) for r in requests
        ]
        self._statistics.begin()
        return {
            "generation": {name: getattr(self._sampling, name) for name in workload.engine},
            "seed": self._sampling.seed,
            "eos_token_ids": self._checkpoint.end_ids,
            "batching": {"strategy": "continuous", "max_requests_in_flight": self._concurrency},
        }

    def _sampling_of(self, arguments: dict[str, Any]) -> Any:
        """Make the sampling parameters that go with the matrix's arguments."""
        from tensorrt_llm import SamplingParams

        end_ids = self._checkpoint.end_ids
        forced = arguments["min_tokens"] == arguments["max_tokens"]
        return SamplingParams(
            **arguments,
            end_id=end_ids[0] if end_ids else -1,
            # A forced length goes past these: min_tokens bans the end id alone.
            stop_token_ids=None if forced else end_ids[1:] or None,
            include_stop_str_in_output=True,
            detokenize=False,
            return_perf_metrics=True,
        )

    @reporting_out_of_memory
    def generate(self, mark: Mark = no_mark) -> list[Completion]:
        """Serve all requests; they arrive at the start, and those beyond the batch size queue.

        The engine holds as many requests as the largest workload needs, so a smaller batch size is
        kept here, by handing over the next request when one has ended.
        """
        arrival_s = time.monotonic()
        outputs = Pass(self._llm, self._asked, self._concurrency, mark).run()
        end_s = time.monotonic()
        return [
            self._completion(place, output, arrival_s, engine_times(output, arrival_s, end_s))
            for place, output in enumerate(outputs)
        ]

    @reporting_out_of_memory
    def serve(self, queue: Queue) -> list[Completion]:
        """Hand requests to the engine as they are due, up to a batch size, and sleep between.

        Of each token is known when it came here; of the first and the last when the engine had it.
        """
        answers = Traffic(self._llm, self._asked, self._concurrency, queue).run()
        end_s = time.monotonic()
        completions = []
        for (_, place, due_s), output, received_s in answers:
            times = engine_times(output, due_s, end_s).with_tokens(received_s)
            completions.append(self._completion(place, output, due_s, times))
        return completions

    def events(self) -> dict[str, Any]:
        """Return the engine's counts since ``prepare``, and means by step since the last call."""
        return {
            "cached_prompt_tokens": self._events["cached_prompt_tokens"],
            "requests_without_engine_times": self._events["requests_without_engine_times"],
            **self._statistics.events(),
        }

    def score(self, passages: Sequence[Sequence[int]]) -> list[list[float]]:
        """Score one passage at a time, from the logits at each place of its prompt."""
        import torch
        from tensorrt_llm import SamplingParams

        asked = SamplingParams(
            max_tokens=1, end_id=-1, top_k=1, detokenize=False, return_context_logits=True
        )
        scores = []
        for passage in passages:
            answer = self._llm.generate(list(passage), asked, use_tqdm=False)
            logits = answer.context_logits[: len(passage) - 1].float()
            chosen = torch.tensor(passage[1:], device=logits.device).unsqueeze(1)
            scores.append(logits.log_softmax(-1).gather(1, chosen)[:, 0].tolist())
        return scores

    def close(self) -> None:
        """Shut the engine and its processes down, and give back their memory."""
        llm, self._llm = self._llm, None
        self._requests, self._asked, self._statistics = (), [], None
        if llm is not None:
            llm.shutdown()
        del llm
        self._release()

    def _release(self) -> None:
        gc.collect()

    def _start(self, package: Any, folder: Path, engine: dict[str, Any]) -> Any:
        from tensorrt_llm.llmapi import KvCacheConfig

        cache = {
            name.removeprefix(KV_CACHE): engine.pop(name)
            for name in list(engine)
            if name.startswith(KV_CACHE)
        }
        arguments: dict[str, Any] = {
            "model": str(folder),
            "skip_tokenizer_init": True,
            "kv_cache_config": KvCacheConfig(**cache),
            "return_perf_metrics": True,  # else requests come back without their times
            "iter_stats_max_iterations": KEPT_ITERATIONS,
            # Its documentation says that these statistics cost a little.
            "enable_iter_perf_stats": True,
            "max_stats_len": KEPT_ITERATIONS,
        }
        return package.LLM(**arguments | engine)

    def _check_request(self, request: Request, output_tokens: int) -> None:
        check_prompt(request, self._checkpoint.vocabulary)
        args, prompt = self._llm.args, len(request.prompt_token_ids)
        asked = f"request {request.id}: {prompt} prompt tokens"
        if not args.enable_chunked_prefill and prompt > args.max_num_tokens:
            raise Unsupported(
                f"{asked} are more than the {args.max_num_tokens} that the engine takes in one step"
            )
        context = self._context
        if prompt + output_tokens > context:  # the engine would cut the output short
            raise Unsupported(
                f"{asked} and {output_tokens} output tokens are more than the context of {context}"
            )

    def _completion(self, place: int, output: Any, arrival_s: float, times: Times) -> Completion:
        """Make one answered request."""
        answer = output.outputs[0]
        self._events["requests_without_engine_times"] += not times.of_the_engine
        self._events["cached_prompt_tokens"] += output.cached_tokens
        return Completion(
            request_id=self._requests[place].id,
            prompt_tokens=len(output.prompt_token_ids),
            padding_tokens=0,
            cached_prompt_tokens=output.cached_tokens,
            output_token_ids=tuple(answer.token_ids),
            finish_reason=FINISH_REASONS.get(answer.finish_reason, "abort"),
            arrival_s=arrival_s,
            first_token_s=times.first_s,
            last_token_s=times.last_s,
            token_times_s=times.tokens_s,
            service_start_s=times.begin_s,
        )

    def _effective(self, package: Any) -> dict[str, Any]:
        import torch

        args = self._llm.args
        cache, gpus = args.kv_cache_config, _gpu_uuids(torch, args.tensor_parallel_size)
        self._context = args.max_seq_len or self._checkpoint.context
        return {
            "device": "cuda:0" if gpus else "cpu",
            "device_uuids": gpus,
            "in_process": False,  # nor are its weights, of which the memory can't be asked
            "flow": "pytorch",
            "engine_version": package.__version__,
            "torch_version": torch.__version__,
            "max_batch_size": args.max_batch_size,
            "max_num_tokens": args.max_num_tokens,
            "max_beam_width": args.max_beam_width,
            "max_model_len": self._context,
            "enable_chunked_prefill": args.enable_chunked_prefill,
            "capacity_scheduler_policy": _name(args.scheduler_config.capacity_scheduler_policy),
            "tensor_parallel_size": args.tensor_parallel_size,
            "kv_cache_dtype": cache.dtype,
            "kv_cache_block_tokens": cache.tokens_per_block,
            "kv_cache_memory_fraction": cache.free_gpu_memory_fraction,
            f"{KV_CACHE}enable_block_reuse": cache.enable_block_reuse,
            "dtype": args.dtype,
            "quantization": _name(args.quant_config.quant_algo),
            "kv_cache_quantization": _name(args.quant_config.kv_cache_quant_algo),
            **self._checkpoint.weights(args.dtype),
            "attention_backend": args.attn_backend,
            "overlap_scheduler": not args.disable_overlap_scheduler,
            "cuda_graphs": args.cuda_graph_config is not None,
        }


def _gpu_uuids(torch: Any, count: int) -> list[str]:
    """Return the UUIDs, as NVML has them, of the GPUs of ``count`` ranks; none without a GPU."""
    if not torch.cuda.is_available():
        return []
    return [f"GPU-{torch.cuda.get_device_properties(gpu).uuid}" for gpu in range(count)]


def _name(value: Any) -> str | None:
    """Return the value of an enumeration's member."""
    return None if value is None else str(getattr(value, "value", value))
