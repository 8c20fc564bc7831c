"""No header of a GGUF file ends in a traceback; a file that holds no weights is never a model."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("gguf")
from hypothesis import given
from hypothesis import strategies as st
from torture import hostile
from torture.damage import damaged, fuzz

from llm_energy.core.errors import LlmEnergyError
from llm_energy.inputs.models.gguf import convert_gguf

LIES = hostile.entries("gguf")
HEADER = hostile.content(
    [
        *("GGUF", {"u32": 3}, {"u64": 0}, {"u64": 2}),
        *({"sized": "general.architecture"}, {"u32": 8}, {"sized": "llama"}),
        *({"sized": "llama.block_count"}, {"u32": 4}, {"u32": 2}),
    ]
)


def refuse(folder: Path, content: bytes, says: str = "") -> None:
    path = folder / "t.gguf"
    path.write_bytes(content)
    with pytest.raises(LlmEnergyError, match=r"cannot convert t\.gguf") as told:
        convert_gguf(path, folder / "files")
    assert says in str(told.value)
    assert not (folder / "files").exists()


@pytest.mark.parametrize("entry", LIES, ids=[entry["id"] for entry in LIES])
def test_a_file_that_lies_is_refused(entry: dict, tmp_path: Path) -> None:
    refuse(tmp_path, hostile.content(entry["content"]), entry["says"])


@fuzz(200)
@given(data=st.data())
def test_a_damaged_header_is_refused(data, tmp_path: Path) -> None:
    refuse(tmp_path, damaged(data.draw, HEADER))
