"""Sum up what TensorRT-LLM says of its iterations: how many requests ran, how full the cache was.

The engine keeps a queue of statistics, one entry an iteration, and reading empties it. It is read
outside windows only. The form of an entry: ``tests/support/tensorrt_api.yaml``.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

# How long a read waits for entries that are still on their way from the engine's process.
TIMEOUT_S = 0.5


class Statistics:
    """What an engine's iterations add up to."""

    def __init__(self, llm: Any) -> None:
        self._llm = llm
        self._sums: Counter[str] = Counter()
        self._fullest = 0.0

    def begin(self) -> None:
        """Forget what was before."""
        self._read()
        self._sums, self._fullest = Counter(), 0.0

    def events(self) -> dict[str, Any]:
        """Return counts since ``begin`` as integers, means and shares since the last call as float.

        These are None without an iteration since. Means are over the iterations in which a request
        ran; the KV cache's use is the share of its blocks. How many iterations there were is no
        count of work: the engine also spins idle.
        """
        self._read()
        steps = self._sums["steps"]
        found = {
            "preempted_requests": self._sums["paused"],
            "mean_running_requests": self._sums["running"] / steps if steps else None,
            "mean_kv_cache_use": self._sums["use"] / steps if steps else None,
            "largest_kv_cache_use": self._fullest if steps else None,
        }
        self._sums, self._fullest = Counter(paused=self._sums["paused"]), 0.0
        return found

    def _read(self) -> None:
        for entry in self._llm.get_stats(timeout=TIMEOUT_S):
            batch, cache = entry.get("inflightBatchingStats"), entry.get("kvCacheStats")
            if not batch or not batch["numScheduledRequests"]:
                continue
            self._sums["steps"] += 1
            self._sums["running"] += batch["numScheduledRequests"]
            # Paused in this iteration: its cache was taken, and its work is done again.
            self._sums["paused"] += batch["numPausedRequests"]
            if cache and cache["maxNumBlocks"]:
                use = cache["usedNumBlocks"] / cache["maxNumBlocks"]
                self._sums["use"] += use
                self._fullest = max(self._fullest, use)
