"""What a checkpoint says of its own quantisation, and whether that is so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.checkpoints import write_checkpoint

from llm_energy.core.errors import LlmEnergyError
from llm_energy.inputs.models import quantization
from llm_energy.inputs.models.stage import fetch
from llm_energy.records.registry.precisions import CHECKPOINTS, PRECISIONS

INT = {"num_bits": 8, "type": "int"}
GROUP = {"num_bits": 4, "type": "int", "group_size": 128}
FLOAT = {"num_bits": 8, "type": "float"}
FP4 = {"num_bits": 4, "type": "float", "group_size": 16}


def compressed(weights: dict[str, Any], activations: dict[str, Any] | None = None) -> dict:
    group = {"weights": weights, "input_activations": activations}
    own = {"quant_method": "compressed-tensors", "ignore": ["lm_head"]}
    return own | {"config_groups": {"group_0": group}}


AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128}
W8A8 = compressed(INT, INT | {"dynamic": True})
HONEST = {
    "awq": AWQ,
    "gptq": GPTQ,
    "w4a16": compressed(GROUP),
    "w8a8": W8A8,
    "fp8-checkpoint": compressed(FLOAT, FLOAT | {"dynamic": False}),
    "nvfp4": {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head"]},
    "mxfp4": {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]},
}


@pytest.mark.parametrize("precision", CHECKPOINTS)
def test_a_checkpoint_of_each_precision_says_what_it_is_and_is_taken(precision, tmp_path):
    folder = write_checkpoint(tmp_path, precision, HONEST[precision])
    told = quantization.read(folder)

    assert quantization.differences(precision, folder) == []
    assert (told["bits"], told["kind"]) == (PRECISIONS[precision].bits, PRECISIONS[precision].kind)
    assert quantization.in_words(told).startswith(HONEST[precision]["quant_method"])


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (AWQ, "awq, 4 bits int, group size 128, activations in 16 bits, calibrated"),
        (
            HONEST["fp8-checkpoint"],
            "compressed-tensors, 8 bits float, activations in 8 bits, calibrated, not quantised: "
            "lm_head",
        ),
        (
            {
                "quant_method": "fp8",
                "activation_scheme": "dynamic",
                "weight_block_size": [128, 128],
            },
            "fp8, 8 bits float, group size [128, 128], activations in 8 bits, not calibrated",
        ),
    ],
)
def test_it_tells_method_bits_groups_calibration_and_what_stays_in_16_bits(config, says, tmp_path):
    folder = write_checkpoint(tmp_path, "awq", config)

    assert quantization.in_words(quantization.read(folder)) == says


@pytest.mark.parametrize(
    ("precision", "config", "stored_as", "says"),
    [
        ("awq", None, "I32", "it has no quantization_config, and awq is a checkpoint of awq"),
        ("awq", GPTQ, "I32", "its quant_method is gptq, that of awq is awq"),
        ("gptq", GPTQ | {"bits": 8}, "I32", "says bits of a weight 8, gptq is of 4"),
        ("w4a16", W8A8, "I32", "says bits of a weight 8, w4a16 is of 4"),
        ("w8a8", W8A8 | {"config_groups": ["?"]}, "I8", "says bits of a weight none, w8a8 is of 8"),
        ("w8a8", compressed(INT), "I8", "says bits of an activation none, w8a8 is of 8"),
        ("w8a8", compressed(FLOAT, FLOAT), "I8", "says weights of type float, w8a8 is of int"),
        ("awq", AWQ, "BF16", "0 bytes are stored as I32 and 16384 as BF16: most are not quantised"),
    ],
)
def test_a_checkpoint_that_lies_is_refused_with_both_values(
    precision, config, stored_as, says, tmp_path
):
    folder = write_checkpoint(tmp_path / "own", precision, config, stored_as)
    entry = {"id": "m", "precision": precision, "model_name": "o/m", "revision": None}
    entry |= {"source": {"kind": "folder", "path": str(folder)}}
    with pytest.raises(LlmEnergyError, match="the checkpoint o/m is not of the precision") as error:
        fetch(entry, tmp_path / "files-it")

    assert says in str(error.value)
    assert not (tmp_path / "files-it").exists()


def test_the_manifest_of_a_checkpoint_has_what_it_says(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "own", "awq", AWQ)
    entry = {"id": "m", "precision": "awq", "model_name": "o/m-awq", "revision": None}
    manifest = fetch(
        entry | {"source": {"kind": "folder", "path": str(folder)}}, tmp_path / "files-awq"
    )

    assert manifest.quantization == quantization.read(folder)
    assert manifest.parameter_count is None  # eight weights share a number


def test_what_modelopt_says_beside_the_config_counts(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, "nvfp4", None)
    told = {"quantization": {"quant_algo": "NVFP4", "exclude_modules": ["lm_head"]}}
    (folder / "hf_quant_config.json").write_text(json.dumps(told))

    assert quantization.differences("nvfp4", folder) == []


def test_a_checkpoint_of_another_model_is_found(tmp_path: Path) -> None:
    one, other = (write_checkpoint(tmp_path / name, "awq", AWQ) for name in "ab")
    assert quantization.other_model(one, other) is None
    (other / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": 8}))

    assert quantization.other_model(one, other) == (
        "the checkpoint is of another model: its hidden_size is 8, the model's 64"
    )
