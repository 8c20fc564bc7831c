"""Healthy synthetic records, made consistent with each other, for tests to change."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from llm_energy.analysis.normalise import window_fields
from llm_energy.core.files import sha256_json, write_json
from llm_energy.core.serialize import to_dict
from llm_energy.records import (
    SCHEMA_VERSION,
    Aggregate,
    AggregateRow,
    Clock,
    ComponentEnergy,
    Condition,
    GpuActivity,
    Host,
    HostActivity,
    Interval,
    Measurement,
    MeterReport,
    MeterSettings,
    Metrics,
    MetricsTable,
    ModelManifest,
    Plan,
    PlannedCell,
    Preflight,
    PromptSet,
    Protocol,
    Request,
    RequestTable,
    Spec,
    Statistic,
    TraceSummary,
    Verdict,
    Window,
    Workload,
    write_record,
)
from llm_energy.records.plan import cell_id, files_of

GPU_W, DRAM_W, IDLE_GPU_W = 100.0, 5.0, 50.0
PROMPT_TOKENS, OUTPUT_TOKENS, REQUESTS, PASSES = 4, 8, 2, 2
WINDOW_S, IDLE_S = 40.0, 10.0


def workload(id: str = "b1", **changes: Any) -> Workload:
    """Return a workload of two requests with a forced length; keywords replace parameters."""
    parameters = {
        "model_name": "example/model",
        "fp_precision": "float32",
        "max_output_tokens": OUTPUT_TOKENS,
        "min_output_tokens": OUTPUT_TOKENS,
        "random_seed": 1,
        "decoder": {"do_sample": False, "temperature": 1.0},
        "quantization": {"load_in_4bit": False, "load_in_8bit": False},
        "batching": {"batch_size": int(id[1:]), "strategy": "static", "max_batch_tokens": None},
    }
    return Workload(id, REQUESTS, parameters | changes, {"max_new_tokens": OUTPUT_TOKENS})


def spec(
    precision: str = "float32",
    repeat: int = 1,
    backend: str = "pytorch",
    model: str = "m",
    workloads: Iterable[Workload] = (workload(),),
    **changes: Any,
) -> Spec:
    """Return the spec of one repeat."""
    healthy = Spec(
        schema_version=SCHEMA_VERSION,
        sweep="test",
        cell=f"{model}--{backend}--{precision}",
        model=model,
        backend=backend,
        precision=precision,
        repeat=repeat,
        seed=1,
        device="auto",
        engine={"dtype": "float32"},
        workloads=tuple(workloads),
        notes=(),
        protocol=Protocol(version=2),  # which holds no readings
        meter=MeterSettings(),
    )
    return replace(healthy, **changes)


def energy(duration_s: float, gpu_w: float = GPU_W, dram_w: float = DRAM_W) -> tuple:
    """Return a measured GPU, an estimated memory and a CPU without a sensor."""
    return (
        ComponentEnergy("gpu", "GPU-1", "measured", "nvml_total_energy", gpu_w * duration_s),
        ComponentEnergy("cpu", None, "unavailable", "rapl", None, "powercap is not readable"),
        ComponentEnergy("dram", None, "estimated", "codecarbon", dram_w * duration_s),
    )


def estimated_only(duration_s: float, cpu_w: float = 20.0) -> tuple:
    """Return what a host without any sensor gives."""
    return (
        ComponentEnergy("gpu", None, "unavailable", "nvml", None, "no driver"),
        ComponentEnergy("cpu", None, "estimated", "codecarbon cpu_load", cpu_w * duration_s),
        ComponentEnergy("dram", None, "estimated", "codecarbon", DRAM_W * duration_s),
    )


def gpu_activity(device: str = "GPU-1", **changes: Any) -> GpuActivity:
    """Return a GPU that was warm, free and at its default limit throughout an interval."""
    healthy = GpuActivity(
        device=device,
        temperature_c=(60.0, 62.0),
        sm_clock_mhz=(1980, 1980),
        memory_clock_mhz=(2619, 2619),
        power_limit_w=(300.0, 300.0),
        memory_used_bytes=(2**30, 2**30),
        throttled_s={"power": 0.0, "thermal": 0.0, "hw_thermal": 0.0, "power_brake": 0.0},
        foreign_processes=(),
        own_process_seen=True,
    )
    return replace(healthy, **changes)


def host_activity(duration_s: float = WINDOW_S, **changes: Any) -> HostActivity:
    """Return what a host with two processors does that serves one engine and nothing else."""
    healthy = HostActivity(
        busy_s=1.05 * duration_s,
        own_busy_s=1.0 * duration_s,
        steal_s=0.0,
        stalled_s=0.01 * duration_s,
        pages_swapped_in=0,
        major_faults=0,
        disk_read_bytes=20_000,
        wall_clock_step_s=1e-4,
    )
    return replace(healthy, **changes)


def sampled(part: ComponentEnergy, duration_s: float, **changes: Any) -> TraceSummary:
    """Return the trace of a GPU that agrees with its counter, sampled ten times a second."""
    healthy = TraceSummary(
        device=part.device,
        samples=max(0, int(10 * duration_s)),
        longest_gap_s=0.11,
        energy_j=part.energy_j,
        max_power_w=150.0,
        max_temperature_c=62.0,
        clock_event_reasons=0,
        utilization_percent=97.0,
    )
    return replace(healthy, **changes)


def interval(
    name: str, start_s: float, duration_s: float, parts: tuple | None = None, **changes: Any
) -> Interval:
    """Return an interval; its energy is that of a busy GPU unless ``parts`` says otherwise.

    Its measured GPUs have an activity and a trace, without load where the name says idle.
    """
    parts = parts or energy(duration_s)
    gpus = [p for p in parts if p.component == "gpu" and p.status == "measured"]
    busy = {"utilization_percent": 0.0} if name.endswith(("idle", "before", "after")) else {}
    seen = {"own_process_seen": False} if name == "deep_idle" else {}
    healthy = Interval(
        name,
        start_s,
        start_s + duration_s,
        parts,
        boards=tuple(gpu_activity(str(part.device), **seen) for part in gpus),
        host=host_activity(duration_s),
        trace=tuple(sampled(part, duration_s, **busy) for part in gpus),
    )
    return replace(healthy, **changes)


def request_table(start_s: float, duration_s: float = WINDOW_S, **changes: Any) -> RequestTable:
    """Return rows of two passes; the first token comes after a tenth of a pass, the last at 0.8.

    TTFT is 2 s, end-to-end latency 16 s and TPOT 2 s in a window of 40 s.
    """
    rows, pass_s = REQUESTS * PASSES, duration_s / PASSES
    begins = [start_s + pass_s * (k // REQUESTS) for k in range(rows)]
    healthy = RequestTable(
        request_id=tuple(f"q{k % REQUESTS}" for k in range(rows)),
        prompt_tokens=(PROMPT_TOKENS,) * rows,
        padding_tokens=(0,) * rows,
        cached_prompt_tokens=(0,) * rows,
        output_tokens=(OUTPUT_TOKENS,) * rows,
        finish_reason=("length",) * rows,
        arrival_s=tuple(begins),
        first_token_s=tuple(begin + 0.1 * pass_s for begin in begins),
        last_token_s=tuple(begin + 0.8 * pass_s for begin in begins),
        service_start_s=tuple(begins),
    )
    return replace(healthy, **changes)


def window(workload: str = "b1", start_s: float = 1020.0, **changes: Any) -> Window:
    """Return the window of one workload."""
    healthy = Window(
        workload=workload,
        order=0,
        outcome="ok",
        reason=None,
        warmup_durations_s=(20.0, 20.0, 20.0),
        warmup_converged=True,
        passes=PASSES,
        interval=interval("window", start_s, WINDOW_S),
        requests=request_table(start_s),
        output_token_ids={f"q{k}": tuple(range(OUTPUT_TOKENS)) for k in range(REQUESTS)},
        effective={},
        warmup_trend=0.0,
        thermal_wait_s=5.0,
        temperature_slope_c_per_10s=0.2,
    )
    return replace(healthy, **changes)


def host(**changes: Any) -> Host:
    """Return a host with one GPU."""
    healthy = Host(
        hostname="node1",
        boot_id="boot-1",
        os="Linux",
        kernel="6.1",
        cpu_model="cpu",
        cpu_count=2,
        memory_bytes=2**34,
        gpus=(gpu(),),
        python="3.11",
        packages={"torch": "2.13.0"},
        git_commit="0" * 40,
        git_dirty=False,
        settings={"governor": "performance", "smt": True, "turbo": True},
    )
    return replace(healthy, **changes)


def gpu(**changes: Any) -> dict[str, Any]:
    """Return the identity and the settings of the host's GPU."""
    healthy = {
        "uuid": "GPU-1",
        "name": "board",
        "driver_version": "590.48.01",
        "vbios": "96.00",
        "power_limit_w": 300.0,
        "default_power_limit_w": 300.0,
        "persistence_mode": True,
        "ecc_mode": True,
        "mig_mode": False,
    }
    return healthy | changes


def preflight(*unmet: str) -> Preflight:
    """Return a preflight whose conditions all hold, except those that are named."""
    names = ("board_processes", "board_memory", "host_load", "disk")
    conditions = (Condition(n, n not in unmet, "as found", "as allowed") for n in names)
    return Preflight(0.0, tuple(conditions))


def meter_report(**changes: Any) -> MeterReport:
    """Return the report of a meter with a counter that ticks as usual and a whole trace."""
    healthy = MeterReport({"GPU-1": 0.1}, "r01.trace.csv.gz", "f" * 64, None, False)
    return replace(healthy, **changes)


def model_folder(folder: Path, **config: Any) -> Path:
    """Make a folder that has what makes a model, but nothing in it; ``config`` is its config."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("model.safetensors", "tokenizer.json", "chat_template.jinja"):
        (folder / name).touch()
    write_json(folder / "config.json", config)
    return folder


def prompt_set(model: str = "m", workloads: Sequence[str] = ("b1",)) -> PromptSet:
    """Return the prompts that ``window`` served."""
    requests = tuple(Request(f"q{k}", (k, *range(PROMPT_TOKENS - 1))) for k in range(REQUESTS))
    return PromptSet(
        schema_version=SCHEMA_VERSION,
        model=model,
        tokenizer_sha256="t" * 64,
        source={"kind": "builtin"},
        requests=dict.fromkeys(workloads, requests),
        sha256=dict.fromkeys(workloads, sha256_json([r.identity() for r in requests])),
    )


def manifest(model: str = "m", **changes: Any) -> ModelManifest:
    """Return the manifest of a model with a thousand parameters."""
    healthy = ModelManifest(
        schema_version=SCHEMA_VERSION,
        model=model,
        model_name="example/model",
        source={"kind": "folder"},
        files={"model.safetensors": "w" * 64},
        weights_sha256="w" * 64,
        tokenizer_sha256="t" * 64,
        weight_bytes=4000,
        parameter_count=1000,
        dtype="float32",
        converted_by=None,
        notes=(),
    )
    return replace(healthy, **changes)


def measurement(spec: Spec | None = None, start_s: float | None = None, **changes: Any):
    """Return the measurement of one repeat; repeats of one cell don't overlap in time."""
    asked = spec or globals()["spec"]()
    start_s = 1000.0 * asked.repeat if start_s is None else start_s
    idle = energy(IDLE_S, IDLE_GPU_W)
    names = [w.id for w in asked.workloads]
    healthy = Measurement(
        schema_version=SCHEMA_VERSION,
        spec=asked,
        spec_sha256=sha256_json(to_dict(asked)),
        outcome="ok",
        reason=None,
        clock=Clock(start_s, "2026-01-01T00:00:00.000+00:00"),
        lock_wait_s=0.0,
        host=host(),
        weights_sha256="w" * 64,
        tokenizer_sha256="t" * 64,
        prompts_sha256=prompt_set(asked.model, names).sha256,
        effective={"dtype": "float32", "weight_bytes": 4000, "device_uuids": ["GPU-1"]},
        carbon_intensity={"g_per_kwh": 360.0, "source": "config"},
        baselines=(
            interval("deep_idle", start_s, IDLE_S, energy(IDLE_S, 20.0)),
            interval("loaded_idle_before", start_s + 10, IDLE_S, idle),
            interval("loaded_idle_after", start_s + 500, IDLE_S, idle),
        ),
        load=None,
        windows=tuple(window(name, start_s + 20 + 60 * k, order=k) for k, name in enumerate(names)),
        end_s=start_s + 510,
        preflight=preflight(),
        meter=meter_report(),
    )
    return replace(healthy, **changes)


def verdict(measurement: Measurement | None = None, **changes: Any) -> Verdict:
    """Return a valid verdict on the first window of a measurement."""
    judged = (measurement or globals()["measurement"]()).spec
    healthy = Verdict(
        cell=judged.cell,
        repeat=judged.repeat,
        workload=judged.workloads[0].id,
        outcome="ok",
        reason=None,
        measurement=f"measurements/{judged.cell}/r{judged.repeat:02d}.json",
        measurement_sha256="f" * 64,
        verdict="valid",
        flags=(),
    )
    return replace(healthy, **changes)


def window_metrics(measurement: Measurement, verdict: Verdict) -> Iterator[Metrics]:
    """Return the rows of one window as the normalise stage does, without files around it."""
    return (Metrics(**fields) for fields, _ in window_fields(measurement, verdict, {}))


def metrics(
    value_j: float = 0.5, repeat: int = 1, backend: str = "pytorch", **changes: Any
) -> Metrics:
    """Return one row of metrics with ``value_j`` joules per output token."""
    precision, model = changes.get("precision", "float32"), changes.get("model", "m")
    tokens = REQUESTS * PASSES * OUTPUT_TOKENS
    cell = f"{model}--{backend}--{precision}"
    healthy = Metrics(
        cell=cell,
        model=model,
        backend=backend,
        precision=precision,
        workload="b1",
        batch_size=1,
        repeat=repeat,
        verdict="valid",
        flags=(),
        energy_status="measured",
        components=("gpu",),
        duration_s=WINDOW_S,
        passes=PASSES,
        requests=REQUESTS * PASSES,
        prompt_tokens=REQUESTS * PASSES * PROMPT_TOKENS,
        output_tokens=tokens,
        gross_energy_j=value_j * tokens,
        net_energy_j=value_j * tokens / 2,
        net_reason=None,
        mean_power_w=value_j * tokens / WINDOW_S,
        loaded_idle_power_w=value_j * tokens / WINDOW_S / 2,
        energy_per_output_token_j=value_j,
        energy_per_total_token_j=value_j * 2 / 3,
        energy_per_request_j=value_j * OUTPUT_TOKENS,
        net_energy_per_output_token_j=value_j / 2,
        co2e_g_per_output_token=value_j / 1e4,
        output_tokens_per_s=tokens / WINDOW_S,
        ttft_s=2.0,
        tpot_s=2.0,
        e2e_latency_s=16.0,
        hostname="node1",
        measurement=f"{backend}/{cell}/r{repeat:02d}.json",
        measurement_sha256="f" * 64,
    )
    return replace(healthy, **changes)


def metrics_table(
    rows: Iterable[Metrics], without: Iterable[Verdict] = (), **changes: Any
) -> MetricsTable:
    """Return the metrics of the backend of the first row."""
    rows, without = tuple(rows), tuple(without)
    backend = rows[0].backend if rows else without[0].cell.split("--")[1]
    return replace(MetricsTable(SCHEMA_VERSION, "test", backend, rows, without), **changes)


def aggregate_row(**changes: Any) -> AggregateRow:
    """Return one aggregated row of five repeats."""
    healthy = AggregateRow(
        cell="m--pytorch--float32",
        model="m",
        backend="pytorch",
        precision="float32",
        workload="b1",
        batch_size=1,
        outcome="ok",
        reason=None,
        energy_status="measured",
        components=("gpu",),
        n=5,
        degraded=0,
        statistics={
            "energy_per_output_token_j": Statistic(5, 0.123456, 0.01, 0.111, 0.1358),
            "net_energy_per_output_token_j": Statistic(5, 0.05, 0.01, 0.04, 0.06),
            "output_tokens_per_s": Statistic(5, 83.456, 1.0, 80.0, 86.9),
            "ttft_s": Statistic(5, 0.25, 0.01, 0.24, 0.26),
        },
        excluded=(),
        flags=(),
        hosts=("node1",),
        measurements=("a.json", "b.json"),
    )
    return replace(healthy, **changes)


def unusable_row(outcome: str = "unsupported", reason: str = "no kernel", **changes: Any):
    """Return the row of a cell without any usable window."""
    nothing = {"energy_status": "unavailable", "components": (), "n": 0, "statistics": {}}
    nothing |= {"outcome": outcome, "reason": reason, "measurements": (), "hosts": ()}
    return aggregate_row(**(nothing | changes))


def aggregate(rows: Iterable[AggregateRow], backend: str = "pytorch", **changes: Any) -> Aggregate:
    """Return an aggregate of rows."""
    return replace(Aggregate(SCHEMA_VERSION, "test", backend, tuple(rows)), **changes)


def plan(
    cells: Iterable[tuple[str, str]],
    repeats: int = 2,
    workloads=("b1",),
    sweep: str = "test",
    **changes,
) -> Plan:
    """Return the plan of (backend, precision) cells; a precision with a "!" is unsupported."""
    names = tuple(f"r{k:02d}" for k in range(1, repeats + 1))
    planned = []
    for backend, precision in cells:
        asked = ("m", backend, precision.rstrip("!"))
        reason = f"{backend} has no {asked[2]}" if precision.endswith("!") else None
        planned.append(planned_cell(asked, () if reason else names, workloads, reason, sweep))
    return Plan(sweep=sweep, cells=tuple(planned), **changes)


def planned_cell(
    axes: tuple[str, str, str],
    repeats: Iterable[str],
    workloads=("b1",),
    reason: str | None = None,
    sweep: str = "test",
) -> PlannedCell:
    """Return the cell of (model, backend, precision); with a reason it is unsupported."""
    cell, names = cell_id(*axes), tuple(repeats)
    outcome = "unsupported" if reason else "planned"
    files = files_of(sweep, cell, axes[1], names)
    return PlannedCell(cell, *axes, outcome, reason, tuple(workloads), names, *files)


def write_sweep(root: Path, measurements: Iterable[Measurement], grid: Plan | None = None) -> Path:
    """Write measurements with the specs, model and prompts around them; give the plan's path.

    ``root`` becomes the working folder until the test ends: paths in a plan are relative to it.
    """
    measurements = list(measurements)
    folder = root / "results" / "test"
    specs = [m.spec for m in measurements]
    cells = dict.fromkeys((s.backend, s.precision) for s in specs)
    names = list(dict.fromkeys(w.id for s in specs for w in s.workloads)) or ["b1"]
    repeats = max((s.repeat for s in specs), default=2)
    grid = grid or plan(cells, repeats, names)
    for one in measurements:
        place = f"{one.spec.cell}/r{one.spec.repeat:02d}.json"
        write_record(folder / "specs" / place, one.spec)
        write_record(folder / one.spec.backend / "measurements" / place, one)
    write_record(root / "results" / "models" / "m" / "manifest.json", manifest())
    write_record(folder / "prompts" / "m.json", prompt_set("m", names))
    write_record(folder / "plan.json", grid)
    os.chdir(root)
    return folder / "plan.json"
