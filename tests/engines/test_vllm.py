"""What is particular to vLLM: admission, the KV cache, pre-quantised weights, one process."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import logging
import math
import os
import re
import shutil
import threading
import typing
import weakref
from pathlib import Path
from typing import Any

import psutil
import pytest
from support import tiny_model
from support.subject import PROMPT, Subject, parameters
from support.tiny_quantised import write_w8a8

from llm_energy.backends.arguments import ARGUMENTS
from llm_energy.backends.engine_errors import outcome
from llm_energy.backends.served.failures import load_failure, serving_failure
from llm_energy.backends.served.server import ServerFailure
from llm_energy.backends.vllm.backend import CAPABILITIES, Backend
from llm_energy.backends.vllm.environment import ENVIRONMENT, cpu_groups, set_environment
from llm_energy.backends.vllm.served import Backend as ServedBackend
from llm_energy.backends.vllm.served import command
from llm_energy.backends.vllm.weights import check_precision, prequantized_folder
from llm_energy.core.errors import OutOfMemory, Unsupported
from llm_energy.inputs.models import quantization
from llm_energy.inputs.models.files import read_safetensors_header
from llm_energy.records import (
    SCHEMA_VERSION,
    Completion,
    MeterSettings,
    Protocol,
    Request,
    Spec,
    Workload,
)

# Looked up and not imported: the backend sets the environment that vLLM reads while it is imported.
pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None, reason="vllm is not installed here"
    ),
]
BLOCK_TOKENS = 32


def spec(device: str = "auto", **engine: Any) -> Spec:
    asked = {
        "dtype": "float32",
        "quantization": None,
        "max_num_seqs": 4,
        "tensor_parallel_size": 1,
        "enable_prefix_caching": False,
        "seed": 1,
        "kv_cache_memory_bytes": 2**26,
    }
    return Spec(
        schema_version=SCHEMA_VERSION,
        sweep="s",
        cell="tiny--vllm--float32",
        model="tiny",
        backend="vllm",
        precision="float32",
        repeat=1,
        seed=1,
        device=device,
        engine=asked | engine,
        workloads=(Workload("loaded", 0, parameters(), {}),),
        notes=(),
        protocol=Protocol(),
        meter=MeterSettings(),
    )


def prepare(
    engine: Backend, lengths: list[int], batch_size: int = 4, tokens: int = 8
) -> dict[str, Any]:
    native = {"temperature": 0.0, "max_tokens": tokens, "min_tokens": tokens, "ignore_eos": True}
    prompts = [tuple(5 + place % 99 for place in range(length)) for length in lengths]
    requests = [Request(f"r{i}", prompt) for i, prompt in enumerate(prompts)]
    universal = parameters(batch_size=batch_size)
    return engine.prepare(Workload("w", len(requests), universal, native), requests)


def serve(engine: Backend, lengths: list[int], **asked: int) -> list[Completion]:
    prepare(engine, lengths, **asked)
    return engine.generate()


@pytest.fixture(scope="module")
def small(tiny_folder: Path):
    """Return an engine whose KV cache holds four blocks, so that it is soon full."""
    engine = Backend()
    engine.load(spec(block_size=BLOCK_TOKENS, num_gpu_blocks_override=5), tiny_folder)
    yield engine
    engine.close()


def test_the_arguments_that_an_entry_may_set_are_the_engine_s_own():
    from vllm.config import SpeculativeConfig
    from vllm.engine.arg_utils import EngineArgs

    types = {field.name: field.type for field in dataclasses.fields(EngineArgs)}
    plain = {"boolean": bool, "integer": int, "number": float}
    for name, argument in ARGUMENTS["vllm"].items():
        found = types[name]
        kinds = typing.get_args(found) or (found,)
        if argument.choices:
            assert set(argument.choices) <= set(kinds), name
        elif argument.keys:
            assert dict in map(typing.get_origin, kinds), name
            names = {one.name for one in dataclasses.fields(SpeculativeConfig)}
            assert argument.keys.keys() <= names
        else:
            assert plain[argument.type] in kinds, name


def test_every_argument_is_read_back_from_the_loaded_engine(unloaded, tiny_folder):
    asked = {
        "block_size": 2 * BLOCK_TOKENS,
        "enable_chunked_prefill": False,
        "enable_prefix_caching": True,
        "max_num_batched_tokens": 1024,
        "max_model_len": 256,
    }
    used = unloaded.load(spec(**asked), tiny_folder)["arguments"]
    assert used.keys() == ARGUMENTS["vllm"].keys()
    assert {name: used[name] for name in asked} == asked


@pytest.fixture
def unloaded():
    """Return a backend that a test will fail to load."""
    engine = Backend()
    yield engine
    engine.close()


def test_an_fp8_cache_that_this_cpu_lacks_is_unsupported_with_the_reason(
    unloaded, tiny_folder, monkeypatch
):
    import torch

    if torch.cuda.is_available():
        pytest.skip("the vLLM of a GPU runs on no CPU")
    for name in ("_is_amx_tile_supported", "_is_avx512_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False)
    with pytest.raises(Unsupported, match="FP8 KV cache on CPU requires x86 with AVX-512 or AMX"):
        unloaded.load(spec("cpu", kv_cache_dtype="fp8"), tiny_folder)


@pytest.mark.parametrize(("batch_size", "most"), [(1, 1), (3, 3), (4, 4), (64, 4)])
def test_at_most_a_batch_size_of_requests_runs(small, monkeypatch, batch_size, most):
    core = small._engine.engine_core.engine_core
    running, execute = [], core.model_executor.execute_model

    def counting(scheduled, **options):
        running.append(len(scheduled.num_scheduled_tokens))
        return execute(scheduled, **options)

    monkeypatch.setattr(core.model_executor, "execute_model", counting)
    effective = prepare(small, [3, 4, 5, 6, 7, 8], batch_size)
    small.generate()

    assert max(running) == most
    assert effective["batching"]["max_requests_in_flight"] == most


def test_the_next_request_starts_when_one_has_ended(small):
    completions = serve(small, [3, 4, 5], batch_size=2)

    assert len({c.arrival_s for c in completions}) == 1
    assert completions[2].first_token_s > completions[0].last_token_s


def test_a_full_kv_cache_is_counted_and_the_next_pass_is_whole(small):
    lengths, tokens = [BLOCK_TOKENS - 4] * 4, 12
    crowded = serve(small, lengths, tokens=tokens)
    assert [len(c.output_token_ids) for c in crowded] == [tokens] * 4
    assert small.events()["preempted_requests"] > 0

    alone = serve(small, lengths, tokens=tokens, batch_size=2)
    assert small.events()["preempted_requests"] == 0
    assert [c.output_token_ids for c in alone] == [c.output_token_ids for c in crowded]


def test_the_mean_of_running_requests_is_over_the_steps(small):
    serve(small, [3, 4, 5, 6], tokens=8)
    assert small.events()["mean_running_requests"] == 4

    serve(small, [3, 4, 5], batch_size=2, tokens=8)  # two together, then one
    assert small.events()["mean_running_requests"] == pytest.approx(1.5, abs=0.1)
    assert small.events()["steps"] == 16


def test_a_request_beyond_the_kv_cache_is_out_of_memory(small):
    with pytest.raises(OutOfMemory, match=r"request r1: .* KV cache of 128 tokens"):
        prepare(small, [4, 4 * BLOCK_TOKENS], tokens=8)


def test_a_failed_allocation_leaves_nothing_behind(small, monkeypatch):
    prepare(small, [3, 4])
    step = small._engine.step

    def fail_once():
        monkeypatch.setattr(small._engine, "step", step)
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9")

    monkeypatch.setattr(small._engine, "step", fail_once)
    with pytest.raises(OutOfMemory, match="generate: DefaultCPUAllocator"):
        small.generate()

    assert not small._engine.has_unfinished_requests()
    assert len(small.generate()) == 2


def test_nothing_is_written_during_a_pass(small, capfd, caplog):
    prepare(small, [3, 4])
    small.generate()
    capfd.readouterr()
    caplog.clear()
    with caplog.at_level(logging.DEBUG):
        small.generate()

    assert capfd.readouterr() == ("", "")


def test_nothing_is_counted_for_prometheus(small):
    assert small._engine.logger_manager is None
    assert serve(small, [3])[0].first_token_s is not None


def test_a_request_beyond_the_context_is_unsupported_and_memory_comes_back(tiny_folder):
    context = json.loads((tiny_folder / "config.json").read_text())["max_position_embeddings"]
    engine = Backend()
    effective = engine.load(spec(), tiny_folder)
    runner = engine._engine.model_executor.driver_worker.worker.model_runner
    model, cache = weakref.ref(runner.model), weakref.ref(runner.kv_caches[0])
    del runner

    assert effective["max_model_len"] == context
    with pytest.raises(Unsupported, match=rf"request r1: .* context of {context}"):
        prepare(engine, [4, context], tokens=1)
    with pytest.raises(Unsupported, match="request r0: the prompt is empty"):
        prepare(engine, [0])

    engine.close()
    engine.close()
    assert (model(), cache()) == (None, None)


def test_a_device_that_is_not_there_is_unsupported(unloaded, tiny_folder):
    torch = pytest.importorskip("torch")
    missing = "cpu" if torch.cuda.is_available() else "cuda"

    with pytest.raises(Unsupported, match=f"device '{missing}'"):
        unloaded.load(spec(device=missing), tiny_folder)


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ({"tensor_parallel_size": 3}, "divisible by tensor parallel size"),
        ({"quantization": "no-such-method"}, "no-such-method"),
        ({"no_such_argument": 1}, "no_such_argument"),
    ],
)
def test_what_the_engine_refuses_is_unsupported(unloaded, tiny_folder, engine, message):
    with pytest.raises(Unsupported, match=message):
        unloaded.load(spec(**engine), tiny_folder)


def test_a_model_that_the_engine_does_not_support_is_unsupported(unloaded, tmp_path):
    tiny_model.build(tmp_path / "gpt2", "gpt2")
    with outcome() as found:
        unloaded.load(spec(quantization="bitsandbytes", dtype="bfloat16"), tmp_path / "gpt2")
    assert found.outcome == "unsupported"
    assert "GPT2LMHeadModel does not support BitsAndBytes" in found.reason


def test_a_head_size_without_a_kernel_is_unsupported(unloaded, tiny_folder, tmp_path):
    if pytest.importorskip("torch").cuda.is_available():
        pytest.skip("kernels of GPUs have other sizes")
    odd = shutil.copytree(tiny_folder, tmp_path / "odd")
    config = json.loads((odd / "config.json").read_text())
    (odd / "config.json").write_text(json.dumps(config | {"head_dim": 20}))
    with outcome() as found:
        unloaded.load(spec(load_format="dummy"), odd)
        prepare(unloaded, [5])
        unloaded.generate()
    assert found.outcome == "unsupported"
    assert "Unsupported CPU attention configuration: head_dim=20" in found.reason


def test_too_large_a_kv_cache_is_out_of_memory(unloaded, tiny_folder):
    if unloaded and pytest.importorskip("torch").cuda.is_available():
        pytest.skip("the size is checked against the host's memory")
    with pytest.raises(OutOfMemory, match="KV"):
        unloaded.load(spec(kv_cache_memory_bytes=2**50), tiny_folder)


def test_8_bit_weights_need_a_folder_quantised_before(unloaded, tmp_path):
    with pytest.raises(Unsupported, match=r"quantised before, and there is no .*model-int8"):
        unloaded.load(spec(quantization="bitsandbytes", load_in_8bit=True), tmp_path / "model")


def test_8_bit_is_never_served_as_4_bit(unloaded, tiny_folder):
    workload = Workload("w", 1, parameters("int8"), {})
    asked = dataclasses.replace(spec(quantization="bitsandbytes"), workloads=(workload,))
    with pytest.raises(Unsupported, match="quantise to 4 bits"):
        unloaded.load(asked, tiny_folder)


# behind its server


def test_what_the_server_refuses_is_unsupported_and_nothing_is_left(tiny_folder):
    served, before = ServedBackend(), set(psutil.Process().children(recursive=True))
    try:
        with pytest.raises(Unsupported, match="divisible by tensor parallel size"):
            served.load(spec(flow="server", tensor_parallel_size=3), tiny_folder)
    finally:
        served.close()
    assert set(psutil.Process().children(recursive=True)) <= before


def test_an_engine_that_dies_in_a_window_costs_that_window_and_leaves_nothing(tiny_folder):
    served, before = ServedBackend(), set(psutil.Process().children(recursive=True))
    try:
        served.load(spec(flow="server"), tiny_folder)
        ours = set(psutil.Process().children(recursive=True)) - before
        (core,) = [one for one in ours if "EngineCore" in one.name()]
        prepare(served, [3, 4, 5, 6], batch_size=2, tokens=1500)
        timer = threading.Timer(0.5, core.kill)
        timer.start()
        with outcome() as window:
            served.generate()
        with outcome() as next_window:
            serve(served, [3])
    finally:
        served.close()
    assert (window.outcome, next_window.outcome) == ("failed", "failed")
    assert "ServerFailure" in window.reason
    assert "the server" in next_window.reason
    assert set(psutil.Process().children(recursive=True)) <= before


# without an engine


@pytest.mark.parametrize(
    ("said", "kind", "message"),
    [
        ("RuntimeError: [enforce fail] DefaultCPUAllocator: can't", OutOfMemory, "in load: Runt"),
        ("x\nValueError: No model\nRuntimeError: see above", Unsupported, "load m: No model"),
        (
            "ValidationError: 1 validation error for ModelConfig\n  Value error, bad dtype [type",
            Unsupported,
            "load m: Value error, bad dtype",
        ),
        ("usage: x\nx: error: unrecognized arguments: --y=1", Unsupported, "unrecognized .*--y=1"),
        ("RuntimeError: a bug", ServerFailure, "it ended"),
    ],
)
def test_the_last_words_of_a_server_say_what_came_of_its_load(said, kind, message):
    found = load_failure(ServerFailure("it ended"), said, Path("m"), "vLLM")
    assert type(found) is kind
    assert re.search(message, str(found))


@pytest.mark.parametrize(
    ("said", "kind", "message"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried", OutOfMemory, "in the server: torch"),
        (
            "RuntimeError: a kernel failed\nEngineDeadError: see above",
            ServerFailure,
            "it answered 500; the server wrote: RuntimeError: a kernel failed",
        ),
        ("INFO all is well", ServerFailure, "it answered 500"),
    ],
)
def test_a_failed_window_has_the_cause_that_the_server_wrote(said, kind, message):
    found = serving_failure(ServerFailure("it answered 500"), said)
    assert type(found) is kind
    assert message in str(found)


def test_arguments_become_the_options_of_a_command():
    asked = {"model": "/m", "seed": None, "enforce_eager": True, "async_scheduling": False}
    asked |= {"max_model_len": -1, "compilation_config": {"mode": 3}}
    found = command(asked)

    assert "--enforce-eager" in found
    assert "--no-async-scheduling" in found
    assert "--max-model-len=-1" in found
    assert '--compilation-config={"mode": 3}' in found
    assert "--host=127.0.0.1" in found
    assert not [option for option in found if "seed" in option]


def test_the_8_bit_folder_lies_beside_the_models(tmp_path, tiny_folder):
    shutil.copytree(tiny_folder, tmp_path / "files-int8")

    assert prequantized_folder(tmp_path / "files") == tmp_path / "files-int8"


def test_a_checkpoint_in_int8_is_int8_in_memory_and_answers(tiny_folder, tmp_path):
    folder = write_w8a8(tiny_folder, tmp_path / "files-w8a8")
    assert quantization.differences("w8a8", folder) == []
    subject = Subject("vllm", CAPABILITIES, folder, Backend()).load("w8a8")
    lengths = [len(ids) for ids in subject.ids([PROMPT], max_output_tokens=4)]
    subject.engine.close()

    tensors = read_safetensors_header(folder / "model.safetensors")
    shapes = {name: math.prod(told["shape"]) for name, told in tensors.items()}
    linear = sum(count for name, count in shapes.items() if name.endswith("_proj.weight"))
    found = subject.effective["weight_bytes_by_dtype"]
    assert subject.effective["quantization"] == "compressed-tensors"
    assert found["int8"] == linear  # one byte a weight
    assert found["bfloat16"] == 2 * sum(
        count
        for name, count in shapes.items()
        if tensors[name]["dtype"] == "F32" and not name.endswith("_scale")
    )
    assert lengths == [4]


@pytest.mark.parametrize(
    ("precision", "held", "message"),
    [
        ("int4", {"bfloat16": 9}, "asked for int4, .* the engine holds bfloat16"),
        ("int8", {"bfloat16": 9, "uint8": 9}, "asked for int8, .* holds bfloat16, uint8"),
        ("fp8", {"bfloat16": 9, "int32": 9}, "asked for fp8, .* holds bfloat16, int32"),
        ("w8a8", {"bfloat16": 9}, "asked for w8a8, .* the engine holds bfloat16"),
        ("awq", {"bfloat16": 9, "int8": 9}, "asked for awq, .* holds bfloat16, int8"),
        ("float32", {"bfloat16": 9}, "asked for float32, the engine uses bfloat16"),
    ],
)
def test_a_precision_that_was_not_applied_is_unsupported(precision, held, message):
    dtype = "float32" if precision == "float32" else "bfloat16"
    effective = {"dtype": "bfloat16", "weight_bytes_by_dtype": held}
    with pytest.raises(Unsupported, match=message):
        check_precision(effective, dtype, precision)


@pytest.mark.parametrize(
    ("cpus", "ranks", "groups"),
    [([0, 1], 1, "0,1"), ([0, 1], 2, "0|1"), ([2, 3, 4, 5, 6], 2, "2,3|4,5"), ([0], 2, "0|0")],
)
def test_cpus_are_shared_out_among_the_ranks(cpus, ranks, groups):
    assert cpu_groups(cpus, ranks) == groups


def test_the_users_environment_stays_and_one_process_is_forced(monkeypatch):
    for name in (*ENVIRONMENT, "VLLM_CPU_OMP_THREADS_BIND"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "DEBUG")
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")

    set_environment(1)

    assert os.environ["VLLM_LOGGING_LEVEL"] == "DEBUG"
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
