"""The sampling process itself, against a stand-in of NVML and on the real clock.

Nothing sleeps: a test waits for rows in the sampler's file, or for the end of a process.
"""

from __future__ import annotations

import io
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from llm_energy.core.errors import LlmEnergyError
from llm_energy.meter.power_sampling import process as sampler
from llm_energy.records import power_trace

TESTS = Path(__file__).resolve().parents[1]
SCRIPTS = TESTS.parent / "scripts"
STAND_IN = (TESTS / "support" / "fake_pynvml" / "pynvml.py").read_text()
DEADLINE_S = 60.0  # of a wait that takes a second where all is well

FAILS = """
def {name}(*arguments):
    raise NVMLError("Not Supported")
"""


@pytest.fixture
def nvml(tmp_path, monkeypatch):
    """Return a function that installs the stand-in, with lines of one's own at its end."""
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(folder))

    def install(*extra):
        (folder / "pynvml.py").write_text("\n".join((STAND_IN, *extra)))

    install()
    return install


@pytest.fixture
def start(tmp_path, nvml):
    """Return a function that starts a sampler, and leave none behind."""
    started = []

    def start(devices=("GPU-a",), path=tmp_path / "run" / "r01.trace.csv.gz"):
        started.append(sampler.start(path, 0.1, devices))
        return started[-1]

    yield start
    for each in started:
        each.stop()


def wait_for(condition, what):
    """Look until ``condition()`` gives something true, and give that."""
    deadline_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline_s:
        if found := condition():
            return found
        os.sched_yield()
    raise AssertionError(f"waited {DEADLINE_S:g} s for {what}")


def rows(path, least):
    """Wait until the growing file has so many rows, and give all of them."""
    partial = power_trace.partial_path(path)

    def enough():
        found = list(power_trace.read(partial)) if partial.exists() else []
        return found if len(found) >= least else None

    return wait_for(enough, f"{least} rows in {partial}")


def await_samples(running, count):
    """Wait for so many more samples: a summary waits for the one after its end."""
    for _ in range(count):
        now_s = time.monotonic()
        running.summary(now_s, now_s)


def process_of(path):
    """Return the id of the process that samples into ``path``, None where there is none."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if os.fsencode(path) in words and sampler.MODULE.encode() in words:
            return int(folder.name)
    return None


def test_every_gpu_is_sampled_and_the_interval_summarised(start, tmp_path):
    begin_s = time.monotonic()
    running = start(["GPU-b", "GPU-a"])
    path = tmp_path / "run" / "r01.trace.csv.gz"
    start_s = time.monotonic()
    await_samples(running, 4)
    end_s = time.monotonic()
    found = running.summary(start_s, end_s)
    assert running.problem is None
    assert [(f.device, f.max_power_w) for f in found] == [("GPU-a", 300.0), ("GPU-b", 75.5)]
    for each in found:
        assert each.samples >= 2
        assert each.energy_j == pytest.approx(each.max_power_w * (end_s - start_s), rel=1e-9)
        assert (each.max_temperature_c, each.clock_event_reasons) == (41.0, 4)
        assert each.utilization_percent == 97.0
    assert running.stop() == path
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    samples = list(power_trace.read(path))
    ours = [s for s in samples if s.device == "GPU-a"]
    assert begin_s < ours[0].time_s < ours[-1].time_s < time.monotonic()
    assert ours[0] == power_trace.Sample(ours[0].time_s, "GPU-a", 300.0, 41, 1980, 2619, 97, 4)
    # summaries need the process no more
    assert running.summary(start_s, end_s) == found
    assert (running.stop(), running.problem) == (path, None)


def test_a_summary_waits_for_the_samples_after_the_interval(start):
    running = start()
    start_s = time.monotonic()
    (found,) = running.summary(start_s, start_s + 1e-6)
    assert found.samples == 0
    assert running._samples[-1].time_s > start_s + 1e-6


def test_rows_reach_the_file_unasked(start, tmp_path):
    running = start()
    assert len(rows(tmp_path / "run" / "r01.trace.csv.gz", 2)) >= 2
    assert running.problem is None


class VirtualProcess:
    """The surroundings of the sampling loop in virtual time: clock, input and output.

    A GPU's n-th reading takes ``reading_s[n]``; the input ends when there are no more.
    """

    POLLIN = select.POLLIN
    stdin = stdout = SimpleNamespace(fileno=lambda: 0)

    def __init__(self, monkeypatch, reading_s):
        self.now_s, self.reading_s, self.answers = 0.0, list(reading_s), []
        for name in ("time", "select", "os", "sys"):
            monkeypatch.setattr(sampler, name, self)

    def monotonic(self):
        return self.now_s

    def getppid(self):
        return 1

    def poll(self):
        return SimpleNamespace(register=lambda *_: None, poll=self.wait)

    def wait(self, timeout_ms):
        self.now_s += timeout_ms / 1e3
        return not self.reading_s

    def read(self, descriptor, size):
        return b""

    def write(self, descriptor, answer):
        self.answers.append(float(answer))

    def sample(self):
        begin_s = self.now_s
        self.now_s += self.reading_s.pop(0)
        return power_trace.Sample(begin_s, "GPU-a", *[None] * 6)


def test_delays_of_samples_do_not_add_up_and_missed_ones_are_left_out(monkeypatch):
    process = VirtualProcess(monkeypatch, [0.03, 0.07, 0.05, 0.25, 0.01, 0.1, 0.02, 0.02])
    out = io.StringIO()
    sampler._sample(out, [process], 0.1, parent=1)
    times_s = [power_trace.parse(line).time_s for line in out.getvalue().splitlines()]
    assert times_s == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.6, 0.7, 0.8, 0.9])
    assert process.answers == [0.0]


@pytest.mark.parametrize(
    ("extra", "method", "power_w"),
    [
        ((), sampler.INSTANT_METHOD, 300.0),
        ((FAILS.format(name="nvmlDeviceGetFieldValues"),), sampler.USAGE_METHOD, 301.0),
        (
            (
                "def nvmlDeviceGetFieldValues(handle, fields):",
                "    return [SimpleNamespace(nvmlReturn=3, value=None)]",
            ),
            sampler.USAGE_METHOD,
            301.0,
        ),
    ],
)
def test_the_file_names_the_way_power_was_read(start, nvml, extra, method, power_w, tmp_path):
    nvml(*extra)
    running = start()
    path = tmp_path / "run" / "r01.trace.csv.gz"
    found = rows(path, 1)
    assert found[0].power_w == power_w
    with open(power_trace.partial_path(path)) as stream:
        assert f"power by: GPU-a {method}\n" in stream.readline()
    assert running.problem is None


def test_what_a_gpu_does_not_tell_stays_empty(start, nvml, tmp_path):
    names = (
        "FieldValues PowerUsage Temperature ClockInfo UtilizationRates CurrentClocksEventReasons"
    )
    nvml(*(FAILS.format(name=f"nvmlDeviceGet{name}") for name in names.split()))
    running = start()
    time_s, *rest = rows(tmp_path / "run" / "r01.trace.csv.gz", 1)[0]
    assert rest == ["GPU-a", None, None, None, None, None, None]
    assert running.summary(time_s - 1, time_s)[0].energy_j is None


def test_the_energy_counter_is_never_read(start, nvml):
    nvml(
        "def nvmlDeviceGetTotalEnergyConsumption(handle):",
        "    raise SystemExit('the counter was read')",
        "def nvmlDeviceGetFieldValues(handle, fields):",
        "    if fields != [(186, 0)]:",
        "        raise SystemExit('a field was read that may be the counter')",
        "    raise NVMLError('Not Supported')",
    )
    running = start()
    await_samples(running, 3)
    assert running.problem is None


def test_the_process_gives_way_on_one_core_and_is_out_of_reach_of_ctrl_c(start):
    running = start()
    pid = running._process.pid
    assert os.getpriority(os.PRIO_PROCESS, pid) == min(os.nice(0) + 10, 19)
    assert os.sched_getaffinity(pid) == {max(os.sched_getaffinity(0))}
    assert os.getsid(pid) == pid


@pytest.mark.parametrize("period_s", [0.0, -1.0, 0.0999, float("nan")])
def test_a_faster_period_is_refused(tmp_path, period_s):
    with pytest.raises(LlmEnergyError, match=r"sampling_period_s: found .*, allowed 0\.1 and more"):
        sampler.start(tmp_path / "r01.trace.csv.gz", period_s, ["GPU-a"])
    assert list(tmp_path.iterdir()) == []


def test_no_gpu_is_refused(tmp_path):
    with pytest.raises(LlmEnergyError, match="no GPU"):
        sampler.start(tmp_path / "r01.trace.csv.gz", 0.1, [])


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (("def nvmlInit():", "    raise NVMLError('Driver Not Loaded')"), "Driver Not Loaded"),
        (("raise ImportError('no module of that name')",), "no module of that name"),
        (("POWER_MW.clear()",), "Not Found"),
    ],
)
def test_a_sampler_that_cannot_start_is_a_reason_and_no_trace(start, nvml, extra, said):
    nvml(*extra)
    running = start()
    assert "ended with status 1" in running.problem
    assert said in running.problem
    assert running.summary(0.0, 1.0) == ()
    assert running.stop() is None


def test_an_interpreter_that_cannot_run_is_a_reason(start, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    running = start()
    assert "could not be started" in running.problem
    assert (running.summary(0.0, 1.0), running.stop()) == ((), None)


def test_a_folder_that_cannot_be_written_is_a_reason(start, tmp_path):
    (tmp_path / "file").write_text("")
    running = start(path=tmp_path / "file" / "r01.trace.csv.gz")
    assert "could not be started" in running.problem


def test_a_sampler_that_dies_leaves_its_rows_and_a_reason(start, tmp_path):
    running = start()
    path = tmp_path / "run" / "r01.trace.csv.gz"
    await_samples(running, 3)
    seen = rows(path, 3)
    running._process.kill()
    (found,) = running.summary(seen[0].time_s, seen[-1].time_s + 60)
    assert found.samples >= 3
    assert found.energy_j is None  # nothing was seen of most of the interval
    assert "ended with status -9" in running.problem
    assert running.stop() == path
    assert list(power_trace.read(path))[:3] == seen[:3]


def test_a_driver_that_hangs_is_waited_for_only_so_long(start, nvml, tmp_path, monkeypatch):
    nvml(
        "reads = []",
        "def nvmlDeviceGetTemperature(handle, sensor):",
        "    reads.append(1)",
        "    while len(reads) > 1:",
        "        __import__('signal').pause()",
        "    return 41",
    )
    running = start()
    path = tmp_path / "run" / "r01.trace.csv.gz"
    monkeypatch.setattr(running, "_timeout_s", 0.5)
    monkeypatch.setattr(sampler, "ANSWER_TIMEOUT_S", 0.1)
    (found,) = running.summary(0.0, time.monotonic() + 60)
    assert found.samples >= 1
    assert "hung and was killed" in running.problem
    assert running.stop() == path


def test_it_stops_though_another_process_holds_its_input_open(start):
    running = start()
    descriptor = running._process.stdin.fileno()
    holder = subprocess.Popen(
        [sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[descriptor]
    )
    try:
        assert running.stop() is not None
        assert running.problem is None
    finally:
        holder.communicate(b"\n")


def test_a_full_disk_is_a_reason(start, monkeypatch):
    def fail(path):
        raise OSError("No space left on device")

    running = start()
    monkeypatch.setattr(power_trace, "pack", fail)
    assert running.stop() is None
    assert "No space left" in running.problem


def test_what_an_earlier_run_left_behind_is_not_taken_over(start, tmp_path):
    path = tmp_path / "run" / "r01.trace.csv.gz"
    path.parent.mkdir()
    power_trace.partial_path(path).write_text(
        power_trace.header(0.1, {})
        + power_trace.row(power_trace.Sample(1.0, "GPU-old", *[None] * 6))
    )
    running = start()
    assert {s.device for s in rows(path, 1)} == {"GPU-a"}
    assert running.stop() == path


PARENT = f"""
import os, sys, time
sys.path.insert(0, {str(SCRIPTS)!r})
from pathlib import Path
from llm_energy.meter.power_sampling import process as sampler
running = sampler.start(Path(sys.argv[1]), 0.1, ["GPU-a"])
if sys.argv[2] == "fork" and os.fork() == 0:
    sys.stdin.read()  # as an engine's forked process: it holds the sampler's input open
    os._exit(0)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("how", ["alone", "fork"])
def test_it_ends_with_its_parent_and_its_rows_stay_readable(nvml, tmp_path, how):
    path = tmp_path / "r01.trace.csv.gz"
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(path), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert parent.stdout.readline() == b"ready\n"
        pid = process_of(path)
        assert pid is not None
        rows(path, 5)
        parent.kill()
        parent.wait()
        wait_for(lambda: process_of(path) != pid, "the sampler's end")
    finally:
        parent.kill()
        parent.communicate()
    kept = list(power_trace.read(power_trace.partial_path(path)))
    assert len(kept) >= 5
    assert not path.exists()


def test_the_process_loads_no_heavy_package():
    heavy = "numpy pandas codecarbon torch jsonschema yaml scipy"
    code = (
        "import sys; from llm_energy.meter.power_sampling import process; "
        f"print([name for name in {heavy.split()!r} if name in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-S", "-P", "-c", code],
        env={"PYTHONPATH": str(SCRIPTS)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == "[]\n"
