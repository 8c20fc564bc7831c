"""Read off a measurement the conditions of a window that ``comparability.py`` holds fixed."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from llm_energy.analysis.comparability import UNRECORDED
from llm_energy.analysis.evidence import mapping, number
from llm_energy.core.files import sha256_json
from llm_energy.records import Interval, Measurement, Status, Window, Workload, is_greedy

HASH_DIGITS = 12


def window_conditions(
    measurement: Measurement, window: Window, workload: Workload
) -> dict[str, str]:
    """Return by its name every condition of one window, those of its joules left out."""
    spec, used, host = measurement.spec, measurement.effective, measurement.host
    protocol = spec.protocol
    parameters, table = workload.parameters, window.requests
    boards = sorted({p.device for p in window.interval.energy if p.component == "gpu" and p.device})
    described = [gpu for gpu in host.gpus if gpu.get("uuid") in boards]
    rows = len(table.request_id) // max(1, window.passes)
    return {
        "weights": _short(measurement.weights_sha256),
        "tokenizer": _short(measurement.tokenizer_sha256),
        "prompts": _short(measurement.prompts_sha256.get(workload.id)),
        "requests": f"{rows} ({_short(sha256_json(sorted(set(table.request_id))))})",
        "prompt_lengths": lengths(table.prompt_tokens),
        "output_lengths": lengths(table.output_tokens),
        "token_rule": _token_rule(parameters),
        "decoding": _decoding(parameters),
        "precision": spec.precision,
        "batch_size": str(workload.batch_size),
        "batching": batching(window, workload),
        "traffic": _arrivals(parameters.get("traffic_simulation")),
        "sharding": _sharding(parameters.get("sharding")),
        "protocol": f"version {protocol.version}, thermal policy {protocol.thermal_policy}",
        "engine": _engine(spec.backend, used),
        "device": str(used.get("device", UNRECORDED)).partition(":")[0],
        "driver": _values(described, "driver_version"),
        "hardware": ", ".join([*sorted(str(gpu.get("name")) for gpu in described), host.cpu_model]),
        "host": host.hostname,
        "boards": ", ".join(boards) or "none",
        "power_limit_w": _power_limits(window.interval, described),
    }


def energy_conditions(window: Window, status: Status) -> dict[str, str]:
    """Return the conditions of the joules of one status in a window."""
    parts = [part for part in window.interval.energy if part.status == status]
    return {
        "energy_status": status,
        "energy_components": ", ".join(sorted({part.component for part in parts})),
        "energy_methods": ", ".join(sorted({f"{p.component}: {p.method}" for p in parts})),
    }


def batching(window: Window, workload: Workload) -> str:
    """Return the batching strategy that the engine reports, else the one it was asked for."""
    reported = mapping(window.effective, "batching").get("strategy")
    return reported if isinstance(reported, str) else workload.parameters["batching"]["strategy"]


def lengths(tokens: Sequence[int]) -> str:
    """Say how long the requests of a window are, so that equal texts mean equal lengths.

    >>> lengths([128, 128])
    '128'
    >>> lengths([5, 7, 9, 5])
    '5 to 9, mean 6.5'
    """
    if not tokens:
        return "none"
    low, high = min(tokens), max(tokens)
    return str(low) if low == high else f"{low} to {high}, mean {statistics.fmean(tokens):.6g}"


def _short(digest: str | None) -> str:
    return digest[:HASH_DIGITS] if digest else UNRECORDED


def _token_rule(parameters: dict[str, Any]) -> str:
    low, high = (parameters[f"{end}_output_tokens"] for end in ("min", "max"))
    return f"exactly {high}" if low == high else f"{low} to {high}, the model ends it"


def _decoding(parameters: dict[str, Any]) -> str:
    """Name what chooses the next token; what only shapes sampling is left out when greedy."""
    decoder = parameters.get("decoder", {})
    shaping = {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0}
    word = "greedy"
    if decoder and not is_greedy(parameters):
        word = f"sampled with seed {parameters.get('random_seed')}"
        shaping |= {"temperature": None, "top_p": 1.0, "top_k": 0, "min_p": 0.0}
    told = [f"{n} {decoder[n]}" for n, off in shaping.items() if decoder.get(n, off) != off]
    return ", ".join([word, *told])


def _arrivals(traffic: dict[str, Any] | None) -> str:
    if not traffic or traffic.get("mode") == "offline":
        return "offline"
    return ", ".join(f"{name} {value}" for name, value in sorted(traffic.items()))


def _sharding(sharding: dict[str, Any] | None) -> str:
    if not sharding or sharding.get("strategy") == "none":
        return "none"
    return f"{sharding.get('strategy')} over {sharding.get('num_devices')}"


def _engine(backend: str, used: dict[str, Any]) -> str:
    parts = [f"{backend} {used.get('engine_version', UNRECORDED)}"]
    parts += [f"torch {used['torch_version']}"] if used.get("torch_version") else []
    parts += [f"flow {used['flow']}"] if used.get("flow") else []
    return ", ".join(parts)


def _values(boards: Iterable[dict[str, Any]], name: str) -> str:
    return ", ".join(sorted({str(board.get(name)) for board in boards})) or "none"


def _power_limits(interval: Interval, described: Sequence[dict[str, Any]]) -> str:
    """Return the limits that the GPUs had inside the window, else those when it was described."""
    inside = {w for board in interval.boards for w in board.power_limit_w if w is not None}
    found = inside or {number(board, "power_limit_w") for board in described}
    return ", ".join(sorted(f"{w:g}" for w in found if w is not None)) or "none"
