"""One cell served by several processes: the ranks of one model, or copies that share its requests.

Seen from outside it is a backend like any other: one load, one window, one list of completions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm_energy.backends.base import MODULES, Mark, no_mark
from llm_energy.backends.batching import static_batches
from llm_energy.backends.distributed.ranks import Ranks
from llm_energy.backends.sharding import heads_problem
from llm_energy.core.errors import LlmEnergyError, Unsupported
from llm_energy.core.files import read_object
from llm_energy.records import Completion, Request, Spec, Workload
from llm_energy.records.steps import StepTable

# What must be the same of all processes before their tokens may be added up, and how to call it.
SAME = {
    "backend": "backends",
    "model": "models",
    "spec_sha256": "specs",
    "engine_version": "engine versions",
    "dtype": "precisions",
    "device_kind": "kinds of device",
}
# Why not, in the words of the inference-backends guide.
WHY = {
    "backend": "Aggregating results from different backends produces statistically invalid "
    "comparisons. Ensure all processes use the same backend.",
}
WHY_NOT = "The processes of one cell are aggregated as one, so all of them must do the same."


def needs_processes(spec: Spec) -> bool:
    """Return whether a cell takes several processes that its engine does not start by itself."""
    return spec.sharding.strategy == "data_parallel" or bool(spec.engine.get("tp_plan"))


class Spread:
    """Serve a cell through ``spec.sharding.num_devices`` processes of one backend."""

    def __init__(self, spec: Spec):
        self._name = spec.engine_id
        self._count = spec.sharding.num_devices
        self._together = spec.sharding.strategy != "data_parallel"
        self._ranks: Ranks | None = None
        self._dealt: list[list[int]] = []

    @property
    def pids(self) -> list[int]:
        """Return the ids of the processes, by rank."""
        return self._ranks.pids if self._ranks else []

    def load(self, spec: Spec, model_folder: Path) -> dict[str, Any]:
        """Start the processes, load the model in each, and merge what they report."""
        if self._together:  # what fails deep inside the engine is said before it starts
            config = read_object(model_folder / "config.json")
            if problem := heads_problem(config, self._count):
                raise Unsupported(problem)
        self._ranks = Ranks(MODULES[self._name], self._count, self._together)
        answers = self._everywhere("load", spec, model_folder)
        refuse_unlike([identity | effective for identity, effective in answers])
        return merged_load([effective for _, effective in answers], self._together)

    def prepare(self, workload: Workload, requests: Sequence[Request]) -> dict[str, Any]:
        """Return each process all requests, or deal whole batches out to the copies in turn."""
        if self._together:
            return self._everywhere("prepare", workload, tuple(requests))[0]
        self._dealt = deal(len(requests), workload.batch_size, self._count)
        if not all(self._dealt):
            raise Unsupported(
                f"{len(requests)} requests in batches of {workload.batch_size} are too few for "
                f"{self._count} processes"
            )
        shares = [tuple(requests[row] for row in rows) for rows in self._dealt]
        prepared = self._ranks.call("prepare", [(workload, share) for share in shares])
        return merged_prepare(prepared)

    def generate(self, mark: Mark = no_mark) -> list[Completion]:
        """Let all processes serve their requests once; returns when the last one is done.

        They are told within microseconds of each other, having waited for nothing else.
        """
        answers = self._everywhere("generate")
        if self._together:
            return answers[0]
        rows = sorted(
            (row, completion)
            for share, completions in zip(self._dealt, answers, strict=True)
            for row, completion in zip(share, completions, strict=True)
        )
        return [completion for _, completion in rows]

    def events(self) -> dict[str, Any]:
        """Return what one rank counted, or the sums over replicas; means become means of these."""
        counted = self._everywhere("events")
        if self._together:
            return counted[0]
        names = dict.fromkeys(name for one in counted for name in one)
        return {name: _summed([one.get(name) for one in counted]) for name in names}

    def steps(self) -> StepTable | None:
        """Return the steps of one model, which its ranks take together; None of several copies."""
        return self._everywhere("steps")[0] if self._together else None

    def score(self, passages: Sequence[Sequence[int]]) -> list[list[float]]:
        """Score by all ranks of one model together, or by each copy; the answer is the first's."""
        return self._everywhere("score", passages)[0]

    def close(self) -> None:
        """End all processes."""
        ranks, self._ranks = self._ranks, None
        if ranks is not None:
            ranks.end()

    def _everywhere(self, method: str, *arguments: Any) -> list[Any]:
        return self._ranks.call(method, [arguments] * self._count)


def refuse_unlike(reports: Sequence[dict[str, Any]]) -> None:
    """Raise LlmEnergyError unless all processes are alike in what makes them one cell.

    >>> refuse_unlike([{"backend": "pytorch"}, {"backend": "vllm"}])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    llm_energy.core.errors.LlmEnergyError: Mixed backends detected: pytorch, vllm. Aggregating ...
    """
    for key, name in SAME.items():
        if len(found := sorted({str(report.get(key)) for report in reports})) > 1:
            raise LlmEnergyError(
                f"Mixed {name} detected: {', '.join(found)}. {WHY.get(key, WHY_NOT)}"
            )


def deal(requests: int, batch_size: int, processes: int) -> list[list[int]]:
    """Deal whole batches out in turn; gives the places of each process's requests.

    Batches are those that one process alone would make, so padding stays the same.

    >>> deal(6, 2, 2)
    [[0, 1, 4, 5], [2, 3]]
    """
    batches = static_batches(requests, batch_size)
    return [
        [row for batch in batches[rank::processes] for row in batch] for rank in range(processes)
    ]


def merged_load(loaded: Sequence[dict[str, Any]], together: bool) -> dict[str, Any]:
    """Return one report of the engine: all GPUs, each once, and the weights of the whole model.

    Ranks of one model hold a part of its weights each, copies hold all of them each.
    """
    first = dict(loaded[0])
    uuids = [uuid for one in loaded for uuid in one["device_uuids"]]
    sizes: Counter[str] = Counter()
    for one in loaded if together else loaded[:1]:
        sizes.update(one.get("weight_bytes_by_dtype", {}))
    if together:
        first["weight_bytes"] = sum(one["weight_bytes"] for one in loaded)
    if sizes:
        first["weight_bytes_by_dtype"] = dict(sorted(sizes.items()))
    told = ("device", "weight_bytes", "num_threads")
    return first | {
        "device_uuids": list(dict.fromkeys(uuids)),
        "processes": [{name: one.get(name) for name in told} for one in loaded],
    }


def merged_prepare(prepared: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return one report of the copies' batches: lists one after the other, paddings added up."""
    batchings = [one.get("batching", {}) for one in prepared]
    batching = dict(batchings[0])
    for name in ("batch_sizes", "prompt_widths"):
        if name in batching:
            batching[name] = [value for one in batchings for value in one[name]]
    if "padding_tokens" in batching:
        batching["padding_tokens"] = sum(one["padding_tokens"] for one in batchings)
    return prepared[0] | {"batching": batching}


def _summed(values: Sequence[Any]) -> Any:
    known = [value for value in values if value is not None]
    if not known or not all(isinstance(value, (int, float)) for value in known):
        return known[0] if known else None
    return sum(known) if all(type(value) is int for value in known) else sum(known) / len(known)
