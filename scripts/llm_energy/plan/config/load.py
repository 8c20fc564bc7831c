"""Read a sweep config: check it, complete it, and give it as records.

Runs inside Snakemake's own process, so it imports nothing that Snakemake doesn't bring.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm_energy import records
from llm_energy.core.errors import ConfigError
from llm_energy.core.files import SURROGATE
from llm_energy.core.serialize import from_dict
from llm_energy.inputs.traffic import arrivals
from llm_energy.plan.config.checks import copies_of, semantic_problems
from llm_energy.plan.config.messages import Key, Places, Problem, found, schema_problems
from llm_energy.plan.config.schema import coerce, fill_defaults, schema
from llm_energy.records.registry.precisions import BY_KEY, QUANTISED

AXES = ("models", "backends", "precisions", "workloads")
PARAMETERS = tuple(schema()["properties"]["parameters"]["properties"])
MOST_VALUES = 1_000_000  # of a config; a sweep of ten thousand cells needs a tenth
MOST_LEVELS = 50
LEAST_REQUESTS = 8  # prompts of a workload that names no number


@dataclass(frozen=True)
class ModelEntry:
    """One model; ``source`` holds its ``kind`` and the keys that were given with it.

    ``chat_template`` says for this model what the prompts' key says for all; None says nothing.
    ``checkpoints`` has, by precision, what says where a checkpoint comes from.
    """

    id: str
    model_name: str
    revision: str | None
    source: dict[str, Any]
    chat_template: bool | None = None
    checkpoints: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class BackendEntry:
    """One entry: its engine and which of that one's environments (``auto``, ``cpu``, ``cuda``).

    ``flow`` is the engine's way of running a model, None for its only or its usual one.
    ``arguments`` are the engine's own that the entry sets, ``server`` the server that the engine
    ``openai`` asks.
    """

    id: str
    engine: str
    environment: str
    flow: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    server: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PrecisionEntry:
    """One precision of the weights and the data type that they are computed in."""

    id: str
    precision: str
    compute_precision: str


@dataclass(frozen=True)
class WorkloadEntry:
    """What every cell is asked to do, with all of its prompt settings and parameters.

    ``parameters`` has every key of ``parameters`` in the config: the schema's defaults, then the
    sweep's values, then the workload's.
    """

    id: str
    requests: int
    prompts: dict[str, Any]
    parameters: dict[str, Any]


@dataclass(frozen=True)
class Policy:
    """What may be done against advice."""

    allow_mixed_backends: bool
    ignore_backend_warnings: bool
    same_node_per_block: bool
    pool_machines: bool = False
    measure_again: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sweep:
    """A whole sweep config: valid, complete, and in one form however it was written."""

    name: str
    models: tuple[ModelEntry, ...]
    backends: tuple[BackendEntry, ...]
    precisions: tuple[PrecisionEntry, ...]
    workloads: tuple[WorkloadEntry, ...]
    device: str
    repeats: int
    order_seed: int
    protocol: records.Protocol
    meter: records.MeterSettings
    policy: Policy
    quality: records.QualitySettings | None = None
    recommendation: dict[str, float | None] = field(default_factory=dict)
    containers: dict[str, str] = field(default_factory=dict)


def load_sweep(
    config: dict[str, Any], files: Sequence[str | Path] = (), root: str | Path = "."
) -> Sweep:
    """Check and complete a sweep config as Snakemake merged it.

    ``files`` are the config files in the order of merging, used only to say where a mistake stands;
    ``root`` is what relative paths start from. Raises ConfigError with every mistake at once.
    """
    if not isinstance(config, dict):
        raise ConfigError(
            [f"config: found {found(config)}, allowed a mapping; write keys such as 'models:'"]
        )
    problems = list(_unsound(config))
    places = Places(config, files)
    written = coerce(schema(), config)
    problems += schema_problems(written)
    usable, broken = _without_mistakes(written, problems)
    complete = complete_config(usable)
    problems += semantic_problems(complete, written, broken, Path(root))
    lines = places.lines(problems)
    if lines:
        raise ConfigError(lines)
    return _sweep(complete)


def _unsound(config: dict[str, Any]) -> Iterator[Problem]:
    """Find lone surrogates, which YAML and JSON can write and no UTF-8 file holds.

    Raises ConfigError where aliases of aliases (``*name``) multiply a few lines into more values
    than there is memory for.
    """
    todo: list[tuple[Key, Any]] = [((), config)]
    count = 0
    while todo:
        path, value = todo.pop()
        count += 1
        if count > MOST_VALUES or len(path) > MOST_LEVELS:
            raise ConfigError(
                [
                    f"config: found more than {MOST_VALUES} values or {MOST_LEVELS} levels, "
                    "allowed fewer; write values out instead of aliases (*name) of aliases"
                ]
            )
        if isinstance(value, str) and not value.isascii() and SURROGATE.search(value):
            yield path, f"found {value!a:.80}, allowed Unicode text without lone surrogates"
        elif isinstance(value, dict):
            todo += [((*path, key), key) for key in value if isinstance(key, str)]
            todo += [((*path, key), one) for key, one in value.items()]
        elif isinstance(value, list):
            todo += [((*path, number), one) for number, one in enumerate(value)]


def _without_mistakes(
    config: dict[str, Any], problems: Sequence[Problem]
) -> tuple[dict[str, Any], set[Key]]:
    """Drop what the schema refused, so that the rest can still be checked.

    Also gives what was dropped: (axis, index) for one entry of an axis, else the key at the top.
    """
    config = {key: value for key, value in config.items() if key in schema()["properties"]}
    broken: set[Key] = set()
    for path, _ in problems:
        if path[0] in AXES and len(path) > 1:
            broken.add(path[:2])
        elif path[0] in config or path[0] == "models":
            broken.add(path[:1])
    for path in broken:
        if len(path) == 1:
            config.pop(path[0], None)
    for axis in AXES:
        if axis in config:
            entries = enumerate(config[axis])
            config[axis] = [None if (axis, i) in broken else entry for i, entry in entries]
    return copy.deepcopy(config), broken


def complete_config(config: dict[str, Any]) -> dict[str, Any]:
    """Bring a config into one form: records on every axis, every default filled in.

    Every entry gets ``at``, the path where it was written. Entries that are None stay out.
    """
    config = _replace_axes(config)
    _set_parameters(config)
    fill_defaults(schema(), config)
    for axis in AXES:
        entries = enumerate(config.get(axis, []))
        config[axis] = [_record(axis, i, entry) for i, entry in entries if entry is not None]
    for workload in config["workloads"]:
        workload["parameters"] = _merged(
            config["parameters"], {k: workload.pop(k) for k in PARAMETERS if k in workload}
        )
        workload["prompts"] = _merged(config["prompts"], workload.get("prompts", {}))
        batch_size = workload["parameters"]["batching"]["batch_size"]
        whole = batch_size * copies_of(workload["parameters"])
        horizon_s = config["protocol"]["window_min_duration_s"]
        asked = arrivals.complete(workload["parameters"]["traffic_simulation"], horizon_s)
        workload["parameters"]["traffic_simulation"] = asked
        least = (asked and arrivals.expected_requests(asked)) or LEAST_REQUESTS
        workload.setdefault("requests", -(-least // whole) * whole)
    return config


def _replace_axes(config: dict[str, Any]) -> dict[str, Any]:
    """Let each key of the single-experiment form replace its axis by one entry."""
    config = dict(config)
    if "model_name" in config:
        name = config["model_name"]
        entry = _chosen(config, "models", ("id", "model_name"), name)
        config["models"] = [entry or _model_of_name(name)]
    if "backend" in config:
        name = config["backend"]
        config["backends"] = [_chosen(config, "backends", ("id",), name) or {"id": name}]
        config["backends"][0].setdefault("at", ("backend",))
    if "fp_precision" in config or "quantization" in config:
        compute = config.get("fp_precision", "bfloat16")
        bits = config.get("quantization", {})
        quantised = [name for name, key in BY_KEY.items() if bits.get(key)]
        name = quantised[0] if quantised else compute
        at = ("quantization",) if "quantization" in config else ("fp_precision",)
        entry = {"id": name, "precision": name, "compute_precision": compute, "at": at}
        config["precisions"] = [entry]
    return config


def _chosen(
    config: dict[str, Any], axis: str, keys: Sequence[str], name: str
) -> dict[str, Any] | None:
    """Return the entry of an axis that a single key names, or None."""
    for index, entry in enumerate(config.get(axis, [])):
        if isinstance(entry, dict) and name in [entry.get(key) for key in keys]:
            return {**entry, "at": (axis, index)}
    return None


def _model_of_name(name: str) -> dict[str, Any]:
    """Make an entry for a model that is given by its name alone: a folder if it reads like one."""
    source = (
        {"kind": "folder", "path": name} if re.match(r"(\.{0,2}|~)/", name) else {"kind": "hub"}
    )
    at = ("model_name",)
    return {"id": model_id(name), "model_name": name, "source": source, "at": at}


def model_id(model_name: str) -> str:
    """Derive a short id from the last part of a model's name.

    >>> model_id("HuggingFaceTB/SmolLM2-135M-Instruct")
    'smollm2-135m-instruct'
    """
    last = model_name.rstrip("/").rsplit("/", 1)[-1].lower()
    plain = re.sub(r"-{2,}", "-", re.sub(r"[^a-z0-9._-]", "-", last))
    return plain.lstrip("._-")[:64].rstrip("-") or "model"


def _set_parameters(config: dict[str, Any]) -> None:
    """Move parameters at the top level to ``parameters``, in place.

    Where a workload sets one of them otherwise, the workloads give way to a single one, as every
    other axis does.
    """
    given = {key: config.pop(key) for key in PARAMETERS if key in config}
    config["parameters"] = _merged(config.get("parameters", {}), given)
    workloads = [w for w in config.get("workloads", []) if isinstance(w, dict)]
    own = [_leaves({k: w[k] for k in PARAMETERS if k in w}) for w in workloads]
    if _leaves(given).intersection(*[set().union(*own)] if own else [set()]):
        config["workloads"] = [{"id": "default", "at": ()}]


def _leaves(values: dict[str, Any], above: Key = ()) -> set[Key]:
    """Return the paths of all values that are no mappings."""
    paths: set[Key] = set()
    for key, value in values.items():
        paths |= _leaves(value, (*above, key)) if isinstance(value, dict) else {(*above, key)}
    return paths


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Lay one mapping over another, level by level; neither is changed."""
    result = copy.deepcopy(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        # a traffic is one thing: half of one and half of another would be a third
        if both and key != "traffic_simulation":
            result[key] = _merged(result[key], value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def _record(axis: str, index: int, entry: Any) -> dict[str, Any]:
    """Write an entry out in full: shorthands become records, ``at`` is where it was written."""
    if isinstance(entry, str):
        entry = {"id": entry, **({"precision": entry} if axis == "precisions" else {})}
    entry = {"at": (axis, index), **entry}
    if axis == "backends":
        entry.setdefault("engine", entry["id"])
        entry.setdefault("environment", "auto")
    if axis == "precisions":
        quantised = entry["precision"] in QUANTISED
        entry.setdefault("compute_precision", "bfloat16" if quantised else entry["precision"])
    return entry


def _sweep(config: dict[str, Any]) -> Sweep:
    """Build the records from a valid and complete config."""

    def entries(axis: str) -> list[dict[str, Any]]:
        return [{k: v for k, v in entry.items() if k != "at"} for entry in config[axis]]

    protocol, quality = dict(config["protocol"]), dict(config["quality"])
    score = quality.pop("enabled")
    return Sweep(
        name=config["name"],
        models=tuple(ModelEntry(**entry) for entry in entries("models")),
        backends=tuple(BackendEntry(**entry) for entry in entries("backends")),
        precisions=tuple(PrecisionEntry(**entry) for entry in entries("precisions")),
        workloads=tuple(WorkloadEntry(**entry) for entry in entries("workloads")),
        device=config["device"],
        repeats=protocol.pop("repeats"),
        order_seed=protocol.pop("order_seed"),
        protocol=from_dict(records.Protocol, protocol),
        meter=from_dict(records.MeterSettings, config["meter"]),
        policy=Policy(**config["policy"]),
        containers=config["containers"],
        quality=records.QualitySettings(**quality) if score else None,
        recommendation=config["recommendation"],
    )
