"""What only the TensorRT-LLM backend does: its calls, and what it records.

Where the package is not installed a fake runs that is made from tests/support/tensorrt_api.yaml.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import gc
import json
import shutil

import pytest
from support import builders, fake_tensorrt, fake_tensorrt_engine, tensorrt_contract
from support.subject import PROMPT, parameters

from llm_energy.analysis.checks import CATALOGUE
from llm_energy.backends import base
from llm_energy.backends.compatibility import translate
from llm_energy.backends.tensorrt import backend as tensorrt
from llm_energy.backends.tensorrt.request_times import Times, engine_times
from llm_energy.core.errors import Unsupported
from llm_energy.records import MeterSettings, Request, Workload, write_record

pytestmark = pytest.mark.engine

STANDS_IN = "stand.in" in __import__("tensorrt_llm").__version__
CONTRACT = tensorrt_contract.load()
PROMPTS = (PROMPT, PROMPT[:3])
QUIET = MeterSettings(codecarbon=False, sampling_period_s=None)


@pytest.fixture(scope="module")
def results(tmp_path_factory, tiny_folder):
    """Return a folder ``results`` in which the tiny model lies as the models stage leaves it."""
    folder = tmp_path_factory.mktemp("project") / "results"
    shutil.copytree(tiny_folder, folder / "models" / "tiny" / "files")
    write_record(folder / "models" / "tiny" / "manifest.json", builders.manifest("tiny"))
    return folder


def spec(precision: str = "float32", **asked):
    """Return the spec of one cell with one workload."""
    universal = parameters(precision, **asked)
    native = translate(universal, "tensorrt", None, "auto")
    workload = Workload("w", len(PROMPTS), universal, native.generate)
    return builders.spec(
        precision,
        backend="tensorrt",
        model="tiny",
        workloads=(workload,),
        engine=native.load,
        meter=QUIET,
    )


def requests():
    return tuple(Request(f"r{i}", ids) for i, ids in enumerate(PROMPTS))


def test_the_package_is_as_written_down():
    """Hold the file against the package; conftest.py runs this before all else."""
    found = tensorrt_contract.differences(CONTRACT)
    assert found == [], "\n".join(
        ["tests/support/tensorrt_api.yaml is not what is installed:", *found]
    )


# what is recorded


@pytest.fixture(scope="module")
def loaded(results):
    """Return a backend on the PyTorch flow, and what its load reported."""
    backend = base.create("tensorrt")
    yield backend, backend.load(spec(), results / "models" / "tiny" / "files")
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
    workload = spec(batch_size=2).workloads[0]
    backend.prepare(workload, [Request(f"r{i}", PROMPT) for i in range(6)])
    backend.generate()
    events = backend.events()
    assert 1 < events["mean_running_requests"] <= 2
    assert 0 < events["mean_kv_cache_use"] <= events["largest_kv_cache_use"] <= 1
    assert events["preempted_requests"] == 0
    assert events["requests_without_engine_times"] == 0


def test_times_of_another_clock_are_left_out_and_counted(loaded, monkeypatch):
    backend, _ = loaded
    backend.prepare(spec().workloads[0], requests())
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
    workload = spec(batch_size=3).workloads[0]
    backend.prepare(workload, [Request(f"r{i}", PROMPT) for i in range(3)])
    whole, steps = fake_tensorrt_engine.Run.step, []

    def step(run):
        steps.append(run)
        if len(steps) == 5:
            raise RuntimeError("an illegal memory access was encountered")
        whole(run)

    with monkeypatch.context() as patch:
        patch.setattr(fake_tensorrt_engine.Run, "step", step)
        with pytest.raises(RuntimeError, match="illegal memory access"):
            backend.generate()
    assert backend._llm._engine.running == set()
    assert {len(c.output_token_ids) for c in backend.generate()} == {8}


def test_a_cpu_is_refused(results):
    asked = dataclasses.replace(spec(), device="cpu")
    with pytest.raises(Unsupported, match="needs an NVIDIA GPU"):
        base.create("tensorrt").load(asked, results / "models" / "tiny" / "files")


# what is passed


def use_everything(results) -> None:
    """Make every call that the backend makes."""
    asked = spec(do_sample=True, top_k=5, top_p=0.9, temperature=0.7)
    backend = base.create("tensorrt")
    try:
        backend.load(asked, results / "models" / "tiny" / "files")
        backend.prepare(asked.workloads[0], requests())
        completions = backend.generate()
        assert all(c.first_token_s and c.last_token_s for c in completions)
        assert {len(c.output_token_ids) for c in completions} == {8}
        assert backend.events()["mean_running_requests"]
        backend.score([PROMPT])
    finally:
        backend.close()


def entries(contract):
    """Return (class, path to the entry's group, name of the entry, entry) of all arguments."""
    for path, kind in contract["classes"].items():
        yield from ((path, ("arguments",), n, e) for n, e in kind.get("arguments", {}).items())
        for method, about in kind.get("methods", {}).items():
            group = ("methods", method, "arguments")
            yield from ((path, group, n, e) for n, e in about["arguments"].items())


# Only ever passed with a workload or a precision that asks for them.
ONLY_WHERE_ASKED = {"no_repeat_ngram_size", "stop_token_ids"}


@pytest.mark.skipif(not STANDS_IN, reason="the stand-in keeps account of what it is passed")
def test_what_is_passed_is_what_is_written_down(results):
    fake_tensorrt.PASSED.clear()
    use_everything(results)
    passed = {name for _, name in fake_tensorrt.PASSED} - {"self"}
    written = {n for _, _, n, e in entries(CONTRACT) if e["use"] == "passed"}
    assert passed - written == set()
    assert written - passed <= ONLY_WHERE_ASKED


load_once = functools.cache(fake_tensorrt_engine._load)
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
    monkeypatch.setattr(fake_tensorrt_engine, "_load", load_once)
    monkeypatch.setattr(gc, "collect", lambda: 0)  # which takes most of the time
    contract = copy.deepcopy(CONTRACT)
    holder = contract["classes"][path]
    for key in group:
        holder = holder[key]
    renamed = {f"{key}_2" if key == name else key: value for key, value in holder.items()}
    holder.clear()
    holder.update(renamed)
    seen = (Unsupported, TypeError, ValueError, AttributeError, AssertionError)
    with fake_tensorrt.registered(contract), pytest.raises(seen):
        use_everything(results)


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
        base.create("tensorrt").load(spec(), broken)
