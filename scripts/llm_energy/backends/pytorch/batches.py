"""Padded batches of the PyTorch backend: how they are made, timed and turned into completions.

Output tokens are counted from the generated ids. The end-of-sequence token counts as an output
token, since the model computes it; what fills a row after it is padding and counts as nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from llm_energy.records import Completion, Request


class Batch(NamedTuple):
    """One padded batch on its device; ``rows`` are the places of its requests in the workload."""

    rows: Sequence[int]
    input_ids: Any
    attention_mask: Any


class StepClock:
    """Note when each step's tokens are on the host; the first note is the prompt's.

    ``generate`` hands a streamer the tokens after it copied them from the device, so these are the
    times at which tokens exist. A logits processor would note the time at which the host queued
    the step, which on a GPU is earlier. ``on_step`` is called after each note.
    """

    def __init__(self, on_step: Callable[[], None] = lambda: None) -> None:
        self.times_s: list[float] = []
        self._on_step = on_step

    def put(self, tokens: Any) -> None:
        self.times_s.append(time.monotonic())
        self._on_step()

    def end(self) -> None:
        pass


def padded(
    requests: Sequence[Request], rows: Sequence[int], pad_token_id: int, device: Any
) -> Batch:
    """Left-pad the prompts of ``rows`` to one width, with the pads masked out of attention."""
    import torch

    prompts = [requests[row].prompt_token_ids for row in rows]
    width = max(map(len, prompts))
    ids = [[pad_token_id] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return Batch(rows, torch.tensor(ids, device=device), torch.tensor(mask, device=device))


def completions(
    batch: Batch,
    requests: Sequence[Request],
    eos_token_ids: frozenset[int],
    arrivals_s: Sequence[float],
    start_s: float,
    sequences: Any,
    times_s: Sequence[float],
) -> Iterator[Completion]:
    """Yield each row's completion, without what fills it up after its end.

    ``sequences`` are the ids of prompts and outputs, (rows, width of the prompts + output tokens);
    ``times_s`` the moments of the output tokens. All moments are seconds of the monotonic clock.
    """
    width = batch.input_ids.shape[1]
    rows = zip(batch.rows, arrivals_s, sequences[:, width:].tolist(), strict=True)
    for row, arrival_s, ids in rows:
        request = requests[row]
        ids = ids[: request.output_tokens]
        stopped = request.output_tokens is None and not eos_token_ids.isdisjoint(ids)
        if stopped:
            ids = ids[: 1 + next(i for i, token in enumerate(ids) if token in eos_token_ids)]
        own_times_s = tuple(times_s[: len(ids)])
        yield Completion(
            request_id=request.id,
            prompt_tokens=len(request.prompt_token_ids),
            padding_tokens=width - len(request.prompt_token_ids),
            cached_prompt_tokens=0,
            output_token_ids=tuple(ids),
            finish_reason="stop" if stopped else "length",
            arrival_s=arrival_s,
            first_token_s=own_times_s[0],
            last_token_s=own_times_s[-1],
            token_times_s=own_times_s,
            service_start_s=start_s,
        )
