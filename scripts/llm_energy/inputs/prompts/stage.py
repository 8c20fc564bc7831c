"""Turn prompts into token ids once per tokenizer, so that every backend is given the same ids."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest import mock

from llm_energy.core.errors import LlmEnergyError, RecordError
from llm_energy.core.files import read_object, sha256_json
from llm_energy.core.serialize import to_dict
from llm_energy.inputs import quality
from llm_energy.inputs.models import simulated
from llm_energy.inputs.models.config import context_length
from llm_energy.inputs.prompts import sets
from llm_energy.records import (
    SCHEMA_VERSION,
    AskedTrace,
    ModelManifest,
    PromptRequest,
    PromptSet,
    Request,
)

# some templates print today's date, and the ids would change from day to day
TEMPLATE_DATE = "26 Jul 2024"
# no text that others know by its id, so that prompts of another block are other ones
MADE_UP = ("synthetic", "trace")
PLACEHOLDER = "THE-PROMPT-GOES-HERE"

Ids = list[int]


def make_prompt_set(
    request: PromptRequest, model_folder: Path, manifest: ModelManifest, base: Path = Path()
) -> PromptSet:
    """Tokenise the prompts of every workload in ``request`` with the model's own tokenizer.

    Needs transformers.
    """
    if request.model != manifest.model:
        raise RecordError(
            f"prompt request: model is {request.model!r}, the manifest's is {manifest.model!r}"
        )
    tokenizer = _load_tokenizer(model_folder)
    limit = context_length(read_object(model_folder / "config.json"))
    made: dict[str, tuple[Request, ...]] = {}
    sources: dict[str, Any] = {}
    for workload, wanted in request.workloads.items():
        settings, count = wanted.prompts, wanted.requests
        try:
            if isinstance(wanted, AskedTrace):
                requests, source = of_trace(tokenizer, settings, wanted.tokens, limit)
            elif settings["source"] == "synthetic":
                requests, source = synthetic(tokenizer, settings, count)
            else:
                chosen, source = sets.choose(settings, count, base)
                requests = encode(tokenizer, chosen, settings["chat_template"])
            _check_length(requests, limit)
        except LlmEnergyError as error:
            raise LlmEnergyError(
                f"model {manifest.model}, workload {workload}, prompts: {error}"
            ) from None
        if source["source"] in MADE_UP and (block := workload.partition("/")[2]):
            requests = [replace(one, id=f"{one.id}-{block}") for one in requests]
        made[workload] = tuple(requests)
        sources[workload] = {**source, "chat_template": settings["chat_template"]}
    asked = request.quality
    return PromptSet(
        schema_version=SCHEMA_VERSION,
        model=manifest.model,
        tokenizer_sha256=manifest.tokenizer_sha256,
        source=sources,
        requests=made,
        sha256={w: sha256_json([r.identity() for r in rs]) for w, rs in made.items()},
        quality=quality.make_text(tokenizer, asked, limit, base) if asked else None,
        request_sha256=sha256_json(to_dict(request)),
    )


def encode(tokenizer: Any, chosen: Sequence[sets.Prompt], chat_template: bool) -> list[Request]:
    """Return the ids of each prompt, with the special tokens or the chat template of the model."""
    if chat_template:
        _require_template(tokenizer)
        ids = [_apply_template(tokenizer, p.text, tokenize=True)["input_ids"] for p in chosen]
    else:
        ids = [tokenizer(p.text)["input_ids"] for p in chosen]
    return [Request(p.id, tuple(i)) for p, i in zip(chosen, ids, strict=True)]


def synthetic(
    tokenizer: Any, settings: dict[str, Any], count: int
) -> tuple[list[Request], dict[str, Any]]:
    """Make ``count`` different prompts of exactly ``input_tokens`` ids, special tokens included.

    They are windows of the built-in text's ids, put in an order drawn from ``seed``; each begins at
    the beginning of a prompt as long as there are such beginnings left.
    """
    before, after = _frame(tokenizer, settings["chat_template"])
    length = settings["input_tokens"] - len(before) - len(after)
    if length < 1:
        raise LlmEnergyError(
            f"input_tokens is {settings['input_tokens']}, allowed at least "
            f"{len(before) + len(after) + 1}: special tokens and template take "
            f"{len(before) + len(after)}"
        )
    stream, starts = _builtin_stream(tokenizer, settings["seed"])
    endless = stream * (2 + length // len(stream))
    seen: set[tuple[int, ...]] = set()
    requests: list[Request] = []
    for number in range(count):
        begin = starts[number % len(starts)]
        for offset in range(len(stream)):
            at = (begin + offset) % len(stream)
            window = tuple(endless[at : at + length])
            if window not in seen:
                break
        else:
            raise LlmEnergyError(
                f"there are only {len(seen)} different prompts of {settings['input_tokens']} "
                f"tokens, the workload asks {count} requests; raise input_tokens"
            )
        seen.add(window)
        requests.append(Request(f"synthetic-{number + 1:05d}", (*before, *window, *after)))
    source = {
        "source": "synthetic",
        **sets.describe_builtin(),
        "seed": settings["seed"],
        "input_tokens": settings["input_tokens"],
    }
    return requests, source


def of_trace(
    tokenizer: Any, settings: dict[str, Any], tokens: Sequence[tuple[int, int]], limit: int | None
) -> tuple[list[Request], dict[str, Any]]:
    """Make one prompt for each (prompt, output) tokens of a trace, with its output length.

    They begin at the beginnings of the built-in text's prompts in turn. A prompt that is shorter
    than special tokens and template, or longer than the context holds beside the output, gets the
    nearest length there is; the description counts these.
    """
    before, after = _frame(tokenizer, settings["chat_template"])
    frame = len(before) + len(after)
    stream, starts = _builtin_stream(tokenizer, settings["seed"])
    requests, lengthened, shortened = [], 0, 0
    for number, (prompt, output) in enumerate(tokens):
        room = prompt if limit is None else limit - output
        if room <= frame:
            raise LlmEnergyError(
                f"request {number + 1} of the trace has {output} output tokens, the model's "
                f"context holds {limit} together with a prompt of {frame + 1} or more; lower "
                "max_output_tokens"
            )
        length = max(frame + 1, min(prompt, room))
        lengthened += length > prompt
        shortened += length < prompt
        begin = starts[number % len(starts)]
        text = itertools.islice(itertools.cycle(stream[begin:] + stream[:begin]), length - frame)
        requests.append(
            Request(f"trace-{number + 1:05d}", (*before, *text, *after), output_tokens=output)
        )
    source = {
        "source": "trace",
        **sets.describe_builtin(),
        "seed": settings["seed"],
        "lengthened": lengthened,
        "shortened": shortened,
    }
    return requests, source


def _builtin_stream(tokenizer: Any, seed: int) -> tuple[Ids, list[int]]:
    """Return the ids of the whole built-in text in a seeded order, and where each prompt begins."""
    stream: Ids = []
    starts: list[int] = []
    texts = sets.builtin()
    for prompt in sets.draw(texts, len(texts), seed):
        starts.append(len(stream))
        stream += tokenizer(prompt.text + "\n\n", add_special_tokens=False)["input_ids"]
    return stream, starts


def _check_length(requests: Sequence[Request], limit: int | None) -> None:
    longest = max(requests, key=lambda r: len(r.prompt_token_ids))
    if limit is not None and len(longest.prompt_token_ids) >= limit:
        raise LlmEnergyError(
            f"prompt {longest.id} has {len(longest.prompt_token_ids)} tokens, the model's context "
            f"holds {limit} together with the output; use shorter prompts"
        )


def _load_tokenizer(model_folder: Path) -> Any:
    if simulated.is_simulated(model_folder):
        return simulated.Tokenizer()
    import transformers

    try:
        return transformers.AutoTokenizer.from_pretrained(
            str(model_folder), local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise LlmEnergyError(
            f"{model_folder}: transformers {transformers.__version__} cannot load the tokenizer "
            f"({type(error).__name__}: {error})"
        ) from None


def _require_template(tokenizer: Any) -> None:
    if not tokenizer.chat_template:
        raise LlmEnergyError(
            "chat_template is true, but the model's tokenizer has none; set chat_template: false "
            "in the model's entry"
        )


def _apply_template(tokenizer: Any, text: str, tokenize: bool) -> Any:
    with _clock_stopped():
        return tokenizer.apply_chat_template(
            [{"role": "user", "content": text}],
            add_generation_prompt=True,
            tokenize=tokenize,
            date_string=TEMPLATE_DATE,
        )


class _TemplateDay(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> _TemplateDay:
        return cls.strptime(TEMPLATE_DATE, "%d %b %Y")


def _clock_stopped() -> contextlib.AbstractContextManager[Any]:
    """Make the function ``strftime_now`` of templates tell ``TEMPLATE_DATE``.

    transformers takes no function from its caller, so the clock that it reads is replaced.
    """
    templates = sys.modules.get("transformers.utils.chat_template_utils")
    if templates is None:  # a simulated tokenizer
        return contextlib.nullcontext()
    return mock.patch.object(templates, "datetime", _TemplateDay)


def _frame(tokenizer: Any, chat_template: bool) -> tuple[Ids, Ids]:
    """Return the ids that stand before and after the text of every prompt."""
    if chat_template:
        _require_template(tokenizer)
        shown = _apply_template(tokenizer, PLACEHOLDER, tokenize=False)
        parts = shown.split(PLACEHOLDER)
        if len(parts) != 2:
            raise LlmEnergyError("the chat template does not show the prompt exactly once")
        before, after = (tokenizer(p, add_special_tokens=False)["input_ids"] for p in parts)
        return before, after
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    at = next(i for i in range(len(full)) if full[i : i + len(bare)] == bare)
    return full[:at], full[at + len(bare) :]
