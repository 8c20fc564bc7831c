"""The PyTorch backend's flow ``compiled``: decoding steps by torch.compile, over fixed caches.

Step by step, a GPU waits for the host, which queues some thousand small operations for each token
and then looks whether it was the last. A compiled step is one CUDA graph, which the host starts
once, and it looks at a step while the next one runs, so the GPU never waits. Graphs need key-value
caches that keep their sizes and addresses: each size of batch has one, kept from pass to pass.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import cycle
from typing import Any

from llm_energy.backends.pytorch.batches import StepClock
from llm_energy.core.errors import Unsupported


class CompiledSteps:
    """The decoding loop that ``model.generate`` is given, what it needs, and what it compiled.

    ``config`` is the ``compile_config`` for a GenerationConfig. Each new shape is compiled anew.
    """

    def __init__(self, torch: Any, model: Any, config: Any = None) -> None:
        from torch._dynamo.utils import counters
        from transformers import CompileConfig

        self._torch, self._model, self._counters = torch, model, counters
        self.config = config or CompileConfig()
        # A cache with a sliding window counts its tokens in an integer, which changes at each step.
        self.config.dynamic = None if any(self._cache(1).is_sliding) else False
        self._caches: dict[int, Any] = {}
        # Else a shape too many would quietly run uncompiled.
        torch._dynamo.config.fail_on_recompile_limit_hit = True

    def prepare(self, batch_sizes: Iterable[int], length: int) -> None:
        """Forget the last workload's graphs; make caches of ``length`` tokens for this one's."""
        self.forget()
        self._caches = {size: self._cache(length) for size in set(batch_sizes)}

    def _cache(self, length: int) -> Any:
        from transformers import StaticCache

        return StaticCache(self._model.config.get_text_config(), max_cache_len=length)

    def cache(self, batch_size: int) -> Any:
        """Return the emptied cache for a batch."""
        cache = self._caches[batch_size]
        cache.reset()
        return cache

    def decode(
        self,
        clock: StepClock,
        model: Any,
        input_ids: Any,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        **inputs: Any,
    ) -> Any:
        """Return prompts and answers, (rows, tokens), as the loop of ``generate`` itself would.

        A ``custom_generate`` of transformers, once ``clock`` is bound. A batch that ends before its
        longest length has computed one step more than it needed: that it ended is seen a step late.
        Raises Unsupported for what transformers does not compile.
        """
        torch, given = self._torch, model.prepare_inputs_for_generation
        width, longest = input_ids.shape[1], generation_config.max_length
        step = self._compiled(inputs, generation_config)
        scores = self._scores(model, given(input_ids, is_first_iteration=True, **inputs))
        # Of the whole cache, so that it keeps its size: the model itself masks what is to come.
        mask = inputs.get("attention_mask")
        mask = torch.ones_like(input_ids) if mask is None else mask
        room = torch.ones_like(mask[:, :1]).expand(-1, longest - width)
        inputs["attention_mask"] = torch.cat([mask, room], dim=1)
        positions = inputs.pop("position_ids", None)
        going_on = torch.ones_like(input_ids[:, 0], dtype=torch.bool)
        looks = cycle([_Look(torch, input_ids.device), _Look(torch, input_ids.device)])
        before = None
        with model._optimize_model_for_decode():
            for length in range(width + 1, longest + 1):
                scores = logits_processor(input_ids, scores)
                if generation_config.do_sample:
                    tokens = torch.multinomial(scores.softmax(-1), num_samples=1)[:, 0]
                else:
                    tokens = scores.argmax(-1)
                tokens = torch.where(going_on, tokens, generation_config.pad_token_id)
                input_ids = torch.cat([input_ids, tokens[:, None]], dim=1)
                going_on = going_on & ~stopping_criteria(input_ids, None)
                look = next(looks)
                look.queue(going_on.any())
                if length == width + 1:  # at once, for the time to the first token
                    before, look = look, None
                if before is not None and not before.wait(clock):
                    return input_ids
                before = look
                if length < longest:
                    if positions is not None:
                        inputs["position_ids"] = positions = positions[:, -1:] + 1
                    last = given(input_ids, next_sequence_length=1, **inputs)
                    scores = self._scores(step, last)
        if before is not None:
            before.wait(clock)
        return input_ids

    def _compiled(self, inputs: dict[str, Any], generation_config: Any) -> Any:
        """Return the compiled forward pass, or raise Unsupported where transformers makes none."""
        model = self._model
        if model._valid_auto_compile_criteria(inputs, generation_config):
            step = model.get_compiled_call(generation_config.compile_config)
            if step != model.__call__:
                return step
        raise Unsupported(
            f"transformers does not compile {type(model).__name__} with these settings; "
            "use the flow eager"
        )

    def _scores(self, forward: Any, inputs: dict[str, Any]) -> Any:
        """Return the last position's scores, (rows, vocabulary), where no graph overwrites them."""
        logits = forward(**inputs, return_dict=True).logits
        return logits[:, -1].to(self._torch.float32, copy=True)

    def compilations(self) -> int:
        """Return how many graphs have been compiled so far for this workload."""
        return int(self._counters["stats"]["unique_graphs"])

    def forget(self) -> None:
        """Drop the graphs and the caches, and the memory that they hold."""
        self._caches = {}
        self._model.__dict__.pop("_compiled_call", None)
        self._torch.compiler.reset()
        self._counters.clear()


class _Look:
    """Whether any row goes on after a step, on its way from the device to the host."""

    def __init__(self, torch: Any, device: Any) -> None:
        on_gpu = device.type == "cuda"
        self._going_on = torch.empty((), dtype=torch.bool, pin_memory=on_gpu)
        self._arrived = torch.cuda.Event(blocking=True) if on_gpu else None

    def queue(self, going_on: Any) -> None:
        self._going_on.copy_(going_on, non_blocking=True)
        if self._arrived is not None:
            self._arrived.record()

    def wait(self, clock: StepClock) -> bool:
        """Wait for the step, note its time, and say whether any row goes on."""
        if self._arrived is not None:
            self._arrived.synchronize()
        clock.put(self._going_on)
        return bool(self._going_on)
