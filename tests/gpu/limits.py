"""Say how far measurements of a model with a known shape are from the limits of their GPU.

Measurements from before backends reported a model's architecture lack it; ``model.py`` has it.

    python tests/gpu/limits.py docs/measurements/h100-llama-3.1-8b.tar.gz
"""

from __future__ import annotations

import argparse
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from model import shape_of

from llm_energy.analysis.energy.limits import WindowLimits, window_limits
from llm_energy.analysis.evidence.windows import WindowEvidence
from llm_energy.records import Measurement, ModelManifest, read_record

Found = dict[tuple[str, str], list[WindowLimits]]


def limits(folder: Path) -> Found:
    """Return the limits of every window below ``folder``, by cell and workload."""
    found: Found = {}
    for path in sorted(folder.glob("results/*/*/measurements/*/r??.json")):
        measurement = read_record(Measurement, path)
        model = measurement.spec.model
        manifest = read_record(ModelManifest, folder / f"results/models/{model}/manifest.json")
        told = replace(
            measurement,
            effective=measurement.effective | {"architecture": shape_of(model)},
            parameter_count=manifest.parameter_count,
        )
        for window in told.windows:
            one = window_limits(WindowEvidence(told, window))
            if isinstance(one, str):
                raise SystemExit(f"{path}, {window.workload}: {one}")
            found.setdefault((measurement.spec.cell, window.workload), []).append(one)
    return found


def lines(found: Found) -> Iterator[str]:
    """Return one line a cell and workload, means over its repeats."""
    in_order = sorted(found, key=lambda key: (key[0], key[1][0], int(key[1][1:])))
    for cell, workload in in_order:
        all_of_it = found[cell, workload]
        times = fmean(one.energy_j / one.floor_j for one in all_of_it)
        mbu, mfu = (fmean(getattr(one, name) for one in all_of_it) for name in ("mbu", "mfu"))
        yield f"{cell} {workload}: {times:.1f} x floor, MBU {mbu:.3f}, MFU {mfu:.4f}"


def main() -> None:
    """Parse the command line and print the limits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path)
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(parser.parse_args().archive) as content:
            content.extractall(folder, filter="data")
        print("\n".join(lines(limits(Path(folder)))))


if __name__ == "__main__":
    main()
