"""Make a random-weight model of a published shape, and prompts for it, without fetching anything.

Where lengths are forced, random weights cost the energy of trained ones. Needs the packages of the
PyTorch backend alone.

    python tests/gpu/model.py model llama-3.1-8b results/models/llama-3.1-8b
    python tests/gpu/model.py model llama-3.1-8b-fp8 results/models/llama-3.1-8b-fp8
    python tests/gpu/model.py prompts REQUEST.json PROMPTS.json
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from llm_energy.core.files import sha256_file, sha256_json
from llm_energy.core.serialize import to_dict
from llm_energy.records import (
    SCHEMA_VERSION,
    ModelManifest,
    PromptRequest,
    PromptSet,
    Request,
    read_record,
    write_record,
)

# As in the models' own config.json.
SHAPES = {
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
    "smollm2-135m": {
        "model_type": "llama",
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "eos_token_id": 2,
        "bos_token_id": 1,
    },
}
FP8 = "-fp8"  # after a shape's name: an FP8 checkpoint, one scale a matrix
FP8_LARGEST = 448.0  # float8_e4m3fn
SPECIAL_TOKENS = 2048  # more than any of these models has, at the end of its vocabulary


def build(name: str, folder: Path) -> None:
    """Write the model's files and its manifest below ``folder``."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = shape_of(name)
    config = AutoConfig.for_model(shape.pop("model_type"), **shape)
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    files = folder / "files"
    quantised = name.endswith(FP8)
    if quantised:
        save_fp8(model, files)
    else:
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
        dtype="float8_e4m3fn" if quantised else "bfloat16",
        converted_by=None,
        notes=("random weights of the published architecture: its text means nothing",),
    )
    write_record(folder / "manifest.json", manifest)


def shape_of(name: str) -> dict[str, Any]:
    """Give the shape that a name stands for, whatever its weights are stored in."""
    return dict(SHAPES[name.removesuffix(FP8)])


def save_fp8(model: Any, files: Path) -> None:
    """Save the matrices of all layers in 8 bits, as vLLM reads them: a weight and its scale."""
    import torch
    from safetensors.torch import save_file

    tensors = {}
    for key, weight in model.state_dict().items():
        tensors[key] = weight
        if ".layers." in key and weight.ndim == 2:
            scale = weight.abs().max().float() / FP8_LARGEST
            tensors[key] = (weight.float() / scale).to(torch.float8_e4m3fn)
            tensors[f"{key}_scale"] = scale
    if model.config.tie_word_embeddings:
        del tensors["lm_head.weight"]
    files.mkdir(parents=True)
    save_file(tensors, files / "model.safetensors", metadata={"format": "pt"})
    model.config.quantization_config = {"quant_method": "fp8", "activation_scheme": "dynamic"}
    model.config.save_pretrained(files)
    model.generation_config.save_pretrained(files)


def write_prompts(request_path: Path, out: Path) -> None:
    """Write random token ids for what a sweep's prompt request asks for.

    Prompts of one length are drawn once for all workloads.
    """
    request = read_record(PromptRequest, request_path)
    highest = shape_of(request.model)["vocab_size"] - SPECIAL_TOKENS
    asked = {
        id: (one.prompts["input_tokens"], one.requests) for id, one in request.workloads.items()
    }
    drawn = {
        length: random_prompts(length, max(n for of, n in asked.values() if of == length), highest)
        for length in {length for length, _ in asked.values()}
    }
    requests = {id: drawn[length][:count] for id, (length, count) in asked.items()}
    write_record(
        out,
        PromptSet(
            schema_version=SCHEMA_VERSION,
            model=request.model,
            tokenizer_sha256=sha256_json([]),
            source={"kind": "random token ids", "input_tokens": sorted(drawn)},
            requests=requests,
            sha256={id: sha256_json([r.identity() for r in rs]) for id, rs in requests.items()},
            request_sha256=sha256_json(to_dict(request)),
        ),
    )


def random_prompts(length: int, count: int, highest: int) -> tuple[Request, ...]:
    """Return prompts of so many random ids, seeded with their length."""
    generator = random.Random(length)
    return tuple(
        Request(
            f"random-{length}-{i:04d}", tuple(generator.randrange(highest) for _ in range(length))
        )
        for i in range(count)
    )


def main() -> None:
    """Parse the command line and make the one or the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    steps = parser.add_subparsers(dest="step", required=True)
    step = steps.add_parser("model")
    step.add_argument("name", choices=[*SHAPES, *(name + FP8 for name in SHAPES)])
    step.add_argument("folder", type=Path)
    step = steps.add_parser("prompts")
    step.add_argument("request", type=Path)
    step.add_argument("out", type=Path)
    arguments = parser.parse_args()
    if arguments.step == "model":
        build(arguments.name, arguments.folder)
    else:
        write_prompts(arguments.request, arguments.out)


if __name__ == "__main__":
    main()
