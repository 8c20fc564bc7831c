"""What may be compared: every condition is read off a measurement, and held where it should be."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support import builders

from llm_energy.analysis.grouping.comparability import (
    FIELDS,
    differences,
    energy_conditions,
    in_words,
    lengths,
    window_conditions,
)
from llm_energy.analysis.normalise import normalise
from llm_energy.core.files import sha256_file
from llm_energy.records import Verdicts, write_record


def found(measurement=None, status="measured", **changes):
    measurement = measurement or builders.measurement(**changes)
    window, workload = measurement.windows[0], measurement.spec.workloads[0]
    held = window_conditions(measurement, window, workload)
    return held | energy_conditions(window, status)


def differing(contrast, one, other, **options):
    return [d.field for d in differences(contrast, one, other, **options)]


def test_every_condition_is_recorded_and_in_the_catalogue():
    of_a_window = [name for name in FIELDS if name != "session"]  # known of several together
    assert list(found()) == of_a_window
    assert all(value for value in found().values())


CHANGED = {
    "weights": {"weights_sha256": "x" * 64},
    "tokenizer": {"tokenizer_sha256": "x" * 64},
    "prompts": {"prompts_sha256": {"b1": "p" * 64}},
    "prompt_lengths": {
        "windows": (
            builders.window(requests=builders.request_table(0.0, prompt_tokens=(4, 5) * 2)),
        )
    },
    "output_lengths": {
        "windows": (
            builders.window(requests=builders.request_table(0.0, output_tokens=(8, 7) * 2)),
        )
    },
    "batching": {"windows": (builders.window(effective={"batching": {"strategy": "continuous"}}),)},
    "engine": {"effective": builders.measurement().effective | {"engine_version": "5.24.0"}},
    "device": {"effective": builders.measurement().effective | {"device": "cuda:0"}},
    "driver": {"host": builders.host(gpus=(builders.gpu(driver_version="600"),))},
    "hardware": {"host": builders.host(gpus=(builders.gpu(name="other GPU"),))},
    "host": {"host": builders.host(hostname="node2")},
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_changed_measurement_differs_in_its_condition_alone(name):
    assert differing("precision", found(), found(**CHANGED[name])) == [name]


def test_another_flow_is_compared_as_another_entry_alone():
    used = builders.measurement().effective
    flows = [found(effective=used | {"flow": flow}) for flow in ("eager", "compiled")]
    assert differing("precision", *flows) == ["flow"]
    assert differing("backend", *flows) == []


def test_entries_of_one_engine_differ_in_their_arguments_and_may_be_compared():
    entry = builders.spec(variant_of="pytorch", backend="p2", arguments={"block_size": 64})
    other = found(builders.measurement(entry))
    assert other["arguments"] == "block_size 64"
    assert differing("backend", found(), other) == []
    assert differing("sweep", found(), other) == ["arguments"]


@pytest.mark.parametrize("name", ["enable_prefix_caching", "kv_cache_config.enable_block_reuse"])
def test_an_engine_that_may_leave_prompts_out_is_compared_with_none_that_does_not(name):
    used = builders.measurement().effective
    whole, less = (found(effective=used | {name: value}) for value in (False, True))
    assert differing("backend", found(), whole) == []
    (difference,) = differences("backend", whole, less)
    told = "work that the engine leaves out: none and prompts that a cache holds"
    assert in_words(difference) == told


def test_the_power_limit_inside_the_window_counts_and_not_the_one_at_the_start():
    lowered = builders.interval("window", 1020.0, 40.0)
    lowered = replace(lowered, boards=(builders.gpu_activity(power_limit_w=(200.0, 200.0)),))
    other = found(windows=(builders.window(interval=lowered),))
    (difference,) = differences("precision", found(), other)
    assert in_words(difference) == "power limit of the GPUs (W): 300 and 200"


def test_joules_of_another_scope_or_method_differ_and_times_do_not_mind():
    measured, estimated = found(), found(status="estimated")
    names = ["energy_status", "energy_components", "energy_methods"]
    assert differing("precision", measured, estimated) == names
    assert differing("precision", measured, estimated, energy=False) == []


@pytest.mark.parametrize(
    ("contrast", "name"),
    [
        ("precision", "precision"),
        ("batch_size", "batch_size"),
        ("batch_size", "prompts"),
        ("backend", "engine"),
        ("backend", "batching"),
        ("model", "weights"),
        ("sweep", "host"),
        ("sweep", "driver"),
    ],
)
def test_a_contrast_lets_vary_what_it_asks_about_and_another_does_not(contrast, name):
    one, other = found(), found() | {name: "something else"}
    assert differing(contrast, one, other) == []
    asked_elsewhere = next(c for c in ("precision", "model") if c not in FIELDS[name].varies)
    assert differing(asked_elsewhere, one, other) == [name]


def test_models_with_other_tokenizers_share_no_token_but_a_request():
    one, other = found(), found() | {"tokenizer": "t2", "prompts": "p2", "prompt_lengths": "5"}
    assert differing("model", one, other) == ["tokenizer", "prompts", "prompt_lengths"]
    assert differing("model", one, other, per_token=False) == []


def test_what_neither_side_recorded_agrees_and_what_one_did_does_not():
    one = {name: value for name, value in found().items() if name != "driver"}
    assert differing("precision", one, one) == []
    (difference,) = differences("precision", one, found())
    assert (difference.reference, difference.other) == ("not recorded", "590.48.01")


def test_decoding_is_told_by_what_bears_on_the_next_token():
    def decoding(**decoder):
        neutral = {"do_sample": False, "temperature": 1.0, "top_p": 1.0, "top_k": 0}
        asked = builders.workload(decoder=neutral | decoder)
        return found(builders.measurement(builders.spec(workloads=(asked,))))["decoding"]

    assert decoding(top_p=0.5) == "greedy"
    assert decoding(repetition_penalty=1.1) == "greedy, repetition_penalty 1.1"
    assert decoding(do_sample=True, top_p=0.5) == "sampled, temperature 1.0, top_p 0.5"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "nothing"),
        ({"arrivals_sha256": {"b1": "a" * 64}}, f"arrivals {'a' * 12}"),
    ],
)
def test_what_a_block_has_drawn_is_held_fixed_in_its_pairs(changes, told):
    one = found(builders.measurement(**changes))
    assert one["draw"] == told
    [other] = differences("precision", one, one | {"draw": "arrivals of another block"})
    assert other.field == "draw"
    assert differences("sweep", one, one | {"draw": "arrivals of another block"}) == []


def test_lengths_that_are_not_the_same_do_not_read_the_same():
    assert lengths((5, 7)) != lengths((5, 5, 7))
    assert lengths(()) == "none"


def test_normalised_windows_name_their_conditions_once(tmp_path):
    measurements = [builders.measurement(builders.spec(repeat=k)) for k in (1, 2)]
    verdicts = []
    for one in measurements:
        path = tmp_path / f"r{one.spec.repeat}.json"
        write_record(path, one)
        judged = builders.verdict(one, measurement_sha256=sha256_file(path))
        verdicts.append(replace(judged, measurement=str(path)))
    table = normalise(Verdicts(1, "test", "pytorch", tuple(verdicts)))
    assert [row.conditions for row in table.rows] == ["c1", "c2", "c1", "c2"]
    assert table.conditions["c1"] == found()
    assert table.conditions["c2"]["energy_status"] == "estimated"
