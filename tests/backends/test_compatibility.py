"""The compatibility matrix, its translation into native arguments, and the pages made from it."""

from __future__ import annotations

import ast
import copy
import json
from functools import cache
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from support.project import ROOT

import docs
from llm_energy.analysis.aggregate import aggregate
from llm_energy.backends import base
from llm_energy.backends.compatibility import (
    CONDITIONS,
    CONVERSIONS,
    STATUSES,
    Translation,
    matrix,
    merge_loads,
    translate,
)
from llm_energy.core.errors import BackendUnavailable, ConfigError, LlmEnergyError
from llm_energy.records import SCHEMA_VERSION, MetricsTable, Plan
from llm_energy.records.registry.precisions import quantization_of

BACKENDS = ("pytorch", "vllm", "tensorrt", "openai")
RUNNABLE = ("pytorch", "vllm")

NEUTRAL: dict[str, Any] = {
    "model_name": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "fp_precision": "bfloat16",
    "max_output_tokens": 64,
    "min_output_tokens": 0,
    "random_seed": 7,
    "decoder": {
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "no_repeat_ngram_size": 0,
        "do_sample": False,
    },
    "quantization": {"load_in_4bit": False, "load_in_8bit": False},
    "batching": {"batch_size": 8, "strategy": "static", "max_batch_tokens": None},
    "sharding": {"strategy": "none", "num_devices": 1},
    "traffic_simulation": None,
}

# The rows of the parameter tables that must each be held by a test.
TABLES = {
    "Universal Parameters": (
        "model_name",
        "fp_precision",
        "max_output_tokens",
        "min_output_tokens",
        "random_seed",
        "temperature",
        "top_p",
        "repetition_penalty",
    ),
    "Backend-Specific Support": (
        "decoder.top_k",
        "decoder.min_p",
        "decoder.no_repeat_ngram_size",
        "decoder.do_sample",
        "quantization.load_in_4bit",
        "quantization.load_in_8bit",
        "batching.batch_size",
        "batching.strategy",
        "sharding.strategy",
        "traffic_simulation",
    ),
    "Semantic Differences": ("batch_size", "top_k", "do_sample"),
    "Limitations": (
        "vLLM: no 8-bit BitsAndBytes",
        "vLLM: no no_repeat_ngram_size",
        "vLLM: batch_size is a hint",
        "vLLM: energy is aggregate only",
        "PyTorch: static batching",
        "PyTorch: lower throughput",
        "PyTorch: no TTFT metric",
    ),
    "Troubleshooting": (
        "Backend Not Available",
        "Config Warnings",
        "Mixed Backend Aggregation",
    ),
}


def parameters(**changes: Any) -> dict[str, Any]:
    """Return the neutral parameters with some changed; a double underscore stands for a dot."""
    changed = copy.deepcopy(NEUTRAL)
    for path, value in changes.items():
        *parents, last = path.split("__")
        target = changed
        for key in parents:
            target = target[key]
        target[last] = value
    return changed


def run(
    backend: str,
    version: str | None = None,
    device: str = "cpu",
    flow: str | None = None,
    **changes: Any,
):
    return translate(parameters(**changes), backend, version, device, flow)


def sampled(backend: str, **changes: Any) -> Translation:
    return run(backend, decoder__do_sample=True, **changes)


def statuses(translation: Translation) -> dict[str, str]:
    return {note.parameter: note.status for note in translation.notes}


def cell_of(backend: str, name: str, value: str | None = None) -> dict[str, Any]:
    """Return the matrix's first entry for a parameter (and its value) or a feature."""
    for row in all_rows():
        if name in (row.get("parameter"), row.get("feature")) and row.get("value") == value:
            return row[backend][0]
    raise AssertionError(f"no row {name} {value}")


def all_rows() -> list[dict[str, Any]]:
    return [row for section in matrix()["sections"] for row in section["rows"]]


# universal parameters


@pytest.mark.parametrize("backend", RUNNABLE)
def test_model_name_is_supported_and_no_engine_argument(backend):
    other = run(backend, model_name="another/model")
    assert other == run(backend)
    assert cell_of(backend, "model_name")["status"] == "supported"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_fp_precision_is_passed_by_name(backend, precision):
    assert run(backend, fp_precision=precision).load["dtype"] == precision


def test_lengths_go_by_each_engines_name():
    changes = {"max_output_tokens": 32, "min_output_tokens": 5}
    hugging_face, vllm = run("pytorch", **changes).generate, run("vllm", **changes).generate
    assert (hugging_face["max_new_tokens"], hugging_face["min_new_tokens"]) == (32, 5)
    assert (vllm["max_tokens"], vllm["min_tokens"]) == (32, 5)


@pytest.mark.parametrize(("least", "forced"), [(64, True), (63, False), (0, False)])
def test_only_a_forced_length_ignores_the_end_of_sequence_on_vllm(least, forced):
    assert run("vllm", min_output_tokens=least).generate["ignore_eos"] is forced


def test_random_seed_reaches_engine_and_requests():
    assert run("pytorch", random_seed=11).generate["seed"] == 11
    vllm = run("vllm", random_seed=11)
    assert (vllm.load["seed"], vllm.generate["seed"]) == (11, 11)


@pytest.mark.parametrize("backend", RUNNABLE)
@pytest.mark.parametrize(
    ("name", "value"), [("temperature", 0.7), ("top_p", 0.9), ("min_p", 0.05), ("top_k", 40)]
)
def test_sampling_parameters_pass_unchanged_when_sampling(backend, name, value):
    translation = sampled(backend, **{f"decoder__{name}": value})
    assert translation.generate[name] == value
    assert not translation.conflicts


@pytest.mark.parametrize("backend", RUNNABLE)
def test_repetition_penalty_counts_in_greedy_decoding_too(backend):
    translation = run(backend, decoder__repetition_penalty=1.2)
    assert translation.generate["repetition_penalty"] == 1.2
    assert "decoder.repetition_penalty" not in statuses(translation)


# what differs between backends


@pytest.mark.parametrize("off", [0, -1])
def test_top_k_off_is_0_for_pytorch_and_minus_1_for_vllm(off):
    assert sampled("pytorch", decoder__top_k=off).generate["top_k"] == 0
    assert sampled("vllm", decoder__top_k=off).generate["top_k"] == -1


def test_top_k_conversion_is_noted():
    notes = {note.parameter: note for note in sampled("vllm", decoder__top_k=0).notes}
    assert notes["decoder.top_k"].status == "mapped"
    assert "top_k=-1" in notes["decoder.top_k"].message


def test_no_repeat_ngram_size_works_on_pytorch_alone():
    assert run("pytorch", decoder__no_repeat_ngram_size=3).generate["no_repeat_ngram_size"] == 3
    vllm = run("vllm", decoder__no_repeat_ngram_size=3)
    assert "no_repeat_ngram_size" not in vllm.generate
    (conflict,) = vllm.conflicts
    assert conflict.parameter == "decoder.no_repeat_ngram_size"
    assert "not supported by vLLM" in conflict.message
    assert "Use decoder.repetition_penalty instead" in conflict.message


def test_do_sample_is_explicit_on_pytorch_and_temperature_0_on_vllm():
    assert run("pytorch").generate["do_sample"] is False
    assert sampled("pytorch").generate["do_sample"] is True
    assert run("vllm").generate["temperature"] == 0.0
    assert sampled("vllm").generate["temperature"] == 1.0
    assert "do_sample" not in sampled("vllm").generate
    assert statuses(run("vllm"))["decoder.do_sample"] == "implicit"


def test_greedy_pytorch_gets_no_sampling_arguments():
    assert set(run("pytorch").generate) == {
        "do_sample",
        "max_new_tokens",
        "min_new_tokens",
        "no_repeat_ngram_size",
        "repetition_penalty",
        "seed",
    }


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("name", "value"), [("temperature", 0.7), ("top_p", 0.9), ("min_p", 0.05), ("top_k", 40)]
)
def test_sampling_parameters_have_no_effect_in_greedy_decoding(backend, name, value):
    translation = run(backend, **{f"decoder__{name}": value})
    assert statuses(translation)[f"decoder.{name}"] == "no effect"
    assert not translation.conflicts
    assert translation.generate == run(backend).generate


@pytest.mark.parametrize("backend", BACKENDS)
def test_temperature_0_without_sampling_is_greedy_decoding(backend):
    translation = run(backend, decoder__temperature=0.0)
    assert translation == run(backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_sampling_at_temperature_0_is_a_contradiction(backend):
    translation = sampled(backend, decoder__temperature=0.0)
    (conflict,) = translation.conflicts
    assert conflict.parameter == "decoder.do_sample"
    assert translation.generate == run(backend).generate


@pytest.mark.parametrize(("value", "limit"), [(0.001, "at least 0.01"), (2.5, "at most 2")])
def test_a_temperature_that_vllm_would_change_or_refuse_is_a_conflict(value, limit):
    translation = sampled("vllm", decoder__temperature=value)
    (conflict,) = translation.conflicts
    assert limit in conflict.message
    assert translation.generate["temperature"] == 1.0
    assert not sampled("pytorch", decoder__temperature=value).conflicts


def test_int4_is_bitsandbytes_nf4_on_pytorch():
    translation = run("pytorch", quantization__load_in_4bit=True, fp_precision="float32")
    assert translation.load["quantization"] == {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_compute_dtype": "float32",
    }


def test_int8_is_bitsandbytes_on_pytorch():
    translation = run("pytorch", quantization__load_in_8bit=True)
    assert translation.load["quantization"] == {"load_in_8bit": True}


@pytest.mark.parametrize(
    ("version", "device", "served"),
    [
        (None, "cpu", True),
        ("0.32.0", "cpu", True),
        ("0.28.0", "cuda", True),
        ("0.28.0rc1", "cpu", False),
        ("0.27.1", "cuda", True),
        ("0.27.1", "cpu", False),
        ("0.5.0", "cuda", True),
        ("0.4.3", "cuda", False),
    ],
)
def test_int4_on_vllm_by_version_and_device(version, device, served):
    translation = run("vllm", version, device, quantization__load_in_4bit=True)
    assert bool(translation.refusals) is not served
    assert (translation.load["quantization"] == "bitsandbytes") is served


@pytest.mark.parametrize(
    ("version", "device", "computes_in", "argument"),
    [
        (None, "cuda", "bfloat16", "fp8_per_tensor"),
        ("0.26.0", "cuda", "float16", "fp8_per_tensor"),
        ("0.19.1", "cuda", "bfloat16", "fp8"),
        ("0.4.3", "cuda", "bfloat16", None),
        (None, "cuda", "float32", None),
        (None, "cpu", "bfloat16", None),
    ],
)
def test_fp8_on_vllm_by_version_device_and_dtype(version, device, computes_in, argument):
    asked = {"quantization": quantization_of("fp8"), "fp_precision": computes_in}
    translation = run("vllm", version, device, **asked)
    assert translation.load["quantization"] == argument
    assert [note.message for note in translation.refusals] == (
        []
        if argument
        else [
            f"precision fp8 (quantization.scheme fp8) is not supported by vLLM (vllm "
            f"{version or '0.32.0'} on {device} computing in {computes_in}). Take an NVIDIA GPU of "
            "compute capability 8.9 or newer, and compute in bfloat16 or float16."
        ]
    )


@pytest.mark.parametrize("backend", ["pytorch", "tensorrt"])
def test_fp8_while_loading_is_refused_elsewhere_and_says_what_to_use(backend):
    (refusal,) = run(backend, None, "cuda", quantization=quantization_of("fp8")).refusals
    assert "precision fp8" in refusal.message
    assert "Use " in refusal.message


def test_int4_on_vllm_needs_a_half_precision_to_compute_in():
    asked = {"quantization__load_in_4bit": True, "fp_precision": "float32"}
    (refusal,) = run("vllm", **asked).refusals
    assert "vllm 0.32.0 on cpu computing in float32" in refusal.message
    assert "compute_precision to bfloat16 or float16" in refusal.message
    assert not run("vllm", **asked | {"fp_precision": "float16"}).refusals
    assert not run("vllm", fp_precision="float32").refusals


def test_int8_on_vllm_is_asked_for_by_name_since_the_engine_would_take_4_bits():
    load = run("vllm", quantization__load_in_8bit=True, fp_precision="float32").load
    assert (load["quantization"], load["load_in_8bit"]) == ("bitsandbytes", True)
    assert run("vllm", quantization__load_in_4bit=True).load["load_in_8bit"] is None
    assert run("vllm").load["load_in_8bit"] is None


@pytest.mark.parametrize(
    ("version", "device", "served"),
    [
        (None, "cpu", True),
        ("0.32.0+cpu", "cpu", True),
        ("0.28.0", "cpu", True),
        ("0.27.1", "cuda", True),
        ("0.27.1", "cpu", False),
        ("0.6.0", "cuda", True),
        ("0.5.4", "cuda", False),
    ],
)
def test_int8_on_vllm_by_version_and_device(version, device, served):
    translation = run("vllm", version, device, quantization__load_in_8bit=True)
    assert bool(translation.refusals) is not served
    if served:
        assert "quantise" in translation.notes[0].message
        assert "folder" in translation.notes[0].message
    else:
        assert "int4" in translation.refusals[0].message
        assert "GPTQ or AWQ" in translation.refusals[0].message


def test_both_quantisations_at_once_are_refused():
    both = {"quantization__load_in_4bit": True, "quantization__load_in_8bit": True}
    assert "exclude each other" in run("pytorch", **both).refusals[0].message


def test_batch_size_is_exact_on_pytorch_and_a_hint_on_vllm():
    assert run("pytorch", batching__batch_size=3) == run("pytorch")
    vllm = run("vllm", batching__batch_size=3)
    assert vllm.load["max_num_seqs"] == 3
    assert statuses(vllm)["batching.batch_size"] == "hint"


@pytest.mark.parametrize("strategy", ["static", "dynamic"])
def test_batching_strategy_changes_nothing_on_vllm(strategy):
    translation = run("vllm", batching__strategy=strategy)
    assert statuses(translation)["batching.strategy"] == "implicit"
    assert (translation.load, translation.generate) == (run("vllm").load, run("vllm").generate)
    assert "batching.strategy" not in statuses(run("pytorch", batching__strategy=strategy))


def test_a_token_budget_only_counts_for_dynamic_batches():
    budget = {"batching__max_batch_tokens": 4096}
    assert statuses(run("pytorch", **budget))["batching.max_batch_tokens"] == "no effect"
    dynamic = {**budget, "batching__strategy": "dynamic"}
    assert run("pytorch", **dynamic).notes == ()
    assert statuses(run("vllm", **dynamic))["batching.max_batch_tokens"] == "implicit"


@pytest.mark.parametrize(
    ("backend", "strategy", "arguments"),
    [
        ("pytorch", "none", {"tp_plan": None, "device_map": None}),
        ("pytorch", "tensor_parallel", {"tp_plan": "auto", "device_map": None}),
        ("pytorch", "device_map", {"tp_plan": None, "device_map": "auto"}),
        ("vllm", "none", {"tensor_parallel_size": 1}),
        ("vllm", "tensor_parallel", {"tensor_parallel_size": 2}),
        ("tensorrt", "tensor_parallel", {"tensor_parallel_size": 2}),
    ],
)
def test_sharding_strategy_becomes_native_arguments(backend, strategy, arguments):
    translation = run(backend, device="cuda", sharding__strategy=strategy, sharding__num_devices=2)
    assert {key: translation.load[key] for key in arguments} == arguments


def test_layers_are_spread_over_gpus_alone():
    (refusal,) = run("pytorch", sharding__strategy="device_map").refusals
    assert "the CPU is one device; use tensor_parallel" in refusal.message


def test_a_sharding_strategy_that_vllm_lacks_refuses_the_cell():
    (refusal,) = run("vllm", sharding__strategy="device_map").refusals
    assert refusal.parameter == "sharding.strategy"
    assert "tensor_parallel instead" in refusal.message


def test_devices_without_sharding_have_no_effect():
    assert statuses(run("vllm", sharding__num_devices=4))["sharding.num_devices"] == "no effect"


@pytest.mark.parametrize("backend", RUNNABLE)
def test_offline_traffic_is_what_no_traffic_means(backend):
    assert run(backend, traffic_simulation={"mode": "offline"}) == run(backend)


@pytest.mark.parametrize("backend", RUNNABLE)
@pytest.mark.parametrize("mode", ["poisson", "constant", "gamma", "closed_loop", "trace"])
def test_timed_traffic_changes_no_argument_of_the_engine(backend, mode):
    timed = run(backend, traffic_simulation={"mode": mode, "rate_per_s": 2.0})
    plain = run(backend)
    assert (timed.load, timed.generate) == (plain.load, plain.generate)
    assert timed.refusals == timed.conflicts == ()
    assert cell_of(backend, "traffic_simulation", mode)["status"] == "supported"


@pytest.mark.parametrize(
    ("path", "value"),
    [("traffic_simulation", {"mode": "burst"}), ("fp_precision", "float8")],
)
def test_a_value_that_the_matrix_does_not_list_is_refused(path, value):
    (refusal,) = run("pytorch", **{path: value}).refusals
    assert refusal.parameter == path
    assert "allowed" in refusal.message


@pytest.mark.parametrize(
    ("flow", "strategy", "refused"),
    [
        ("continuous", "static", True),
        (None, "continuous", True),
        (None, "static", False),
        (None, "dynamic", False),
    ],
)
@pytest.mark.parametrize(
    ("path", "value"),
    [("repetition_penalty", 1.1), ("no_repeat_ngram_size", 3), ("min_p", 0.1)],
)
def test_what_continuous_batching_would_not_obey_is_said_before_anything_is_loaded(
    flow, strategy, refused, path, value
):
    decoder = {f"decoder__{path}": value, "decoder__do_sample": True}
    made = run("pytorch", flow=flow, batching__strategy=strategy, **decoder)
    assert [one.parameter for one in made.conflicts] == ([f"decoder.{path}"] if refused else [])
    assert (path in made.generate) != refused
    for one in made.conflicts:
        assert "continuous batching). Use batching.strategy static or dynamic" in one.message


def test_a_hint_that_is_no_argument_is_not_said_to_be_passed():
    made = run("pytorch", flow="continuous", batching__batch_size=4)
    (told,) = (one.message for one in made.notes if one.parameter == "batching.batch_size")
    assert told.startswith("batching.batch_size 4 is a hint for PyTorch. The most requests")


def test_prefix_caching_is_off_on_every_engine_that_has_it():
    assert run("vllm").load["enable_prefix_caching"] is False
    assert run("tensorrt").load["kv_cache_config.enable_block_reuse"] is False


# limitations that the guide names, as they stand now


def test_energy_of_one_request_is_attributed_where_the_engine_tells_its_steps():
    (row,) = (row for row in all_rows() if row.get("feature") == "energy of one request")
    for backend in BACKENDS:
        for entry in row[backend]:
            told = backend == "pytorch" or entry.get("flow") == "in_process"
            assert entry["status"] == ("mapped" if told else "unsupported")
            assert ("Attributed" in entry["note"]) == told
            assert ("energy_per_request_j" in entry.get("remedy", "")) != told


def test_static_batching_is_what_pytorch_does_and_dynamic_lessens_it():
    assert cell_of("pytorch", "static batching")["status"] == "supported"
    assert cell_of("pytorch", "batching.strategy", "dynamic")["status"] == "supported"
    assert cell_of("vllm", "continuous batching")["status"] == "supported"


def test_throughput_of_pytorch_is_stated_with_the_way_out():
    entry = cell_of("pytorch", "throughput")
    assert entry["status"] == "hint"
    assert "vllm" in entry["note"]


def test_time_to_first_token_is_measured_on_every_backend():
    for backend in BACKENDS:
        assert cell_of(backend, "time to first token")["status"] == "supported"


def test_a_backend_that_is_not_installed_names_the_command(monkeypatch):
    monkeypatch.setitem(base.MODULES, "vllm", "llm_energy.backends.not_installed")
    with pytest.raises(BackendUnavailable, match="Backend 'vllm' requires extra dependencies") as e:
        base.create("vllm")
    assert "make envs BACKENDS=vllm" in str(e.value)


def test_backends_are_pooled_only_against_advice_and_then_marked():
    tables = [MetricsTable(SCHEMA_VERSION, "s", backend, (), ()) for backend in RUNNABLE]
    plan = Plan(sweep="s", cells=())
    with pytest.raises(LlmEnergyError, match="Mixed backends detected: pytorch, vllm") as error:
        aggregate(tables, plan, {})
    assert "statistically invalid" in str(error.value)
    assert "policy.allow_mixed_backends" in str(error.value)
    pooled = aggregate(tables, plan, {}, allow_mixed_backends=True)
    assert pooled.mixed_backends == RUNNABLE


@pytest.mark.parametrize("device", ["cpu", "auto", "cuda"])
def test_tensorrt_needs_a_gpu_and_nothing_else(device):
    messages = [note.message for note in run("tensorrt", device=device).refusals]
    assert messages == (
        []
        if device == "cuda"
        else [f"TensorRT-LLM needs an NVIDIA GPU; the device here is {device}"]
    )


@pytest.mark.parametrize(
    ("name", "value"), [("repetition_penalty", 1.1), ("no_repeat_ngram_size", 2), ("min_p", 0.1)]
)
def test_what_tensorrt_accepts_and_ignores_is_a_conflict(name, value):
    asked = {"decoder__do_sample": True, f"decoder__{name}": value, "device": "cuda"}
    old, new = run("tensorrt", "1.2.1", **asked), run("tensorrt", **asked)
    assert [note.parameter for note in old.conflicts] == [f"decoder.{name}"]
    assert "tensorrt-llm 1.2.1" in old.conflicts[0].message
    assert "or take TensorRT-LLM 1.3.0rc26 or newer" in old.conflicts[0].message
    assert not new.conflicts
    assert new.generate[name] == value


@pytest.mark.parametrize("bits", ["8", "4"])
def test_tensorrt_quantises_nothing_while_it_loads(bits):
    (refusal,) = run(
        "tensorrt", device="cuda", **{f"quantization__load_in_{bits}bit": True}
    ).refusals
    assert "Use a checkpoint quantised beforehand" in refusal.message


def test_tensorrt_forces_a_length_by_its_minimum_alone():
    """With ignore_eos its end id is -1, and the ban would fall on another id."""
    forced = run("tensorrt", min_output_tokens=64).generate
    assert (forced["min_tokens"], forced["max_tokens"]) == (64, 64)
    assert "ignore_eos" not in forced


def test_compiled_steps_of_pytorch_need_a_gpu_and_batches_of_known_sizes():
    def refused(device="cuda", **asked):
        work = run("pytorch", device=device, flow="compiled", **asked)
        return [note.message for note in (*work.refusals, *work.conflicts)]

    assert refused() == []
    assert refused("cpu") == [
        "flow compiled of PyTorch needs an NVIDIA GPU; the device here is cpu"
    ]
    (dynamic,) = refused(batching__strategy="dynamic")
    assert "Use batching.strategy static, or the flow eager" in dynamic
    (timed,) = refused(traffic_simulation={"mode": "poisson", "rate_per_s": 1.0})
    assert "Use the flow eager" in timed
    (spread,) = refused(sharding__strategy="tensor_parallel", sharding__num_devices=2)
    assert "or the flow eager" in spread
    assert run("pytorch").load["flow"] == "eager"


def test_a_flow_is_for_the_backend_that_has_more_than_one():
    assert run("tensorrt").load["flow"] == "pytorch"
    assert run("pytorch", device="cuda", flow="compiled").load["flow"] == "compiled"
    (refusal,) = run("tensorrt", device="cuda", flow="eager").refusals
    assert refusal.message == "flow: found eager, allowed pytorch"
    assert len(run("tensorrt", device="cpu", flow="eager").refusals) == 2  # all at once
    assert run("vllm", flow="compiled").refusals


def test_the_server_of_vllm_is_told_and_its_usual_way_stays_as_it_was():
    """Else each measurement of an older spec would be taken anew."""
    assert "flow" not in run("vllm").load
    assert run("vllm", flow="in_process").load == run("vllm").load
    served = run("vllm", flow="server")
    assert served.load == run("vllm").load | {"flow": "server"}
    assert served.generate == run("vllm").generate
    copies = {"sharding__strategy": "data_parallel", "sharding__num_devices": 2}
    (refusal,) = run("vllm", flow="server", **copies).refusals
    assert "Use sharding.strategy tensor_parallel, or the flow in_process" in refusal.message
    assert not run("vllm", **copies).refusals


def test_no_repeat_ngram_size_0_is_left_out_for_tensorrt():
    """Of 0 it does not say that it is off."""
    assert "no_repeat_ngram_size" not in run("tensorrt").generate


# the shapes that the backends obey


@pytest.mark.parametrize(
    ("backend", "load", "generate"),
    [
        (
            "pytorch",
            {
                "flow": "eager",
                "dtype": "bfloat16",
                "quantization": None,
                "device_map": None,
                "tp_plan": None,
            },
            {
                "do_sample": True,
                "temperature": 1.0,
                "top_p": 1.0,
                "top_k": 0,
                "min_p": 0.0,
                "repetition_penalty": 1.0,
                "no_repeat_ngram_size": 0,
                "max_new_tokens": 64,
                "min_new_tokens": 0,
                "seed": 7,
            },
        ),
        (
            "vllm",
            {
                "dtype": "bfloat16",
                "quantization": None,
                "load_in_8bit": None,
                "max_num_seqs": 8,
                "tensor_parallel_size": 1,
                "enable_prefix_caching": False,
                "seed": 7,
            },
            {
                "temperature": 1.0,
                "top_p": 1.0,
                "top_k": -1,
                "min_p": 0.0,
                "repetition_penalty": 1.0,
                "max_tokens": 64,
                "min_tokens": 0,
                "ignore_eos": False,
                "seed": 7,
            },
        ),
        (
            "tensorrt",
            {
                "flow": "pytorch",
                "dtype": "bfloat16",
                "max_batch_size": 8,
                "tensor_parallel_size": 1,
                "kv_cache_config.enable_block_reuse": False,
            },
            {
                "temperature": 1.0,
                "top_p": 1.0,
                "top_k": 0,
                "min_p": 0.0,
                "repetition_penalty": 1.0,
                "max_tokens": 64,
                "min_tokens": 0,
                "seed": 7,
            },
        ),
    ],
)
def test_native_arguments_are_complete_and_nothing_else(backend, load, generate):
    translation = sampled(backend)
    assert translation.load == load
    assert translation.generate == generate


@pytest.mark.parametrize("version", [None, "", "unknown", "0.32.0"])
def test_an_unknown_engine_version_stands_for_the_checked_one(version):
    assert run("vllm", version) == run("vllm", "0.32.0")


def test_an_unknown_backend_is_a_config_error():
    with pytest.raises(ConfigError, match="pytorch, vllm, tensorrt"):
        run("sglang")


def test_merged_loads_make_room_for_the_largest_batch():
    loads = [run("vllm", batching__batch_size=size, random_seed=size) for size in (4, 32, 8)]
    assert merge_loads(loads) == {**loads[0].load, "max_num_seqs": 32}


def test_merging_changes_no_translation():
    first, second = run("vllm", batching__batch_size=1), run("vllm", batching__batch_size=2)
    merge_loads([first, second])
    assert first.load["max_num_seqs"] == 1


def test_workloads_that_need_different_engines_are_a_config_error():
    loads = [run("pytorch", device="cuda", sharding__strategy=s) for s in ("none", "device_map")]
    with pytest.raises(ConfigError, match="device_map is null in one workload and auto in another"):
        merge_loads(loads)


# what holds for all parameters

probabilities = st.floats(0, 1, exclude_min=True)
decoders = st.fixed_dictionaries(
    {
        "temperature": st.floats(0, 100),
        "top_p": probabilities,
        "top_k": st.integers(-1, 10_000_000),
        "min_p": st.floats(0, 1),
        "repetition_penalty": st.floats(0, 100, exclude_min=True),
        "no_repeat_ngram_size": st.integers(0, 10_000_000),
        "do_sample": st.booleans(),
    }
)
modes = st.sampled_from(["offline", "closed_loop", "poisson", "constant", "gamma", "trace"])
all_parameters = st.fixed_dictionaries(
    {
        "model_name": st.text(min_size=1),
        "fp_precision": st.sampled_from(["float32", "float16", "bfloat16"]),
        "max_output_tokens": st.integers(1, 10_000_000),
        "min_output_tokens": st.integers(0, 10_000_000),
        "random_seed": st.integers(0, 2**32 - 1),
        "decoder": decoders,
        "quantization": st.sampled_from(
            [
                {"load_in_4bit": False, "load_in_8bit": False},
                {"load_in_4bit": True, "load_in_8bit": False},
                {"load_in_4bit": False, "load_in_8bit": True},
            ]
        ),
        "batching": st.fixed_dictionaries(
            {
                "batch_size": st.integers(1, 1_000_000),
                "strategy": st.sampled_from(["static", "dynamic"]),
                "max_batch_tokens": st.none() | st.integers(1, 10**9),
            }
        ),
        "sharding": st.fixed_dictionaries(
            {
                "strategy": st.sampled_from(
                    ["none", "tensor_parallel", "device_map", "data_parallel"]
                ),
                "num_devices": st.integers(1, 1024),
            }
        ),
        "traffic_simulation": st.none() | st.fixed_dictionaries({"mode": modes}),
    }
)
engines = st.sampled_from([None, "0.4", "0.27.1", "0.32.0", "1.2.1", "1.3.0rc1", "5.23.0", "?"])
devices = st.sampled_from(["auto", "cpu", "cuda"])


@given(all_parameters, st.sampled_from(BACKENDS), engines, devices)
def test_translation_never_fails_and_leaves_its_input_alone(given, backend, version, device):
    before = copy.deepcopy(given)
    translation = translate(given, backend, version, device)
    assert given == before
    assert translate(given, backend, version, device) == translation
    json.dumps([translation.load, translation.generate], allow_nan=False)


@given(all_parameters, st.sampled_from(BACKENDS), devices)
def test_every_value_is_passed_or_spoken_of(given, backend, device):
    """A decoder value other than the neutral one reaches the engine, or a note names it."""
    translation = translate(given, backend, None, device)
    named = {
        note.parameter
        for note in (*translation.notes, *translation.conflicts, *translation.refusals)
    }
    for name, value in given["decoder"].items():
        if value in (NEUTRAL["decoder"][name], 0, -1):
            continue
        passed = translation.generate.get(name) == value
        assert passed or f"decoder.{name}" in named


@given(all_parameters, st.sampled_from(BACKENDS))
def test_the_shape_of_the_load_arguments_never_changes(given, backend):
    assert list(translate(given, backend, None, "cpu").load) == list(run(backend).load)


@pytest.mark.parametrize("device", ["cpu", "cuda", "auto"])
@pytest.mark.parametrize("backend", RUNNABLE)
def test_neutral_parameters_are_served_without_objection(backend, device):
    for do_sample in (False, True):
        translation = run(backend, device=device, decoder__do_sample=do_sample)
        assert translation.conflicts == translation.refusals == ()


# the data and the pages made from it


def entries():
    for row in all_rows():
        for backend in BACKENDS:
            for entry in row[backend]:
                yield row, backend, entry


def test_every_entry_is_complete():
    conversions, keys = set(), set()
    for row, backend, entry in entries():
        where = f"{row.get('parameter', row.get('feature'))}, {backend}"
        assert entry["status"] in STATUSES, where
        assert entry["cite"], where
        assert set(entry["cite"]) <= set(matrix()["citations"]), where
        assert ("remedy" in entry) == (entry["status"] == "unsupported"), where
        assert entry["status"] not in ("mapped", "hint", "implicit") or (
            "note" in entry or "planned" in entry
        ), where
        conversions |= {*entry.get("load", {}).values(), *entry.get("generate", {}).values()}
        keys |= set(entry["cite"])
    for about in matrix()["backends"].values():
        for removed in about.get("removed_flows", {}).values():
            keys |= set(removed["cite"])
    assert conversions == set(CONVERSIONS)
    assert keys == set(matrix()["citations"])
    assert {row["only_when"] for row in all_rows() if "only_when" in row} == set(CONDITIONS)


def test_citations_are_public_pages():
    for citation in matrix()["citations"].values():
        assert citation["title"]
        assert citation["url"].startswith("https://")


def test_the_page_has_every_row_and_backend():
    page = docs.render_matrix(matrix())
    for row in all_rows():
        assert row.get("parameter", row.get("feature")) in page
    for about in matrix()["backends"].values():
        assert about["checked"] in page


def test_every_row_of_the_parameter_tables_has_its_tests():
    tables = yaml.safe_load(
        (ROOT / "tests" / "backends" / "parameter_rows.yaml").read_text(encoding="utf-8")
    )
    assert {title: tuple(rows) for title, rows in tables.items()} == TABLES
    for rows in tables.values():
        for row, tests in rows.items():
            assert tests, f"{row} has no test"
            for test in tests:
                file, _, name = test.partition("::")
                assert name in names_of_tests(file), f"{row}: there is no test {test}"


@cache
def names_of_tests(file: str) -> set[str]:
    """Return the node names of a test file: functions, and methods as ``Class::method``."""
    names = set()
    for node in ast.parse((ROOT / file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ClassDef):
            names |= {f"{node.name}::{n.name}" for n in node.body if isinstance(n, ast.FunctionDef)}
    return {name for name in names if name.split("::")[-1].startswith("test_")}
