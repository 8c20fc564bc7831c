"""What a repeat of a quantised checkpoint reads, records and refuses."""

from __future__ import annotations

import functools
import json
from dataclasses import replace

import measure as script
import pytest
from support import builders
from support import fake_measure as stand_in
from support.checkpoints import write_checkpoint

from llm_energy.backends import base
from llm_energy.core import locks
from llm_energy.inputs.models.quantization import checkpoint_of
from llm_energy.inputs.models.stage import fetch
from llm_energy.measure import run
from llm_energy.publish.tables.cell_rows import remarks
from llm_energy.records import Measurement, Spec, read_record, write_record
from llm_energy.records.registry.precisions import quantization_of

AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128}
SAYS = "awq, 4 bits int, group size 128, activations in 16 bits, calibrated"


@pytest.fixture
def repeat(tmp_path, monkeypatch):
    """Return a way to measure one repeat of a precision, on a stand-in engine."""
    lock = functools.partial(locks.exclusive_host, stand_in.HOST_LOCK)
    monkeypatch.setattr(run, "exclusive_host", lock)
    monkeypatch.setitem(base.MODULES, "pytorch", "support.fake_measure")
    arguments, out = stand_in.write_repeat(tmp_path)
    write_checkpoint(tmp_path / "files", "awq", None, "BF16")

    def measured(precision: str, checkpoint: dict | None, manifest: dict) -> Measurement:
        spec = read_record(Spec, tmp_path / "spec.json")
        asked = {"quantization": quantization_of(precision)}
        workloads = tuple(replace(w, parameters=w.parameters | asked) for w in spec.workloads)
        write_record(
            tmp_path / "spec.json", replace(spec, workloads=workloads, checkpoint=checkpoint)
        )
        write_record(tmp_path / "manifest.json", replace(builders.manifest(), **manifest))
        assert script.main(arguments) == 0
        return read_record(Measurement, out)

    return measured


@pytest.fixture
def awq(tmp_path):
    """Return the entry of a checkpoint that lies where the models stage puts it."""
    own = write_checkpoint(tmp_path / "own", "awq", AWQ)
    entry = {"model_name": "o/m-awq", "revision": "main"}
    source = {"kind": "folder", "path": str(own)}
    model = entry | {"id": "m", "precision": "awq", "source": source}
    write_record(tmp_path / "manifest-awq.json", fetch(model, tmp_path / "files-awq"))
    return entry | {"source": source}


def test_the_measurement_says_which_checkpoint_was_read(repeat, awq, tmp_path):
    found = repeat("awq", awq, {})
    told = found.effective["checkpoint"]

    assert found.outcome == "ok"
    assert (told["model_name"], told["revision"]) == ("o/m-awq", "main")
    manifest = json.loads((tmp_path / "manifest-awq.json").read_text())
    assert {k: told[k] for k in ("weights_sha256", "weight_bytes", "quantization")} == {
        k: manifest[k] for k in ("weights_sha256", "weight_bytes", "quantization")
    }
    shown = checkpoint_of(found.effective)
    assert shown == f"o/m-awq at main ({SAYS}; SHA-256 {told['weights_sha256'][:12]})"
    row = builders.aggregate_row(checkpoint=shown)
    assert f"Weights: {shown}." in remarks(row, {})


def test_a_checkpoint_of_another_model_is_refused(repeat, awq, tmp_path):
    config = {"model_type": "llama", "hidden_size": 8, "vocab_size": 512}
    (tmp_path / "files" / "config.json").write_text(json.dumps(config))
    found = repeat("awq", awq, {})

    assert found.outcome == "unsupported"
    assert found.reason == (
        "the checkpoint is of another model: its hidden_size is 64, the model's 8"
    )


def test_a_quantised_model_is_not_measured_under_the_name_of_a_float(repeat, tmp_path):
    told = {"method": "fp8", "bits": 8, "kind": "float", "group_size": None}
    told |= {"activations": 8, "calibrated": True, "kept": []}
    found = repeat("float32", None, {"quantization": told})

    assert found.outcome == "unsupported"
    assert found.reason == (
        "asked for float32, and the model's own files are quantised already (fp8, 8 bits float, "
        "activations in 8 bits, calibrated); name them under the model's checkpoints, and ask for "
        "that precision"
    )
