"""Engines report what they like: no check may fail over it, and every failure has its answer."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from support import builders
from support.check_cases import EXPECTED, case

from llm_energy.analysis.checks import CATALOGUE, EXPLAINED, of_scope
from llm_energy.analysis.checks.settings import generation_differences, greedy
from llm_energy.analysis.evidence.windows import in_flight, integers, number
from llm_energy.analysis.normalise import normalise
from llm_energy.analysis.validate import validate
from llm_energy.core.files import canonical_json, read_json, write_json
from llm_energy.records import MetricsTable, read_record, write_rows

NAMES = [
    *("device", "dtype", "quantization", "weight_bytes", "hf_device_map", "kv_cache_dtype"),
    *("architecture", "attn_implementation", "speculative_method", "enable_chunked_prefill"),
    *("offloaded_weight_gib", "kv_offloading_gib", "max_model_len", "pad_token_id"),
    *("eos_token_ids", "generation", "batching", "strategy", "batch_sizes", "steps"),
    *("mean_running_requests", "preempted_requests", "cached_prompt_tokens", "graph_captures"),
    *("hidden_size", "vocab_size", "num_hidden_layers", "tie_word_embeddings", "model_type"),
    *("do_sample", "temperature", "top_k", "seed", "max_num_seqs", "cache_implementation"),
]
WORDS = ["", "auto", "cpu", "cuda:0", "bfloat16", "fp8", "offloaded", "continuous"]


def reports(floats: st.SearchStrategy) -> st.SearchStrategy:
    """Return mappings with the names that checks ask for, and with anything behind them."""
    numbers = st.one_of(st.none(), st.booleans(), st.integers(-2, 2**40), floats)
    anything = st.recursive(
        st.one_of(numbers, st.sampled_from(WORDS)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(NAMES), inner, max_size=6)
        ),
        max_leaves=8,
    )
    return st.dictionaries(st.sampled_from(NAMES), anything, max_size=12)


REPORTS = reports(st.floats())
PASSED = reports(st.floats(allow_nan=False, allow_infinity=False))


@settings(max_examples=100, deadline=None)
@given(effective=REPORTS, generation=REPORTS, events=REPORTS, passed=PASSED)
def test_no_check_fails_over_what_an_engine_reports(effective, generation, events, passed):
    workload = replace(builders.workload(), engine=passed)
    judged = case(
        {"effective": generation, "events": events},
        expected=replace(EXPECTED, parameter_count=1000),
        spec=builders.spec(workloads=(workload,), engine=passed),
        effective=effective,
        host=builders.host(gpus=({"uuid": "GPU-1", "name": "NVIDIA H100 80GB HBM3"},)),
    )
    for check in of_scope("window"):
        finding = check.find(judged)
        if finding is not None:
            assert canonical_json(check.flag(finding).evidence)


PLAIN = st.one_of(st.none(), st.booleans(), st.integers(-2, 2**40), st.sampled_from(WORDS))
SCORE = st.fixed_dictionaries(
    {"text": st.just("t"), "text_sha256": st.just("a"), "token_ids_sha256": st.just("b")}
    | {"tokens": st.integers(-1, 2), "total_nll": st.none() | st.floats(-1e300, 1e300)}
    | {"bytes_per_token": st.none() | st.floats(-1.0, 10.0).filter(lambda x: not 0 < x < 1e-3)}
)


def altered(healthy: dict) -> st.SearchStrategy:
    """Return a mapping of which some values are another or gone, also those of its mappings."""
    changed = st.sampled_from(sorted(healthy))
    if not healthy:
        return st.just(healthy)
    inner = [name for name, value in healthy.items() if isinstance(value, dict)]
    nested = st.sampled_from(inner).flatmap(
        lambda name: altered(healthy[name]).map(lambda value: healthy | {name: value})
    )
    return st.one_of(
        st.just(healthy),
        st.tuples(changed, PLAIN | PASSED | st.just([])).map(lambda pair: healthy | dict([pair])),
        changed.map(lambda gone: {k: v for k, v in healthy.items() if k != gone}),
        *([nested] if inner else []),
    )


PARAMETERS = builders.workload(
    sharding={"strategy": "none", "num_devices": 1}, traffic_simulation={"mode": "offline"}
).parameters


@settings(max_examples=150, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    parameters=altered(PARAMETERS),
    gpu=altered(builders.gpu()),
    used=altered({"batching": {"strategy": "continuous", "batch_sizes": [2]}, "generation": {}}),
    quality=st.none() | SCORE,
    grams=PLAIN,
)
def test_no_stage_fails_over_what_a_record_says(
    tmp_path_factory, parameters, gpu, used, quality, grams
):
    root = tmp_path_factory.mktemp("sweep")
    spec = builders.spec(workloads=(replace(builders.workload(), parameters=parameters),))
    other = builders.measurement(builders.spec(repeat=2))
    plan = builders.write_sweep(root, [builders.measurement(spec), other])
    path = plan.parent / f"pytorch/measurements/{spec.cell}/r01.json"
    data = read_json(path) | {"quality": quality, "carbon_intensity": {"g_per_kwh": grams}}
    data["host"]["gpus"] = [gpu]
    data["windows"][0]["effective"] = used
    # Without a limit read in the window, that of the GPU's description counts.
    data["windows"][0]["interval"]["boards"] = []
    write_json(path, data)
    verdicts = validate("test", "pytorch", plan)
    assert all(f.evidence["problem"] for f in verdicts.verdicts[0].flags if f.id == "P07")
    assert verdicts.verdicts[1].verdict != "invalid"
    table = normalise(verdicts)
    write_rows(root / "metrics.json", table)
    assert read_record(MetricsTable, root / "metrics.json") == table


@pytest.mark.parametrize("letter", "EHMP")
def test_every_failure_has_a_check_or_an_explanation(letter):
    found = sorted(id for id in (*CATALOGUE, *EXPLAINED) if id[0] == letter)
    assert found == [f"{letter}{k:02d}" for k in range(1, len(found) + 1)]


@pytest.mark.parametrize("value", [None, True, "3", [3], float("nan"), float("inf")])
def test_what_is_no_number_is_none(value):
    assert number({"steps": value}, "steps") is None


def test_a_list_keeps_its_integers():
    assert integers({"eos_token_ids": [2, "3", None]}, "eos_token_ids") == (2,)
    assert integers({"eos_token_ids": 2}, "eos_token_ids") == ()


class TestInFlight:
    def of(self, requests=32, strategy="static", **reported):
        batching = {"batch_size": 8, "strategy": strategy, "max_batch_tokens": None}
        workload = replace(builders.workload(batching=batching), requests=requests)
        window = {"effective": {"batching": reported}} if reported else {}
        return in_flight(case(window, spec=builders.spec(workloads=(workload,))))

    def test_it_is_the_batch_size_or_the_fewer_requests(self):
        assert self.of() == 8
        assert self.of(requests=3) == 3

    def test_a_dynamic_batch_may_hold_all(self):
        assert self.of(strategy="dynamic") == 32

    def test_the_engine_knows_better(self):
        assert self.of(strategy="dynamic", batch_sizes=[12, 10, 10]) == 12
        assert self.of(max_requests_in_flight=4) == 4


class TestGreedy:
    @pytest.mark.parametrize(
        "arguments", [{"do_sample": False}, {"temperature": 0}, {"top_k": 1, "temperature": 1.0}]
    )
    def test_its_spellings_mean_the_same(self, arguments):
        assert greedy(arguments)
        assert generation_differences(arguments, {"temperature": 0.0, "top_p": 0.9}) == {}

    def test_both_values_are_shown(self):
        found = generation_differences({"temperature": 0.7}, {"temperature": 0.6})
        assert found == {"temperature": {"passed": 0.7, "used": 0.6}}
