"""Turn a sweep into its cells, one frozen spec per cell and repeat, and what each cell cannot do.

Everything here is pure: the same sweep on the same installation gives the same plan, and nothing is
loaded or written: ``freeze`` does that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llm_energy.backends.compatibility import Translation, merge_loads, translate
from llm_energy.backends.sharding import refusals as sharding_refusals
from llm_energy.core.errors import ConfigError
from llm_energy.core.files import sha256_json
from llm_energy.core.serialize import to_dict
from llm_energy.environments import registry
from llm_energy.inputs.models.config import model_config
from llm_energy.inputs.seeds import block_seed
from llm_energy.inputs.traffic.arrivals import are_drawn, make_arrivals, takes_lengths
from llm_energy.plan.checkpoints import checkpoint_entries, checkpoint_refusals
from llm_energy.plan.config.load import (
    BackendEntry,
    ModelEntry,
    PrecisionEntry,
    Sweep,
    WorkloadEntry,
)
from llm_energy.records import (
    SCHEMA_VERSION,
    Arrivals,
    ArrivalSet,
    AskedPrompts,
    AskedTrace,
    Note,
    Plan,
    PlannedCell,
    PromptRequest,
    Sharding,
    Spec,
    Workload,
    is_greedy,
    read_record,
)
from llm_energy.records.files import paths
from llm_energy.records.plan import cell_id, files_of
from llm_energy.records.registry.engines import is_simulated
from llm_energy.records.registry.order import block_rank
from llm_energy.records.registry.precisions import quantization_of


@dataclass(frozen=True)
class Engine:
    """How a backend would run here: on which device, which engine version, or why not at all."""

    device: str
    version: str | None
    missing: str | None = None


@dataclass(frozen=True)
class Planning:
    """A plan and what is frozen with it: the specs by their paths, the rest by the model's id.

    ``checkpoints`` are by the model's id and the precision.
    """

    plan: Plan
    specs: dict[str, Spec]
    models: dict[str, dict[str, Any]]
    checkpoints: dict[tuple[str, str], dict[str, Any]]
    prompt_requests: dict[str, PromptRequest]
    arrivals: ArrivalSet


def make_plan(sweep: Sweep, engine: Callable[[BackendEntry], Engine]) -> Planning:
    """Plan every cell of ``sweep``; ``engine`` says how each backend would run here.

    Raises ConfigError with every parameter that a backend does not support, unless
    ``policy.ignore_backend_warnings`` turns those into notes.
    """
    sweep, arrivals = _with_arrivals(sweep)
    hashes = {
        block: {id: sha256_json(to_dict(one)) for id, one in arrivals.of_block(block).items()}
        for block in range(1, sweep.repeats + 1)
    }
    conflicts: dict[str, None] = {}
    cells, specs = [], {}
    for backend in sweep.backends:
        how = engine(backend)
        for model in sweep.models:
            for precision in sweep.precisions:
                cell, own, found = _plan_cell(sweep, model, backend, precision, how, hashes)
                cells.append(cell)
                specs.update(own)
                conflicts.update(dict.fromkeys(found))
    if conflicts and not sweep.policy.ignore_backend_warnings:
        raise ConfigError(
            [
                f"{text} To go on without it, set policy.ignore_backend_warnings."
                for text in conflicts
            ]
        )
    made = Plan(
        sweep=sweep.name,
        device=sweep.device,
        allow_mixed_backends=sweep.policy.allow_mixed_backends,
        pool_machines=sweep.policy.pool_machines,
        recommendation=sweep.recommendation,
        cells=tuple(cells),
    )
    return Planning(
        plan=made,
        specs=specs,
        models={model.id: _source_of(model) for model in sweep.models},
        checkpoints=checkpoint_entries(sweep.models),
        prompt_requests={
            model.id: _prompt_request(sweep, model, arrivals) for model in sweep.models
        },
        arrivals=arrivals,
    )


def _with_arrivals(sweep: Sweep) -> tuple[Sweep, ArrivalSet]:
    """Make the arrivals of each workload with timed traffic; a trace may say how many they are."""
    workloads: list[WorkloadEntry] = []
    alike: dict[str, Arrivals] = {}
    blocks: dict[str, dict[str, Arrivals]] = {}
    for workload in sweep.workloads:
        traffic = workload.parameters["traffic_simulation"]
        if traffic is not None and are_drawn(traffic):
            for block in range(1, sweep.repeats + 1):
                drawn = make_arrivals(traffic, block=block)
                blocks.setdefault(paths.repeat_name(block), {})[workload.id] = drawn
        elif traffic is not None:
            alike[workload.id] = make_arrivals(traffic)
            if takes_lengths(workload.parameters, workload.prompts):
                workload = replace(workload, requests=len(alike[workload.id].times_s))
        workloads.append(workload)
    made = ArrivalSet(SCHEMA_VERSION, sweep.name, alike, blocks)
    return replace(sweep, workloads=tuple(workloads)), made


def installed_engine(root: Path, device: str, provided: bool) -> Callable[[BackendEntry], Engine]:
    """Say how backends run from the environments below ``root``.

    ``provided`` means that conda or containers make the environments when they are needed.
    """

    def engine(backend: BackendEntry) -> Engine:
        if is_simulated(backend.engine):
            return Engine("cpu" if device == "cpu" else "cuda", None)  # of the simulated host
        variant = registry.variant(device, backend.environment)
        if backend.engine not in registry.ENGINES:
            return Engine(
                variant, None
            )  # a backend without an environment is refused by the matrix
        name = registry.environment_name(backend.engine, variant)
        version = registry.pinned_version(root, name, registry.engine_package(name))
        missing = []
        if of_server := _server_environment(backend, variant):
            missing += _missing_server(root, of_server, backend, variant, provided)
        if not provided and not registry.is_installed(root, name):
            missing.append(
                f"Backend '{backend.engine}' requires extra dependencies. "
                f"Install them with: {registry.install_command(backend.engine, variant)}"
            )
        return Engine(variant, version, "; ".join(missing) or None)

    return engine


def with_device(sweep: Sweep, planned_below: Path | None = None) -> Sweep:
    """Replace the device ``auto`` by what this host has.

    A job gives the folder with the written plan, and obeys that, whatever its node has. A
    simulated host has what the config says.
    """
    if all(is_simulated(backend.engine) for backend in sweep.backends):
        return sweep
    if planned_below is None:
        return replace(sweep, device=registry.variant(sweep.device))
    written = read_record(Plan, planned_below / paths.plan(paths.sweep_folder(sweep.name)))
    return replace(sweep, device=written.device)


def gpus_needed(spec: Spec) -> int:
    """Return how many GPUs a repeat occupies: none on a CPU or on a simulated host."""
    if spec.device == "cpu" or is_simulated(spec.engine_id):
        return 0
    return max(w.parameters["sharding"]["num_devices"] for w in spec.workloads)


def _plan_cell(
    sweep: Sweep,
    model: ModelEntry,
    backend: BackendEntry,
    precision: PrecisionEntry,
    how: Engine,
    arrivals_sha256: dict[int, dict[str, str]],
) -> tuple[PlannedCell, dict[str, Spec], list[str]]:
    """Plan one cell and its specs; also return as sentences what its backend does not support."""

    def translated(asked: dict[str, dict[str, Any]]) -> dict[str, Translation]:
        return {
            id: translate(one, backend.engine, how.version, how.device, backend.flow)
            for id, one in asked.items()
        }

    parameters = {
        w.id: universal_parameters(model, precision, w.parameters) for w in sweep.workloads
    }
    translations = translated(parameters)
    conflicts = _unique(note for t in translations.values() for note in t.conflicts)
    refusals = _unique(note for t in translations.values() for note in t.refusals)
    sharding = Sharding(**sweep.workloads[0].parameters["sharding"])
    reasons = [note.message for note in refusals]
    reasons += checkpoint_refusals(model, precision, is_simulated(backend.engine))
    for asked in parameters.values():
        reasons += sharding_refusals(sharding, backend.engine, asked, model_config(model.source))
    reasons = list(dict.fromkeys(reasons)) or ([how.missing] if how.missing else [])
    notes = _unique(note for t in translations.values() for note in (*t.notes, *t.conflicts))
    id = cell_id(model.id, backend.id, precision.id)
    specs: dict[str, Spec] = {}
    if not reasons:
        sampled = not all(map(is_greedy, parameters.values()))
        for number in range(1, sweep.repeats + 1):
            if sampled:  # greedy decoding draws nothing, and its specs stay as they are
                parameters = _seeded(sweep, parameters, number)
                translations = translated(parameters)
            workloads = {
                w.id: Workload(
                    w.id,
                    w.requests,
                    parameters[w.id] | ({"resample_prompts": True} if _resampled(w) else {}),
                    translations[w.id].generate,
                    arrivals_sha256[number].get(w.id),
                )
                for w in sweep.workloads
            }
            repeat = paths.repeat_name(number)
            order = sorted(
                workloads, key=lambda w: block_rank(sweep.order_seed, repeat, f"{id}/{w}")
            )
            specs[repeat] = Spec(
                schema_version=SCHEMA_VERSION,
                sweep=sweep.name,
                cell=id,
                model=model.id,
                backend=backend.id,
                precision=precision.id,
                repeat=number,
                seed=parameters[sweep.workloads[0].id]["random_seed"],
                device=how.device,
                engine=merge_loads(list(translations.values()))
                | backend.arguments
                | _server(backend, how.device),
                workloads=tuple(workloads[w] for w in order),
                notes=notes,
                protocol=sweep.protocol,
                meter=sweep.meter,
                sharding=sharding,
                arguments=backend.arguments,
                variant_of=backend.engine if backend.engine != backend.id else None,
                checkpoint=model.checkpoints.get(precision.precision),
            )
    spec_paths, measurements = files_of(sweep.name, id, backend.id, tuple(specs))
    cell = PlannedCell(
        cell=id,
        model=model.id,
        backend=backend.id,
        precision=precision.id,
        outcome="unsupported" if reasons else "planned",
        reason="; ".join(reasons) or None,
        workloads=tuple(w.id for w in sweep.workloads),
        repeats=tuple(specs),
        specs=spec_paths,
        measurements=measurements,
        notes=notes,
    )
    own = dict(zip(spec_paths, specs.values(), strict=True))
    return cell, own, [note.message for note in conflicts]


def _server_environment(backend: BackendEntry, variant: str) -> str | None:
    """Return the name of the project's environment whose Python a server's command is to use."""
    asked = backend.server.get("environment")
    return registry.environment_name(asked, variant) if asked else None


def _server(backend: BackendEntry, variant: str) -> dict[str, Any]:
    """Return what the spec says of the server; its Python is a path below the project's root."""
    if not backend.server:
        return {}
    name = _server_environment(backend, variant)
    python = (
        {"environment": name, "python": str(registry.interpreter(Path(), name))} if name else {}
    )
    return {"server": backend.server | python}


def _missing_server(
    root: Path, name: str, backend: BackendEntry, variant: str, provided: bool
) -> Iterator[str]:
    """Say why the environment of a server can't be used."""
    if provided:
        yield (
            f"server.environment of '{backend.id}' needs environments that make envs has built; "
            "run without conda and containers, or write the server's own program into the command"
        )
    elif not registry.is_installed(root, name):
        remedy = registry.install_command(backend.server["environment"], variant)
        yield f"The server of '{backend.id}' needs {name}. Install it with: {remedy}"


def _seeded(
    sweep: Sweep, parameters: dict[str, dict[str, Any]], block: int
) -> dict[str, dict[str, Any]]:
    """Return the workloads' parameters with the sampling seed of a block."""
    return {
        w.id: parameters[w.id] | {"random_seed": block_seed(w.parameters["random_seed"], block)}
        for w in sweep.workloads
    }


def _resampled(workload: WorkloadEntry) -> bool:
    return bool(workload.prompts.get("resample"))


def universal_parameters(
    model: ModelEntry, precision: PrecisionEntry, parameters: dict[str, Any]
) -> dict[str, Any]:
    """Complete a workload's parameters with what the model and the precision axes say."""
    return {
        "model_name": model.model_name,
        "fp_precision": precision.compute_precision,
        **parameters,
        "quantization": quantization_of(precision.precision),
    }


def _prompt_request(sweep: Sweep, model: ModelEntry, arrivals: ArrivalSet) -> PromptRequest:
    own = {} if model.chat_template is None else {"chat_template": model.chat_template}
    workloads = {
        key: asked
        for w in sweep.workloads
        for key, asked in _prompts_asked(
            replace(w, prompts=w.prompts | own), arrivals, sweep.repeats
        ).items()
    }
    return PromptRequest(SCHEMA_VERSION, model.id, workloads, sweep.quality)


def _prompts_asked(
    workload: WorkloadEntry, arrivals: ArrivalSet, repeats: int
) -> dict[str, AskedPrompts]:
    """Return what the prompts stage must make for a workload, by ``Workload.prompts_key``.

    A trace gives each request its lengths.
    """
    settings = {name: value for name, value in workload.prompts.items() if name != "resample"}
    asked = AskedPrompts(workload.requests, settings)
    if takes_lengths(workload.parameters, workload.prompts):
        most = workload.parameters["max_output_tokens"]
        pairs = arrivals.workloads[workload.id].tokens
        tokens = tuple((prompt, min(output, most)) for prompt, output in pairs)
        asked = AskedTrace(workload.requests, settings, tokens)
    if not _resampled(workload):
        return {workload.id: asked}
    return {
        f"{workload.id}/{paths.repeat_name(block)}": replace(
            asked, prompts=settings | {"seed": block_seed(settings["seed"], block)}
        )
        for block in range(1, repeats + 1)
    }


def _source_of(model: ModelEntry) -> dict[str, Any]:
    """Return what says where a model comes from, and nothing of how it is asked."""
    others = ("chat_template", "checkpoints")
    return {key: value for key, value in to_dict(model).items() if key not in others}


def _unique(notes: Iterable[Note]) -> tuple[Note, ...]:
    return tuple(dict.fromkeys(notes))
