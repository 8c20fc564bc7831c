"""What only the TensorRT-LLM backend does: its calls, its two flows, its engines compiled before.

Where the package is not installed a stand-in runs that is made from tests/tensorrt_api.yaml.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import gc
import json
import shutil

import builders
import pytest
import tensorrt_contract
import tensorrt_stand_in
import tensorrt_stand_in_engine
from subject import PROMPT, parameters

from llm_energy import backends, engine_build
from llm_energy.backends import tensorrt, tensorrt_engine
from llm_energy.backends.tensorrt_times import Times, engine_times
from llm_energy.checks import CATALOGUE
from llm_energy.compatibility import translate
from llm_energy.engine_build import EngineBuild
from llm_energy.errors import LlmEnergyError, Unsupported
from llm_energy.records import MeterSettings, Request, Workload, read_record, write_record
from llm_energy.tables import builds

pytestmark = pytest.mark.engine

STANDS_IN = "stand.in" in __import__("tensorrt_llm").__version__
CONTRACT = tensorrt_contract.load()
PROMPTS = (PROMPT, PROMPT[:3])
QUIET = MeterSettings(codecarbon=False, sampling_period_s=None)


@pytest.fixture(scope="module")
def results(tmp_path_factory, tiny_folder):
    """Give a folder ``results`` in which the tiny model lies as the models stage leaves it."""
    folder = tmp_path_factory.mktemp("project") / "results"
    shutil.copytree(tiny_folder, folder / "models" / "tiny" / "files")
    write_record(folder / "models" / "tiny" / "manifest.json", builders.manifest("tiny"))
    return folder


def spec(precision: str = "float32", flow: str = "compiled", sweep: str = "test", **asked):
    """Give the spec of one cell with one workload."""
    universal = parameters(precision, **asked)
    native = translate(universal, "tensorrt", None, "auto", flow)
    workload = Workload("w", len(PROMPTS), universal, native.generate)
    return builders.spec(
        precision,
        backend="tensorrt",
        model="tiny",
        workloads=(workload,),
        sweep=sweep,
        engine=native.load,
        meter=QUIET,
    )


def requests():
    return tuple(Request(f"r{i}", ids) for i, ids in enumerate(PROMPTS))


def build(results, asked) -> EngineBuild:
    """Run the stage that builds, from files and into files."""
    place = results / asked.sweep
    prompts = dataclasses.replace(builders.prompt_set("tiny"), requests={"w": requests()})
    write_record(place / "prompts.json", prompts)
    write_record(place / "spec.json", asked)
    out = results.parent / engine_build.engine_build_path(asked.sweep, "tensorrt", asked.cell)
    manifest = results / "models" / "tiny" / "manifest.json"
    engine_build.build(place / "spec.json", manifest, place / "prompts.json", out)
    return read_record(EngineBuild, out)


def serve(results, asked):
    """Load, serve the prompts once and close; give what the load and the service gave."""
    backend = backends.create("tensorrt")
    try:
        effective = backend.load(asked, results / "models" / "tiny" / "files")
        backend.prepare(asked.workloads[0], requests())
        return effective, backend.generate()
    finally:
        backend.close()


def test_the_package_is_as_written_down():
    """Hold the file against the package; conftest.py runs this before all else."""
    found = tensorrt_contract.differences(CONTRACT)
    assert found == [], "\n".join(["tests/tensorrt_api.yaml is not what is installed:", *found])


# compiled engines


def test_an_engine_is_built_metered_and_served(results, reference, eos):
    asked = spec()
    record = build(results, asked)
    assert (record.outcome, record.reason) == ("ok", None)
    assert record.build.name == "build"
    assert record.build.duration_s > 0
    assert record.engine_bytes > 0
    assert record.inputs["max_input_len"] == len(PROMPT)
    assert record.inputs["max_seq_len"] == len(PROMPT) + 8
    assert record.inputs["max_batch_size"] == 4

    effective, completions = serve(results, asked)
    assert effective["flow"] == "compiled"
    assert effective["max_model_len"] == len(PROMPT) + 8
    assert effective["build_config"]["max_input_len"] == len(PROMPT)
    served = [list(c.output_token_ids) for c in completions]
    assert served == [reference(ids, 8, banned=eos) for ids in PROMPTS]


def test_an_engine_is_built_once_for_all_that_need_the_same(results, monkeypatch):
    first = build(results, spec())
    monkeypatch.setattr(tensorrt_engine, "compile_engine", None)
    assert build(results, spec(sweep="another")) == first
    table = builds.table("another", [("tiny--tensorrt--float32", first)])
    assert "test/tiny--tensorrt--float32" in table.csv


@pytest.mark.parametrize(
    "other", [{"batch_size": 2}, {"max_output_tokens": 9}, {"precision": "float16"}]
)
def test_another_batch_length_or_precision_is_another_engine(results, other):
    assert build(results, spec(**other)).key != build(results, spec()).key


def test_a_failed_build_is_a_row_with_its_reason_and_is_tried_again(results, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("no kernel for this board")

    asked = spec(max_output_tokens=5)
    with monkeypatch.context() as patch:
        patch.setattr(tensorrt_engine, "compile_engine", fail)
        record = build(results, asked)
    assert record.outcome == "failed"
    assert record.reason == "RuntimeError: no kernel for this board"
    assert record.build is None
    engines = results / "models" / "tiny" / "engines"
    assert not (engines / record.key).exists()
    assert not list(engines.glob(".*.partial"))
    with pytest.raises(LlmEnergyError, match="could not be built: RuntimeError: no kernel"):
        serve(results, asked)
    (row,) = builds.table("test", [("cell", record)]).sheet.lines
    assert row.cells["reason"] == record.reason

    assert build(results, asked).outcome == "ok"


@pytest.mark.skipif(not STANDS_IN, reason="the engine itself quantises")
def test_what_the_library_refuses_to_build_says_so(results):
    record = build(results, spec("int8"))
    assert record.inputs["quant_algo"] == "W8A16"
    assert record.outcome == "failed"
    assert "quantises nothing" in record.reason


def test_an_engine_that_is_gone_names_what_to_delete(results):
    asked = spec(max_output_tokens=6)
    record = build(results, asked)
    shutil.rmtree(results / "models" / "tiny" / "engines" / record.key)
    with pytest.raises(LlmEnergyError, match=r"is gone: delete .*float32\.json"):
        serve(results, asked)


def test_an_engine_of_another_version_or_board_is_not_taken(results, monkeypatch):
    asked = spec()
    build(results, asked)
    here = tensorrt_engine.describe_builder() | {"engine_version": "1.3.0"}
    monkeypatch.setattr(tensorrt_engine, "describe_builder", lambda: here)
    with pytest.raises(LlmEnergyError, match=r"engine_version 1\.2\.1.*, here is 1\.3\.0: delete"):
        serve(results, asked)


def test_a_prompt_longer_than_the_engine_is_refused(results):
    asked = spec()
    build(results, asked)
    backend = backends.create("tensorrt")
    backend.load(asked, results / "models" / "tiny" / "files")
    try:
        with pytest.raises(Unsupported, match="r0: 30 prompt tokens and 8 output tokens"):
            backend.prepare(asked.workloads[0], [Request("r0", tuple(range(20, 50)))])
        with pytest.raises(Unsupported, match="without the logits"):
            backend.score([PROMPT])
    finally:
        backend.close()


# the flow of PyTorch


@pytest.fixture(scope="module")
def loaded(results):
    """Give a backend on the PyTorch flow, and what its load reported."""
    backend = backends.create("tensorrt")
    yield backend, backend.load(spec(flow="pytorch"), results / "models" / "tiny" / "files")
    backend.close()


def test_the_effective_configuration_is_recorded(loaded):
    _, effective = loaded
    expected = {
        "flow": "pytorch",
        "dtype": "float32",
        "max_batch_size": 4,
        "max_num_tokens": 8192,
        "tensor_parallel_size": 1,
        "kv_cache_config.enable_block_reuse": False,
        "kv_cache_memory_fraction": 0.9,
        "capacity_scheduler_policy": "GUARANTEED_NO_EVICT",
        "attention_backend": "TRTLLM",
        "overlap_scheduler": True,
        "cuda_graphs": True,
    }
    assert {name: effective[name] for name in expected} == expected


def test_statistics_say_how_full_batch_and_cache_were(loaded):
    backend, _ = loaded
    workload = spec(flow="pytorch", batch_size=2).workloads[0]
    backend.prepare(workload, [Request(f"r{i}", PROMPT) for i in range(6)])
    backend.generate()
    events = backend.events()
    assert 1 < events["mean_running_requests"] <= 2
    assert 0 < events["mean_kv_cache_use"] <= events["largest_kv_cache_use"] <= 1
    assert events["preempted_requests"] == 0
    assert events["requests_without_engine_times"] == 0


def test_times_of_another_clock_are_left_out_and_counted(loaded, monkeypatch):
    backend, _ = loaded
    backend.prepare(spec(flow="pytorch").workloads[0], requests())
    monkeypatch.setattr(tensorrt, "engine_times", of_another_clock)
    completions = backend.generate()
    assert [c.first_token_s for c in completions] == [None, None]
    assert backend.events()["requests_without_engine_times"] == 2


def of_another_clock(output, arrival_s, end_s):
    """Read times as if the pass had begun when it ended."""
    return engine_times(output, end_s, end_s)


def test_times_of_tokens_lie_between_the_engines_own():
    known = Times(True, begin_s=1.0, first_s=2.0, last_s=5.0)
    assert known.with_tokens([2.5, 3.0, 5.5, 5.6]).tokens_s == (2.0, 3.0, 5.0, 5.0)
    assert known.with_tokens([2.5]).last_s == 2.0
    unknown = Times(False).with_tokens([2.5, 3.0])
    assert (unknown.first_s, unknown.last_s, unknown.tokens_s) == (2.5, 3.0, (2.5, 3.0))


@pytest.mark.skipif(not STANDS_IN, reason="the engine cannot be made to fail")
def test_a_request_that_fails_ends_the_others_and_the_engine_serves_on(loaded, monkeypatch):
    backend, _ = loaded
    workload = spec(flow="pytorch", batch_size=3).workloads[0]
    backend.prepare(workload, [Request(f"r{i}", PROMPT) for i in range(3)])
    whole, steps = tensorrt_stand_in_engine.Run.step, []

    def step(run):
        steps.append(run)
        if len(steps) == 5:
            raise RuntimeError("an illegal memory access was encountered")
        whole(run)

    with monkeypatch.context() as patch:
        patch.setattr(tensorrt_stand_in_engine.Run, "step", step)
        with pytest.raises(RuntimeError, match="illegal memory access"):
            backend.generate()
    assert backend._llm._engine.running == set()
    assert {len(c.output_token_ids) for c in backend.generate()} == {8}


def test_a_cpu_is_refused(results):
    asked = dataclasses.replace(spec(flow="pytorch"), device="cpu")
    with pytest.raises(Unsupported, match="needs an NVIDIA GPU"):
        backends.create("tensorrt").load(asked, results / "models" / "tiny" / "files")


# what is passed


FLOWS = ("pytorch", "compiled")


def use_everything(results, flows=FLOWS) -> None:
    """Make every call that the backend makes."""
    files = results / "models" / "tiny" / "files"
    for flow in flows:
        asked = spec(flow=flow, do_sample=True, top_k=5, top_p=0.9, temperature=0.7)
        if flow == "compiled":
            shutil.rmtree(results / "models" / "tiny" / "engines", ignore_errors=True)
            record = build(results, asked)
            assert record.outcome == "ok", record.reason
        backend = backends.create("tensorrt")
        try:
            backend.load(asked, files)
            backend.prepare(asked.workloads[0], requests())
            completions = backend.generate()
            assert all(c.first_token_s and c.last_token_s for c in completions)
            assert {len(c.output_token_ids) for c in completions} == {8}
            assert backend.events()["mean_running_requests"]
            if flow == "pytorch":
                backend.score([PROMPT])
        finally:
            backend.close()


def entries(contract):
    """Give (class, path to the entry's group, name of the entry, entry) of all arguments."""
    for path, kind in contract["classes"].items():
        yield from ((path, ("arguments",), n, e) for n, e in kind.get("arguments", {}).items())
        for method, about in kind.get("methods", {}).items():
            group = ("methods", method, "arguments")
            yield from ((path, group, n, e) for n, e in about["arguments"].items())


# Only ever passed with a workload or a precision that asks for them.
ONLY_WHERE_ASKED = {
    "min_p",
    "repetition_penalty",
    "no_repeat_ngram_size",
    "stop_token_ids",
    "quant_algo",
    "quant_config",
}


@pytest.mark.skipif(not STANDS_IN, reason="the stand-in keeps account of what it is passed")
def test_what_is_passed_is_what_is_written_down(results):
    tensorrt_stand_in.PASSED.clear()
    use_everything(results)
    passed = {name for _, name in tensorrt_stand_in.PASSED} - {"self"}
    written = {n for _, _, n, e in entries(CONTRACT) if e["use"] == "passed"}
    assert passed - written == set()
    assert written - passed <= ONLY_WHERE_ASKED


load_once = functools.cache(tensorrt_stand_in_engine._load)
RENAMED = [
    (path, group, name)
    for path, group, name, entry in entries(CONTRACT)
    if entry["use"] == "passed"
    and name not in ONLY_WHERE_ASKED
    # What LLM itself no longer takes goes to the class that takes the rest.
    and (name == "model" or group != ("arguments",) or not path.endswith(".LLM"))
]


@pytest.mark.skipif(not STANDS_IN, reason="a package is not mutated")
@pytest.mark.parametrize(
    ("path", "group", "name"), RENAMED, ids=[f"{p}-{n}" for p, _, n in RENAMED]
)
def test_a_renamed_argument_breaks_the_backend(results, monkeypatch, path, group, name):
    monkeypatch.setattr(tensorrt_stand_in_engine, "_load", load_once)
    monkeypatch.setattr(gc, "collect", lambda: 0)  # which takes most of the time
    of_compiled = ("_tensorrt_engine", "TrtLlmArgs", "BuildConfig")
    contract = copy.deepcopy(CONTRACT)
    holder = contract["classes"][path]
    for key in group:
        holder = holder[key]
    renamed = {f"{key}_2" if key == name else key: value for key, value in holder.items()}
    holder.clear()
    holder.update(renamed)
    seen = (Unsupported, TypeError, ValueError, AttributeError, AssertionError)
    with tensorrt_stand_in.registered(contract), pytest.raises(seen):
        use_everything(results, FLOWS[any(part in path for part in of_compiled) :][:1])


# what a stand-in measures


def test_no_number_of_a_stand_in_enters_a_table(loaded):
    _, effective = loaded
    found = CATALOGUE["E32"]
    assert found.severity == "invalid"
    assert ("stand.in" in effective["engine_version"]) == STANDS_IN


def test_a_load_that_the_library_refuses_is_unsupported(results, tmp_path):
    broken = tmp_path / "files"
    shutil.copytree(results / "models" / "tiny" / "files", broken)
    about = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(about | {"model_type": "no-such-model"}))
    with pytest.raises(Unsupported, match="TensorRT-LLM cannot load"):
        backends.create("tensorrt").load(spec(flow="pytorch"), broken)
