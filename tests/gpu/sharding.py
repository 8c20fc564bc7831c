"""Serve one small model on two GPUs in every way, and hold ids, GPUs and joules together.

    python tests/gpu/sharding.py FOLDER

Needs a host with two NVIDIA GPUs and the packages of the PyTorch backend. Each way is measured by
scripts/measure.py as the workflow would; a check that fails ends the script with status 1.
"""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / part) for part in ("scripts", "tests", "tests/engines")]

from support import builders
from support.subject import parameters

from llm_energy.backends.compatibility import translate
from llm_energy.core.files import sha256_json
from llm_energy.records import (
    SCHEMA_VERSION,
    Measurement,
    MeterSettings,
    Plan,
    PromptSet,
    Protocol,
    QualityText,
    Request,
    Sharding,
    Spec,
    Workload,
    read_record,
    write_record,
)

WAYS = ("none", "tensor_parallel", "device_map", "data_parallel")
VOCABULARY, REQUESTS, BATCH_SIZE = 2048, 8, 4
PROTOCOL = Protocol(
    preflight_max_wait_s=5,
    window_min_duration_s=5,
    deep_idle_duration_s=2,
    loaded_idle_duration_s=2,
    hot_idle_duration_s=2,
    warmup_min_passes=1,
    warmup_max_passes=2,
    thermal_policy="none",
)


def write_model(folder: Path) -> None:
    """Write a Llama of random weights, large enough to be spread, whose likeliest tokens lead."""
    import torch
    import transformers

    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=512,
        intermediate_size=1024,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=4,
        initializer_range=0.2,
        eos_token_id=None,
        pad_token_id=0,
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)


def spec_of(way: str) -> Spec:
    """Return the spec that the plan stage would make for one way of sharding."""
    sharding = Sharding(way, 1 if way == "none" else 2)
    asked = parameters(max_output_tokens=32, batch_size=BATCH_SIZE)
    asked["sharding"] = {"strategy": way, "num_devices": sharding.num_devices}
    native = translate(asked, "pytorch", None, "cuda")
    return Spec(
        schema_version=SCHEMA_VERSION,
        sweep="sharding",
        cell=f"small--pytorch--{way}",
        model="small",
        backend="pytorch",
        precision="float32",
        repeat=1,
        seed=1,
        device="cuda",
        engine=native.load,
        workloads=(Workload("b4", REQUESTS, asked, native.generate),),
        notes=(),
        protocol=PROTOCOL,
        meter=MeterSettings(codecarbon=False),
        sharding=sharding,
    )


def prompts() -> PromptSet:
    """Return prompts of random ids, and a text of such to score."""
    chance = random.Random(1)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(chance.randrange(1, VOCABULARY) for _ in range(count))

    requests = tuple(Request(f"q{k}", ids(10 + k)) for k in range(REQUESTS))
    return PromptSet(
        schema_version=SCHEMA_VERSION,
        model="small",
        tokenizer_sha256="none",
        source={},
        requests={"b4": requests},
        sha256={"b4": sha256_json([[r.id, r.prompt_token_ids] for r in requests])},
        quality=QualityText("random", "none", (ids(64),)),
    )


def measure(folder: Path, way: str) -> Measurement:
    """Measure one way in a process of its own."""
    paths = {name: folder / f"{name}.json" for name in ("manifest", "prompts", "plan")}
    spec, out = folder / f"{way}.spec.json", folder / f"{way}.json"
    write_record(spec, spec_of(way))
    write_record(paths["plan"], Plan(sweep="sharding", cells=()))
    named = [part for name, path in paths.items() for part in (f"--{name}", str(path))]
    command = [sys.executable, str(ROOT / "scripts" / "measure.py"), "--spec", str(spec), *named]
    subprocess.run([*command, "--out", str(out)], check=True, timeout=150)
    return read_record(Measurement, out)


def problems(way: str, found: Measurement, alone: Measurement) -> list[str]:
    """Say what is wrong with a way, against one GPU alone."""
    if found.outcome != "ok" or found.windows[0].outcome != "ok":
        return [found.reason or found.windows[0].reason or "no reason"]
    window, first = found.windows[0], alone.windows[0]
    gpus = [p for p in window.interval.energy if p.component == "gpu"]
    metered, used = [p.device for p in gpus], found.effective["device_uuids"]
    checks = {
        "ids differ from one GPU's": window.output_token_ids == first.output_token_ids,
        f"metered {metered}, used {used}": sorted(metered) == sorted(set(used)),
        f"{len(used)} GPUs": len(used) == found.spec.sharding.num_devices,
        "another score": abs(found.quality.total_nll / alone.quality.total_nll - 1) < 1e-3,
        "rows": len(window.requests.request_id) == REQUESTS * window.passes,
    }
    return [text for text, holds in checks.items() if not holds]


def main(folder: Path) -> int:
    """Measure every way and print a line of each; give the exit status."""
    write_model(folder / "files")
    write_record(folder / "manifest.json", builders.manifest("small"))
    write_record(folder / "prompts.json", prompts())
    found = {way: measure(folder, way) for way in WAYS}
    failed = 0
    for way, one in found.items():
        wrong = problems(way, one, found["none"])
        failed += bool(wrong)
        window = one.windows[0] if one.windows else None
        if window and window.interval:
            joules = [f"{p.energy_j:.0f}" for p in window.interval.energy if p.component == "gpu"]
            tokens = sum(window.requests.output_tokens)
            print(f"{way}: {tokens} tokens in {window.interval.duration_s:.1f} s, J by GPU", joules)
        print(f"{way}: {'; '.join(wrong) or 'as it should be'}", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
