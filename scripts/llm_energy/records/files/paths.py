"""Decide every path below ``results/``, in one place; ``results/README.md`` says what lies there.

``folder`` is a sweep's own, ``results/<sweep>``. The rules name the same paths as patterns; a test
holds the rules, the page and this module equal. With ``ANY`` for a name a path is a pattern.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]  # of the checkout
SCRIPTS = ROOT / "scripts"
ANY = "*"


def sweep_folder(sweep: str) -> Path:
    """Return the folder of a sweep, relative to where the workflow runs.

    >>> str(sweep_folder("demo"))
    'results/demo'
    """
    return Path("results", sweep)


# the plan


def plan(folder: Path) -> Path:
    """Return the path of every expected cell.

    >>> str(plan(Path("results/demo")))
    'results/demo/plan.json'
    """
    return folder / "plan.json"


def config(folder: Path) -> Path:
    """Return the path of the config as Snakemake merged it.

    >>> str(config(Path("results/demo")))
    'results/demo/config.json'
    """
    return folder / "config.json"


def arrivals(folder: Path) -> Path:
    """Return the path of the arrivals of timed traffic.

    >>> str(arrivals(Path("results/demo")))
    'results/demo/arrivals.json'
    """
    return folder / "arrivals.json"


def spec(folder: Path, cell: str, repeat: str) -> Path:
    """Return the path of what a repeat needs to know.

    >>> str(spec(Path("results/demo"), "m--vllm--int4", "r01"))
    'results/demo/specs/m--vllm--int4/r01.json'
    """
    return folder / "specs" / cell / f"{repeat}.json"


def prompt_request(folder: Path, model: str) -> Path:
    """Return the path of what the prompts stage must make for a model.

    >>> str(prompt_request(Path("results/demo"), "m"))
    'results/demo/prompts/m.request.json'
    """
    return folder / "prompts" / f"{model}.request.json"


def prompts(folder: Path, model: str) -> Path:
    """Return the path of a model's tokenised prompts.

    >>> str(prompts(Path("results/demo"), "m"))
    'results/demo/prompts/m.json'
    """
    return folder / "prompts" / f"{model}.json"


# models, which all sweeps share


def models(folder: Path) -> Path:
    """Return the folder of all models, beside those of the sweeps.

    >>> str(models(Path("results/demo")))
    'results/models'
    """
    return folder.parent / "models"


def model_files(folder: Path, model: str) -> Path:
    """Return the folder of a model's files.

    >>> str(model_files(Path("results/demo"), "m"))
    'results/models/m/files'
    """
    return models(folder) / model / "files"


def manifest(folder: Path, model: str) -> Path:
    """Return the path of what a model's files are.

    >>> str(manifest(Path("results/demo"), "m"))
    'results/models/m/manifest.json'
    """
    return manifest_of(model_files(folder, model))


def quantised_files(folder: Path, model: str, precision: str) -> Path:
    """Return the folder of a model's files that were quantised to a precision before.

    >>> str(quantised_files(Path("results/demo"), "m", "int8"))
    'results/models/m/files-int8'
    """
    return quantised_of(model_files(folder, model), precision)


def quantised_manifest(folder: Path, model: str, precision: str) -> Path:
    """Return the path of what these files are.

    >>> str(quantised_manifest(Path("results/demo"), "m", "int8"))
    'results/models/m/manifest-int8.json'
    """
    return manifest_of(quantised_files(folder, model, precision))


def quantised_of(files: Path, precision: str) -> Path:
    """Return the folder of files quantised before, which lies beside that of the whole ones.

    >>> str(quantised_of(Path("results/models/m/files"), "awq"))
    'results/models/m/files-awq'
    """
    return files.with_name(f"{files.name}-{precision}")


def manifest_of(files: Path) -> Path:
    """Return the manifest that lies beside a folder of a model's files.

    >>> str(manifest_of(Path("results/models/m/files-int8")))
    'results/models/m/manifest-int8.json'
    """
    return files.with_name(f"manifest{files.name.removeprefix('files')}.json")


def files_of(manifest: Path) -> Path:
    """Return the folder of a model's files that lies beside their manifest.

    >>> str(files_of(Path("results/models/m/manifest.json")))
    'results/models/m/files'
    """
    return manifest.with_name(f"files{manifest.stem.removeprefix('manifest')}")


# measurements, and what lies beside one


def repeat_name(number: int) -> str:
    """Return the name of a repeat.

    >>> repeat_name(1)
    'r01'
    """
    return f"r{number:02d}"


def measurement(folder: Path, backend: str, cell: str, repeat: str) -> Path:
    """Return the path of a measurement.

    >>> str(measurement(Path("results/demo"), "vllm", "m--vllm--int4", "r01"))
    'results/demo/vllm/measurements/m--vllm--int4/r01.json'
    """
    return folder / backend / "measurements" / cell / f"{repeat}.json"


def power_trace(measurement: Path) -> Path:
    """Return the path of the power trace of the GPUs.

    >>> power_trace(Path("r01.json")).name
    'r01.trace.csv.gz'
    """
    return measurement.with_suffix(".trace.csv.gz")


def steps(measurement: Path) -> Path:
    """Return the path of the engine's steps.

    >>> steps(Path("r01.json")).name
    'r01.steps.json.gz'
    """
    return measurement.with_suffix(".steps.json.gz")


# What lies beside a measurement and goes with it.
BESIDE = (power_trace, steps)


def partial(measurement: Path) -> Path:
    """Return the path of the windows that are finished while a repeat is measured.

    >>> partial(Path("r01.json")).name
    'r01.partial.json'
    """
    return measurement.with_suffix(".partial.json")


def failure(measurement: Path) -> Path:
    """Return the path of the reason why there is no measurement.

    >>> failure(Path("r01.json")).name
    'r01.failed.json'
    """
    return measurement.with_suffix(".failed.json")


def put_aside(measurement: Path, why: str, number: int) -> Path:
    """Return the path to which a file of an earlier attempt goes: no stage reads it, a person may.

    ``why`` is ``interrupted`` or ``superseded``.

    >>> put_aside(Path("r01.json"), "interrupted", 2).name
    'r01.interrupted-2.json'
    """
    return measurement.with_suffix(f".{why}-{number}.json")


def lock(measurement: Path) -> Path:
    """Return the path of the file that is there while a process measures a repeat.

    >>> lock(Path("r01.json")).name
    '.r01.lock'
    """
    return measurement.with_name(f".{measurement.stem}.lock")


def is_unread(path: Path) -> bool:
    """Return whether a file beside a measurement is one that no stage reads.

    >>> is_unread(Path("r01.partial.json")), is_unread(Path("r01.superseded-1.trace.csv.gz"))
    (True, True)
    >>> is_unread(Path("r01.json")), is_unread(Path("r01.trace.csv.gz"))
    (False, False)
    """
    return bool(re.search(r"\.(partial|(interrupted|superseded)-\d+)\.", path.name))


# what stages make of them


def audit(folder: Path, backend: str) -> Path:
    """Return the path of what the files themselves prove of each window.

    >>> str(audit(Path("results/demo"), "vllm"))
    'results/demo/vllm/audit.json'
    """
    return folder / backend / "audit.json"


def verdicts(folder: Path, backend: str) -> Path:
    """Return the path of the verdict on each window.

    >>> str(verdicts(Path("results/demo"), "vllm"))
    'results/demo/vllm/verdicts.json'
    """
    return folder / backend / "verdicts.json"


def metrics(folder: Path, backend: str) -> Path:
    """Return the path of the metrics of each usable window.

    >>> str(metrics(Path("results/demo"), "vllm"))
    'results/demo/vllm/metrics.json'
    """
    return folder / backend / "metrics.json"


def aggregate(folder: Path, backend: str) -> Path:
    """Return the path of the means and intervals of each cell.

    >>> str(aggregate(Path("results/demo"), "vllm"))
    'results/demo/vllm/aggregate.json'
    """
    return folder / backend / "aggregate.json"


def load(folder: Path) -> Path:
    """Return the path of energy over offered load.

    >>> str(load(Path("results/demo")))
    'results/demo/load.json'
    """
    return folder / "load.json"


def phases(folder: Path) -> Path:
    """Return the path of the split of joules over input and output tokens.

    >>> str(phases(Path("results/demo")))
    'results/demo/phases.json'
    """
    return folder / "phases.json"


def comparisons(folder: Path) -> Path:
    """Return the path of the comparisons of cells.

    >>> str(comparisons(Path("results/demo")))
    'results/demo/comparisons.json'
    """
    return folder / "comparisons.json"


def table(folder: Path, name: str, suffix: str) -> Path:
    """Return the path of a table.

    >>> str(table(Path("results/demo"), "energy", "csv"))
    'results/demo/tables/energy.csv'
    """
    return folder / "tables" / f"{name}.{suffix}"


def table_sources(folder: Path) -> Path:
    """Return the path of the cells and workloads behind each row of each table.

    >>> str(table_sources(Path("results/demo")))
    'results/demo/tables/sources.json'
    """
    return table(folder, "sources", "json")


def figure(folder: Path, name: str, suffix: str) -> Path:
    """Return the path of a figure.

    >>> str(figure(Path("results/demo"), "energy", "svg"))
    'results/demo/figures/energy.svg'
    """
    return folder / "figures" / f"{name}.{suffix}"


def figure_index(folder: Path) -> Path:
    """Return the path of the titles and captions of the figures.

    >>> str(figure_index(Path("results/demo")))
    'results/demo/figures/index.json'
    """
    return figure(folder, "index", "json")


def data(folder: Path, name: str, suffix: str) -> Path:
    """Return the path of a tidy table, or of what says what its columns mean.

    >>> str(data(Path("results/demo"), "windows", "parquet"))
    'results/demo/data/windows.parquet'
    """
    return folder / "data" / f"{name}.{suffix}"


def report(folder: Path) -> Path:
    """Return the path of the whole sweep on one page.

    >>> str(report(Path("results/demo")))
    'results/demo/report.html'
    """
    return folder / "report.html"


def provenance(folder: Path) -> Path:
    """Return the path of what every row of every table was made from.

    >>> str(provenance(Path("results/demo")))
    'results/demo/provenance.json'
    """
    return folder / "provenance.json"
