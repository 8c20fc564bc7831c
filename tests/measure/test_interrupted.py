"""What a measuring process that is killed at any moment leaves behind, and what comes next."""

from __future__ import annotations

import errno
import functools
import os
import random
import resource
import subprocess
import sys
import time

import measure as script
import pytest
from support import fake_measure as stand_in
from support import system_tools

from llm_energy.backends import base
from llm_energy.core import cli, locks
from llm_energy.measure import run, stopping
from llm_energy.records import Measurement, StepReport, read_record

KILLS = 10


@pytest.fixture
def in_process(monkeypatch, tmp_path):
    """Let measure run in this process on the stand-in engine, under a lock of the test's own."""
    lock = functools.partial(locks.exclusive_host, stand_in.HOST_LOCK)
    monkeypatch.setattr(run, "exclusive_host", lock)
    monkeypatch.setitem(base.MODULES, "pytorch", "support.fake_measure")


def start(arguments: list[str]) -> subprocess.Popen:
    """Start the real measuring process, and come back when it begins to measure."""
    process = subprocess.Popen(
        [sys.executable, stand_in.__file__, *arguments], stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"ready\n"
    return process


def test_a_killed_process_leaves_whole_files_and_the_next_run_completes_the_cell(
    tmp_path, in_process
):
    arguments, out = stand_in.write_repeat(tmp_path / "whole")
    with start(arguments) as process:
        begin_s = time.monotonic()
        assert process.wait() == 0
        duration_s = time.monotonic() - begin_s
    assert read_record(Measurement, out).outcome == "ok"

    instants = random.Random(20260101)
    kept = 0
    for kill in range(KILLS):
        arguments, out = stand_in.write_repeat(tmp_path / f"kill-{kill}")
        partial = out.with_name("r01.partial.json")
        with start(arguments) as process:
            try:
                process.wait(timeout=instants.uniform(0, duration_s))
            except subprocess.TimeoutExpired:
                process.kill()

        # A child that was just forked holds the lock until it begins its own program.
        deadline_s = time.monotonic() + 30
        while not locks.host_is_free(stand_in.HOST_LOCK):
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        if out.exists():
            assert read_record(Measurement, out).outcome == "ok"
            continue
        finished = None
        if partial.exists():
            finished = read_record(Measurement, partial)
            assert finished.outcome == "failed"
            done = len(finished.windows)
            assert f"interrupted after {done} of 2 windows" in finished.reason
            assert all(window.outcome == "ok" for window in finished.windows)
            kept += 1

        assert script.main(arguments) == 0
        complete = read_record(Measurement, out)
        assert complete.outcome == "ok"
        assert [window.outcome for window in complete.windows] == ["ok", "ok"]
        beside = {path.name for path in out.parent.iterdir()} - {"r01.json"}
        if finished is None:
            assert beside == set()
        else:
            assert beside == {"r01.interrupted-1.json"}
            assert read_record(Measurement, out.with_name("r01.interrupted-1.json")) == finished
    assert kept > 0, "no kill came after the load: the test has tried nothing"


def test_every_interrupted_attempt_is_kept_under_its_own_number(tmp_path, in_process):
    arguments, out = stand_in.write_repeat(tmp_path)
    partial = out.with_name("r01.partial.json")
    out.parent.mkdir()
    for attempt in (1, 2):
        partial.write_text(f"attempt {attempt}")
        assert script.main(arguments) == 0
        assert not partial.exists()
        out.unlink()
    assert out.with_name("r01.interrupted-1.json").read_text() == "attempt 1"
    assert out.with_name("r01.interrupted-2.json").read_text() == "attempt 2"


def test_a_file_that_was_half_written_is_cleared_away(tmp_path, in_process):
    arguments, out = stand_in.write_repeat(tmp_path)
    out.parent.mkdir()
    half = out.with_name(".r01.partial.json.4711.tmp")
    others = out.with_name(".r02.json.4711.tmp")
    half.write_text('{"schema_ver')
    others.write_text('{"schema_ver')
    assert script.main(arguments) == 0
    assert not half.exists()
    assert others.exists()


def test_an_interruption_in_a_window_keeps_the_windows_before_it(
    tmp_path, in_process, monkeypatch, capsys
):
    arguments, out = stand_in.write_repeat(tmp_path)

    class Interrupted(stand_in.Backend):
        def prepare(self, workload, requests):
            if workload.id == "b8":
                raise KeyboardInterrupt
            return super().prepare(workload, requests)

    monkeypatch.setattr(stand_in, "Backend", Interrupted)
    assert script.main(arguments) == 130
    said = capsys.readouterr().err
    assert said == "interrupted\n"
    assert not out.exists()
    kept = read_record(Measurement, out.with_name("r01.partial.json"))
    assert [window.workload for window in kept.windows] == ["b1"]
    assert kept.reason == "the measuring process was interrupted after 1 of 2 windows"
    assert locks.host_is_free(stand_in.HOST_LOCK)


def test_a_finished_repeat_is_kept_and_a_changed_one_measured_anew(tmp_path, in_process, capsys):
    arguments, out = stand_in.write_repeat(tmp_path)
    assert script.main(arguments) == 0
    first = out.read_bytes()
    assert script.main(arguments) == 0
    assert out.read_bytes() == first
    assert f"was measured already; kept {out}" in capsys.readouterr().out
    beside = [out.with_name(f"r01.{name}") for name in ("trace.csv.gz", "steps.json.gz")]
    for path in beside:
        path.write_bytes(b"of the first")
    arguments, out = stand_in.write_repeat(tmp_path, window_min_duration_s=0.031)
    capsys.readouterr()
    assert script.main(arguments) == 0
    assert out.read_bytes() != first
    assert out.with_name("r01.superseded-1.json").read_bytes() == first
    for path in beside:
        kept = path.with_name(path.name.replace("r01", "r01.superseded-1"))
        assert kept.read_bytes() == b"of the first"
        assert not path.exists()
    assert "[1/1]" in capsys.readouterr().out


def test_a_start_of_two_processes_measures_once(tmp_path):
    arguments, out = stand_in.write_repeat(tmp_path)
    with start(arguments) as first, start(arguments) as second:
        said = [process.communicate()[0].decode() for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0)
    assert sorted("kept" in text for text in said) == [False, True]
    assert read_record(Measurement, out).outcome == "ok"
    assert [path.name for path in out.parent.iterdir()] == ["r01.json"]


def test_a_repeat_that_is_not_needed_says_so_and_loads_nothing(tmp_path, in_process, monkeypatch):
    asked = {"target_ci_percent": 99.0, "min_repeats": 2}
    for repeat in (1, 2):
        arguments, out = stand_in.write_repeat(tmp_path, repeat, **asked)
        assert script.main(arguments) == 0
        assert read_record(Measurement, out).outcome == "ok"

    class NeverLoaded(stand_in.Backend):
        def __init__(self):
            raise AssertionError("the engine was made")

    monkeypatch.setattr(stand_in, "Backend", NeverLoaded)
    monkeypatch.setattr(
        stopping, "earlier_values_j", lambda *_: {"b1": [1.0, 1.0], "b8": [2.0, 2.0]}
    )
    arguments, out = stand_in.write_repeat(tmp_path, 3, **asked)
    assert script.main(arguments) == 0
    written = read_record(Measurement, out)
    assert written.outcome == "not_needed"
    assert "within 99 % of the mean after 2 repeats: b1 1 J per token" in written.reason
    assert (written.windows, written.baselines, written.load) == ((), (), None)


def test_a_repeat_whose_spec_changed_meanwhile_says_so_and_keeps_its_windows(
    tmp_path, in_process, monkeypatch
):
    arguments, out = stand_in.write_repeat(tmp_path)

    class Replanned(stand_in.Backend):
        def prepare(self, workload, requests):
            stand_in.write_repeat(tmp_path, window_min_duration_s=0.031)
            return super().prepare(workload, requests)

    monkeypatch.setattr(stand_in, "Backend", Replanned)
    assert script.main(arguments) == 0
    found = read_record(Measurement, out)
    assert found.outcome == "failed"
    assert "spec.json was changed or removed while this repeat was measured" in found.reason
    assert len(found.windows) == 2
    assert found.spec.protocol.window_min_duration_s == 0.03


def test_what_snakemake_put_back_is_not_kept_twice(tmp_path, in_process):
    arguments, out = stand_in.write_repeat(tmp_path)
    assert script.main(arguments) == 0
    first = out.read_bytes()
    arguments, out = stand_in.write_repeat(tmp_path, window_min_duration_s=0.031)
    assert script.main(arguments) == 0
    out.write_bytes(first)
    assert script.main(arguments) == 0
    kept = [path.name for path in out.parent.glob("*superseded*")]
    assert kept == ["r01.superseded-1.json"]


@pytest.fixture(params=["disk", "limit"])
def full(request, tmp_path):
    """Return a folder on a file system of 1 MB, or one where a file may have 1 MB at most."""
    folder = tmp_path / "small"
    folder.mkdir()
    if request.param == "limit":
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, before[1]))
        yield folder
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        return
    with system_tools.file_system(folder, "1m"):
        yield folder


def test_without_room_nothing_is_measured_and_one_line_says_so(full, in_process, capsys):
    arguments, out = stand_in.write_repeat(full)
    assert script.main(arguments) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {out.parent}: no room for 8 MiB (")
    assert said.endswith("free some space there, then run the same command again\n")
    assert said.count("\n") == 1
    assert list(out.parent.iterdir()) == []


def test_a_disk_that_fills_up_while_something_is_written_is_one_line(capsys):
    def fill():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x/r01.trace.csv")

    assert cli.run(fill) == 1
    assert capsys.readouterr().err.startswith("error: x/r01.trace.csv: No space left on device; ")


def test_the_measurement_says_why_it_has_no_steps(tmp_path, in_process):
    arguments, out = stand_in.write_repeat(tmp_path)
    assert script.main(arguments) == 0
    told = StepReport(None, None, "the engine does not tell its steps")
    assert read_record(Measurement, out).steps == told
    assert not out.with_name("r01.steps.json.gz").exists()
