"""The sensors' self-test on a simulated GPU, where it is known which sensor is wrong."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from llm_energy.core.errors import LlmEnergyError
from llm_energy.measure.doctor import self_test as module
from llm_energy.measure.doctor.self_test import SelfTest, of_gpus, self_test, torch_load
from llm_energy.measure.simulation.host import SimulatedHost
from llm_energy.measure.simulation.truth import GpuTruth, Truth
from llm_energy.meter.meter import open_meter
from llm_energy.records import MeterSettings

DURATION_S = 10.0


@pytest.fixture
def examine(tmp_path):
    """Return a function that tests a GPU of which ``truth`` is true, beside an idle one."""
    hosts = []

    def examine(start_sampler=None, longer_s=0.0, stuck=False, **truth):
        gpus = (GpuTruth(**truth), GpuTruth())
        host = SimulatedHost(Truth(gpus=gpus, repeat_sd=0.0))
        hosts.append(host)
        host.gpus[0].stuck = stuck
        log = []

        def open_one(sampled):
            log.append("with" if sampled else "without")
            return open_meter(
                MeterSettings(codecarbon=False, sampling_period_s=0.1 if sampled else None),
                clock=host.clock,
                wall_clock=host.wall_clock,
                sysfs=host.sysfs,
                procfs=host.procfs,
                nvml=host.nvml,
                trace_path=tmp_path / "x.trace.csv.gz",
                start_sampler=start_sampler or host.start_sampler,
            )

        def load(duration_s):
            log.append("load")
            host.use(host.gpus[:1], 2**30)
            host.enter("decode", 8)
            host.sleep(duration_s + log.count("with") * longer_s)
            host.enter("idle")
            host.sleep(1.0)

        return self_test(open_one, host.gpus[0].uuid, load, DURATION_S), log

    yield examine
    for host in hosts:
        host.close()


def test_a_healthy_gpu_passes_and_its_energies_agree(examine):
    found, log = examine()
    assert found.passed
    assert found.reason is None
    assert found.ratio_counter == pytest.approx(1.0, abs=0.02)
    assert found.ratio_integral == pytest.approx(1.0, abs=0.02)
    assert found.duration_s == DURATION_S
    assert found.counter_with_j == pytest.approx(found.counter_without_j, rel=0.02)
    assert found.integral_j == pytest.approx(found.counter_with_j, rel=0.02)
    # two runs each, of the busy GPU alone
    assert 2 * DURATION_S * 400 < found.counter_with_j < 2 * DURATION_S * 700
    without, with_ = ["without", "load"], ["with", "load"]
    assert log == ["load", *without, *with_, *with_, *without]


def test_a_steady_drift_cancels(examine):
    # Power grows with the clock, which begins at 1000 s: by 0.1 % a second.
    found, _ = examine(drift_per_s=1.0, noise_sd=0.0)
    assert found.ratio_counter == pytest.approx(1.0, abs=0.005)


def test_runs_of_unequal_length_are_compared_by_their_power(examine):
    found, _ = examine(longer_s=3.0)
    assert found.counter_with_j > 1.1 * found.counter_without_j
    assert found.ratio_counter == pytest.approx(1.0, abs=0.02)


def test_a_counter_that_sampling_disturbs_is_found(examine):
    found, _ = examine(poll_blind_share=0.2)
    assert found.ratio_counter == pytest.approx(0.8, abs=0.02)
    assert found.ratio_integral == pytest.approx(1.25, abs=0.02)
    assert not found.passed


def test_a_counter_that_stands_still_is_a_reason(examine):
    found, _ = examine(stuck=True)
    assert "stood still" in found.reason
    assert (found.ratio_counter, found.passed) == (None, False)


def test_the_counter_of_a_module_is_not_held_against_the_power_of_its_gpu(examine):
    found, _ = examine(c2c=True)
    assert "that of the whole module" in found.reason
    assert (found.ratio_integral, found.passed) == (None, False)


def test_a_gpu_whose_power_cannot_be_sampled_is_a_reason(examine):
    blind = SimpleNamespace(summary=lambda start_s, end_s: (), stop=lambda: None)
    found, _ = examine(start_sampler=lambda *_: blind)
    assert "could not be sampled" in found.reason
    assert not found.passed


@pytest.mark.parametrize(
    ("ratios", "passed"),
    [((1.049, 0.951), True), ((1.06, 1.0), False), ((1.0, 0.94), False), ((None, 1.0), False)],
)
def test_five_percent_are_allowed(ratios, passed):
    found = SelfTest("GPU-a", 1.0, ratio_counter=ratios[0], ratio_integral=ratios[1])
    assert found.passed is passed


def test_without_pytorch_there_is_no_load_and_the_reason_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (found,) = of_gpus([{"uuid": "GPU-a"}], DURATION_S)
    assert found.device == "GPU-a"
    assert "a load needs PyTorch" in found.reason


def fake_torch(matrix, uuids=("a", "b")):
    cuda = SimpleNamespace(
        device_count=lambda: len(uuids),
        get_device_properties=lambda index: SimpleNamespace(uuid=uuids[index]),
        synchronize=lambda index: None,
    )
    return SimpleNamespace(cuda=cuda, ones=matrix, float16="float16", __version__="2")


def test_the_load_runs_on_the_gpu_with_that_uuid_until_its_end(monkeypatch):
    log, moments_s = [], iter([0.0, 0.1, 9.9, 10.0])

    class Matrix:
        def __init__(self, *shape, device, **_):
            log.append(device)

        def __matmul__(self, other):
            log.append("product")

    monkeypatch.setitem(sys.modules, "torch", fake_torch(Matrix))
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(moments_s)))
    torch_load("GPU-b", 10.0)
    assert log == ["cuda:1"] + ["product"] * 2 * module.PRODUCTS_PER_WAIT


def test_a_gpu_that_pytorch_does_not_see_or_cannot_use_is_refused(monkeypatch):
    def no_memory(*_, **__):
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setitem(sys.modules, "torch", fake_torch(no_memory))
    with pytest.raises(LlmEnergyError, match="does not see GPU GPU-c"):
        torch_load("GPU-c", 1.0)
    with pytest.raises(LlmEnergyError, match="failed on GPU-a: CUDA out of memory"):
        torch_load("GPU-a", 1.0)
