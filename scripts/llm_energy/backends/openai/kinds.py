"""Tell how servers differ behind the same completions API: what they take, give back and count.

The API itself has no least length, no top-k and no token ids; each server has its own words for
them (https://platform.openai.com/docs/api-reference/completions).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llm_energy.backends.served import counters
from llm_energy.core.errors import Unsupported

# What asks for nothing, so that a server without such an argument need not be told.
NEUTRAL = {
    "min_tokens": 0,
    "ignore_eos": False,
    "top_p": 1.0,
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
}
PARAMETER_OF = {
    "min_tokens": "min_output_tokens",
    "ignore_eos": "min_output_tokens",
    "seed": "random_seed",
}


def same(*names: str) -> dict[str, str]:
    """Map names to themselves."""
    return {name: name for name in names}


PLAIN = same("max_tokens", "temperature", "top_p", "seed")
USAGE = {"stream_options": {"include_usage": True}}


@dataclass(frozen=True)
class Kind:
    """One kind of server.

    ``names`` maps our arguments to those of its requests, ``always`` is sent with each of them, and
    ``shape`` changes a finished body. ``gives_ids`` tells that it gives back the ids of prompt and
    answer; else the usage block counts. ``takes_ids`` tells that a prompt may be token ids; else it
    goes as text. ``says_done`` tells that its streams end with ``[DONE]``, ``reuse`` that it keeps
    a connection open or says that it doesn't. ``key_variable`` is where it looks for a key; None
    where it can be told one only on its command line. ``counters``, ``gauges`` and ``cache`` are in
    its Prometheus page, where it has one without being asked. ``version_path`` leads to a JSON with
    its ``version``; ``package`` is what a lock pins of it.
    """

    names: Mapping[str, str]
    always: Mapping[str, Any] = field(default_factory=dict)
    shape: Callable[[dict[str, Any]], dict[str, Any]] = dict
    gives_ids: bool = False
    takes_ids: bool = True
    says_done: bool = True
    reuse: bool = True
    key_variable: str | None = None
    counters: Mapping[str, str] = field(default_factory=dict)
    gauges: tuple[str, ...] = ()
    cache: str | None = None
    version_path: str | None = None
    package: str | None = None

    def body(self, asked: Mapping[str, Any], model: str, prompt: list[int] | str) -> bytes:
        """Return the body of a request; Unsupported where the server can't do what is asked."""
        told: dict[str, Any] = {}
        asked = dict(asked)
        if asked.get("ignore_eos"):  # for a forced length, which either of the two gives
            for one, other in (("ignore_eos", "min_tokens"), ("min_tokens", "ignore_eos")):
                if one not in self.names and other in self.names:
                    del asked[one]
        for name, value in asked.items():
            if name in self.names:
                told[self.names[name]] = value
            elif name in NEUTRAL and value == NEUTRAL[name]:
                continue
            else:
                parameter = PARAMETER_OF.get(name, f"decoder.{name}")
                raise Unsupported(
                    f"the requests of this kind of server have no {name}, which {parameter} asks "
                    f"for with {value}; leave {parameter} at its neutral value, or name the "
                    "server's own kind"
                )
        told |= {"model": model, "prompt": prompt, "stream": True, **self.always}
        return json.dumps(self.shape(told)).encode()


def _as_generation_config(told: dict[str, Any]) -> dict[str, Any]:
    """Put what ``transformers serve`` does not take by itself into the one string that it takes.

    Each setting that is named here replaces the model's own.
    """
    outside = ("model", "prompt", "stream", "seed")
    inside = {name: value for name, value in told.items() if name not in outside}
    temperature = inside.pop("temperature")
    sampling = ("top_p", "top_k", "min_p")
    if temperature > 0:
        inside |= {"do_sample": True, "temperature": temperature}
        inside["top_k"] = max(inside.get("top_k", 0), 0)
    else:
        inside = {name: value for name, value in inside.items() if name not in sampling}
        inside["do_sample"] = False
    kept = {name: told[name] for name in outside if name in told}
    return kept | {"generation_config": json.dumps(inside)}


EXTENDED = same(*NEUTRAL) | PLAIN
KINDS = {
    "plain": Kind(names=PLAIN, always=USAGE, reuse=False),
    "vllm": Kind(
        names=EXTENDED,
        always=USAGE | {"return_token_ids": True},
        gives_ids=True,
        key_variable="VLLM_API_KEY",
        counters=counters.VLLM,
        gauges=counters.VLLM_GAUGES,
        cache=counters.VLLM_CACHE,
        version_path="/version",
    ),
    # https://huggingface.co/docs/transformers/serving: no key, no [DONE], usage in the last event.
    "transformers": Kind(
        names={
            "max_tokens": "max_new_tokens",
            "min_tokens": "min_new_tokens",
            **same("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed"),
        },
        shape=_as_generation_config,
        takes_ids=False,
        says_done=False,
        package="transformers",
    ),
    # https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md
    "llama.cpp": Kind(
        names=PLAIN
        | same("ignore_eos", "top_k", "min_p")
        | {"repetition_penalty": "repeat_penalty"},
        # A penalty counts prompt and answer as everywhere, and not their last 64 tokens alone.
        always=USAGE | {"cache_prompt": False, "repeat_last_n": 2**17},
        reuse=False,
        key_variable="LLAMA_API_KEY",
    ),
    # https://docs.sglang.ai/basic_usage/openai_api_completions.html
    "sglang": Kind(names=EXTENDED, always=USAGE, version_path="/get_server_info"),
    # https://nvidia.github.io/TensorRT-LLM/commands/trtllm-serve/
    "trtllm": Kind(names=EXTENDED, always=USAGE, version_path="/version"),
}
