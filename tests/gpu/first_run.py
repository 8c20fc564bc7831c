"""Measure a random-weight model of a real architecture on this host's GPU, without the workflow.

Lengths are forced, so random weights cost the energy of trained ones, and nothing is fetched. Needs
only a backend's packages: the specs are planned elsewhere, and scripts/measure.py obeys them.

    python tests/gpu/first_run.py sensors sensors.json
    python tests/gpu/first_run.py build llama-3.1-8b results/models/llama-3.1-8b
    python tests/gpu/first_run.py prompts llama-3.1-8b 128 200 SPEC... --out prompts.json
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from llm_energy.conversion import to_dict  # noqa: E402
from llm_energy.files import read_json, sha256_file, sha256_json  # noqa: E402
from llm_energy.records import (  # noqa: E402
    SCHEMA_VERSION,
    ModelManifest,
    PromptSet,
    Request,
    write_record,
)

IDLE_S = 5.0

# The published shapes of the models; the weights are random.
ARCHITECTURES = {
    "llama-3.1-8b": {
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "eos_token_id": 128001,
        "bos_token_id": 128000,
    },
    "qwen3-8b": {
        "model_type": "qwen3",
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "max_position_embeddings": 40960,
        "tie_word_embeddings": False,
        "eos_token_id": 151645,
        "bos_token_id": 151643,
    },
}


def build(name: str, folder: Path) -> None:
    """Write the model's files and its manifest below ``folder``."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = dict(ARCHITECTURES[name])
    config = AutoConfig.for_model(shape.pop("model_type"), **shape)
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    files = folder / "files"
    model.save_pretrained(files)
    hashes = {path.name: sha256_file(path) for path in sorted(files.iterdir())}
    weights = {k: v for k, v in hashes.items() if k.endswith(".safetensors")}
    manifest = ModelManifest(
        schema_version=SCHEMA_VERSION,
        model=name,
        model_name=name,
        source={"kind": "random", "seed": 0},
        files=hashes,
        weights_sha256=sha256_json(sorted(map(list, weights.items()))),
        tokenizer_sha256=sha256_json([]),
        weight_bytes=sum((files / f).stat().st_size for f in weights),
        parameter_count=sum(p.numel() for p in model.parameters()),
        dtype="bfloat16",
        converted_by=None,
        notes=("random weights of the published architecture: its text means nothing",),
    )
    write_record(folder / "manifest.json", manifest)


def prompts(name: str, count: int, length: int, specs: list[Path], out: Path) -> None:
    """Write ``count`` random prompts of ``length`` tokens for the workloads of the specs."""
    generator = random.Random(0)
    vocabulary = ARCHITECTURES[name]["vocab_size"] - 2048  # special tokens stand at the end
    drawn = [
        Request(f"random-{i:04d}", tuple(generator.randrange(vocabulary) for _ in range(length)))
        for i in range(count)
    ]
    sizes = {w["id"]: w["requests"] for path in specs for w in read_json(path)["workloads"]}
    requests = {workload: tuple(drawn[:size]) for workload, size in sizes.items()}
    pairs = {w: [[r.id, list(r.prompt_token_ids)] for r in rs] for w, rs in requests.items()}
    write_record(
        out,
        PromptSet(
            schema_version=SCHEMA_VERSION,
            model=name,
            tokenizer_sha256=sha256_json([]),
            source={"kind": "random token ids", "seed": 0, "input_tokens": length},
            requests=requests,
            sha256={workload: sha256_json(value) for workload, value in pairs.items()},
        ),
    )


def sensors(out: Path) -> None:
    """Write what the sensors of this host say of themselves."""
    from llm_energy.meter import open_meter
    from llm_energy.records import MeterSettings

    meter = open_meter(MeterSettings(codecarbon=False))
    with meter.interval("idle") as interval:
        time.sleep(IDLE_S)
    found = {"gpus": to_dict(meter.gpus()), "idle": to_dict(interval.record)}
    meter.close()
    out.write_text(json.dumps(found, indent=1), encoding="utf-8")


def main() -> None:
    """Parse the command line and do one of the steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    steps = parser.add_subparsers(dest="step", required=True)
    step = steps.add_parser("build")
    step.add_argument("name", choices=ARCHITECTURES)
    step.add_argument("folder", type=Path)
    step = steps.add_parser("prompts")
    step.add_argument("name", choices=ARCHITECTURES)
    step.add_argument("count", type=int)
    step.add_argument("length", type=int)
    step.add_argument("specs", type=Path, nargs="+")
    step.add_argument("--out", type=Path, required=True)
    step = steps.add_parser("sensors")
    step.add_argument("out", type=Path)
    arguments = parser.parse_args()
    if arguments.step == "build":
        build(arguments.name, arguments.folder)
    elif arguments.step == "prompts":
        prompts(arguments.name, arguments.count, arguments.length, arguments.specs, arguments.out)
    else:
        sensors(arguments.out)


if __name__ == "__main__":
    main()
