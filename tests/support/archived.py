"""What follows from an archived sweep of docs/measurements/, without a Snakemake run."""

from __future__ import annotations

from pathlib import Path

from support.project import ROOT

from llm_energy.analysis.aggregate import aggregate, planned_batch_sizes
from llm_energy.analysis.compare.stage import comparisons
from llm_energy.analysis.normalise import normalise
from llm_energy.analysis.validate import validate
from llm_energy.publish.data import Sweep
from llm_energy.publish.provenance.archive import unpack
from llm_energy.records import read_plan
from llm_energy.records.files import paths


def archived(name: str) -> Sweep:
    """Unpack an archive of one backend into the working directory, and go as far as comparing."""
    sweep = unpack(ROOT / "docs" / "measurements" / name, Path())
    plan = read_plan(sweep)
    (backend,) = plan.backends
    verdicts = validate(sweep, backend, paths.plan(paths.sweep_folder(sweep)))
    metrics = normalise(verdicts)
    summary = aggregate([metrics], plan, planned_batch_sizes(plan, [metrics]))
    compared = comparisons([metrics], [summary], plan)
    return Sweep(plan, [verdicts], [metrics], [summary], compared)
