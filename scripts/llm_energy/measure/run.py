"""Measure one repeat of one cell: obey the spec, hold the host, write what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llm_energy.backends.distributed.replicas import Spread, needs_processes
from llm_energy.core.errors import BackendUnavailable, LlmEnergyError, RecordError
from llm_energy.core.files import read_json, require_room, sha256_file, sha256_json
from llm_energy.core.locks import exclusive_file, exclusive_host
from llm_energy.core.serialize import to_dict
from llm_energy.inputs import currency
from llm_energy.inputs.models.quantization import other_model, quantised_already
from llm_energy.inputs.quality import is_score_of
from llm_energy.measure.host import Machine, RealMachine
from llm_energy.measure.progress import Progress, estimate_left_s
from llm_energy.measure.protocol import Repeat, run_repeat
from llm_energy.meter.meter import Meter, open_meter
from llm_energy.records import (
    SCHEMA_VERSION,
    Arrivals,
    ArrivalSet,
    Clock,
    Measurement,
    ModelManifest,
    Plan,
    PromptSet,
    Spec,
    StepReport,
    holds_already,
    read_record,
    steps,
    write_record,
)
from llm_energy.records.files import paths
from llm_energy.records.files.attempts import put_aside
from llm_energy.records.registry.engines import is_simulated

RECENT_REPEATS = 20  # of a backend, that the estimate of the time left looks at


def measure(
    spec_path: Path,
    manifest_path: Path,
    prompts_path: Path,
    plan_path: Path,
    out: Path,
    repository: Path,
    arrivals_path: Path | None = None,
) -> Measurement:
    """Measure the repeat that ``spec_path`` describes and write its Measurement to ``out``.

    While it runs, what is finished lies in ``<out>.partial.json``, as a repeat that failed because
    it was interrupted; that file goes once ``out`` is whole. Waits for the host-wide lock before
    anything is metered. A repeat that the earlier ones make unnecessary is written as
    ``not_needed``, and nothing is loaded for it.

    Where ``out`` holds this very repeat already, it is kept: a batch system may start a job twice,
    or finish one whose workflow has died and was started again.
    """
    spec = read_record(Spec, spec_path)
    manifest = read_record(ModelManifest, manifest_path)
    prompts = read_record(PromptSet, prompts_path)
    keys = {w.id: w.prompts_key(spec.repeat) for w in spec.workloads}
    if missing := [key for key in keys.values() if key not in prompts.requests]:
        raise RecordError(f"{prompts_path}: no prompts for workload {missing[0]!r}")
    arrivals = planned_arrivals(spec, arrivals_path)
    progress = _progress(spec, plan_path, out, scored=prompts.quality is not None)
    machine = machine_for(spec)

    with (
        exclusive_file(out.with_name(f".{out.stem}.lock")) as shared,
        exclusive_host(say=progress.note) as lock_wait_s,
    ):
        if kept := _kept(out, spec, manifest, prompts):
            by = "by another process just now" if shared else "already"
            progress.finish(f"was measured {by}; kept {out}", 0.0, _time_left_s(plan_path))
            return kept
        put_aside(out)
        require_room(out.parent)
        start_s = machine.clock()
        utc = datetime.fromtimestamp(machine.wall_clock(), UTC).isoformat(timespec="milliseconds")
        blank = Measurement(
            schema_version=SCHEMA_VERSION,
            spec=spec,
            spec_sha256=sha256_json(to_dict(spec)),
            outcome="ok",
            reason=None,
            clock=Clock(start_s, utc),
            lock_wait_s=lock_wait_s,
            host=machine.describe(repository, ()),
            weights_sha256=manifest.weights_sha256,
            tokenizer_sha256=manifest.tokenizer_sha256,
            parameter_count=manifest.parameter_count,
            model_notes=manifest.notes,
            prompts_sha256={id: prompts.sha256[key] for id, key in keys.items()},
            effective={},
            carbon_intensity=None,
            baselines=(),
            load=None,
            windows=(),
            end_s=start_s,
            arrivals_sha256={w.id: w.arrivals_sha256 for w in spec.workloads if w.id in arrivals},
        )
        if reason := _not_needed(spec, out, manifest, prompts):
            result = replace(blank, outcome="not_needed", reason=reason)
        else:
            model = _model_of(spec, manifest, manifest_path)
            result = _metered(blank, machine, model, prompts, arrivals, out, progress.step)
        if not holds_already(spec_path, spec):
            reason = f"{spec_path} was changed or removed while this repeat was measured"
            result = replace(result, outcome="failed", reason=reason)
        write_record(out, result)
        paths.partial(out).unlink(missing_ok=True)
        paths.failure(out).unlink(missing_ok=True)
    simulated = is_simulated(spec.engine_id)  # nobody waits for such seconds
    left_s = None if simulated else _time_left_s(plan_path)
    clock = "simulated" if simulated else ""
    progress.finish(_summary(result), result.end_s - start_s, left_s, clock)
    return result


def planned_arrivals(spec: Spec, path: Path | None) -> dict[str, Arrivals]:
    """Read the arrivals of the spec's timed workloads; only those planned with it will do."""
    timed = {w.id: w.arrivals_sha256 for w in spec.workloads if w.arrivals_sha256}
    if not timed:
        return {}
    if path is None:
        raise RecordError(f"cell {spec.cell}: timed traffic needs --arrivals, none was given")
    known = read_record(ArrivalSet, path).of_block(spec.repeat)
    for id, planned in timed.items():
        found = sha256_json(to_dict(known[id])) if id in known else None
        if found != planned:
            raise RecordError(
                f"{path}: the arrivals of workload {id!r} have the hash {found}, the spec was "
                f"planned with {planned}; run the workflow again, which plans both"
            )
    return {id: known[id] for id in timed}


def machine_for(spec: Spec) -> Machine:
    """Return the machine that a spec is measured on: this one, or a simulated host."""
    if is_simulated(spec.engine_id):
        from llm_energy.measure import simulation

        return simulation.open_host(spec)
    return RealMachine()


def _kept(out: Path, spec: Spec, manifest: ModelManifest, prompts: PromptSet) -> Measurement | None:
    """Return the measurement at ``out`` if it is of this spec, this model and these texts."""
    try:
        if not currency.is_of(currency.read_head(out), spec, vars(manifest), prompts.sha256):
            return None
        found = read_record(Measurement, out)
    except RecordError:
        return None
    # one that failed did not get as far as a score
    same = found.outcome != "ok" or is_score_of(found.quality, prompts.quality)
    return found if same else None


def _not_needed(spec: Spec, out: Path, manifest: ModelManifest, prompts: PromptSet) -> str | None:
    """Say why the cell's earlier repeats make this one unnecessary, or None."""
    if spec.protocol.target_ci_percent is None:
        return None
    from llm_energy.measure import stopping  # here, since all checks come with it

    return stopping.enough(stopping.earlier_values_j(spec, out, manifest, prompts), spec.protocol)


@dataclass(frozen=True)
class _Model:
    """The folder that the engine reads, what a checkpoint is, and why there is nothing to read."""

    folder: Path
    checkpoint: dict[str, Any] | None = None
    refusal: str | None = None


def _model_of(spec: Spec, manifest: ModelManifest, manifest_path: Path) -> _Model:
    """Return the files of the model, or those of the checkpoint that the spec names."""
    folder = paths.files_of(manifest_path)
    if spec.checkpoint is None:
        told = manifest.quantization
        return _Model(folder, refusal=told and quantised_already(spec.asked_precision, told))
    own = paths.quantised_of(folder, spec.asked_precision)
    found = read_record(ModelManifest, paths.manifest_of(own))
    about = {"model_name": found.model_name, "revision": spec.checkpoint["revision"]}
    about |= {k: found.source[k] for k in ("commit", "path") if found.source.get(k)}
    about |= {"weights_sha256": found.weights_sha256, "weight_bytes": found.weight_bytes}
    about |= {"quantization": found.quantization}
    return _Model(own, about, other_model(folder, own))


def _metered(
    blank: Measurement,
    machine: Machine,
    model: _Model,
    prompts: PromptSet,
    arrivals: dict[str, Arrivals],
    out: Path,
    step: Callable[[str], None],
) -> Measurement:
    """Run the repeat under the meter and fill ``blank`` in; keep each stretch that it finishes."""
    if blank.spec.device == "cpu":  # before anything is metered, and before the host is to be idle
        copied = machine.copy_bytes_per_s()
        blank = replace(blank, host=replace(blank.host, copy_bytes_per_s=copied))
    meter = open_meter(
        blank.spec.meter,
        clock=machine.clock,
        wall_clock=machine.wall_clock,
        sleep=machine.sleep,
        sysfs=machine.sysfs,
        procfs=machine.procfs,
        nvml=machine.nvml,
        trace_path=paths.power_trace(out),
        start_sampler=machine.start_sampler,
    )
    try:
        blank = replace(
            blank,
            host=replace(blank.host, gpus=meter.gpus()),
            carbon_intensity=meter.carbon_intensity(),
        )

        def record(repeat: Repeat) -> Measurement:
            return replace(
                blank,
                outcome=repeat.outcome,
                reason=repeat.reason,
                effective=_effective(repeat, model),
                baselines=repeat.baselines,
                load=repeat.load,
                windows=repeat.windows,
                end_s=machine.clock(),
                preflight=repeat.preflight,
                meter=meter.report(),
                quality=repeat.quality,
                readings=meter.readings(),
            )

        def keep(repeat: Repeat) -> None:
            done, asked = len(repeat.windows), len(blank.spec.workloads)
            reason = f"the measuring process was interrupted after {done} of {asked} windows"
            write_record(
                paths.partial(out), replace(record(repeat), outcome="failed", reason=reason)
            )

        repeat = _run(blank.spec, model, prompts, arrivals, machine, meter, out, step, keep)
        meter.close_trace()
        return replace(record(repeat), steps=_write_steps(repeat, paths.steps(out)))
    finally:
        meter.close()


def _write_steps(repeat: Repeat, path: Path) -> StepReport:
    """Write the engine's steps beside the measurement, which stands without them if that fails."""
    told = {id: found for id, found in repeat.steps.items() if not isinstance(found, str)}
    reasons = [found for found in repeat.steps.values() if isinstance(found, str)]
    reason = "; ".join(dict.fromkeys(reasons)) or None
    if not told:
        return StepReport(None, None, reason or "no window gave a result")
    try:
        steps.write(path, steps.StepFile(windows=told))
    except LlmEnergyError as error:
        return StepReport(None, None, str(error))
    return StepReport(str(path), sha256_file(path), reason)


def _effective(repeat: Repeat, model: _Model) -> dict[str, Any]:
    about = {"checkpoint": model.checkpoint} if model.checkpoint else {}
    return (repeat.effective or {}) | about


def _run(
    spec: Spec,
    model: _Model,
    prompts: PromptSet,
    arrivals: dict[str, Arrivals],
    machine: Machine,
    meter: Meter,
    out: Path,
    step: Callable[[str], None],
    keep: Callable[[Repeat], None],
) -> Repeat:
    if model.refusal:
        return Repeat(outcome="unsupported", reason=model.refusal)
    try:
        spread = needs_processes(spec)
        flow = spec.engine.get("flow")
        backend = Spread(spec) if spread else machine.create_backend(spec.engine_id, flow)
    except BackendUnavailable as error:
        return Repeat(outcome="unsupported", reason=str(error))
    return run_repeat(
        spec,
        model.folder,
        {w.id: prompts.requests[w.prompts_key(spec.repeat)] for w in spec.workloads},
        backend,
        meter,
        quality_text=prompts.quality,
        arrivals=arrivals,
        outputs=out.parent,
        keep=keep,
        step=step,
        clock=machine.clock,
        sleep=machine.sleep,
    )


def _summary(result: Measurement) -> str:
    """Say in a few words what came of a repeat."""
    if result.outcome != "ok":
        return f"{result.outcome} ({result.reason})"
    bad = [f"{w.workload} {w.outcome} ({w.reason})" for w in result.windows if w.outcome != "ok"]
    return "; ".join(bad) or "ok"


def _progress(spec: Spec, plan_path: Path, out: Path, scored: bool) -> Progress:
    done, asked = _finished(plan_path)
    others = len({path for found in done.values() for path in found} - {out})
    settings = spec.protocol
    steps = 2 + sum(1 + settings.warmup_min_passes for _ in spec.workloads)
    steps += len(spec.workloads) * (settings.hot_idle_duration_s > 0)
    steps += (settings.deep_idle_duration_s > 0) + 2 * (settings.loaded_idle_duration_s > 0)
    steps += scored
    title = f"{spec.cell} r{spec.repeat:02d}"
    return Progress(title, others + 1, sum(asked.values()), steps)


def _finished(plan_path: Path) -> tuple[dict[str, list[Path]], dict[str, int]]:
    """Return by backend the measurements that stay, newest last, and how many the plan asks for."""
    done: dict[str, list[Path]] = {}
    asked: dict[str, int] = {}
    for cell in read_record(Plan, plan_path).cells:
        pairs = zip(cell.measurements, cell.specs, strict=True)
        done[cell.backend] = done.get(cell.backend, []) + currency.current(pairs)
        asked[cell.backend] = asked.get(cell.backend, 0) + len(cell.specs)
    return {backend: sorted(found, key=_mtime) for backend, found in done.items()}, asked


def _mtime(path: Path) -> float:
    return path.stat().st_mtime


def _time_left_s(plan_path: Path) -> float | None:
    """Estimate the time for what is left by the latest repeats of its backend, or else by all."""
    done, asked = _finished(plan_path)
    known = {backend: _durations_s(found[-RECENT_REPEATS:]) for backend, found in done.items()}
    every = [duration_s for durations_s in known.values() for duration_s in durations_s]
    left = {backend: count - len(done[backend]) for backend, count in asked.items()}
    times = [estimate_left_s(known[one] or every, count) for one, count in left.items() if count]
    return None if None in times else sum(times)


def _durations_s(measurements: Sequence[Path]) -> list[float]:
    found = map(read_json, measurements)
    return [data["end_s"] - data["clock"]["monotonic_s"] for data in found]
