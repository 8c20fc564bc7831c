"""Find what a sweep would ask beyond a model's context, as far as files of this host tell."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llm_energy.inputs.models.config import context_length, model_config
from llm_energy.records import PromptRequest, Spec


def beyond_context(
    specs: Iterable[Spec],
    models: dict[str, dict[str, Any]],
    prompt_requests: dict[str, PromptRequest],
) -> list[str]:
    """Return one sentence for each model and workload whose tokens its context cannot hold.

    ``specs`` holds one spec of each planned cell; the other two are those of the plan. Told are
    models in folders and prompts of a given length; the rest is known once it is fetched.
    """
    found: dict[str, None] = {}
    limits = {id: context_length(model_config(model["source"])) for id, model in models.items()}
    for spec in specs:
        limit = limits[spec.model]
        for workload in spec.workloads if limit is not None else ():
            asked = prompt_requests[spec.model].workloads[workload.prompts_key(spec.repeat)]
            prompt = asked.prompts["input_tokens"] or 0
            output = workload.parameters["max_output_tokens"]
            if prompt + output > limit:
                found[
                    f"model {spec.model}, workload {workload.id}: {prompt} prompt and {output} "
                    f"output tokens are beyond its context of {limit}; its rows will be "
                    "unsupported: lower input_tokens or max_output_tokens"
                ] = None
    return list(found)
