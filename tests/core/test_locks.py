"""One measurement holds the host, one process a repeat, and no lock outlives its process."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import threading
import time

import pytest

from llm_energy.core import locks
from llm_energy.core.errors import LlmEnergyError

CONTEXT = multiprocessing.get_context("fork")


NAME = f"llm-energy-test-{os.getpid()}"


def host():
    """Return a host-wide lock of the tests' own."""
    return locks.exclusive_host(NAME)


@pytest.fixture(params=["host", "file"])
def lock(request, tmp_path):
    """Return each kind of lock."""
    return (
        host if request.param == "host" else lambda: locks.exclusive_file(tmp_path / "x" / "lock")
    )


def hold(lock, held, release):
    with lock():
        held.set()
        release.wait()


def wait_for(lock, queue):
    with lock() as waited:
        queue.put(waited)


def holder(lock):
    """Start a process that holds the lock until it is told to end."""
    held, release = CONTEXT.Event(), CONTEXT.Event()
    process = CONTEXT.Process(target=hold, args=(lock, held, release), daemon=True)
    process.start()
    held.wait()
    return process, release


def test_a_second_process_waits_for_the_first_and_knows_it(lock):
    first, release = holder(lock)
    queue = CONTEXT.Queue()
    second = CONTEXT.Process(target=wait_for, args=(lock, queue), daemon=True)
    second.start()
    second.join(timeout=0.3)
    assert second.is_alive()
    assert queue.empty()
    release.set()
    assert queue.get(timeout=30) > 0
    first.join()
    second.join()


def test_a_free_lock_is_had_without_waiting(lock):
    with lock() as waited:
        assert waited < 1
    with lock() as waited:
        assert waited < 1


def test_a_lock_goes_with_the_process_that_held_it(lock):
    process, _ = holder(lock)
    process.kill()
    process.join()
    with lock() as waited:
        assert waited < 1


def test_many_processes_hold_a_lock_one_after_the_other(lock, tmp_path):
    def count(path):
        for _ in range(20):
            with lock():
                path.write_text(str(int(path.read_text()) + 1))

    path = tmp_path / "number"
    path.write_text("0")
    processes = [CONTEXT.Process(target=count, args=(path,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert path.read_text() == "80"


def test_the_host_is_held_whatever_the_folder_for_temporary_files_is(monkeypatch, tmp_path):
    assert locks.host_is_free(NAME)
    process, release = holder(host)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert not locks.host_is_free(NAME)
    release.set()
    process.join()
    assert locks.host_is_free(NAME)


def test_a_lock_file_does_not_stay(tmp_path):
    with locks.exclusive_file(tmp_path / "lock"):
        assert (tmp_path / "lock").exists()
    assert not (tmp_path / "lock").exists()


def test_a_file_system_without_locks_holds_nothing_and_stops_nobody(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locks.exclusive_file(tmp_path / "lock") as waited:
        assert not waited


def test_who_is_waited_for_is_said_at_once_and_again(monkeypatch):
    monkeypatch.setattr(locks, "SAY_PERIOD_S", 0.2)
    process, release = holder(host)
    said = []

    def say(text):
        said.append(text)
        if len(said) == 2:
            release.set()

    with locks.exclusive_host(NAME, say) as waited:
        assert 0.2 <= waited < 30
    assert said[0].endswith(f"where process {process.pid} measures")
    assert all(f"where process {process.pid} measures" in text for text in said)
    process.join()


def test_a_name_that_is_taken_but_not_listened_at_costs_no_core():
    with locks._socket() as taken:
        taken.bind(f"\0{NAME}")
        said = []
        begin_s, begin_cpu_s = time.monotonic(), time.process_time()
        threading.Timer(1, taken.close).start()
        with locks.exclusive_host(NAME, said.append):
            assert 1 <= time.monotonic() - begin_s < 30
    assert time.process_time() - begin_cpu_s < 0.5
    assert "a process that can't be asked" in said[0]


def test_a_folder_in_the_place_of_a_lock_is_named(tmp_path):
    with pytest.raises(LlmEnergyError, match="is a folder"), locks.exclusive_file(tmp_path):
        pass
