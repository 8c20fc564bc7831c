"""What a sweep that spreads its cells over devices is told before anything is loaded."""

from __future__ import annotations

import pytest
from support import builders, simulated_runs

from llm_energy.backends.sharding import heads_problem
from llm_energy.core.errors import ConfigError, RecordError
from llm_energy.measure.simulation.host import SimulatedHost
from llm_energy.measure.simulation.truth import GpuTruth, Truth
from llm_energy.plan.config.load import load_sweep
from llm_energy.plan.plan import Engine, make_plan
from llm_energy.records import Sharding


def config(strategy, count=2, folder=None, **changes):
    model = {"id": "m", "model_name": "org/m"}
    if folder:
        model["source"] = {"kind": "folder", "path": str(folder)}
    return {
        "models": [model],
        "sharding": {"strategy": strategy, "num_devices": count},
        "precisions": ["float32"],
        **changes,
    }


def planned(*arguments, device="cpu", **changes):
    """Return the outcome and the reason, by backend, of the cells that a config asks for."""
    sweep = load_sweep(config(*arguments, **{"backends": ["pytorch", "vllm"]} | changes))
    made = make_plan(sweep, lambda backend: Engine(device, None))
    return {cell.backend: (cell.outcome, cell.reason or "") for cell in made.plan.cells}, made


@pytest.fixture
def nine_heads(tmp_path):
    """Return a folder with the config of a model of 9 query and 3 key-value heads."""
    heads = {"num_attention_heads": 9, "num_key_value_heads": 3}
    return builders.model_folder(tmp_path, **heads)


@pytest.mark.parametrize("strategy", ["tensor_parallel", "data_parallel"])
def test_both_backends_run_on_several_ranks_and_their_specs_say_so(strategy):
    outcomes, made = planned(strategy)
    assert {outcome for outcome, _ in outcomes.values()} == {"planned"}
    specs = made.specs.values()
    assert {spec.sharding for spec in specs} == {Sharding(strategy, 2)}


def test_layers_on_several_gpus_are_for_pytorch_on_gpus():
    assert {name: o for name, (o, _) in planned("device_map")[0].items()} == {
        "pytorch": "unsupported",
        "vllm": "unsupported",
    }
    outcomes, _ = planned("device_map", device="cuda")
    assert outcomes["pytorch"][0] == "planned"
    assert "Use sharding.strategy tensor_parallel instead" in outcomes["vllm"][1]


def test_heads_that_the_ranks_do_not_divide_are_told_when_planned(nine_heads):
    outcomes, _ = planned("tensor_parallel", 2, nine_heads)
    for outcome, reason in outcomes.values():
        assert outcome == "unsupported"
        assert "9 query heads cannot be shared out among 2 ranks" in reason
    assert {o for o, _ in planned("tensor_parallel", 3, nine_heads)[0].values()} == {"planned"}


def test_key_value_heads_bind_transformers_alone(nine_heads):
    outcomes, _ = planned("tensor_parallel", 9, nine_heads)
    assert "3 key-value heads cannot be shared out among 9 ranks" in outcomes["pytorch"][1]
    assert outcomes["vllm"][0] == "planned"


def test_a_text_model_inside_another_is_looked_at():
    inside = {"text_config": {"num_attention_heads": 8, "num_key_value_heads": 8}}
    assert heads_problem(inside, 3)
    assert heads_problem(inside, 4) is None
    assert heads_problem({}, 3) is None


def test_quantised_weights_are_not_sharded_on_pytorch():
    outcomes, _ = planned("tensor_parallel", precisions=["int8"], backends=["pytorch"])
    assert outcomes["pytorch"][0] == "unsupported"
    assert "shards no weights of bitsandbytes" in outcomes["pytorch"][1]
    assert planned("data_parallel", precisions=["int8"])[0]["pytorch"][0] == "planned"


@pytest.mark.parametrize(
    ("strategy", "refusing"),
    [("data_parallel", {"pytorch", "vllm"}), ("tensor_parallel", {"pytorch"}), ("none", set())],
)
def test_ranks_that_go_by_their_own_clocks_serve_no_timed_arrivals(strategy, refusing):
    traffic = {"mode": "poisson", "rate_per_s": 2.0, "horizon_s": 5.0}
    outcomes, _ = planned(strategy, 1 if strategy == "none" else 2, traffic_simulation=traffic)
    assert {name for name, (outcome, _) in outcomes.items() if outcome != "planned"} == refusing
    assert all("not timed arrivals" in outcomes[name][1] for name in refusing)


# the config


def problems(*arguments, **changes):
    with pytest.raises(ConfigError) as caught:
        load_sweep(config(*arguments, **changes))
    return "\n".join(caught.value.problems)


def test_copies_share_whole_batches():
    batching = {"batch_size": 4}
    said = problems("data_parallel", workloads=[{"id": "w", "requests": 12}], batching=batching)
    assert "found 12, allowed a multiple of the batch size 4 times 2 copies" in said
    assert "try 8 or 16" in said
    sweep = load_sweep(config("data_parallel", 3, batching=batching))
    assert sweep.workloads[0].requests == 12


def test_one_device_is_no_sharding():
    assert "found 1, allowed 2 or more with the strategy 'data_parallel'" in problems(
        "data_parallel", 1
    )


def test_all_workloads_of_a_sweep_are_spread_alike():
    other = {"strategy": "data_parallel", "num_devices": 2}
    workloads = [{"id": "a"}, {"id": "b", "sharding": other}]
    said = problems("none", 1, sharding={}, workloads=workloads)
    assert "workloads[1].sharding" in said
    assert "loaded once for all" in said


# energy


def test_the_energy_is_that_of_the_gpus_in_use_each_once_and_of_no_other():
    host = SimulatedHost(Truth(gpus=(GpuTruth(),) * 4), seed=3)
    sharding = {"strategy": "tensor_parallel", "num_devices": 2}
    workload = simulated_runs.simulated_workload(sharding=sharding)
    measured = simulated_runs.run(host, simulated_runs.simulated_spec(workload))
    (window,) = measured.windows
    gpus = [part for part in window.interval.energy if part.component == "gpu"]
    assert [part.device for part in gpus] == measured.effective["device_uuids"]
    assert len(gpus) == 2
    begin_s, end_s = window.interval.start_s, window.interval.end_s
    assert sum(part.energy_j for part in gpus) == pytest.approx(
        host.truth_energy_j("gpu", begin_s, end_s), rel=0.1 / (end_s - begin_s)
    )


@pytest.mark.parametrize("content", ["[]", '"text"', "5"])
def test_a_models_config_that_is_no_mapping_is_one_message(tmp_path, content):
    folder = builders.model_folder(tmp_path)
    (folder / "config.json").write_text(content)
    with pytest.raises(RecordError, match=r"config\.json: found .*, allowed a mapping"):
        planned("tensor_parallel", folder=folder)
