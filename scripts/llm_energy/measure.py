"""Measure one repeat of one cell: obey the spec, hold the host, write what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from llm_energy import backends, host
from llm_energy.conversion import to_dict
from llm_energy.errors import BackendUnavailable, RecordError
from llm_energy.files import exclusive_host, read_json, sha256_json
from llm_energy.meter import Meter, open_meter
from llm_energy.progress import Progress, estimate_left_s
from llm_energy.protocol import Repeat, run_repeat
from llm_energy.records import (
    SCHEMA_VERSION,
    Clock,
    Measurement,
    ModelManifest,
    PromptSet,
    Spec,
    read_record,
    write_record,
)

RECENT_REPEATS = 20  # how many finished repeats the estimate of the time left looks at


def measure(
    spec_path: Path,
    manifest_path: Path,
    prompts_path: Path,
    plan_path: Path,
    out: Path,
    repository: Path,
) -> Measurement:
    """Measure the repeat that ``spec_path`` describes and write its Measurement to ``out``.

    While it runs, what is finished lies in ``<out>.partial.json``; that file goes once ``out`` is
    whole. Waits for the host-wide lock before anything is metered.
    """
    spec = read_record(Spec, spec_path)
    manifest = read_record(ModelManifest, manifest_path)
    prompts = read_record(PromptSet, prompts_path)
    missing = [w.id for w in spec.workloads if w.id not in prompts.requests]
    if missing:
        raise RecordError(f"{prompts_path}: no prompts for workload {missing[0]!r}")
    partial = out.with_suffix(".partial.json")
    progress = _progress(spec, plan_path)

    with exclusive_host() as lock_wait_s:
        start = Clock(time.monotonic(), datetime.now(UTC).isoformat(timespec="milliseconds"))
        meter = open_meter(spec.meter)
        try:
            machine = host.describe(repository, meter.gpus())

            def record(repeat: Repeat) -> Measurement:
                return Measurement(
                    schema_version=SCHEMA_VERSION,
                    spec=spec,
                    spec_sha256=sha256_json(to_dict(spec)),
                    outcome=repeat.outcome,
                    reason=repeat.reason,
                    clock=start,
                    lock_wait_s=lock_wait_s,
                    host=machine,
                    weights_sha256=manifest.weights_sha256,
                    tokenizer_sha256=manifest.tokenizer_sha256,
                    prompts_sha256={w.id: prompts.sha256[w.id] for w in spec.workloads},
                    effective=repeat.effective or {},
                    carbon_intensity=meter.carbon_intensity(),
                    baselines=repeat.baselines,
                    load=repeat.load,
                    windows=repeat.windows,
                    end_s=time.monotonic(),
                )

            def keep(repeat: Repeat) -> None:
                write_record(partial, record(repeat))

            result = record(
                _run(spec, manifest_path.parent / "files", prompts, meter, progress, keep)
            )
        finally:
            meter.close()
    write_record(out, result)
    partial.unlink(missing_ok=True)
    duration_s = result.end_s - start.monotonic_s
    progress.finish(_summary(result), duration_s, _time_left_s(plan_path))
    return result


def _run(
    spec: Spec,
    model_folder: Path,
    prompts: PromptSet,
    meter: Meter,
    progress: Progress,
    keep: Callable[[Repeat], None],
) -> Repeat:
    try:
        backend = backends.create(spec.backend)
    except BackendUnavailable as error:
        return Repeat(outcome="unsupported", reason=str(error))
    return run_repeat(
        spec, model_folder, prompts.requests, backend, meter, keep=keep, step=progress.step
    )


def _summary(result: Measurement) -> str:
    """Say in a few words what came of a repeat."""
    if result.outcome != "ok":
        return f"{result.outcome} ({result.reason})"
    bad = [f"{w.workload} {w.outcome} ({w.reason})" for w in result.windows if w.outcome != "ok"]
    return "; ".join(bad) or "ok"


def _progress(spec: Spec, plan_path: Path) -> Progress:
    done, total = _finished(plan_path)
    settings = spec.protocol
    steps = 1 + sum(1 + settings.warmup_min_passes for _ in spec.workloads)
    steps += (settings.deep_idle_duration_s > 0) + 2 * (settings.loaded_idle_duration_s > 0)
    title = f"{spec.cell} r{spec.repeat:02d}"
    return Progress(title, len(done) + 1, total, steps)


def _finished(plan_path: Path) -> tuple[list[Path], int]:
    """Give the measurements that exist, newest last, and how many the plan asks for."""
    wanted = [Path(p) for cell in read_json(plan_path)["cells"] for p in cell["measurements"]]
    done = sorted((p for p in wanted if p.exists()), key=lambda p: p.stat().st_mtime)
    return done, len(wanted)


def _time_left_s(plan_path: Path) -> float | None:
    done, total = _finished(plan_path)
    durations = []
    for path in done[-RECENT_REPEATS:]:
        data = read_json(path)
        durations.append(data["end_s"] - data["clock"]["monotonic_s"])
    return estimate_left_s(durations, total - len(done))
