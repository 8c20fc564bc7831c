"""What a person reads while a sweep runs."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from support import builders

from llm_energy.measure import run
from llm_energy.measure.progress import Progress, estimate_left_s
from llm_energy.records import write_record


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_one_line_a_repeat():
    stream = io.StringIO()
    progress = Progress("m--pytorch--int8 r02", 3, 12, 4, stream)
    progress.step("load")
    progress.step("b1: window")
    progress.finish("ok", 42.0, 380.0)
    assert stream.getvalue() == (
        "[ 3/12] m--pytorch--int8 r02: ok in 42 s, about 6 min 20 s left\n"
    )


def test_a_terminal_shows_each_step_on_one_line():
    stream = Terminal()
    progress = Progress("cell", 1, 2, 2, stream)
    progress.step("load")
    progress.step("window")
    progress.finish("ok", 1.0, None)
    shown = stream.getvalue().split("\r\x1b[2K")
    assert shown == [
        "",
        "[1/2] cell ................ load",
        "[1/2] cell ########........ window",
        "[1/2] cell: ok in 1 s\n",
    ]


def test_without_a_finished_repeat_no_time_is_promised():
    assert estimate_left_s([], 5) is None


def test_the_time_left_learns_from_each_backends_own_repeats(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = builders.plan([("pytorch", "float32"), ("vllm", "float32")], 3)
    write_record("plan.json", plan)
    assert run._time_left_s("plan.json") is None
    for cell, lasts_s in zip(plan.cells, (10.0, 100.0), strict=True):
        spec = builders.spec(backend=cell.backend)
        found = builders.measurement(spec)
        write_record(cell.specs[0], spec)
        end_s = found.clock.monotonic_s + lasts_s
        write_record(cell.measurements[0], replace(found, end_s=end_s))
    assert run._time_left_s("plan.json") == pytest.approx(2 * 10 + 2 * 100)
    stale = plan.cells[0].specs[0]
    write_record(stale, replace(builders.spec(), seed=9))  # the measurement is of another
    assert run._time_left_s("plan.json") == pytest.approx(3 * 100 + 2 * 100)
