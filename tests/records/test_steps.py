"""The file of an engine's steps: it is read as it was written, and what is none is refused."""

from __future__ import annotations

import gzip
import re

import pytest

from llm_energy.core.errors import LlmEnergyError, RecordError
from llm_energy.records import steps
from llm_energy.records.steps import Run, StepFile, StepTable

RUNS = (Run(0, 0, 1, 5, 0, 0, 0, 0), Run(0, 1, 2, 0, 1, 0, 5, 0), Run(None, 0, 3, 0, 1, 2, 7, 1))


def table(runs=RUNS, start_s=(1.0, 2.0, 3.5), end_s=(2.0, 3.0, 4.0)) -> StepTable:
    return StepTable(start_s, end_s, *zip(*runs, strict=True))


def test_steps_are_read_as_they_were_written_and_equal_ones_give_equal_bytes(tmp_path):
    written = StepFile(windows={"b8": table(), "none": StepTable(*[()] * 10)})
    for name in ("one", "other"):
        steps.write(tmp_path / name, written)
    assert steps.read(tmp_path / "one") == written
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
    assert tuple(written.windows["b8"].runs) == RUNS
    assert list(written.windows["b8"].spans)[1] == (2.0, 3.0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"end_s": (2.0, 3.0)}, "columns of unequal length"),
        ({"start_s": (1.0, 1.9, 3.5)}, "steps overlap"),
        ({"start_s": (1.0, 2.0, 4.5)}, "do not ascend"),
        ({"runs": (Run(0, 2, 2, 1, 0, 0, 0, 0),)}, "2 steps from step 2 on, .* the 3 steps"),
        ({"runs": (Run(0, 0, 0, 1, 0, 0, 0, 0),)}, "a run of 0 steps"),
    ],
)
def test_what_cannot_have_happened_is_no_table_of_steps(changes, said):
    with pytest.raises(RecordError, match=said):
        table(**changes)


def test_a_damaged_or_missing_file_is_refused_by_its_name(tmp_path):
    path = tmp_path / "r01.steps.json.gz"
    with pytest.raises(RecordError, match="no such file"):
        steps.read(path)
    whole = gzip.compress(b"{}")
    for content in (b"{}", whole[:-9], gzip.compress(b"[1"), gzip.compress(b'{"windows": 1}')):
        path.write_bytes(content)
        with pytest.raises(LlmEnergyError, match=re.escape(str(path))):
            steps.read(path)
