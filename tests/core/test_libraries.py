"""What a process runs with is read from what it has mapped."""

from __future__ import annotations

import pytest

from llm_energy.core.libraries import C_LIBRARY, loaded_libraries

LINE = "7f00-7f01 r-xp 00000000 fe:00 42   /a place/{}\n"


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ([], {"memory_allocator": C_LIBRARY}),
        (["libcomplex.so", "libtorch.so"], {"memory_allocator": C_LIBRARY}),
        (["libgomp-24e2ab19.so.1.0.0"] * 3, {"openmp": "libgomp-24e2ab19.so.1.0.0"}),
        (["libiomp5.so", "libgomp.so.1"], {"openmp": "libgomp.so.1, libiomp5.so"}),
        (["libtcmalloc_minimal.so.4"], {"memory_allocator": "libtcmalloc_minimal.so.4"}),
    ],
)
def test_libraries_are_named_once(tmp_path, names, found):
    (tmp_path / "maps").write_text("".join(map(LINE.format, names)))
    assert loaded_libraries(tmp_path / "maps") == {"memory_allocator": C_LIBRARY} | found


def test_a_system_without_maps_tells_nothing(tmp_path):
    assert loaded_libraries(tmp_path / "none") == {}


def test_this_process_has_an_allocator():
    assert loaded_libraries()["memory_allocator"]
