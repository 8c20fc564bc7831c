"""What a server counts of its own work, in Prometheus' text format."""

from __future__ import annotations

import re
from collections.abc import Iterable

# What vLLM's server counts of its work, by our names, and what it has in hand
# (https://docs.vllm.ai/en/stable/usage/metrics/).
VLLM = {
    "preempted_requests": "vllm:num_preemptions_total",
    "cached_prompt_tokens": "vllm:prefix_cache_hits_total",
    "server_prompt_tokens": "vllm:prompt_tokens_total",
    "server_output_tokens": "vllm:generation_tokens_total",
}
VLLM_GAUGES = ("vllm:num_requests_running", "vllm:num_requests_waiting")
VLLM_CACHE = "vllm:kv_cache_usage_perc"  # a share, in spite of its name
# https://prometheus.io/docs/instrumenting/exposition_formats/
LINE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{.*\})? (\S+)", re.MULTILINE)


def read(text: str, names: Iterable[str]) -> dict[str, float]:
    """Add up, over their labels, the samples of each name; a name without samples is left out.

    >>> read('# HELP a\\na_total{engine="0"} 2.0\\na_total{engine="1"} 3.0\\nb 1\\n', ["a_total"])
    {'a_total': 5.0}
    """
    wanted, found = set(names), dict[str, float]()
    for name, value in LINE.findall(text):
        if name in wanted:
            found[name] = found.get(name, 0.0) + float(value)
    return found
