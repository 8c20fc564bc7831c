"""What a kill costs is seen by kills.py: a repeat that is lost, changed, half or counted twice."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from torture import kills

from llm_energy.core.files import sha256_file, write_json


class Disturbed(kills.Sweep):
    """A sweep whose command does nothing, and whose whole repeats are the current ones."""

    def __init__(self, folder: Path) -> None:
        self.project = SimpleNamespace(folder=folder)
        self.results = folder / "results"
        self.place = self.results / kills.SWEEP / "simulated/measurements/c"
        for number in range(1, kills.REPEATS + 1):
            write_json(self.place / f"r{number:02d}.json", {"repeat": number})
        (self.results / kills.SWEEP / "tables").mkdir()
        (self.results / kills.SWEEP / "tables/energy.txt").write_text("1 J")
        self.finished = self.current()

    def run(self, tries: int = 3) -> int:
        return 0

    def current(self) -> dict[str, str]:
        return {str(p): sha256_file(p) for p in self.place.glob("r??.json") if kills.is_whole(p)}


@pytest.fixture
def sweep(tmp_path) -> Disturbed:
    return Disturbed(tmp_path)


def test_an_undisturbed_sweep_has_no_fault(sweep):
    assert kills.faults(sweep, {"energy.txt": "1 J"}) == []


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda place: (place / "r01.json").unlink(), "3 repeats are there and 3 current, not 4"),
        (lambda place: (place / "r01.json").unlink(), "r01.json: finished, and then lost"),
        (lambda place: write_json(place / "r05.json", {}), "5 repeats are there and 5 current"),
        (lambda place: write_json(place / "r02.json", {}), "r02.json: finished, and then lost"),
        (lambda place: (place / "r03.json").write_text("{"), "r03.json: cannot be read"),
        (lambda place: (place / "r01.steps.json.gz").write_text("x"), "gz: cannot be read"),
        (lambda place: (place / ".r01.json.7.tmp").touch(), ".r01.json.7.tmp: a half file"),
        (lambda place: write_json(place / "r01.partial.json", {}), "partial.json: a half file"),
        (
            lambda place: (place / "../../../tables/energy.txt").write_text("2 J"),
            "energy.txt: another table than undisturbed: ('1 J', '2 J')",
        ),
    ],
)
def test_each_harm_is_seen(sweep, harm, told):
    harm(sweep.place)
    assert any(told in one for one in kills.faults(sweep, {"energy.txt": "1 J"}))
