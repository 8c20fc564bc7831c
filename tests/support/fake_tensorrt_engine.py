"""What the stand-in for TensorRT-LLM does: ids by whole forward passes of Transformers on the CPU.

It quantises nothing and knows no kernel: what is true of its ids is that they come from the model
and obey the arguments. Requests under way take turns, a token each.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from datetime import timedelta
from pathlib import Path
from typing import Any

CACHE_BLOCKS = 1000


class Engine:
    """Behind one ``LLM``: the model, the requests under way, the statistics of iterations."""

    def __init__(self, args: Any, classes: dict[str, type], mappings: dict[str, Any]) -> None:
        self.args, self.classes, self._mappings = args, classes, mappings
        self.running: set[Run] = set()
        args.quant_config = classes["QuantConfig"]()
        self.model = _load(Path(args.model), args.dtype)
        self._statistics: deque[dict[str, Any]] = deque(maxlen=args.max_stats_len)

    # the methods of LLM, by their names

    def generate(self, inputs: list[int], sampling_params: Any, use_tqdm: bool) -> Any:
        output = self.generate_async(inputs, sampling_params, None, False)
        while not output._run.finished:
            output._run.step()
        return output

    def generate_async(
        self, inputs: list[int], sampling_params: Any, lora_request: Any, streaming: bool
    ) -> Any:
        if len(inputs) > self.args.max_num_tokens:
            raise ValueError("the prompt is longer than max_num_tokens")
        return Run(self, inputs, sampling_params).output

    def get_stats(self, timeout: float | None) -> list[dict[str, Any]]:
        found = list(self._statistics)
        self._statistics.clear()
        return found

    def shutdown(self) -> None:
        self.model = None

    def count(self) -> None:
        """Note one iteration."""
        if not self.args.enable_iter_perf_stats:
            return
        used = sum(
            len(run.ids) // self.args.kv_cache_config.tokens_per_block + 1 for run in self.running
        )
        known = {
            "numScheduledRequests": len(self.running),
            "numPausedRequests": 0,
            "maxNumBlocks": CACHE_BLOCKS,
            "usedNumBlocks": used,
        }
        keys = self._mappings["iteration"]["keys"]
        self._statistics.append(
            {group: {name: known[name] for name in names} for group, names in keys.items()}
        )


class Run:
    """One request under way."""

    def __init__(self, engine: Engine, prompt: list[int], sampling: Any) -> None:
        self._engine, self._sampling = engine, sampling
        self._prompt, self.ids = prompt, list(prompt)
        self.finished = False
        self._begin_s, self._first_s = 0.0, 0.0
        self.output = engine.classes["RequestOutput"]()
        self.output._run = self
        self._answer = engine.classes["CompletionOutput"]()
        self._answer.token_ids, self._answer.finish_reason = [], None
        self._answer.request_perf_metrics = None
        self.output.outputs, self.output.prompt_token_ids = [self._answer], list(prompt)
        self.output.cached_tokens, self.output.context_logits = 0, None
        if sampling.return_context_logits:
            self.output.context_logits = self._logits()
        engine.running.add(self)

    async def advance(self) -> bool:
        """Let others take their turn, then make one token; False where there is none to come."""
        if self.finished:
            return False
        await asyncio.sleep(0)
        self.step()
        return True

    def abort(self) -> None:
        self._end("cancelled")

    def step(self) -> None:
        """Make one token."""
        self._begin_s = self._begin_s or time.monotonic()
        self._engine.count()
        sampling, made = self._sampling, self._answer.token_ids
        token = self._choose(self._logits()[-1])
        self.ids.append(token)
        made.append(token)
        self._first_s = self._first_s or time.monotonic()
        if token == sampling.end_id or token in (sampling.stop_token_ids or ()):
            if token != sampling.end_id and not sampling.include_stop_str_in_output:
                made.pop()
            self._end("stop")
        elif len(made) == sampling.max_tokens:
            self._end("length")

    def _end(self, reason: str) -> None:
        self.finished, self._answer.finish_reason = True, reason
        self._engine.running.discard(self)
        if self._engine.args.return_perf_metrics and self._sampling.return_perf_metrics:
            times = self._engine.classes["TimingMetrics"]()
            times.first_scheduled_time = timedelta(seconds=self._begin_s)
            times.first_token_time = timedelta(seconds=self._first_s)
            times.last_token_time = timedelta(seconds=time.monotonic())
            self._answer.request_perf_metrics = self._engine.classes["RequestPerfMetrics"]()
            self._answer.request_perf_metrics.timing_metrics = times

    def _logits(self) -> Any:
        import torch

        with torch.inference_mode():
            return self._engine.model(torch.tensor([self.ids])).logits[0].float()

    def _choose(self, logits: Any) -> int:
        """Choose the next id as the sampling parameters ask."""
        import torch

        sampling, logits = self._sampling, logits.clone()
        if len(self._answer.token_ids) < (sampling.min_tokens or 0):
            logits[sampling.end_id] = -torch.inf  # an end id of -1 bans the vocabulary's last
        if (sampling.repetition_penalty or 1.0) != 1.0:
            seen = torch.tensor(sorted(set(self.ids)))
            penalty, some = sampling.repetition_penalty, logits[seen]
            logits[seen] = torch.where(some > 0, some / penalty, some * penalty)
        asked = (sampling.top_k, sampling.top_p, sampling.temperature)
        if asked == (None, None, None) or asked[0] == 1 or 0 in asked[1:]:
            return int(logits.argmax())
        weights = (logits / (sampling.temperature or 1.0)).softmax(-1)
        ranked, order = weights.sort(descending=True)
        keep = torch.ones_like(ranked, dtype=torch.bool)
        keep[sampling.top_k or len(ranked) :] = False
        keep &= ranked.cumsum(-1) - ranked < (1.0 if sampling.top_p is None else sampling.top_p)
        keep &= ranked >= (sampling.min_p or 0.0) * ranked[0]
        drawn = torch.multinomial(ranked * keep, 1)  # its sampler takes no seed per request
        return int(order[drawn])


def _load(folder: Path, dtype: str) -> Any:
    import torch
    import transformers

    wanted = "auto" if dtype == "auto" else getattr(torch, dtype)
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=wanted)
