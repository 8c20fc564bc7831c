"""Decide what a comparison holds fixed, read it off windows, and name what two do not share.

Everything that bears on joules per token is a condition. A comparison lets those vary that its
question is about, and refuses two windows that differ in any other.
"""

from __future__ import annotations

import functools
import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, NamedTuple

from llm_energy.analysis.evidence.windows import mapping, number
from llm_energy.core.files import sha256_json
from llm_energy.inputs.models.quantization import checkpoint_of
from llm_energy.records import (
    ComponentEnergy,
    Interval,
    Measurement,
    Protocol,
    RequestTable,
    Spec,
    Status,
    Window,
    Workload,
    is_greedy,
)
from llm_energy.records.comparison import Contrast, Difference

Conditions = Mapping[str, str]
UNRECORDED = "not recorded"
HASH_DIGITS = 12
BLOCK_REUSE = "kv_cache_config.enable_block_reuse"  # of TensorRT-LLM: its cache of prompts
CONFIGURATION = (
    "attn_implementation",
    "attention_backend",
    "enforce_eager",
    "compilation_mode",
    "cudagraph_mode",
    "async_scheduling",
    "enable_chunked_prefill",
    "enable_prefix_caching",
    "max_num_batched_tokens",
    "max_num_seqs",
    "kv_cache_dtype",
    "num_threads",
)


@dataclass(frozen=True)
class Seen:
    """One window with the measurement around it, of which its conditions are read."""

    measurement: Measurement
    window: Window
    workload: Workload

    @property
    def spec(self) -> Spec:
        """Return what the repeat was asked for."""
        return self.measurement.spec

    @functools.cached_property
    def requests(self) -> RequestTable:
        """Return the requests; of timed traffic those that were due inside the window.

        Which others were still being served at its begin depends on how fast the cell is.
        """
        table, traffic = self.window.requests, self.window.traffic
        if traffic is None:
            return table
        inside = [traffic.begin_s <= due_s < traffic.end_s for due_s in table.arrival_s]
        columns = vars(table).items()
        return RequestTable(**{name: tuple(compress(column, inside)) for name, column in columns})

    @functools.cached_property
    def metered(self) -> list[str]:
        """Return the GPUs whose joules were metered, sorted."""
        parts = self.window.interval.energy
        return sorted({p.device for p in parts if p.component == "gpu" and p.device})

    @functools.cached_property
    def gpus(self) -> list[dict[str, Any]]:
        """Return what the host told of these GPUs."""
        return [gpu for gpu in self.measurement.host.gpus if gpu.get("uuid") in self.metered]


class Joules(NamedTuple):
    """The joules of one status in a window."""

    status: Status
    parts: list[ComponentEnergy]


@dataclass(frozen=True)
class Field:
    """One condition: what it is in words, how it is read, and which contrasts let it vary.

    ``of_energy`` conditions say how joules were metered, so that times and rates need not share
    them; they are read off Joules, all others off what was Seen. What several windows tell
    together (``grouping/sessions.py``) is read off none.
    """

    title: str
    read: Callable[[Any], str] | None
    varies: frozenset[Contrast] = frozenset()
    of_energy: bool = False


def _varies(*contrasts: Contrast) -> frozenset[Contrast]:
    return frozenset(contrasts)


# In the order in which differences are told. Quantised weights are made from the same files, so
# a precision has the weights of its model. A backend brings its own software and its own way of
# putting requests together; that is what a comparison of backends asks about. Two sweeps are
# compared to see what another day, machine or version changed, so only the work must agree.
FIELDS: dict[str, Field] = {
    "weights": Field(
        "weights (SHA-256)", lambda w: _short(w.measurement.weights_sha256), _varies("model")
    ),
    "tokenizer": Field(
        "tokenizer (SHA-256)", lambda w: _short(w.measurement.tokenizer_sha256), _varies("model")
    ),
    "prompts": Field(
        "prompt token ids (SHA-256)",
        lambda w: _short(w.measurement.prompts_sha256.get(w.workload.id)),
        _varies("model", "batch_size", "choice"),
    ),
    "requests": Field(
        "requests in a pass", lambda w: _requests(w), _varies("batch_size", "choice")
    ),
    "prompt_lengths": Field(
        "prompt tokens a request",
        lambda w: lengths(w.requests.prompt_tokens),
        _varies("model"),
    ),
    "output_lengths": Field("output tokens a request", lambda w: lengths(w.requests.output_tokens)),
    "token_rule": Field("rule for the output length", lambda w: _token_rule(w.workload.parameters)),
    "decoding": Field("decoding", lambda w: _decoding(w.workload.parameters)),
    "precision": Field("precision", lambda w: w.spec.precision, _varies("precision", "choice")),
    "checkpoint": Field(
        "checkpoint quantised before",
        lambda w: checkpoint_of(w.measurement.effective) or "none",
        _varies("precision", "model", "choice"),
    ),
    "batch_size": Field(
        "batch size", lambda w: str(w.workload.batch_size), _varies("batch_size", "choice")
    ),
    "batching": Field(
        "batching", lambda w: batching(w.window, w.workload), _varies("backend", "choice")
    ),
    "traffic": Field(
        "arrival of requests", lambda w: _arrivals(w.workload.parameters.get("traffic_simulation"))
    ),
    "draw": Field(
        "arrivals and sampling of a block",
        lambda w: _draw(w.measurement, w.workload),
        _varies("sweep", "choice"),
    ),
    "sharding": Field("sharding", lambda w: _sharding(w.workload.parameters.get("sharding"))),
    "protocol": Field("protocol", lambda w: _protocol(w.spec.protocol)),
    "engine": Field(
        "engine and its version",
        lambda w: _engine(w.spec.engine_id, w.measurement.effective),
        _varies("backend", "sweep"),
    ),
    "configuration": Field(
        "configuration of the engine",
        lambda w: _configuration(w.measurement.effective),
        _varies("precision", "batch_size", "model", "backend", "choice", "sweep"),
    ),
    "flow": Field(
        "flow", lambda w: w.measurement.effective.get("flow", "none"), _varies("backend", "sweep")
    ),
    "arguments": Field(
        "arguments of the engine that the entry sets",
        lambda w: _told(w.spec.arguments) or "none",
        _varies("backend"),
    ),
    "work_left_out": Field("work that the engine leaves out", lambda w: _left_out(w.measurement)),
    "device": Field(
        "device", lambda w: str(w.measurement.effective.get("device", UNRECORDED)).partition(":")[0]
    ),
    "driver": Field(
        "driver of the GPUs", lambda w: _values(w.gpus, "driver_version"), _varies("sweep")
    ),
    "hardware": Field(
        "processor and kind of GPUs",
        lambda w: _hardware(w.gpus, w.measurement.host.cpu_model),
        _varies("sweep"),
    ),
    "host": Field("host", lambda w: w.measurement.host.hostname, _varies("sweep")),
    "boards": Field("GPUs", lambda w: ", ".join(w.metered) or "none", _varies("sweep")),
    "session": Field("session", None, _varies("sweep")),
    "power_limit_w": Field(
        "power limit of the GPUs (W)",
        lambda w: _power_limits(w.window.interval, w.gpus),
        _varies("sweep"),
    ),
    "energy_status": Field("measured or estimated", lambda joules: joules.status, of_energy=True),
    "energy_components": Field(
        "components of the joules",
        lambda joules: _all({p.component for p in joules.parts}),
        of_energy=True,
    ),
    "energy_methods": Field(
        "methods of metering",
        lambda joules: _all({f"{p.component}: {p.method}" for p in joules.parts}),
        of_energy=True,
    ),
}
# One tokenizer cuts a text into more tokens than another, so joules per token of two models are one
# quantity only where they share it; joules per request are where the requests are the same.
PER_TOKEN = ("tokenizer", "prompts", "prompt_lengths")


def differences(
    contrast: Contrast,
    reference: Conditions,
    other: Conditions,
    *,
    energy: bool = True,
    per_token: bool = True,
) -> list[Difference]:
    """Return the conditions that should agree and do not.

    ``energy`` says that joules are compared, ``per_token`` that they are per token. What neither
    side recorded agrees.
    """
    names = _held(contrast, energy, per_token)
    first = [reference.get(name, UNRECORDED) for name in names]
    second = [other.get(name, UNRECORDED) for name in names]
    if first == second:
        return []
    return [
        Difference(name, a, b) for name, a, b in zip(names, first, second, strict=True) if a != b
    ]


@functools.cache
def _held(contrast: Contrast, energy: bool, per_token: bool) -> tuple[str, ...]:
    """Name the conditions that a comparison holds fixed."""
    tokens = PER_TOKEN if per_token and contrast == "model" else ()
    return tuple(
        name
        for name, field in FIELDS.items()
        if (energy or not field.of_energy) and (contrast not in field.varies or name in tokens)
    )


def in_words(found: Difference) -> str:
    """Say in what two sides differ.

    >>> in_words(Difference("power_limit_w", "300", "400"))
    'power limit of the GPUs (W): 300 and 400'
    """
    title = FIELDS[found.field].title if found.field in FIELDS else found.field
    return f"{title}: {found.reference} and {found.other}"


def window_conditions(
    measurement: Measurement, window: Window, workload: Workload
) -> dict[str, str]:
    """Return by its name every condition of one window, those of its joules left out."""
    seen = Seen(measurement, window, workload)
    return {
        name: field.read(seen)
        for name, field in FIELDS.items()
        if field.read and not field.of_energy
    }


def energy_conditions(window: Window, status: Status) -> dict[str, str]:
    """Return the conditions of the joules of one status in a window."""
    joules = Joules(status, [part for part in window.interval.energy if part.status == status])
    return {name: field.read(joules) for name, field in FIELDS.items() if field.of_energy}


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


def _configuration(used: dict[str, Any]) -> str:
    """Name what an engine reports of the settings that it chooses by itself."""
    told = [f"{name} {used[name]}" for name in CONFIGURATION if used.get(name) is not None]
    return ", ".join(told) or UNRECORDED


def _told(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {json.dumps(value)}" for name, value in sorted(arguments.items()))


def _left_out(measurement: Measurement) -> str:
    """Name what makes the same request less work: a cache of prompts, another attention window."""
    used, asked = measurement.effective, measurement.spec.arguments
    cached = [used.get(name) for name in ("enable_prefix_caching", BLOCK_REUSE)]
    told = ["prompts that a cache holds"] if True in cached else []
    window = "disable_sliding_window"
    if asked.get(window):
        told.append(_told({window: asked[window]}))
    return ", ".join(told) or "none"


def _short(digest: str | None) -> str:
    return digest[:HASH_DIGITS] if digest else UNRECORDED


def _requests(seen: Seen) -> str:
    ids = seen.requests.request_id
    rows = len(ids) // max(1, seen.window.passes)
    return f"{rows} ({_short(sha256_json(sorted(set(ids))))})"


def _token_rule(parameters: dict[str, Any]) -> str:
    low, high = (parameters[f"{end}_output_tokens"] for end in ("min", "max"))
    return f"exactly {high}" if low == high else f"{low} to {high}, the model ends it"


def _decoding(parameters: dict[str, Any]) -> str:
    """Name what chooses the next token; what only shapes sampling is left out when greedy."""
    decoder = parameters.get("decoder", {})
    shaping = {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0}
    word = "greedy"
    if decoder and not is_greedy(parameters):
        word = "sampled"
        shaping |= {"temperature": None, "top_p": 1.0, "top_k": 0, "min_p": 0.0}
    told = [f"{n} {decoder[n]}" for n, off in shaping.items() if decoder.get(n, off) != off]
    return ", ".join([word, *told])


def _draw(measurement: Measurement, workload: Workload) -> str:
    """Return what was drawn for the block, the same for all of its cells."""
    arrivals = measurement.arrivals_sha256.get(workload.id)
    drawn = [f"arrivals {_short(arrivals)}"] if arrivals else []
    if not is_greedy(workload.parameters):
        drawn.append(f"sampling seed {workload.parameters.get('random_seed')}")
    return ", ".join(drawn) or "nothing"


def _arrivals(traffic: dict[str, Any] | None) -> str:
    if not traffic or traffic.get("mode") == "offline":
        return "offline"
    return ", ".join(f"{name} {value}" for name, value in sorted(traffic.items()))


def _sharding(sharding: dict[str, Any] | None) -> str:
    if not sharding or sharding.get("strategy") == "none":
        return "none"
    return f"{sharding.get('strategy')} over {sharding.get('num_devices')}"


def _protocol(protocol: Protocol) -> str:
    return f"version {protocol.version}, thermal policy {protocol.thermal_policy}"


def _engine(backend: str, used: dict[str, Any]) -> str:
    parts = [f"{backend} {used.get('engine_version') or UNRECORDED}"]
    parts += [f"torch {used['torch_version']}"] if used.get("torch_version") else []
    return ", ".join(parts)


def _all(found: Iterable[str]) -> str:
    return ", ".join(sorted(found))


def _values(gpus: Iterable[dict[str, Any]], name: str) -> str:
    return _all({str(gpu.get(name)) for gpu in gpus}) or "none"


def _hardware(gpus: Iterable[dict[str, Any]], cpu_model: str) -> str:
    return ", ".join([*sorted(str(gpu.get("name")) for gpu in gpus), cpu_model])


def _power_limits(interval: Interval, described: Sequence[dict[str, Any]]) -> str:
    """Return the limits that the GPUs had inside the window, else those when it was described."""
    inside = {w for gpu in interval.boards for w in gpu.power_limit_w if w is not None}
    found = inside or {number(gpu, "power_limit_w") for gpu in described}
    return ", ".join(sorted(f"{w:g}" for w in found if w is not None)) or "none"
