"""The process that looks between the edges, on the real clock and a made powercap tree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.fake_powercap import FakePowercap

from llm_energy.meter.host.snapshot import Tenants
from llm_energy.meter.meter import open_meter
from llm_energy.meter.watch import Watch
from llm_energy.records import MeterSettings

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
DEADLINE_S = 60.0  # of a wait that takes a second where all is well
FOREVER = (0.0, float("inf"))


@pytest.fixture
def powercap(tmp_path):
    powercap = FakePowercap(tmp_path)
    powercap.zone("intel-rapl:0", "package-0", 100)
    return powercap


@pytest.fixture
def watch():
    watch = Watch()
    yield watch
    watch.stop()


def wait_for(condition, what):
    deadline_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline_s:
        if found := condition():
            return found
        os.sched_yield()
    raise AssertionError(f"waited {DEADLINE_S:g} s for {what}")


def watching(pid):
    """Return whether a process still runs; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_it_reads_the_counters_again_and_again(powercap, watch, tmp_path):
    begin_s = time.monotonic()
    zones = {"package-0": powercap.root / "intel-rapl:0" / "energy_uj", "gone": tmp_path / "gone"}
    watch.start(zones, period_s=0.01)
    wait_for(lambda: len(watch.looks(*FOREVER)) >= 2, "two looks")
    powercap.use("intel-rapl:0", 11)
    wait_for(lambda: watch.looks(*FOREVER)[-1].energy_uj == {"package-0": 111}, "the new value")
    looks = watch.looks(*FOREVER)
    assert looks[0].energy_uj == {"package-0": 100}
    times_s = [begin_s, *(look.time_s for look in looks), time.monotonic()]
    assert times_s == sorted(times_s)
    assert watch.looks(looks[0].time_s, looks[1].time_s) == []
    assert watch.looks(begin_s, looks[1].time_s) == looks[:1]


NVML = """
import json
from types import SimpleNamespace

class NVMLError(Exception):
    pass

def nvmlInit():
    {init}

def nvmlDeviceGetHandleByUUID(uuid):
    return uuid

def shown(kind):
    return lambda handle: [
        SimpleNamespace(pid=pid, usedGpuMemory=None)
        for pid in json.load(open({shown!r}))[kind]
    ]

nvmlDeviceGetComputeRunningProcesses = shown("computing")
nvmlDeviceGetGraphicsRunningProcesses = shown("drawing")
"""


@pytest.fixture
def show(tmp_path, monkeypatch):
    """Install a driver, and give a function that says which processes it shows on its GPUs."""
    packages, shown = tmp_path / "packages", tmp_path / "shown.json"
    packages.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(packages))

    def show(*computing, drawing=(), init="pass"):
        (packages / "pynvml.py").write_text(NVML.format(shown=str(shown), init=init))
        text = json.dumps({"computing": computing, "drawing": drawing})
        temporary = shown.with_suffix(".new")
        temporary.write_text(text)
        temporary.replace(shown)

    return show


def test_a_process_that_comes_and_leaves_is_seen(watch, show):
    own, parent = os.getpid(), os.getppid()
    drawing = () if parent == 1 else (1,)  # where the test's parent has ended
    show(own)
    watch.start({}, ["GPU-a"], period_s=0.01)
    wait_for(lambda: watch.looks(*FOREVER), "a look")
    show(own, parent, drawing=drawing)
    expected = {"GPU-a": Tenants((parent,), drawing)}
    wait_for(lambda: watch.looks(*FOREVER)[-1].tenants == expected, "the tenant")
    show(own)
    nobody = {"GPU-a": Tenants((), ())}
    wait_for(lambda: watch.looks(*FOREVER)[-1].tenants == nobody, "its end")
    assert any(look.tenants == expected for look in watch.looks(*FOREVER))


def test_a_driver_that_hides_processes_says_nothing_of_tenants(watch, show):
    show(2**22 + 1)  # more than Linux counts to
    watch.start({}, ["GPU-a"], period_s=0.01)
    assert wait_for(lambda: watch.looks(*FOREVER), "a look")[0].tenants == {}


def test_without_a_driver_the_counters_are_read_all_the_same(watch, show, powercap):
    show(init='raise NVMLError("Driver Not Loaded")')
    watch.start({"p": powercap.root / "intel-rapl:0" / "energy_uj"}, ["GPU-a"], period_s=0.01)
    (look, *_) = wait_for(lambda: watch.looks(*FOREVER), "a look")
    assert (look.energy_uj, look.tenants) == ({"p": 100}, {})


def test_without_a_process_nothing_was_seen(watch, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    watch.start({})
    assert watch.looks(*FOREVER) == []


def test_the_meter_starts_it_where_there_is_a_counter_and_ends_it(powercap):
    meter = open_meter(MeterSettings(codecarbon=False), sysfs=powercap.sysfs)
    pid = meter._watch._process.pid
    try:
        with meter.interval("window") as interval:
            wait_for(lambda: meter._watch.looks(*FOREVER), "a look")
            powercap.use("intel-rapl:0", 3_000_000)
    finally:
        meter.close()
    (package,) = [c for c in interval.record.energy if c.component == "cpu"]
    assert (package.status, package.energy_j) == ("measured", 3.0)
    assert not watching(pid)
    meter.close()


PARENT = """
import sys
from pathlib import Path
from llm_energy.meter.watch import Watch
watch = Watch()
watch.start({}, period_s=0.01)
print(watch._process.pid, flush=True)
"""


def test_it_ends_with_its_parent():
    found = subprocess.run(
        [sys.executable, "-c", PARENT],
        env=os.environ | {"PYTHONPATH": str(SCRIPTS)},
        capture_output=True,
        text=True,
        check=True,
    )
    wait_for(lambda: not watching(int(found.stdout)), "the end of the watching process")
