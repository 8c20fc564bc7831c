"""CodeCarbon's models: what they give, that they leave no trace, and each of its traps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import threading
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.fake_nvml import FakeClock

from llm_energy.meter.estimates import PowerModel, open_estimates
from llm_energy.meter.meter import open_meter
from llm_energy.records import MeterSettings

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture(scope="module")
def meter(tmp_path_factory):
    """A meter of a host without RAPL, with the real package, on a clock of the test."""
    pytest.importorskip("codecarbon")
    clock = FakeClock()
    meter = open_meter(MeterSettings(), clock=clock, sysfs=tmp_path_factory.mktemp("sys"))
    meter.restrict([])
    yield SimpleNamespace(interval=meter.interval, clock=clock)
    meter.close()


def by_component(interval):
    return {c.component: c for c in interval.record.energy}


def test_cpu_and_memory_are_estimated_and_say_with_what(meter):
    with meter.interval("window") as interval:
        meter.clock.advance(10)
    found = by_component(interval)
    assert found["gpu"].status == "unavailable"
    for component, method in (("cpu", "codecarbon_"), ("dram", "codecarbon_ram_model(power_w=")):
        assert found[component].status == "estimated"
        assert found[component].method.startswith(method)
        assert found[component].energy_j > 0
        assert found[component].reason.startswith("not measured: ")


def test_the_duration_is_the_meters_own(meter):
    with meter.interval("short") as short:
        meter.clock.advance(2)
    with meter.interval("long") as long:
        meter.clock.advance(20)
    method = by_component(short)["dram"].method
    power_w = float(method.partition("power_w=")[2].rstrip(")"))
    assert by_component(short)["dram"].energy_j == pytest.approx(2 * power_w)
    assert by_component(long)["dram"].energy_j == pytest.approx(20 * power_w)


def test_the_cpu_lies_between_a_tenth_of_the_tdp_and_the_tdp(meter):
    with meter.interval("window") as interval:
        meter.clock.advance(10)
    cpu = by_component(interval)["cpu"]
    tdp_w = float(cpu.method.partition("tdp_w=")[2].rstrip(")"))
    assert 0.1 * tdp_w * 10 <= cpu.energy_j * (1 + 1e-9) <= tdp_w * 10 * (1 + 2e-9)


def test_no_thread_of_the_meter_runs_inside_an_interval(meter):
    def threads():
        return threading.enumerate(), len(os.listdir("/proc/self/task"))

    before = threads()
    with meter.interval("window"):
        assert threads() == before
    assert threads() == before
    assert not any(isinstance(t, threading.Timer) for t in threading.enumerate())


def test_the_logger_is_quiet_and_no_file_is_written(tmp_path, monkeypatch, capfd):
    pytest.importorskip("codecarbon")
    monkeypatch.chdir(tmp_path)
    for sensor in open_estimates(MeterSettings()):
        assert sensor.energy(sensor.read(), sensor.read(), 1)[0].status == "estimated"
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


PROGRAM = """
    import json, pathlib, signal, sys
    from support.fake_nvml import FakeGpu, FakeClock, make_nvml
    from llm_energy.meter.meter import open_meter
    from llm_energy.core.serialize import to_dict
    from llm_energy.records import MeterSettings

    clock = FakeClock()
    gpus = [FakeGpu("GPU-aaaa-1"), FakeGpu("GPU-bbbb-2", pci_bus_id="00000000:81:00.0")]
    sys.modules["pynvml"] = make_nvml(gpus, clock)
    before = signal.getsignal(signal.SIGTERM)
    meter = open_meter(MeterSettings(), clock=clock, sysfs=pathlib.Path(sys.argv[1]))
    with meter.interval("window") as interval:
        clock.advance(10)
    assert signal.getsignal(signal.SIGTERM) is before, "a signal handler was taken over"
    import codecarbon.lock
    assert codecarbon.lock.LOCKFILE == sys.argv[1] + "/.codecarbon.lock"
    print(json.dumps(to_dict(interval.record)))
"""


@pytest.mark.parametrize(
    "environ",
    [
        # A lock that a crashed run left: the tracker would give None for everything.
        {"CODECARBON_ALLOW_MULTIPLE_RUNS": "False"},
        # A GPU chosen by UUID: the tracker would watch no GPU, and say 0 J.
        {"CUDA_VISIBLE_DEVICES": "GPU-bbbb-2"},
        # A user's own settings must not change the scope, the clock or the files.
        {"CODECARBON_TRACKING_MODE": "process", "CODECARBON_OUTPUT_DIR": "/nowhere"},
        {"CODECARBON_OUTPUT_METHODS": "nonsense"},
        # In a job the models ask scontrol, which an image may lack and which knows only the job.
        {"SLURM_JOB_ID": "17"},
        {"SLURM_JOBID": "17"},
    ],
)
def test_the_traps_of_the_real_package_are_closed(tmp_path, environ):
    pytest.importorskip("codecarbon")
    (tmp_path / ".codecarbon.lock").touch()
    nvidia_smi = tmp_path / "nvidia-smi"  # its presence is how the package tells an NVIDIA host
    nvidia_smi.write_text("#!/bin/sh\n")
    nvidia_smi.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), str(tmp_path)],
        env={
            **os.environ,
            **environ,
            "TMPDIR": str(tmp_path),
            "PATH": os.pathsep.join([str(tmp_path), os.environ["PATH"]]),
            "PYTHONPATH": os.pathsep.join([str(SCRIPTS), *filter(None, sys.path)]),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    energy = {(c["component"], c["device"]): c for c in json.loads(done.stdout)["energy"]}
    assert energy["gpu", "GPU-bbbb-2"]["energy_j"] == pytest.approx(1000)
    assert energy["cpu", "machine"]["status"] == "estimated"
    assert energy["dram", "machine"]["energy_j"] >= 10 * 3  # the model of the whole machine
    assert "scontrol" not in str(energy)
    assert {path.name for path in tmp_path.iterdir()} == {".codecarbon.lock", "nvidia-smi"}


def test_a_tracker_that_swallows_its_own_failure_is_unavailable_with_a_reason(monkeypatch):
    codecarbon = pytest.importorskip("codecarbon")

    def broken(*arguments, **options):
        raise OSError("no such folder")

    # The real constructor catches everything, and leaves half a tracker behind.
    monkeypatch.setattr(codecarbon.OfflineEmissionsTracker, "_set_from_conf", broken)
    for sensor in open_estimates(MeterSettings()):
        (component,) = sensor.energy(sensor.read(), sensor.read(), 1)
        assert (component.status, component.energy_j) == ("unavailable", None)
        assert component.reason.startswith("CodeCarbon could not be set up: ")


def test_without_the_package_both_are_unavailable(monkeypatch):
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    sensors = open_estimates(MeterSettings())
    components = [s.energy(s.read(), s.read(), 1)[0] for s in sensors]
    assert [c.component for c in components] == ["cpu", "dram"]
    assert all("codecarbon is not installed" in c.reason for c in components)


class Model:
    """A hardware model that answers with what it is given, or raises it."""

    def __init__(self, *answers):
        self.answers = list(answers)

    def start(self):
        pass

    def total_power(self):
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return SimpleNamespace(W=answer)


@pytest.mark.parametrize("answer", [None, 0, float("nan"), -1.0, OSError("gone")])
def test_a_model_that_fails_is_unavailable_once_and_usable_again(answer):
    # What the first reading hears is the mean of the time before it.
    sensor = PowerModel("cpu", "model", Model(OSError("too early"), answer, 30.0))
    readings = [sensor.read() for _ in range(3)]
    failed, good = (sensor.energy(*pair, 2.0)[0] for pair in pairwise(readings))
    assert (failed.status, failed.energy_j) == ("unavailable", None)
    assert failed.reason.startswith("CodeCarbon's model gave ")
    assert (good.status, good.energy_j) == ("estimated", 60.0)
