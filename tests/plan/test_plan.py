"""A sweep becomes cells and frozen specs, and what cannot be done is said before anything runs."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from support import builders
from support.project import tiny_sweep

from llm_energy.core.errors import ConfigError
from llm_energy.core.files import read_json, sha256_json, write_json
from llm_energy.core.serialize import from_dict, to_dict
from llm_energy.plan import freeze, plan, summary
from llm_energy.plan.config.load import BackendEntry, load_sweep
from llm_energy.plan.duplicates import duplicates
from llm_energy.records import Plan, PromptRequest, Spec, Workload, read_record
from llm_energy.records.files import paths
from llm_energy.records.registry.order import block_rank

CONFIG = paths.ROOT / "config" / "config.yaml"
ENGINES = {
    "pytorch": plan.Engine("cpu", "5.23.0"),
    "vllm": plan.Engine("cpu", "0.32.0"),
    "tensorrt": plan.Engine("cpu", "1.3.0rc26"),
}


def engine(backend: BackendEntry) -> plan.Engine:
    return ENGINES[backend.engine]


def make(tmp_path: Path, the_engine=engine, **changes) -> plan.Planning:
    if not (tmp_path / "model").exists():
        builders.model_folder(tmp_path / "model")
    return plan.make_plan(load_sweep(tiny_sweep(str(tmp_path / "model"), **changes)), the_engine)


def test_cells_are_models_by_backends_by_precisions(tmp_path):
    made = make(tmp_path, backends=["pytorch", "vllm"], precisions=["float32", "bfloat16"])
    assert [cell.cell for cell in made.plan.cells] == [
        "tiny--pytorch--float32",
        "tiny--pytorch--bfloat16",
        "tiny--vllm--float32",
        "tiny--vllm--bfloat16",
    ]
    assert made.plan.backends == ("pytorch", "vllm")


def test_a_new_precision_leaves_every_other_spec_as_it_was(tmp_path):
    few = make(tmp_path, precisions=["float32", "int8"])
    more = make(tmp_path, precisions=["bfloat16", "float32", "int4", "int8"])
    assert all(more.specs[path] == spec for path, spec in few.specs.items())


def test_a_spec_of_an_older_version_stays_as_long_as_it_says_the_same(tmp_path):
    made = make(tmp_path)
    ((path, spec),) = made.specs.items()
    path = tmp_path / path
    older = {key: value for key, value in to_dict(spec).items() if key != "sharding"}
    for written, kept in ((older, True), (older | {"seed": spec.seed + 1}, False)):
        write_json(path, written)
        freeze.write_plan(made, tmp_path)
        assert (read_json(path) == written) is kept
        assert read_record(Spec, path) == spec


def test_several_entries_of_one_engine_have_cells_of_their_own(tmp_path):
    entries = ["pytorch", {"id": "pytorch-2", "engine": "pytorch"}]
    made = make(tmp_path, backends=entries)
    assert made.plan.backends == ("pytorch", "pytorch-2")
    plain, variant = made.specs.values()
    assert (plain.engine_id, variant.engine_id) == ("pytorch", "pytorch")
    assert variant.engine == plain.engine
    assert variant.notes == plain.notes
    assert made.plan.measurements("pytorch-2") == [
        "results/tiny/pytorch-2/measurements/tiny--pytorch-2--float32/r01.json"
    ]
    assert from_dict(Spec, to_dict(variant)) == variant
    assert to_dict(variant)["variant_of"] == "pytorch"
    assert "variant_of" not in to_dict(plain)
    assert [to_dict(plain)] == list(map(to_dict, make(tmp_path).specs.values()))
    told = duplicates(
        [plain, variant], made.models, made.prompt_requests
    )  # nothing but their names differs
    assert told == [
        f"cells {plain.cell} and {variant.cell} resolve to the same engine and the same work"
    ]


def test_arguments_of_an_entry_reach_the_engine_and_nothing_else(tmp_path):
    entry = {"id": "vllm-64", "engine": "vllm", "arguments": {"block_size": 64}}
    made = make(tmp_path, backends=["vllm", entry])
    plain, variant = made.specs.values()
    assert variant.engine == plain.engine | {"block_size": 64}
    assert to_dict(variant)["arguments"] == {"block_size": 64}
    assert "arguments" not in to_dict(plain)
    assert variant.workloads[0].engine == plain.workloads[0].engine


def test_what_is_frozen_keeps_its_bytes_from_version_to_version(tmp_path):
    """Where it does not, every sweep that is measured is of another plan, and measured anew."""
    made = make(tmp_path, backends=["pytorch", "vllm", "tensorrt"], precisions=["float32", "int8"])
    (request,) = made.prompt_requests.values()
    found = {
        "plan": sha256_json(to_dict(made.plan)),
        "specs": sha256_json([to_dict(spec) for spec in made.specs.values()]),
        "request": sha256_json(to_dict(request)),
    }
    assert {name: digest[:16] for name, digest in found.items()} == {
        "plan": "d2e864765ff0256b",
        "specs": "cd2338df6a49dfc5",
        "request": "d12addf770850664",
    }


def by_repeat(made: plan.Planning) -> dict[int, tuple[int, int, str]]:
    """Return, by repeat, the seeds of its only cell and the key of its prompts."""
    return {
        spec.repeat: (w.parameters["random_seed"], w.engine["seed"], w.prompts_key(spec.repeat))
        for spec in made.specs.values()
        for w in spec.workloads[:1]
        if spec.seed == w.parameters["random_seed"]
    }


SAMPLED = {"decoder": {"do_sample": True}}


@pytest.mark.parametrize(
    ("parameters", "prompts", "seeds", "sets"),
    [({}, {}, 1, 1), (SAMPLED, {}, 3, 1), ({}, {"resample": True}, 1, 3)],
    ids=["greedy", "sampled", "resampled"],
)
def test_each_block_has_its_own_draw_of_what_is_drawn(tmp_path, parameters, prompts, seeds, sets):
    """Greedy decoding draws nothing, so its specs stay as they are."""
    tiny = tiny_sweep("")
    asked = {"protocol": tiny["protocol"] | {"repeats": 3}, "random_seed": 7} | parameters
    asked["workloads"] = [{"id": "w"}]
    made = make(tmp_path, **asked, prompts=tiny.get("prompts", {}) | prompts)
    found = by_repeat(made)
    assert [len(set(values)) for values in zip(*found.values(), strict=True)] == [
        seeds,
        seeds,
        sets,
    ]
    if seeds == 1:
        assert {seed for seed, _, _ in found.values()} == {7}
    [request] = made.prompt_requests.values()
    assert set(request.workloads) == {key for *_, key in found.values()}
    drawn_from = [one.prompts for one in request.workloads.values()]
    assert len({one["seed"] for one in drawn_from}) == sets
    assert not any("resample" in one for one in drawn_from)
    resampled = {w.resampled for spec in made.specs.values() for w in spec.workloads}
    assert resampled == {sets > 1}


def test_the_specs_of_the_default_sweep_have_its_own_seed_in_every_block():
    made = plan.make_plan(load_sweep(yaml.safe_load(CONFIG.read_text())), engine)
    for cell in made.plan.planned:
        first, *others = (made.specs[path] for path in cell.specs)
        for spec in others:
            alike = dataclasses.replace(spec, repeat=1, workloads=first.workloads)
            assert alike == first
            assert sorted(spec.workloads, key=id_of) == sorted(first.workloads, key=id_of)
            assert spec.seed == 0
    assert not made.arrivals.timed


def id_of(workload: Workload) -> str:
    return workload.id


def test_a_new_repeat_leaves_every_other_spec_as_it_was(tmp_path):
    protocol = tiny_sweep("")["protocol"]
    one = make(tmp_path)
    three = make(tmp_path, protocol=protocol | {"repeats": 3})
    assert three.plan.cells[0].repeats == ("r01", "r02", "r03")
    assert all(three.specs[path] == spec for path, spec in one.specs.items())


def test_precision_becomes_the_arguments_of_the_engine(tmp_path):
    made = make(tmp_path, precisions=["float16", "int8", "int4"])
    loads = {spec.precision: spec.engine for spec in made.specs.values()}
    assert loads["float16"]["dtype"] == "float16"
    assert loads["float16"]["quantization"] is None
    assert loads["int8"]["quantization"] == {"load_in_8bit": True}
    assert loads["int4"]["quantization"]["bnb_4bit_quant_type"] == "nf4"


def test_a_backend_that_is_missing_costs_only_its_own_cells(tmp_path):
    def without_vllm(backend):
        missing = "not here. Install it" if backend.id == "vllm" else None
        return plan.Engine("cpu", ENGINES[backend.id].version, missing)

    made = make(tmp_path, without_vllm, backends=["pytorch", "vllm"])
    assert [cell.backend for cell in made.plan.planned] == ["pytorch"]
    assert made.plan.cells[1].outcome == "unsupported"
    assert made.plan.cells[1].reason == "not here. Install it"
    assert "tiny--vllm--float32: unsupported: not here" in summary.describe(made)


def test_three_backends_plan_and_the_one_without_its_gpu_is_rows_with_the_reason(tmp_path):
    made = make(
        tmp_path, backends=["pytorch", "vllm", "tensorrt"], precisions=["float16", "bfloat16"]
    )
    assert {cell.backend for cell in made.plan.planned} == {"pytorch", "vllm"}
    for refused in made.plan.cells[4:]:
        assert refused.outcome == "unsupported"
        assert refused.reason == "TensorRT-LLM needs an NVIDIA GPU; the device here is cpu"
        assert refused.specs == refused.measurements == ()


def test_with_a_gpu_all_three_backends_are_planned(tmp_path):
    made = make(
        tmp_path,
        lambda backend: plan.Engine("cuda", ENGINES[backend.id].version),
        backends=["pytorch", "vllm", "tensorrt"],
        precisions=["bfloat16", "int8"],
    )
    assert len(made.plan.planned) == 5
    (refused,) = (cell for cell in made.plan.cells if cell.outcome == "unsupported")
    assert refused.cell == "tiny--tensorrt--int8"
    assert "quantised beforehand to FP8" in refused.reason


def test_a_parameter_that_a_backend_does_not_know_is_an_error_with_the_remedy(tmp_path):
    parameters = {
        "max_output_tokens": 8,
        "min_output_tokens": 8,
        "decoder": {"no_repeat_ngram_size": 3},
    }
    with pytest.raises(ConfigError) as caught:
        make(tmp_path, backends=["pytorch", "vllm"], parameters=parameters)
    message = str(caught.value)
    assert "no_repeat_ngram_size" in message
    assert "vllm" in message.lower()
    assert "repetition_penalty" in message
    assert "policy.ignore_backend_warnings" in message

    ignoring = make(
        tmp_path,
        backends=["pytorch", "vllm"],
        parameters=parameters,
        policy={"ignore_backend_warnings": True},
    )
    assert len(ignoring.plan.planned) == 2
    notes = [note.message for note in ignoring.plan.cells[1].notes]
    assert any("no_repeat_ngram_size" in note for note in notes)


def test_blocks_follow_each_other_and_each_has_its_own_order():
    cells = [f"m--pytorch--{i}" for i in range(8)]
    ranks = {(r, c): block_rank(0, r, c) for r in ("r01", "r02") for c in cells}
    assert max(ranks["r01", c] for c in cells) < min(ranks["r02", c] for c in cells)
    first, second = (sorted(cells, key=lambda c: ranks[r, c]) for r in ("r01", "r02"))
    assert first != second
    assert first != cells


@given(st.integers(0, 2**31), st.integers(0, 50))
def test_every_cell_is_equally_likely_to_come_first(seed, repeat):
    ranks = [block_rank(seed, paths.repeat_name(repeat + 1), f"cell-{i}") for i in range(40)]
    assert len(set(ranks)) == 40
    assert {rank // 2**32 for rank in ranks} == {repeat + 1}


def test_the_plan_on_disk_is_what_was_planned(tmp_path):
    made = make(tmp_path, precisions=["float32", "int8"])
    freeze.write_plan(made, tmp_path)
    assert read_record(Plan, tmp_path / "results/tiny/plan.json") == made.plan
    for path, spec in made.specs.items():
        assert read_record(Spec, tmp_path / path) == spec
    request = read_record(PromptRequest, tmp_path / "results/tiny/prompts/tiny.request.json")
    assert {"tiny": request} == made.prompt_requests
    assert set(request.workloads) == {"b1", "b4"}


def test_planning_again_touches_only_what_changed(tmp_path):
    freeze.write_plan(make(tmp_path, precisions=["float32"]), tmp_path)
    spec = tmp_path / "results/tiny/specs/tiny--pytorch--float32/r01.json"
    os.utime(spec, (1, 1))
    freeze.write_plan(make(tmp_path, precisions=["float32", "int8"]), tmp_path)
    assert spec.stat().st_mtime == 1
    longer = {"max_output_tokens": 9, "min_output_tokens": 9}
    freeze.write_plan(make(tmp_path, parameters=longer), tmp_path)
    assert spec.stat().st_mtime > 1
