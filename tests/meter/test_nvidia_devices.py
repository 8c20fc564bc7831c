"""NVIDIA GPUs over a fake driver: which GPUs, how many joules, and every way to fail."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fake_nvml import FakeClock, FakeGpu, make_nvml

from llm_energy.core.errors import LlmEnergyError
from llm_energy.meter.nvidia.devices import NvmlGpus

COUNTER = "nvmlDeviceGetTotalEnergyConsumption"
SECOND_ON_THE_BUS = "00000000:81:00.0"


def gpus():
    """Two GPUs whose NVML order is not the order of their PCI bus ids."""
    return [
        FakeGpu("GPU-bbbb-2", power_w=400, pci_bus_id=SECOND_ON_THE_BUS),
        FakeGpu("GPU-aaaa-1", power_w=100),
    ]


def sense(the_gpus, clock=None, **environ):
    module = make_nvml(the_gpus, clock or FakeClock())
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pynvml", module)
        return NvmlGpus(environ), module


def meter(gpus, clock, duration_s=10.0, between=lambda: None):
    """Meter an interval of the GPUs in use, in which ``between`` happens."""
    sensor = gpus.sensor()
    first = sensor.read()
    clock.advance(duration_s)
    between()
    return sensor.energy(first, sensor.read(), duration_s)


def devices(gpus):
    return [gpu["uuid"] for gpu in gpus.gpus()]


def test_every_gpu_has_its_own_energy():
    clock = FakeClock()
    sensor, _ = sense(gpus(), clock)
    assert {c.device: c.energy_j for c in meter(sensor, clock)} == {
        "GPU-aaaa-1": pytest.approx(1000),
        "GPU-bbbb-2": pytest.approx(4000),
    }


def test_the_counter_is_read_only_at_the_edges():
    clock = FakeClock()
    sensor, module = sense(gpus(), clock)
    module.calls.clear()
    meter(sensor, clock)
    assert module.calls == [COUNTER] * 4


@given(
    start_s=st.floats(0, 1000),
    duration_s=st.floats(0, 100),
    power_w=st.floats(0, 1000),
    tick_s=st.sampled_from([0.0, 0.02, 0.1]),
)
def test_the_error_is_at_most_one_tick(start_s, duration_s, power_w, tick_s):
    clock = FakeClock(start_s)
    sensor, _ = sense([FakeGpu("GPU-a", power_w=power_w, tick_s=tick_s)], clock)
    (component,) = meter(sensor, clock, duration_s)
    assert abs(component.energy_j - power_w * duration_s) <= power_w * tick_s + 0.002


@given(st.lists(st.floats(0, 50), min_size=1, max_size=10))
def test_consecutive_intervals_add_up_to_the_whole(durations_s):
    clock = FakeClock()
    parts, _ = sense([FakeGpu("GPU-a", tick_s=0.1)], clock)
    whole, _ = sense([FakeGpu("GPU-a", tick_s=0.1)], clock)
    sensor = whole.sensor()
    first = sensor.read()
    sum_j = sum(meter(parts, clock, duration_s)[0].energy_j for duration_s in durations_s)
    (component,) = sensor.energy(first, sensor.read(), sum(durations_s))
    assert sum_j == pytest.approx(component.energy_j)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, ["GPU-aaaa-1", "GPU-bbbb-2"]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-bbbb-2"}, ["GPU-bbbb-2"]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-bb"}, ["GPU-bbbb-2"]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-"}, []),
        ({"CUDA_VISIBLE_DEVICES": "GPU-bbbb-2, GPU-aaaa-1"}, ["GPU-bbbb-2", "GPU-aaaa-1"]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-bbbb-2,GPU-none,GPU-aaaa-1"}, ["GPU-bbbb-2"]),
        ({"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, ["GPU-bbbb-2"]),
        ({"CUDA_VISIBLE_DEVICES": "0,-1,1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, ["GPU-aaaa-1"]),
        ({"CUDA_VISIBLE_DEVICES": "7", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, []),
        # An index in CUDA's own order cannot be placed: all GPUs, until the engine says which.
        ({"CUDA_VISIBLE_DEVICES": "1"}, ["GPU-aaaa-1", "GPU-bbbb-2"]),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, []),
        ({"CUDA_VISIBLE_DEVICES": ""}, []),
    ],
)
def test_the_first_set_is_what_cuda_would_see(environ, expected):
    sensor, _ = sense(gpus(), **environ)
    assert devices(sensor) == expected


def test_hidden_gpus_are_unavailable_not_zero():
    clock = FakeClock()
    sensor, _ = sense(gpus(), clock, CUDA_VISIBLE_DEVICES="")
    (component,) = meter(sensor, clock)
    assert (component.status, component.energy_j) == ("unavailable", None)
    assert "CUDA_VISIBLE_DEVICES hides every GPU" in component.reason


def test_restricting_narrows_to_what_the_engine_reports():
    clock = FakeClock()
    sensor, _ = sense(gpus(), clock, CUDA_VISIBLE_DEVICES="GPU-aaaa-1")
    sensor.restrict(["bbbb-2"])  # as torch writes it
    assert [(c.device, c.energy_j) for c in meter(sensor, clock)] == [
        ("GPU-bbbb-2", pytest.approx(4000))
    ]


def test_restricting_inside_an_interval_waits_for_the_next():
    clock = FakeClock()
    sensor, _ = sense(gpus(), clock)
    found = meter(sensor, clock, between=lambda: sensor.restrict(["GPU-bbbb-2"]))
    assert len(found) == 2
    assert len(meter(sensor, clock)) == 1


def test_an_engine_on_the_cpu_uses_no_gpu():
    clock = FakeClock()
    sensor, _ = sense(gpus(), clock)
    sensor.restrict([])
    (component,) = meter(sensor, clock)
    assert component.reason == "the engine uses no GPU"


def test_an_unknown_gpu_is_refused_with_the_known_ones():
    sensor, _ = sense(gpus())
    with pytest.raises(LlmEnergyError, match=r"'GPU-cccc-3'.*GPU-aaaa-1, GPU-bbbb-2"):
        sensor.restrict(["GPU-cccc-3"])


def test_a_counter_that_goes_backwards_makes_the_gpu_unavailable():
    clock = FakeClock()
    both = gpus()
    sensor, _ = sense(both, clock)

    def reload():
        both[0].base_mj = -10_000_000

    by_device = {c.device: c for c in meter(sensor, clock, between=reload)}
    assert by_device["GPU-bbbb-2"].status == "unavailable"
    assert "went backwards" in by_device["GPU-bbbb-2"].reason
    assert by_device["GPU-aaaa-1"].energy_j == pytest.approx(1000)


def test_a_gpu_without_a_counter_says_so_and_the_other_is_measured():
    clock = FakeClock()
    both = gpus()
    both[1].errors[COUNTER] = "Not Supported"
    sensor, _ = sense(both, clock)
    by_device = {c.device: c for c in meter(sensor, clock)}
    assert by_device["GPU-aaaa-1"].reason == "NVML's energy counter: Not Supported"
    assert by_device["GPU-bbbb-2"].status == "measured"


def test_a_gpu_lost_during_an_interval_is_unavailable():
    clock = FakeClock()
    gpu = FakeGpu("GPU-a")
    sensor, _ = sense([gpu], clock)
    (component,) = meter(sensor, clock, between=lambda: gpu.errors.update({COUNTER: "GPU is lost"}))
    assert "GPU is lost" in component.reason


def test_a_mig_instance_stands_for_its_whole_gpu_and_is_labelled():
    clock = FakeClock()
    shared = FakeGpu("GPU-a", mig_instances=("MIG-1234", "MIG-5678"))
    other = FakeGpu("GPU-b", pci_bus_id=SECOND_ON_THE_BUS)
    for value in ("MIG-5678", "MIG-GPU-a/1/0"):
        sensor, _ = sense([shared, other], clock, CUDA_VISIBLE_DEVICES=value)
        (component,) = meter(sensor, clock)
        assert (component.device, component.status) == ("GPU-a", "measured")
        assert component.method.endswith("whole_board_mig")
        assert "whole board" in component.reason
    sensor.restrict(["1234", "MIG-5678"])
    assert devices(sensor) == ["GPU-a"]
    assert sensor.gpus()[0]["mig_mode"] is True


def test_a_virtual_gpu_without_a_counter_says_that_it_is_one():
    clock = FakeClock()
    gpu = FakeGpu("GPU-a", virtual=True, errors={COUNTER: "Not Supported"})
    (component,) = meter(sense([gpu], clock)[0], clock)
    assert (component.status, component.energy_j) == ("unavailable", None)
    assert component.reason.startswith("NVML's energy counter: Not Supported; the GPU is virtual")


def test_a_virtual_gpu_with_a_counter_is_labelled():
    clock = FakeClock()
    (component,) = meter(sense([FakeGpu("GPU-a", virtual=True)], clock)[0], clock)
    assert (component.status, component.energy_j) == ("measured", pytest.approx(1000))
    assert component.method.endswith("whole_board_vgpu")
    assert "a share of a real one" in component.reason


def test_the_identity_has_every_key_and_null_for_what_nvml_cannot_say():
    (gpu,) = [FakeGpu("GPU-a", errors={"nvmlDeviceGetEccMode": "Not Supported"})]
    sensor, _ = sense([gpu])
    assert sensor.gpus() == (
        {
            "index": 0,
            "pci_bus_id": "00000000:01:00.0",
            "uuid": "GPU-a",
            "name": "Fake GPU",
            "driver_version": "590.48.01",
            "vbios": "96.00.74.00.01",
            "power_limit_w": 300.0,
            "default_power_limit_w": 350.0,
            "persistence_mode": True,
            "ecc_mode": None,
            "mig_mode": None,
            "temperature_c": 41,
            "sm_clock_mhz": 1980,
            "mem_clock_mhz": 2619,
        },
    )


def test_without_the_package_the_reason_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "nvidia-ml-py" in meter(NvmlGpus({}), FakeClock())[0].reason


def test_a_driver_without_gpus_says_so():
    clock = FakeClock()
    sensor, _ = sense([], clock)
    assert meter(sensor, clock)[0].reason == "NVML finds no GPU"


def test_the_stand_in_offers_nothing_that_the_real_module_lacks():
    real = pytest.importorskip("pynvml")
    names = [name for name in vars(make_nvml([], FakeClock())) if name.lower().startswith("nvml")]
    assert len(names) > 15
    assert [name for name in names if not hasattr(real, name)] == []


def test_closing_releases_nvml_once():
    sensor, module = sense(gpus())
    sensor.close()
    sensor.close()
    assert module.calls.count("nvmlShutdown") == 1
    assert sensor.gpus() == ()
