"""Whole repeats on a simulated host: the real protocol under the real meter, without files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

from support import builders

from llm_energy.core.files import sha256_file, sha256_json
from llm_energy.core.serialize import to_dict
from llm_energy.measure import host as real_host
from llm_energy.measure.protocol import run_repeat
from llm_energy.measure.simulation.host import SimulatedHost
from llm_energy.measure.simulation.sampler import VirtualSampler
from llm_energy.measure.simulation.truth import GpuTruth, PackageTruth, Truth
from llm_energy.meter.meter import open_meter
from llm_energy.records import (
    Arrivals,
    Clock,
    Measurement,
    MeterSettings,
    Protocol,
    Request,
    Spec,
    StepReport,
    Workload,
    steps,
)
from llm_energy.records.files import paths
from llm_energy.records.steps import StepTable

NOWHERE = Path("/nonexistent")


def simulated_workload(
    id: str = "b8", requests: int = 16, output_tokens: int = 64, strategy: str = "static", **more
) -> Workload:
    """Return a workload of forced length; the batch size is the number in its id."""
    lengths = {"max_output_tokens": output_tokens, "min_output_tokens": output_tokens}
    batching = {"batch_size": int(id[1:]), "strategy": strategy, "max_batch_tokens": None}
    base = builders.workload(id)
    parameters = base.parameters | {"fp_precision": "bfloat16", "batching": batching} | lengths
    return Workload(id, requests, parameters | more, {})


def simulated_spec(*workloads: Workload, repeat: int = 1, seed: int = 1, **protocol) -> Spec:
    """Return the spec of one repeat on a simulated host; keywords set the protocol's values."""
    return builders.spec(
        precision="bfloat16",
        repeat=repeat,
        backend="simulated",
        workloads=workloads or (simulated_workload(),),
        seed=seed,
        device="cuda",
        engine={"dtype": "bfloat16"},
        protocol=Protocol(**protocol),
        meter=MeterSettings(codecarbon=False, carbon_intensity_g_per_kwh=400.0),
    )


def prompts_of(spec: Spec, tokens: int = 100) -> dict[str, tuple[Request, ...]]:
    """Return each workload its prompts, of slightly different lengths."""
    return {
        workload.id: tuple(
            Request(f"q{k}", tuple(range(8, 8 + tokens + k % 7))) for k in range(workload.requests)
        )
        for workload in spec.workloads
    }


class _Unwritten(VirtualSampler):
    def stop(self) -> None:
        return None


def _sample_unwritten(host: SimulatedHost, path: Path, period_s: float, devices: Sequence[str]):
    gpus = [gpu for gpu in host.gpus if gpu.uuid in devices]
    return _Unwritten(path, period_s, gpus, lambda: host.now_s, host.sampler_pauses)


def run(
    host: SimulatedHost,
    spec: Spec,
    requests: dict[str, tuple[Request, ...]] | None = None,
    trace_path: Path | None = None,
    arrivals: Mapping[str, Arrivals] | None = None,
) -> Measurement:
    """Measure ``spec`` on ``host`` and give the record, as the measuring process would write it.

    Without a ``trace_path`` the power is sampled all the same, and no trace written.
    """
    return run_with_steps(host, spec, requests, trace_path, arrivals)[0]


def run_with_steps(
    host: SimulatedHost,
    spec: Spec,
    requests: dict[str, tuple[Request, ...]] | None = None,
    trace_path: Path | None = None,
    arrivals: Mapping[str, Arrivals] | None = None,
) -> tuple[Measurement, dict[str, StepTable]]:
    """Measure as ``run`` does; give the engine's steps by workload besides."""
    requests = requests or prompts_of(spec)
    start_s = host.clock()
    meter = open_meter(
        spec.meter,
        clock=host.clock,
        wall_clock=host.wall_clock,
        sleep=host.sleep,
        sysfs=host.sysfs,
        procfs=host.procfs,
        nvml=host.nvml,
        trace_path=trace_path or NOWHERE,
        start_sampler=host.start_sampler if trace_path else partial(_sample_unwritten, host),
    )
    gpus = meter.gpus()
    backend = host.create_backend("simulated")
    timed = arrivals or {}
    repeat = run_repeat(
        spec,
        NOWHERE,
        requests,
        backend,
        meter,
        arrivals=timed,
        clock=lambda: host.now_s,  # the engine reads no file, so that these need not be renewed
        sleep=host.sleep,
    )
    meter.close_trace()
    report, readings = meter.report(), meter.readings()
    meter.close()
    blank = builders.measurement(spec, start_s)
    measurement = replace(
        blank,
        spec_sha256=sha256_json(to_dict(spec)),
        outcome=repeat.outcome,
        reason=repeat.reason,
        clock=Clock(start_s, "2026-01-01T00:00:00.000+00:00"),
        host=builders.host(
            hostname="simulated",
            boot_id=None,
            cpu_count=host.truth.cpu_count,
            gpus=gpus,
            settings=real_host.settings(host.sysfs, host.procfs),
        ),
        prompts_sha256={
            id: sha256_json([[r.id, r.prompt_token_ids] for r in rows])
            for id, rows in requests.items()
        },
        effective=repeat.effective or {},
        parameter_count=host.truth.engine.parameter_count,
        carbon_intensity={"g_per_kwh": 400.0, "source": "config"},
        baselines=repeat.baselines,
        load=repeat.load,
        windows=repeat.windows,
        end_s=host.clock(),
        preflight=repeat.preflight,
        meter=report,
        readings=readings,
        arrivals_sha256={id: sha256_json(to_dict(one)) for id, one in timed.items()},
    )
    return measurement, repeat.steps


def with_step_file(
    measurement: Measurement, found: dict[str, StepTable], place: Path
) -> Measurement:
    """Write the steps beside where the measurement will be, and name the file in it."""
    path = paths.steps(place.with_name(f"{place.name.partition('.')[0]}.json"))
    steps.write(path, steps.StepFile(windows=found))
    return replace(measurement, steps=StepReport(str(path), sha256_file(path)))


def draw_truth(seed: int) -> Truth:
    """Draw a healthy host: one to four GPUs of some power, with or without CPU counters."""
    random = Random(f"truth {seed}")
    scale = random.uniform(0.4, 1.0)
    default = GpuTruth()
    gpu = GpuTruth(
        deep_idle_w=default.deep_idle_w * scale * random.uniform(0.8, 1.2),
        loaded_idle_w=default.loaded_idle_w * scale * random.uniform(0.9, 1.1),
        load_w=default.load_w * scale,
        prefill_w=default.prefill_w * scale,
        decode_w=(default.decode_w[0] * scale, default.decode_w[1] * scale),
        limit_w=round(default.limit_w * scale),
        default_limit_w=round(default.limit_w * scale),
        noise_sd=random.uniform(0.005, 0.02),
        noise_time_s=random.uniform(0.1, 0.5),
        tick_s=random.choice((0.02, 0.05, 0.1)),
    )
    package = PackageTruth(
        idle_w=random.uniform(30, 100),
        core_w=random.uniform(3, 10),
        dram_w=random.choice((None, (random.uniform(5, 15), random.uniform(15, 30)))),
        dies=random.choice((1, 1, 2)),
    )
    return Truth(
        gpus=(gpu,) * random.choice((1, 1, 2, 4)),
        packages=(package,) * random.choice((0, 1, 2)),
    )
