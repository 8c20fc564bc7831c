"""What a sweep would measure twice is pointed out before anything runs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support import builders

from llm_energy.plan.duplicates import duplicates
from llm_energy.records import AskedPrompts, PromptRequest

MODELS = {
    id: {"id": id, "model_name": name, "source": {"kind": "folder", "path": name}}
    for id, name in (("m", "x"), ("n", "y"))
}
PROMPTS = AskedPrompts(2, {"source": "builtin"})


def told(*specs, models=MODELS, prompts=None):
    names = [w.id for spec in specs for w in spec.workloads]
    workloads = dict.fromkeys(names, PROMPTS) | (prompts or {})
    return duplicates(
        specs, models, {model: PromptRequest(1, model, workloads) for model in models}
    )


def workload(id: str, batching=None, **changes):
    made = builders.workload("b4", **changes)
    made.parameters["batching"].update(batching or {})
    return replace(made, id=id)


def spec(*workloads, **changes):
    return builders.spec(workloads=workloads, **changes)


def test_parameters_without_effect_make_two_workloads_the_same():
    pair = workload("a", decoder={"top_p": 0.9}), workload("b", decoder={"top_p": 0.5})
    assert told(spec(*pair)) == ["workloads a and b resolve to the same work (pytorch)"]


@pytest.mark.parametrize(
    "other",
    [
        workload("b", batching={"batch_size": 8}),
        replace(workload("b"), engine={"max_new_tokens": 9}),
        replace(workload("b"), requests=3),
        workload("b", traffic_simulation={"mode": "poisson"}),
    ],
)
def test_other_work_is_no_duplicate(other):
    assert told(spec(workload("a"), other)) == []


def test_other_prompts_are_other_work():
    other = {"b": AskedPrompts(2, {"source": "synthetic", "input_tokens": 9})}
    assert told(spec(workload("a"), workload("b")), prompts=other) == []


def test_the_strategy_counts_only_where_the_backend_obeys_it():
    pair = workload("a"), workload("b", batching={"strategy": "dynamic"})
    assert told(spec(*pair)) == []
    assert told(spec(*pair, backend="vllm")) == [
        "workloads a and b resolve to the same work (vllm)"
    ]


def test_a_token_budget_counts_only_for_dynamic_batches():
    sizes = [{"max_batch_tokens": 99}, {"max_batch_tokens": 999}]
    static = [workload(i, batching=size) for i, size in zip("ab", sizes, strict=True)]
    dynamic = [
        workload(i, batching=size | {"strategy": "dynamic"})
        for i, size in zip("ab", sizes, strict=True)
    ]
    assert len(told(spec(*static))) == 1
    assert told(spec(*dynamic)) == []


def test_two_cells_with_the_same_arguments_are_named():
    pair = spec(workload("a")), spec(workload("a"), precision="again")
    assert told(*pair) == [
        "cells m--pytorch--float32 and m--pytorch--again resolve to the same engine and the same "
        "work"
    ]
    assert told(pair[0], replace(pair[1], engine={"dtype": "float16"})) == []


def test_two_names_of_one_model_are_one_model():
    pair = spec(workload("a")), spec(workload("a"), model="n")
    assert told(*pair) == []
    assert len(told(*pair, models=MODELS | {"n": MODELS["m"] | {"id": "n"}})) == 1


def test_a_simulated_model_is_another_in_another_precision():
    source = {"id": "m", "source": {"kind": "simulated", "parameter_count": 8}}
    pair = [spec(precision=precision, cell=precision) for precision in ("bfloat16", "int8")]
    assert told(*pair, models={"m": source}) == []
