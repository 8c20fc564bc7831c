"""Compile an engine of TensorRT-LLM from a checkpoint, and say what a compiled one is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llm_energy.files import read_json

# Arguments of the load call that a compiled engine has in it; all others are of its running.
BUILT_IN = ("dtype", "quant_algo", "max_batch_size", "tensor_parallel_size")
LIMITS = ("max_batch_size", "max_input_len", "max_seq_len", "max_num_tokens", "max_beam_width")


def describe_builder() -> dict[str, Any]:
    """Say what compiles here: the version and the board, for which alone an engine is made."""
    import tensorrt_llm
    import torch

    boards = range(torch.cuda.device_count())
    kinds = {
        (torch.cuda.get_device_name(board), torch.cuda.get_device_capability(board))
        for board in boards
    }
    return {
        "engine_version": tensorrt_llm.__version__,
        "boards": sorted(f"{name}, compute capability {a}.{b}" for name, (a, b) in kinds),
    }


def compile_engine(model_folder: Path, folder: Path, inputs: dict[str, Any]) -> None:
    """Compile the checkpoint for ``inputs`` (see ``engine_build``) and save it into ``folder``.

    The library starts the engine it has compiled before it can be saved, so that is part of this.
    """
    from tensorrt_llm import BuildConfig
    from tensorrt_llm._tensorrt_engine import LLM
    from tensorrt_llm.llmapi import QuantAlgo, QuantConfig

    arguments: dict[str, Any] = {}
    if inputs["quant_algo"] is not None:
        arguments["quant_config"] = QuantConfig(quant_algo=QuantAlgo(inputs["quant_algo"]))
    llm = LLM(
        model=str(model_folder),
        skip_tokenizer_init=True,
        dtype=inputs["dtype"],
        tensor_parallel_size=inputs["tensor_parallel_size"],
        build_config=BuildConfig(
            max_batch_size=inputs["max_batch_size"],
            max_input_len=inputs["max_input_len"],
            max_seq_len=inputs["max_seq_len"],
            max_num_tokens=inputs["max_num_tokens"],
        ),
        **arguments,
    )
    try:
        llm.save(str(folder))
    finally:
        llm.shutdown()


def board_uuids(count: int) -> list[str]:
    """Name the boards that ``count`` ranks run on, as NVML does; none where there is no board."""
    import torch

    if not torch.cuda.is_available():
        return []
    return [f"GPU-{torch.cuda.get_device_properties(board).uuid}" for board in range(count)]


def describe_engine(folder: Path) -> dict[str, Any]:
    """Give what a compiled engine has in it, by the file that is saved with it."""
    about = read_json(folder / "config.json")
    pretrained, build = about["pretrained_config"], about["build_config"]
    quantization = pretrained.get("quantization") or {}
    weights = sum(path.stat().st_size for path in folder.glob("rank*.engine"))
    return {
        "dtype": pretrained["dtype"],
        "quantization": quantization.get("quant_algo"),
        "kv_cache_quantization": quantization.get("kv_cache_quant_algo"),
        "weight_bytes": weights,
        "weight_bytes_from": "the size of the compiled engine",
        "build_config": {name: build[name] for name in LIMITS},
    }
