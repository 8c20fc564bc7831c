"""Check what a schema can't say about a sweep config: relations between keys, and files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from llm_energy.backends.compatibility import flows, removed_flow
from llm_energy.inputs.traffic.arrivals import (
    MODES,
    MOST_ARRIVALS,
    expected_requests,
    takes_lengths,
)
from llm_energy.plan.config.arguments import argument_problems
from llm_energy.plan.config.local_files import (
    missing_file,
    prompts_problems,
    source_problems,
    template_problems,
)
from llm_energy.plan.config.messages import Key, Problem, did_you_mean, dotted, found
from llm_energy.plan.config.servers import server_problems
from llm_energy.records.files import patterns
from llm_energy.records.registry.engines import REGISTRY, SIMULATED, SIMULATED_IDS, is_simulated
from llm_energy.records.registry.precisions import QUANTISED

# https://huggingface.co/docs/huggingface_hub: validate_repo_id
HUB_NAME = re.compile(
    r"(?!.*(?:--|\.\.|\.git\Z))(?=.{1,96}\Z)"
    r"[A-Za-z0-9_](?:[\w.-]*[A-Za-z0-9_])?(?:/[A-Za-z0-9_](?:[\w.-]*[A-Za-z0-9_])?)?",
    re.ASCII,
)
KNOWN = (*REGISTRY, *SIMULATED_IDS)
NEAR = 0.74  # how alike two names are, of 1, for one to be a slip for the other


def semantic_problems(
    config: dict[str, Any], written: dict[str, Any], broken: set[Key], root: Path
) -> list[Problem]:
    """Check a complete config; ``written`` is the same as the user wrote it.

    ``broken`` names what the schema refused; nothing is said twice about it or about what it
    influences.
    """
    problems: list[Problem] = []
    for axis in ("models", "backends", "precisions", "workloads"):
        problems += _duplicate_ids(config[axis])
    checkpoints = [one for model in config["models"] for one in _checkpoints(model)]
    for model in [*config["models"], *checkpoints]:
        problems += source_problems(model, root)
    problems += _hub_names(checkpoints)
    if not {("models",), ("model_name",)} & broken:
        problems += _near_name(written)
        problems += _hub_names(config["models"])
    problems += _engines(config, written, broken)
    problems += _simulation(config)
    problems += _flows(config)
    problems += argument_problems(config["backends"])
    problems += server_problems(config["backends"])
    for precision in config["precisions"]:
        problems += _compute_precision(precision)
    if all(config.get("quantization", {}).values()) and "quantization" in config:
        problems.append(
            (
                ("quantization", "load_in_8bit"),
                "found true beside load_in_4bit, allowed one of the two; "
                "list both under 'precisions' to compare them",
            )
        )
    if ("quality",) not in broken and config["quality"]["path"] is not None:
        problems += missing_file(config["quality"]["path"], ("quality", "path"), False, root)
    if ("protocol",) not in broken:
        problems += _warm_up(config["protocol"])
    shared = {path[0] for path in broken if len(path) == 1}
    if not shared & {"parameters", "prompts", *config["parameters"]}:
        problems += _one_sharding(config["workloads"])
        for workload in config["workloads"]:
            problems += _parameters(workload, written)
            problems += _traffic(workload, written, root)
            problems += _prompts(workload, written, root)
        problems += template_problems(config["models"], config["workloads"], root)
    return problems


def _duplicate_ids(entries: list[dict[str, Any]]) -> Iterator[Problem]:
    first: dict[str, Key] = {}
    for entry in entries:
        if entry["id"] in first:
            yield (
                entry["at"],
                f"found the id '{entry['id']}' a second time, first at "
                f"{dotted(first[entry['id']])}, allowed once; give each entry its own id",
            )
        first.setdefault(entry["id"], entry["at"])


def _checkpoints(model: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a model's quantised checkpoints as entries of their own."""
    for precision, one in model["checkpoints"].items():
        yield one | {"at": (*model["at"], "checkpoints", precision), "precision": precision}


def _hub_names(models: list[dict[str, Any]]) -> Iterator[Problem]:
    """Find names that no repository of the hub can have, before anything is asked of it."""
    for model in models:
        if model["source"]["kind"] == "hub" and not HUB_NAME.fullmatch(model["model_name"]):
            yield (
                (*model["at"], "model_name"),
                f"found {found(model['model_name'])}, allowed the name of a repository on the hub, "
                "as owner/name; a local model needs source: {kind: folder, path: ...}",
            )


def _near_name(written: dict[str, Any]) -> Iterator[Problem]:
    """Find a single model's name that is nearly that of an entry, and would be asked of the hub.

    All but a few old names there have an owner, so one without is more likely a slip.
    """
    name = written.get("model_name", "/")
    entries = [entry for entry in written.get("models", ()) if isinstance(entry, dict)]
    known = [entry.get(key) for entry in entries for key in ("id", "model_name")]
    if "/" not in name and name not in known and (meant := did_you_mean(name, known, NEAR)):
        yield (
            ("model_name",),
            f"found {found(name)}, allowed the id or model_name of an entry of 'models', a name on "
            f"the hub with its owner, or a folder such as ./{name}{meant}",
        )


def _engines(
    config: dict[str, Any], written: dict[str, Any], broken: set[Key]
) -> Iterator[Problem]:
    """Check that every entry names an engine, by its id or beside it, and has a folder to itself.

    Results lie below the sweep's folder by the entry's id, beside what has other names.
    """
    entries = [] if ("backends",) in broken else written.get("backends", [])
    ids = [entry.get("id") for entry in entries if isinstance(entry, dict)]
    listed = [id for id in ids if isinstance(id, str) and id not in KNOWN]
    for backend in config["backends"]:
        id, single = backend["id"], backend["at"] == ("backend",)
        at = backend["at"] if single else (*backend["at"], "id")
        if backend["engine"] not in KNOWN:
            names = [*KNOWN, *(listed if single else ())]
            other = (
                "" if single else ", or any other id beside the 'engine' that it is a variant of"
            )
            yield (
                at,
                f"found {found(id)}, allowed {', '.join(names)}{other}{did_you_mean(id, names)}",
            )
        elif id in KNOWN and id != backend["engine"]:
            yield (
                at,
                f"found {found(id)} for the engine '{backend['engine']}', allowed an id that "
                f"is no other engine's, such as {backend['engine']}-2",
            )
        elif id in patterns.OWN_NAMES:
            taken = ", ".join(sorted(patterns.OWN_NAMES))
            yield (
                at,
                f"found {found(id)}, allowed an id other than {taken}, which have places in a "
                "sweep's folder; choose another",
            )


def _flows(config: dict[str, Any]) -> Iterator[Problem]:
    for backend in config["backends"]:
        known = flows(backend["engine"])
        if backend.get("flow") not in (None, *known):
            allowed = (
                f"allowed {' or '.join(known)}" if known else "which has but one; leave it out"
            )
            allowed += removed_flow(backend["engine"], backend["flow"])
            text = (
                f"found {found(backend['flow'])} for the backend '{backend['engine']}', {allowed}"
            )
            yield ((*backend["at"], "flow"), text)


def _simulation(config: dict[str, Any]) -> Iterator[Problem]:
    """Keep simulated and real apart: no sweep may hold both, of backends or of models."""
    simulated = [b for b in config["backends"] if is_simulated(b["engine"])]
    others = ", ".join(b["id"] for b in config["backends"] if not is_simulated(b["engine"]))
    if simulated and others:
        yield (
            simulated[0]["at"],
            f"found '{simulated[0]['id']}' beside {others}, allowed alone, since no table may mix "
            "simulated joules with measured ones; give it a sweep of its own",
        )
        return
    for model in config["models"]:
        kind = model["source"]["kind"]
        if bool(simulated) != (kind == "simulated"):
            wanted = "'simulated'" if simulated else "a kind other than 'simulated'"
            yield (
                (*model["at"], "source", "kind"),
                f"found '{kind}', allowed {wanted} for the backends of this sweep; the backend "
                f"'{SIMULATED}' and simulated models go together",
            )


def _compute_precision(entry: dict[str, Any]) -> Iterator[Problem]:
    precision, compute = entry["precision"], entry["compute_precision"]
    if precision not in QUANTISED and compute != precision:
        yield (
            (*entry["at"], "compute_precision"),
            f"found '{compute}', allowed '{precision}', which computes in itself; remove it, it is "
            f"for {', '.join(QUANTISED)}",
        )


def _warm_up(protocol: dict[str, Any]) -> Iterator[Problem]:
    least, most = protocol["warmup_min_passes"], protocol["warmup_max_passes"]
    if least > most:
        yield (
            ("protocol", "warmup_min_passes"),
            f"found {least}, allowed at most warmup_max_passes, which is {most}",
        )


def _parameters(workload: dict[str, Any], written: dict[str, Any]) -> Iterator[Problem]:
    """Check one workload's parameters; a problem stands where its value was written."""
    values = workload["parameters"]

    def origin(*keys: str) -> Key:
        return _origin(written, [workload["at"], (), ("parameters",)], keys)

    least, most = values["min_output_tokens"], values["max_output_tokens"]
    if least > most:
        limit = dotted(origin("max_output_tokens"))
        yield (
            origin("min_output_tokens"),
            f"found {least}, allowed at most {limit}, which is {most}",
        )
    size, copies = values["batching"]["batch_size"], copies_of(values)
    whole = size * copies
    timed = values["traffic_simulation"] is not None  # then what has arrived makes the batches
    if values["batching"]["strategy"] == "static" and workload["requests"] % whole and not timed:
        below = workload["requests"] // whole * whole
        wanted = f"the batch size {size}" + (f" times {copies} copies" if copies > 1 else "")
        yield (
            (*workload["at"], "requests"),
            f"found {workload['requests']}, allowed a multiple of {wanted}, else the "
            f"last batch is smaller; try {f'{below} or ' if below else ''}{below + whole}",
        )
    yield from _sharding(workload, origin)


def _traffic(workload: dict[str, Any], written: dict[str, Any], root: Path) -> Iterator[Problem]:
    """Check that a workload's traffic has what its mode needs, and no more."""
    asked = workload["parameters"]["traffic_simulation"]
    if asked is None:
        return

    def origin(*keys: str) -> Key:
        bases = [workload["at"], (), ("parameters",)]
        return _origin(written, bases, ("traffic_simulation", *keys))

    mode = asked["mode"]
    needed, optional = MODES[mode]
    for key in needed:
        if key not in asked:
            yield origin(key), f"missing, the mode '{mode}' needs {' and '.join(needed)}"
    for key in asked.keys() - {"mode", *needed, *optional}:
        yield (
            origin(key),
            f"found {found(asked[key])}, has no meaning with the mode '{mode}'; remove it",
        )
    if asked.get("trace_path"):
        yield from missing_file(asked["trace_path"], origin("trace_path"), False, root)
    if (expected_requests(asked) or 0) > MOST_ARRIVALS:
        yield (
            origin("rate_per_s"),
            f"found {asked['rate_per_s']:g}, which brings {expected_requests(asked)} requests in "
            f"ramp and horizon, allowed {MOST_ARRIVALS}; lower it, or shorten horizon_s",
        )


def _lengths_of_trace(workload: dict[str, Any], written: dict[str, Any]) -> Iterator[Problem]:
    """Check that nothing else says how many and how long the requests of a trace are."""
    at = workload["at"]
    least = _origin(written, [at, (), ("parameters",)], ("min_output_tokens",))
    asked = {least: workload["parameters"]["min_output_tokens"]}
    if _is_written(written, (*at, "requests")):
        asked[*at, "requests"] = workload["requests"]
    for path, value in asked.items():
        if value:
            yield (
                path,
                f"found {value}, has no meaning where a trace gives each request its length; "
                "remove it, or set prompts.input_tokens",
            )


def copies_of(parameters: dict[str, Any]) -> int:
    """Return how many copies of the model share a workload's requests."""
    sharding = parameters["sharding"]
    return sharding["num_devices"] if sharding["strategy"] == "data_parallel" else 1


def _sharding(workload: dict[str, Any], origin: Callable[..., Key]) -> Iterator[Problem]:
    strategy, count = (workload["parameters"]["sharding"][k] for k in ("strategy", "num_devices"))
    if (strategy == "none") != (count == 1):
        allowed = "1" if strategy == "none" else "2 or more"
        yield (
            origin("sharding", "num_devices"),
            f"found {count}, allowed {allowed} with the strategy '{strategy}'",
        )


def _one_sharding(workloads: list[dict[str, Any]]) -> Iterator[Problem]:
    """Check that all workloads spread the model alike, since it is loaded once for all of them."""
    for workload in workloads[1:]:
        asked, first = (w["parameters"]["sharding"] for w in (workload, workloads[0]))
        if asked != first:
            yield (
                (*workload["at"], "sharding"),
                f"found {found(asked)}, allowed {found(first)} as in the first workload: a model "
                "is loaded once for all; give another sharding a sweep of its own",
            )


def _prompts(workload: dict[str, Any], written: dict[str, Any], root: Path) -> Iterator[Problem]:
    """Check that a workload's prompts have what their source needs."""
    prompts, at = workload["prompts"], workload["at"]
    source, path = prompts["source"], prompts["path"]

    def origin(key: str) -> Key:
        return _origin(written, [at, ()], ("prompts", key))

    needed = {"file": "path", "dataset": "path", "synthetic": "input_tokens"}.get(source)
    if takes_lengths(workload["parameters"], prompts):
        needed = None
        yield from _lengths_of_trace(workload, written)
    if needed and prompts[needed] is None:
        yield origin(needed), f"missing, prompts from the source '{source}' need it"
    if needed == "path" and path is not None:
        missing = list(missing_file(path, origin("path"), source == "dataset", root))
        yield from missing or prompts_problems(workload, origin("path"), root)
    for key, remedy in (("path", "'file' or 'dataset'"), ("input_tokens", "'synthetic'")):
        # a workload may turn from the sweep's file to another source, but not name a file in vain
        in_vain = len(origin(key)) >= len(origin("source"))
        if prompts[key] is not None and key != needed and in_vain:
            yield (
                origin(key),
                f"found {found(prompts[key])}, has no meaning with the source '{source}'; "
                f"set the source to {remedy}, or remove the key",
            )


def _origin(written: dict[str, Any], bases: list[Key], keys: tuple[str, ...]) -> Key:
    """Return the path where a value was written: the first base that has it, else the last one."""
    paths = [(*base, *keys) for base in bases]
    return next((path for path in paths if _is_written(written, path)), paths[-1])


def _is_written(written: dict[str, Any], path: Key) -> bool:
    below: Any = written
    for key in path:
        try:
            below = below[key]
        except (KeyError, IndexError, TypeError):
            return False
    return True
