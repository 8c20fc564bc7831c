"""The distance of a window from what its hardware allows, with and without a data sheet."""

from __future__ import annotations

from dataclasses import replace

import pytest
from analysis.energy.test_roofline import LLAMA_8B, PARAMETERS, TABLE, WEIGHT_BYTES
from support import builders

from llm_energy.analysis.compare.limits import limits
from llm_energy.analysis.compare.series import collect
from llm_energy.analysis.energy.limits import COPIED, window_limits
from llm_energy.analysis.evidence.windows import WindowEvidence
from llm_energy.backends import base
from llm_energy.measure.host import copy_bytes_per_s

USED = {
    "dtype": "bfloat16",
    "weight_bytes": WEIGHT_BYTES,
    "device_uuids": ["GPU-1"],
    "architecture": LLAMA_8B,
}
H100 = builders.gpu(name="NVIDIA H100 80GB HBM3", power_limit_w=700.0)


def case(energy=None, used=None, host=None, **changes):
    """Return a window of 40 s on an H100, with an 8B model in bfloat16 at batch size 1."""
    window = builders.window()
    if energy is not None:
        window = replace(window, interval=replace(window.interval, energy=energy))
    measured = builders.measurement(
        host=host or builders.host(gpus=(H100,)),
        effective=USED | (used or {}),
        parameter_count=PARAMETERS,
        windows=(window,),
    )
    return WindowEvidence(replace(measured, **changes), window)


def test_a_gpu_with_a_data_sheet_has_floor_roofline_and_utilisations():
    found = window_limits(case())
    # 32 output tokens, of which 28 are decoded one by one: 28 times the weights, and little more.
    weights = WEIGHT_BYTES - 2 * TABLE - 2**27
    assert found.mbu == pytest.approx(28 * weights / 40 / 3.35e12, rel=1e-3)
    assert 0 < found.mfu < found.mbu
    assert found.floor_j == pytest.approx(8 * 28 * weights * 3.92e-12, rel=0.05)
    assert found.floor_j < found.roofline_j < found.energy_j == 4000.0
    assert "H100" in found.rates
    assert found.fault is None


def test_fewer_joules_than_the_floor_are_a_fault():
    few = builders.energy(40.0, gpu_w=0.01)
    assert window_limits(case(energy=few)).fault == "fewer joules than the floor"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"used": {"architecture": {}}}, "the model's architecture"),
        ({"used": {"speculative_method": "ngram"}}, "speculative decoding"),
        ({"host": builders.host()}, "no data sheet of 'board'"),
    ],
)
def test_what_is_not_known_has_a_reason(changes, reason):
    assert window_limits(case(**changes)).startswith(reason)


def test_a_processor_has_the_bandwidth_that_was_timed_and_no_arithmetic():
    on_cpu = {"device_uuids": [], "weight_bytes": 2 * WEIGHT_BYTES, "dtype": "float32"}
    host = builders.host(gpus=(), copy_bytes_per_s=1e11)
    found = window_limits(case(builders.estimated_only(40.0), on_cpu, host))
    assert found.rates == COPIED
    read = 2 * WEIGHT_BYTES - 4 * TABLE
    assert found.mbu == pytest.approx(28 * read / 40 / 1e11, rel=1e-3)
    assert (found.energy_j, found.roofline_j, found.mfu, found.fault) == (None, None, None, None)
    untimed = window_limits(case(builders.estimated_only(40.0), on_cpu, builders.host(gpus=())))
    assert untimed == "the host's memory was not timed"


def test_limits_reach_the_metrics_and_the_view_as_means_over_repeats():
    rows = []
    for repeat in (1, 2):
        one = case().measurement
        one = replace(one, spec=replace(one.spec, repeat=repeat))
        rows += [
            replace(row, repeat=repeat)
            for row in builders.window_metrics(one, builders.verdict(one))
        ]
    (found,) = limits(collect([builders.metrics_table(rows)]))
    assert (found.n, found.reason, found.fault) == (2, None, None)
    assert found.energy_j == pytest.approx(4000 / 32)
    assert found.times_floor == pytest.approx(found.energy_j / found.floor_j)
    assert found.times_roofline < found.times_floor


def test_an_estimated_window_says_why_it_has_no_distance():
    on_cpu = {"device_uuids": [], "dtype": "float32"}
    host = builders.host(gpus=(), copy_bytes_per_s=1e11)
    one = case(builders.estimated_only(40.0), on_cpu, host).measurement
    (found,) = limits(
        collect([builders.metrics_table(builders.window_metrics(one, builders.verdict(one)))])
    )
    assert found.times_floor is None
    assert found.reason == "the joules of what did the work were not all measured"
    assert found.mbu is not None


def test_copying_gives_a_rate_that_memory_can_have():
    rate = copy_bytes_per_s(8 * 2**20)
    assert 1e8 < rate < 1e14


def test_an_architecture_is_what_the_engines_configuration_says_of_the_work():
    class Config:
        model_type = "llama"
        hidden_size = 64
        sliding_window = None
        torch_dtype = "float32"
        tie_word_embeddings = False

    found = base.architecture(Config)
    assert found == {"model_type": "llama", "hidden_size": 64, "tie_word_embeddings": False}
