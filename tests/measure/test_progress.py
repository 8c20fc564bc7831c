"""What a person reads while a sweep runs."""

from __future__ import annotations

import io

from llm_energy.measure.progress import Progress, estimate_left_s


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
