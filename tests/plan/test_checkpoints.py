"""Precisions that take a checkpoint: which cells there are, and what the specs say of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import builders
from support.checkpoints import write_checkpoint
from support.project import example, tiny_sweep

from llm_energy.analysis.evidence import failures
from llm_energy.core.errors import ConfigError
from llm_energy.core.serialize import from_dict, to_dict
from llm_energy.plan import plan
from llm_energy.plan.config.load import load_sweep
from llm_energy.plan.config.schema import schema
from llm_energy.plan.duplicates import duplicates
from llm_energy.records import Spec
from llm_energy.records.files import paths
from llm_energy.records.registry.precisions import CHECKPOINTS, PRECISIONS

AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128}


def make(tmp_path: Path, checkpoints: dict, device: str = "cpu", **changes) -> plan.Planning:
    builders.model_folder(tmp_path / "model")
    sweep = tiny_sweep(str(tmp_path / "model"), **{"backends": ["vllm"]} | changes)
    sweep["models"][0]["checkpoints"] = checkpoints
    return plan.make_plan(load_sweep(sweep), lambda backend: plan.Engine(device, None))


def test_a_precision_takes_the_checkpoint_of_its_name(tmp_path):
    folder = write_checkpoint(tmp_path / "own", "awq", AWQ)
    named = {"model_name": "o/m-awq", "source": {"kind": "folder", "path": str(folder)}}
    made = make(tmp_path, {"awq": named}, precisions=["bfloat16", "awq"])
    plain, spec = made.specs.values()

    assert spec.checkpoint == named | {"revision": None}
    assert (spec.quantised_before, plain.quantised_before) == ("awq", None)
    assert (spec.asked_precision, plain.asked_precision) == ("awq", "bfloat16")
    assert spec.engine["quantization"] is None  # the engine reads it from the checkpoint
    assert "checkpoint" not in to_dict(plain)
    assert from_dict(Spec, to_dict(spec)) == spec
    entry = {"id": "tiny", "precision": "awq"} | spec.checkpoint
    assert made.checkpoints == {("tiny", "awq"): entry}
    assert "checkpoints" not in made.models["tiny"]
    assert duplicates(made.specs.values(), made.models, made.prompt_requests) == []


@pytest.mark.parametrize("precision", ["awq", "fp8-checkpoint"])
def test_a_model_without_the_checkpoint_is_a_row_with_the_reason(precision, tmp_path):
    (cell,) = make(tmp_path, {}, "cuda", precisions=[precision]).plan.cells

    assert cell.outcome == "unsupported"
    assert cell.reason == (
        f"model 'tiny' names no checkpoint of the precision {precision}, which is quantised "
        f"beforehand; add checkpoints: {{{precision}: {{model_name: ..., revision: ...}}}} to its "
        "entry"
    )


@pytest.mark.parametrize(
    ("backend", "device", "supported"),
    [
        ("vllm", "cuda", {"awq", "gptq", "w4a16", "w8a8", "fp8-checkpoint"}),
        ("vllm", "cpu", {"awq", "gptq", "w4a16", "w8a8"}),
        ("pytorch", "cuda", set()),
        ("tensorrt", "cuda", {"awq", "gptq", "fp8-checkpoint"}),
    ],
)
def test_which_engine_reads_which_checkpoint(backend, device, supported, tmp_path):
    named = {name: {"model_name": f"o/m-{name}"} for name in CHECKPOINTS}
    made = make(tmp_path, named, device, backends=[backend], precisions=list(CHECKPOINTS))
    reasons = {cell.precision: cell.reason for cell in made.plan.cells}

    assert {name for name, reason in reasons.items() if reason is None} == supported
    assert "compute capability 10.0" in reasons["nvfp4"]


def test_a_checkpoint_that_was_refused_leaves_its_reason_in_the_row(tmp_path):
    made = make(tmp_path, {"awq": {"model_name": "o/m-awq"}}, precisions=["bfloat16", "awq"])
    log = tmp_path / "logs/models/tiny--awq.log"
    log.parent.mkdir(parents=True)
    log.write_text("error: model tiny: the checkpoint o/m-awq is not of the precision awq\n")
    manifest = tmp_path / paths.manifest(made.plan.folder, "tiny")
    manifest.parent.mkdir(parents=True)
    manifest.touch()
    unmade = made.plan.measurements()
    failures.record_failures(made.plan, made.specs, [unmade[1]], tmp_path)

    found = failures.known_failure(tmp_path / unmade[1])
    assert "the checkpoint o/m-awq is not of the precision awq" in found.reason


def test_a_folder_that_lies_about_its_precision_is_an_error_of_the_config(tmp_path):
    folder = write_checkpoint(tmp_path / "own", "awq", AWQ | {"bits": 8})
    named = {"model_name": "o/m-awq", "source": {"kind": "folder", "path": str(folder)}}
    with pytest.raises(ConfigError) as error:
        make(tmp_path, {"awq": named}, precisions=["awq"])

    assert (
        "models[0].checkpoints.awq.source.path: its quantization_config says bits of a weight 8, "
        "awq is of 4"
    ) in str(error.value)


@pytest.mark.parametrize(
    ("checkpoints", "says"),
    [
        ({"awqq": {"model_name": "o/m"}}, "models[0].checkpoints"),
        ({"awq": {}}, "models[0].checkpoints.awq"),
        ({"awq": {"model_name": "no owner"}}, "models[0].checkpoints.awq.model_name: found"),
        (
            {"awq": {"model_name": "m", "source": {"kind": "folder"}}},
            "models[0].checkpoints.awq.source.path: missing",
        ),
        (
            {"awq": {"model_name": "m", "source": {"kind": "folder", "path": "none"}}},
            "models[0].checkpoints.awq.source.path: found",
        ),
    ],
)
def test_a_mistake_in_a_checkpoint_is_told_where_it_stands(checkpoints, says, tmp_path):
    with pytest.raises(ConfigError) as error:
        make(tmp_path, checkpoints)

    assert says in str(error.value)


def test_the_example_plans_every_cell_on_a_gpu():
    sweep = load_sweep(example("quantised-checkpoints"))
    made = plan.make_plan(sweep, lambda backend: plan.Engine("cuda", None))

    assert len(made.plan.planned) == len(made.plan.cells) == 6
    assert {spec.quantised_before for spec in made.specs.values()} == {
        *(None, "awq", "gptq", "w8a8", "fp8-checkpoint")
    }
    (fp8,) = {s.engine["quantization"] for s in made.specs.values() if s.precision == "fp8"}
    assert fp8 == "fp8_per_tensor"


def test_the_schema_names_each_precision_as_the_registry_does():
    known = schema()
    named = known["properties"]["models"]["items"]["properties"]["checkpoints"]

    assert known["$defs"]["precision"]["enum"] == list(PRECISIONS)
    assert tuple(named["properties"]) == CHECKPOINTS
    names = ", ".join(CHECKPOINTS[:-1])
    assert named["x-allowed"] == f"a mapping from {names} and {CHECKPOINTS[-1]}"
