"""Take a sweep that was measured somewhere, by its own plan: in place, or unpacked from an archive.

An archive is a folder, a tar file or a zip file with what lies under ``results/<sweep>/``
(plan.json, specs, prompts, measurements) and the manifests under ``results/models/``.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath

from llm_energy.core.errors import LlmEnergyError
from llm_energy.core.files import parse_json
from llm_energy.publish.provenance import packed
from llm_energy.publish.provenance.packed import Entry
from llm_energy.records import Plan, parse_record
from llm_energy.records.files import paths, patterns


def make_paper(sweep: str, folder: Path, *options: str) -> bool:
    """Make all that follows from the measurements of a sweep below ``folder``; say if all is made.

    It is a Snakemake of its own, since no engine and no config are needed; ``options`` are for it.
    """
    command = [sys.executable, "-m", "snakemake", "--snakefile", paths.ROOT / "Snakefile"]
    command += ["--workflow-profile", paths.ROOT / "profiles" / "default", "--directory", folder]
    command += ["--cores", "1", *options, "--config", f"measured={sweep}", "--", "paper"]
    return subprocess.run(command, stdin=subprocess.DEVNULL).returncode == 0


def unpack(archive: Path, folder: Path) -> str:
    """Lay out below ``folder`` the sweep that ``archive`` holds, and return the sweep's name.

    What lay under ``folder/results`` before is replaced, once all of the archive is read and found
    sound. Raises LlmEnergyError for what is no archive of exactly one sweep.
    """
    results, there = (folder / "results").resolve(), archive.resolve()
    if there.is_relative_to(results) or results.is_relative_to(there):
        raise LlmEnergyError(
            f"{archive}: its tables would be made in {folder / 'results'}, which would replace it; "
            "give it another place or name"
        )
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        place = Path(name)
        found = _entries(archive, place, stack)
        plan = _plan_in(found, archive)
        packed.extract(archive, {place / "plan.json": plan})
        where, content = f"{archive}: {plan.name}", (place / "plan.json").read_bytes()
        sweep = parse_record(Plan, parse_json(content, where), where).sweep
        packed.extract(archive, _wanted(found, plan, place / "results", sweep))
        if results.exists():
            shutil.rmtree(results)
        results.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(place / "results", results)
    return sweep


def _entries(archive: Path, place: Path, stack: contextlib.ExitStack) -> list[Entry]:
    """Return what lies in the archive; beside the folder of one sweep lie the models."""
    found = packed.entries(archive, place, stack)
    models = archive.resolve().parent / "models"
    if not (archive / "plan.json").is_file() or not models.is_dir():
        return found
    beside = packed.entries(models, place, stack)
    return [replace(one, name="sweep" / one.name) for one in found] + [
        replace(one, name="models" / one.name) for one in beside
    ]


def _plan_in(found: list[Entry], archive: Path) -> Entry:
    plans = sorted((one for one in found if one.name.name == "plan.json"), key=lambda e: e.name)
    if len(plans) != 1:
        names = ", ".join(str(one.name) for one in plans[:10]) or "none"
        raise LlmEnergyError(
            f"{archive}: it must hold exactly one plan.json, that of one sweep; found {names}"
        )
    return plans[0]


def _wanted(found: list[Entry], plan: Entry, results: Path, sweep: str) -> dict[Path, Entry]:
    """Return what is taken over, by the path that it gets; links of the sweep are among it."""
    own = plan.name.parent
    models = own.parent / "models"
    wanted = {}
    for entry in found:
        if entry.name.is_relative_to(own):
            name = entry.name.relative_to(own)
            if entry.open is None or _matches(name, patterns.MEASURED):
                wanted[results / sweep / name] = entry
        elif entry.name.is_relative_to(models):
            name = entry.name.relative_to(models)
            if _matches(name, patterns.MANIFESTS):
                wanted[results / "models" / name] = entry
    return wanted


def _matches(name: PurePosixPath, patterns: Iterable[str]) -> bool:
    return any(len(name.parts) == one.count("/") + 1 and name.match(one) for one in patterns)
