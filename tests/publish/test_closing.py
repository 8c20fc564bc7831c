"""The last lines on the terminal tell whether int8 beats bfloat16, or that noise hides it."""

from __future__ import annotations

import re
from pathlib import Path

from support.noisy_sweep import FACTORS, NoisySweep

from llm_energy.publish import closing
from llm_energy.publish.tables import render

LAST = 30  # lines that a terminal shows without scrolling
QUESTION = r"On pytorch at b1, int8 used ([\d.]+) % less energy per output token than bfloat16 "


def said(sweep: NoisySweep) -> str:
    """Return what stands in the last lines when the workflow has ended, as one line."""
    folder = Path("results/s/tables")
    folder.mkdir(parents=True)
    for name, text in render(sweep.results()):
        (folder / name).write_text(text, "utf-8")
    lines = closing.closing_message("s", sweep.backends).splitlines()
    return re.sub(r"\s+", " ", " ".join(lines[-LAST:]))


def test_the_answer_is_a_sentence_whose_interval_holds_the_truth(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = said(NoisySweep(5, 0.02))
    [(less, low, high)] = re.findall(QUESTION + r"\(95 %: ([\d.]+) to ([\d.]+) %\)", told)
    assert float(low) <= float(less) <= float(high)
    assert float(low) <= 100 * (1 - FACTORS["int8"]) <= float(high)


def test_noise_is_told_as_such_with_no_winner(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = said(NoisySweep(2, 0.4))
    assert re.search(r"On pytorch at b1, int8 and bfloat16 cannot be told apart", told)
    assert not re.search(QUESTION, told)
