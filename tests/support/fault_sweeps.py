"""Small sweeps on simulated hosts, healthy and varied, and what the validate stage says of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

from support import builders, simulated_runs

from llm_energy.analysis.validate import validate
from llm_energy.core.files import sha256_json
from llm_energy.core.serialize import to_dict
from llm_energy.inputs.traffic.arrivals import complete, make_arrivals
from llm_energy.measure.simulation.host import SimulatedHost
from llm_energy.measure.simulation.truth import Truth
from llm_energy.records import (
    SCHEMA_VERSION,
    Arrivals,
    Measurement,
    Plan,
    PromptSet,
    Request,
    Severity,
    Spec,
    write_record,
)

# So that physical floor and published measurements apply, which know GPUs and models by these.
GPU = "NVIDIA H100 80GB HBM3"
LLAMA_8B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128_256,
    "tie_word_embeddings": False,
}
PARAMETERS = 8_030_261_248
SAMPLING_PERIOD_S = 0.1

Disturb = Callable[[SimulatedHost], None]


@dataclass(frozen=True)
class Setting:
    """What one simulated repeat is: its host, its workload, its protocol and its prompts."""

    truth: Truth
    batch_size: int = 8
    requests: int = 16
    output_tokens: int = 64
    least_tokens: int = 64
    strategy: str = "static"
    in_8_bits: bool = False
    devices: int = 1
    prompt_tokens: tuple[int, ...] = (100,)
    traffic: dict[str, Any] | None = None
    protocol: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)

    def on_gpus(self, **changes: Any) -> Setting:
        """Change every GPU."""
        gpus = tuple(replace(gpu, **changes) for gpu in self.truth.gpus)
        return replace(self, truth=replace(self.truth, gpus=gpus))

    def on_host(self, **changes: Any) -> Setting:
        """Change what is true of the host."""
        return replace(self, truth=replace(self.truth, **changes))

    def on_engine(self, **changes: Any) -> Setting:
        """Change what is true of the engine."""
        return self.on_host(engine=replace(self.truth.engine, **changes))

    def reporting(self, **changes: Any) -> Setting:
        """Let the engine report something more of itself."""
        return self.on_engine(effective=self.truth.engine.effective | changes)

    def spec(self, repeat: int) -> Spec:
        """Return the spec of one repeat."""
        workload = simulated_runs.simulated_workload(
            f"b{self.batch_size}",
            self.requests,
            self.output_tokens,
            self.strategy,
            min_output_tokens=self.least_tokens,
            quantization={"load_in_8bit": self.in_8_bits, "load_in_4bit": False},
            sharding={"strategy": "none", "num_devices": self.devices},
            traffic_simulation=self.traffic,
        )
        workload = replace(workload, arrivals_sha256=self.arrivals() and "a" * 64)
        spec = simulated_runs.simulated_spec(workload, repeat=repeat, **self.protocol)
        meter = replace(spec.meter, sampling_period_s=SAMPLING_PERIOD_S)
        return replace(spec, meter=meter, arguments=self.arguments)

    def arrivals(self) -> Arrivals | None:
        """Return the arrivals of timed traffic."""
        return self.traffic and make_arrivals(self.traffic)

    def prompts(self) -> tuple[Request, ...]:
        """Return the prompts, whose lengths are those of ``prompt_tokens`` in turn."""
        lengths = self.prompt_tokens
        return tuple(
            Request(f"q{k}", tuple(range(8, 8 + lengths[k % len(lengths)])))
            for k in range(self.requests)
        )


def healthy_setting(seed: int) -> Setting:
    """Draw a setting in which nothing is wrong."""
    random = Random(f"setting {seed}")
    truth = simulated_runs.draw_truth(seed)
    batch_size = random.choice((1, 4, 8, 16, 32))
    strategy = random.choice(("static", "dynamic"))
    output_tokens = random.choice((32, 64, 128, 256))
    shortest = random.randint(20, 300)
    setting = Setting(
        truth=truth,
        batch_size=batch_size,
        requests=batch_size * (8 if strategy == "dynamic" else random.choice((2, 3))),
        output_tokens=output_tokens,
        least_tokens=random.choice((output_tokens,) * 3 + (1,)),
        strategy=strategy,
        in_8_bits=random.random() < 0.2,
        devices=random.choice((1, len(truth.gpus))),
        prompt_tokens=tuple(shortest + random.randint(0, shortest // 4) for _ in range(7)),
    )
    setting = setting.on_gpus(name=GPU).on_engine(parameter_count=PARAMETERS)
    return setting.reporting(architecture=LLAMA_8B)


def arriving(mode: str, **traffic: Any) -> Callable[[Setting], Setting]:
    """Return a change to timed traffic over a window of 30 s."""
    asked = complete({"mode": mode, "ramp_s": 5.0} | traffic, 30.0)
    return lambda setting: replace(setting, traffic=asked)


def measure(
    setting: Setting, repeat: int, seed: int, disturb: Disturb | None = None
) -> Measurement:
    """Measure one repeat on a simulated host of its own, which ``disturb`` may meddle with."""
    host = SimulatedHost(setting.truth, 1000 * seed + repeat)
    try:
        if disturb is not None:
            disturb(host)
        spec = setting.spec(repeat)
        requests = {spec.workloads[0].id: setting.prompts()}
        arrivals = setting.arrivals()
        timed = {spec.workloads[0].id: arrivals} if arrivals else None
        return simulated_runs.run(host, spec, requests, arrivals=timed)
    finally:
        host.close()


def write_sweep(
    measurements: Sequence[Measurement], setting: Setting, folder: Path
) -> tuple[Path, list[Path]]:
    """Write a sweep as the pipeline would; give the plan's path and the measurements'."""
    sweep, paths = folder / "results" / "test", []
    for one in measurements:
        place = f"{one.spec.cell}/r{one.spec.repeat:02d}.json"
        paths.append(sweep / "simulated" / "measurements" / place)
        write_record(sweep / "specs" / place, one.spec)
        write_record(paths[-1], one)
    manifest = builders.manifest(parameter_count=PARAMETERS)
    write_record(folder / "results" / "models" / "m" / "manifest.json", manifest)
    workload = measurements[0].spec.workloads[0].id
    requests = setting.prompts()
    prompts = PromptSet(
        schema_version=SCHEMA_VERSION,
        model="m",
        tokenizer_sha256="t" * 64,
        source={"kind": "simulated"},
        requests={workload: requests},
        sha256={workload: sha256_json([[r.id, r.prompt_token_ids] for r in requests])},
    )
    write_record(sweep / "prompts" / "m.json", prompts)
    repeats: dict[str, list[str]] = {}
    for one in measurements:
        repeats.setdefault(one.spec.cell, []).append(f"r{one.spec.repeat:02d}")
    cells = [
        builders.planned_cell(tuple(cell.split("--")), names, [workload])
        for cell, names in repeats.items()
    ]
    write_record(sweep / "plan.json", Plan(sweep="test", cells=tuple(cells)))
    os.chdir(folder)
    return sweep / "plan.json", paths


def judge(plan_path: Path) -> dict[str, set[Severity]]:
    """Return the ids of all flags that the validate stage raises, each with its severities."""
    found: dict[str, set[Severity]] = {}
    for verdict in validate("test", "simulated", plan_path).verdicts:
        for flag in verdict.flags:
            found.setdefault(flag.id, set()).add(flag.severity)
    return found


def as_repeat(measurement: Measurement, repeat: int, cell: str | None = None) -> Measurement:
    """Pass a measurement off as another repeat, or as one of another cell."""
    spec = replace(measurement.spec, repeat=repeat, cell=cell or measurement.spec.cell)
    return replace(measurement, spec=spec, spec_sha256=sha256_json(to_dict(spec)))
