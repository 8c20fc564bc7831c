"""The PyTorch backend: Hugging Face Transformers, with Accelerate and bitsandbytes."""

from __future__ import annotations

import copy
import gc
import logging
import time
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from llm_energy.backends.arguments import effective_arguments
from llm_energy.backends.base import BatchRule, Mark, Queue, architecture, no_mark
from llm_energy.backends.batching import (
    default_max_batch_tokens,
    due_dynamic_batch,
    due_static_batch,
    dynamic_batches,
    static_batches,
)
from llm_energy.backends.engine_errors import (
    check_prompt,
    reporting_out_of_memory,
    reporting_refusals,
)
from llm_energy.backends.pytorch import weights
from llm_energy.backends.pytorch.batches import Batch, StepClock, completions, padded
from llm_energy.backends.pytorch.compiled import CompiledSteps
from llm_energy.backends.pytorch.continuous import ContinuousEngine
from llm_energy.backends.pytorch.placement import check_spread, device_for, leave, placement
from llm_energy.backends.steps import StepLog
from llm_energy.core.errors import Unsupported
from llm_energy.core.libraries import loaded_libraries
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
        "no_repeat_ngram_size",
        "static_batches",
        "dynamic_batches",
        "continuous_strategy",
        "token_times",
        "timed_traffic",
        "steps",
    }
)


class Backend:
    """Serve one model through ``model.generate`` in padded batches, or by continuous batching."""

    def __init__(self) -> None:
        import torch
        import transformers

        self._torch = torch
        self._transformers = transformers
        self.model: Any = None
        self._requests: tuple[Request, ...] = ()
        self._batches: list[Batch] = []
        self._gpus: list[str] = []
        self._compiled: CompiledSteps | None = None
        self._continuous: ContinuousEngine | None = None
        self._steps = StepLog()
        self._rule: BatchRule = lambda waiting, now_s: (len(waiting), None)

    @reporting_out_of_memory
    def load(self, spec: Spec, model_folder: Path) -> dict[str, Any]:
        """Load the weights, check that they are where and what the spec asks, and report both."""
        engine = spec.engine
        self._flow = engine["flow"]
        device = device_for(self._torch, spec.device, engine["dtype"])
        if engine["flow"] == "compiled" and device == "cpu":
            raise Unsupported("transformers compiles on a GPU only; use the flow eager on this CPU")
        quantization = engine.get("quantization")
        options = placement(self._torch, spec, device)
        if quantization:
            options["quantization_config"] = self._transformers.BitsAndBytesConfig(**quantization)
        self._transformers.utils.logging.disable_progress_bar()
        # It warns at each matrix product of an 8-bit model in bfloat16, which is inside the window.
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
        with reporting_refusals(f"transformers cannot load {model_folder}"):
            self.model = self._transformers.AutoModelForCausalLM.from_pretrained(
                str(model_folder),
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=engine["dtype"],
                **options | spec.arguments,
            ).eval()
        self._own_the_generation_config()
        if engine["flow"] == "compiled":
            self._compiled = CompiledSteps(self._torch, self.model)
        effective = {"flow": engine["flow"], **self._effective()}
        weights.check_placement(self.model, device, effective["hf_device_map"])
        check_spread(self.model, effective["device_uuids"], spec)
        weights.check_precision(effective, engine["dtype"], quantization)
        return effective

    @reporting_out_of_memory
    def prepare(self, workload: Workload, requests: Sequence[Request]) -> dict[str, Any]:
        """Batch, left-pad and move to the device; the ids of pads are masked out of attention."""
        arguments = dict(workload.engine)
        self._seed = arguments.pop("seed")
        passed = dict(arguments)
        if passed.get("min_p") == 0:
            del passed["min_p"]  # without effect, but transformers would sort all logits for it
        if self._compiled:
            passed["compile_config"] = self._compiled.config
        self._config = self._transformers.GenerationConfig(
            **passed, eos_token_id=self._eos_token_ids or None, pad_token_id=self._pad_token_id
        )
        self._requests, self._batches, self._continuous = tuple(requests), [], None
        lengths = [len(request.prompt_token_ids) for request in requests]
        output_tokens = arguments["max_new_tokens"]
        batching = workload.parameters["batching"]
        budget = None
        if batching["strategy"] == "dynamic" and self._flow != "continuous":
            budget = batching.get("max_batch_tokens") or default_max_batch_tokens(
                lengths, output_tokens, batching["batch_size"]
            )
        self._check_requests(output_tokens, budget)
        effective = {
            "generation": self._effective_generation(arguments),
            "seed": self._seed,
            "eos_token_ids": self._eos_token_ids,
            "pad_token_id": self._pad_token_id,
        }
        if "continuous" in (batching["strategy"], self._flow):
            self._continuous = ContinuousEngine(
                self.model,
                self._config,
                self._requests,
                self._eos_token_ids,
                workload.batch_size,
                self._steps,
            )
            return effective | {"batching": self._continuous.settings}
        told = {"strategy": batching["strategy"], "max_batch_tokens": budget}
        if workload.arrivals_sha256 is not None:
            return effective | {"batching": told | self._batch_what_arrives(workload, budget)}
        if budget is None:
            batches = static_batches(len(requests), batching["batch_size"])
        else:
            batches = dynamic_batches(lengths, output_tokens, budget)
        self._batches = [self._padded(rows) for rows in batches]
        if self._compiled:
            width = max(batch.input_ids.shape[1] for batch in self._batches)
            longest = max(request.output_tokens or output_tokens for request in requests)
            self._compiled.prepare((len(rows) for rows in batches), width + longest)
        self._synchronise()
        told |= {
            "batch_sizes": [len(batch.rows) for batch in self._batches],
            "prompt_widths": [batch.input_ids.shape[1] for batch in self._batches],
            "padding_tokens": sum(b.input_ids.numel() for b in self._batches) - sum(lengths),
        }
        return effective | {"batching": told}

    def _batch_what_arrives(self, workload: Workload, budget: int | None) -> dict[str, Any]:
        """Set the rule by which arriving requests become batches, and describe it."""
        size = workload.batch_size
        if budget is None:
            timeout_s = workload.parameters["traffic_simulation"]["batch_timeout_s"]
            self._rule = lambda waiting, now_s: due_static_batch(
                [arrival.time_s for arrival in waiting], now_s, size, timeout_s
            )
            return {"max_requests_in_flight": size, "batch_timeout_s": timeout_s}
        lengths = [len(request.prompt_token_ids) for request in self._requests]
        output_tokens = self._config.max_new_tokens
        self._rule = lambda waiting, now_s: (
            due_dynamic_batch([lengths[a.prompt] for a in waiting], output_tokens, budget),
            None,
        )
        return {"max_requests_in_flight": budget // (min(lengths) + output_tokens)}

    @reporting_out_of_memory
    def generate(self, mark: Mark = no_mark) -> list[Completion]:
        """Serve every batch in turn; all requests arrive at the start, so later ones queue.

        Static and dynamic batches give nothing to ``mark``.
        """
        arrival_s = time.monotonic()
        first = self._steps.number(len(self._requests))
        self._torch.manual_seed(self._seed)
        if self._continuous:
            with self._torch.inference_mode():
                return self._continuous.generate(first, arrival_s, mark)
        served = []
        with self._torch.inference_mode():
            for batch in self._batches:
                start_s = time.monotonic()
                served.append((batch, start_s, *self._run(batch, StepClock())))
        self._synchronise()
        answers: dict[int, Completion] = {}
        for batch, start_s, *output in served:
            arrivals_s = [arrival_s] * len(batch.rows)
            done = self._completions(batch, arrivals_s, start_s, *output)
            answers.update(zip(batch.rows, done, strict=True))
            self._note([first + row for row in batch.rows], done, start_s, output[1])
        return [answers[row] for row in range(len(self._requests))]

    @reporting_out_of_memory
    def serve(self, queue: Queue) -> list[Completion]:
        """Serve batch after batch of what has arrived; padding it is part of the work here."""
        self._torch.manual_seed(self._seed)
        if self._continuous:
            with self._torch.inference_mode():
                return self._continuous.serve(queue)
        served = []
        with self._torch.inference_mode():
            while arrivals := queue.next_batch(self._rule):
                start_s = time.monotonic()
                batch = self._padded([arrival.prompt for arrival in arrivals])
                output = self._run(batch, StepClock(queue.step))
                queue.step(ended=len(arrivals))
                served.append((arrivals, batch, start_s, *output))
        self._synchronise()
        answers: dict[int, Completion] = {}
        for arrivals, batch, start_s, *output in served:
            numbers, due_s = ([getattr(a, name) for a in arrivals] for name in ("number", "time_s"))
            done = self._completions(batch, due_s, start_s, *output)
            answers.update(zip(numbers, done, strict=True))
            self._note(numbers, done, start_s, output[1])
        return [answers[number] for number in sorted(answers)]

    def _run(self, batch: Batch, clock: StepClock) -> tuple[Any, list[float]]:
        """Generate for one batch; give its sequences, prompts included, and the tokens' times."""
        compiled = {}
        if self._compiled:
            compiled = {
                "past_key_values": self._compiled.cache(len(batch.rows)),
                "custom_generate": partial(self._compiled.decode, clock),
            }
        sequences = self.model.generate(
            batch.input_ids,
            attention_mask=batch.attention_mask,
            generation_config=self._config_of(batch),
            streamer=clock,
            **compiled,
        )
        return sequences, clock.times_s[1:]

    def _completions(self, batch: Batch, *served: Any) -> list[Completion]:
        return list(completions(batch, self._requests, self._eos_set, *served))

    def _note(
        self,
        numbers: Sequence[int],
        done: Sequence[Completion],
        start_s: float,
        times_s: Sequence[float],
    ) -> None:
        """Note the steps of a batch that was served."""
        prompts = [completion.prompt_tokens for completion in done]
        outputs = [len(completion.output_token_ids) for completion in done]
        self._steps.static_batch(numbers, prompts, outputs, [*pairwise([start_s, *times_s])])

    def _config_of(self, batch: Batch) -> Any:
        """Return generation config of a batch; it lasts until its longest own length is there."""
        lengths = [self._requests[row].output_tokens for row in batch.rows]
        if None in lengths:
            return self._config
        config = copy.copy(self._config)
        config.max_new_tokens = config.min_new_tokens = max(lengths)
        return config

    def events(self) -> dict[str, Any]:
        """Return how many graphs were compiled, or of continuous batching what vLLM counts too."""
        if self._continuous:
            return self._continuous.events()
        return {"compilations": self._compiled.compilations()} if self._compiled else {}

    def steps(self) -> StepTable:
        """Return the steps of the batches since the last call."""
        return self._steps.take()

    @reporting_out_of_memory
    def score(self, passages: Sequence[Sequence[int]]) -> list[list[float]]:
        """Score one passage at a time: without padding, and with the logits of one in memory."""
        scores = []
        with self._torch.inference_mode():
            for passage in passages:
                ids = self._torch.tensor([passage], device=self._input_device())
                logits = self.model(input_ids=ids, use_cache=False).logits[0, :-1].float()
                chosen = ids[0, 1:, None].to(logits.device)
                scores.append(logits.log_softmax(-1).gather(1, chosen)[:, 0].tolist())
        return scores

    def close(self) -> None:
        """Drop the model and the batches, and give the device's memory back."""
        if self._compiled:
            self._compiled.forget()
        self._compiled = self._continuous = None
        self.model = None
        self._requests, self._batches = (), []
        self._gpus = []
        leave(self._torch)
        self._release()

    def _own_the_generation_config(self) -> None:
        """Keep the model's special tokens and drop every other default that it brings.

        ``generate`` fills what a caller leaves unset from ``model.generation_config``, also where
        the caller passes a GenerationConfig: a model's temperature or suppressed tokens would slip
        in, and two models would do different work under one config.
        """
        own, config = self.model.generation_config, self.model.config.get_text_config()
        eos = own.eos_token_id if own.eos_token_id is not None else config.eos_token_id
        self._eos_token_ids = [] if eos is None else [eos] if isinstance(eos, int) else list(eos)
        self._eos_set = frozenset(self._eos_token_ids)
        vocabulary = self.model.get_input_embeddings().weight.shape[0]
        pads = (own.pad_token_id, config.pad_token_id, *self._eos_token_ids)
        self._pad_token_id = next((p for p in pads if p is not None and 0 <= p < vocabulary), 0)
        self.model.generation_config = self._transformers.GenerationConfig(
            bos_token_id=own.bos_token_id,
            eos_token_id=self._eos_token_ids or None,
            pad_token_id=self._pad_token_id,
        )

    def _effective(self) -> dict[str, Any]:
        devices = sorted({str(parameter.device) for parameter in self.model.parameters()})
        self._gpus = [device for device in devices if device.startswith("cuda")]
        sizes = weights.bytes_by_dtype(self.model)
        device_map = getattr(self.model, "hf_device_map", None)
        return {
            "device": devices[0],
            "device_uuids": [
                f"GPU-{self._torch.cuda.get_device_properties(device).uuid}"
                for device in self._gpus
            ],
            "dtype": weights.computing_dtype(self.model),
            "quantization": weights.quantized_modules(self.model),
            "weight_bytes": sum(sizes.values()),
            "weight_bytes_by_dtype": sizes,
            "architecture": architecture(self.model.config.get_text_config()),
            "attn_implementation": self.model.config._attn_implementation,
            "arguments": effective_arguments("pytorch", self.model.config),
            "num_threads": self._torch.get_num_threads(),
            **loaded_libraries(),
            "engine_version": self._transformers.__version__,
            "torch_version": self._torch.__version__,
            "eos_token_ids": self._eos_token_ids,
            "pad_token_id": self._pad_token_id,
            "hf_device_map": device_map and {k: str(v) for k, v in device_map.items()},
        }

    def _check_requests(self, output_tokens: int, budget: int | None) -> None:
        text = self.model.config.get_text_config()
        positions = getattr(text, "max_position_embeddings", None)
        vocabulary = self.model.get_input_embeddings().weight.shape[0]
        for request in self._requests:
            check_prompt(request, vocabulary)
            prompt = len(request.prompt_token_ids)
            output = request.output_tokens or output_tokens
            for limit, name in ((positions, "the model's context"), (budget, "max_batch_tokens")):
                if limit is not None and prompt + output > limit:
                    raise Unsupported(
                        f"request {request.id}: {prompt} prompt tokens and {output} output "
                        f"tokens are more than {name} of {limit}"
                    )

    def _effective_generation(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Ask transformers what it makes of the arguments once its defaults are filled in."""
        merged, _ = self.model._prepare_generation_config(self._config)
        effective = {name: getattr(merged, name) for name in arguments}
        if "min_p" in effective:
            effective["min_p"] = merged.min_p or 0.0
        return effective

    def _padded(self, rows: Sequence[int]) -> Batch:
        return padded(self._requests, rows, self._pad_token_id, self._input_device())

    def _input_device(self) -> Any:
        return self.model.get_input_embeddings().weight.device

    def _synchronise(self) -> None:
        for gpu in self._gpus:  # those in use: a look at another would begin to use it
            self._torch.cuda.synchronize(gpu)

    def _release(self) -> None:
        gc.collect()
        if self._torch.cuda.is_initialized():
            self._torch.cuda.empty_cache()
