"""Pack a sweep as an RO-Crate: its data, tables, environments and provenance in one zip file.

RO-Crate (https://w3id.org/ro/crate) describes research data in JSON-LD beside the data. The same
sweep gives the same bytes: no clock is read, and every entry has the same date.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from llm_energy.core.errors import LlmEnergyError
from llm_energy.core.files import read_json, sha256_bytes, sha256_file
from llm_energy.environments import registry
from llm_energy.publish.provenance.provenance import Provenance
from llm_energy.publish.provenance.sbom import bill_of_materials
from llm_energy.records.files import paths

METADATA = "ro-crate-metadata.json"
NO_LICENSE = "Not stated. Ask the authors of the data before you use it."
FORMATS = {
    ".cdx.json": "application/vnd.cyclonedx+json",
    ".json": "application/json",
    ".csv": "text/csv",
    ".parquet": "application/vnd.apache.parquet",
    ".md": "text/markdown",
    ".tex": "application/x-tex",
    ".txt": "text/plain",
    ".gz": "application/gzip",
    ".svg": "image/svg+xml",
    ".pdf": "application/pdf",
}
# What a file is, by the end of its path; the first one that fits. The last fits all.
DESCRIPTIONS = {
    "envs/*.txt": "Lock of an environment: each package with its version and hashes",
    "envs/*.cdx.json": "Software bill of materials of an environment",
    "measurements/*/*.trace.csv.gz": "Power trace of the GPUs during a repeat",
    "measurements/*/*.steps.json.gz": "Steps of the engine during a repeat",
    "measurements/*/*.json": "Raw measurement of a repeat, or why there is none",
    "specs/*/*.json": "What a repeat was to do, frozen before it ran",
    "prompts/*.json": "Prompts of a model",
    "models/*/manifest*.json": "Where the weights of a model come from, with their hashes",
    "tables/*": "Table for people and papers, made from the measurements",
    "figures/*": "Figure made from the measurements",
    "data/*": "Tidy table, or what its columns mean",
    "*": "What results/README.md says of its name",
}
README = """# Sweep {sweep}

Measurements of what language model inference costs in energy, and all that was made from them.
`{metadata}` describes every file (RO-Crate); `results/README.md` says what lies where.

With the software of commit {commit}, `python scripts/lineage.py <here>/results/{sweep} --verify`
verifies every file, and `make paper ARCHIVE=<this file>` makes the tables from the measurements.
"""


@dataclass(frozen=True)
class About:
    """What only a person can say of the data: whose it is, and what others may do with it."""

    authors: tuple[str, ...] = ()
    license: str = NO_LICENSE


def export(provenance: Provenance, out: Path, root: Path, about: About) -> None:
    """Write the crate of a sweep to ``out``; ``root`` is the checkout.

    Raises LlmEnergyError where a file is no longer what the provenance says.
    """
    contents: dict[str, bytes] = {}
    for path, sha256 in provenance.files.items():
        data = Path(path).read_bytes() if Path(path).is_file() else b""
        if sha256_bytes(data) != sha256:
            raise LlmEnergyError(f"{path}: it changed after the tables were made; run them again")
        contents[path] = data
    for path in (str(paths.provenance(provenance.folder)), *_of_checkout(provenance, root)):
        place = Path(path) if Path(path).is_file() else root / path
        contents[path] = place.read_bytes()
    made = datetime.fromisoformat(f"{_last_day(provenance)}T00:00:00+00:00")
    for name in [path for path in contents if Path(path).match("envs/*.txt")]:
        bill = bill_of_materials(Path(name).stem, contents[name].decode("utf-8"), made)
        contents[name.removesuffix(".txt") + ".cdx.json"] = bill.encode("utf-8")
    told = {"sweep": provenance.sweep, "metadata": METADATA, "commit": provenance.git_commit}
    contents["README.md"] = README.format(**told).encode("utf-8")
    described = describe(provenance, contents, about)
    contents[METADATA] = (json.dumps(described, indent=1, sort_keys=True) + "\n").encode("utf-8")
    temporary = out.with_name(f".{out.name}.tmp")
    out.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(temporary, "w") as file:
        for path in sorted(contents):
            entry = zipfile.ZipInfo(path)
            entry.external_attr, entry.compress_type = 0o644 << 16, zipfile.ZIP_DEFLATED
            file.writestr(entry, contents[path])
    temporary.replace(out)


def describe(provenance: Provenance, contents: dict[str, bytes], about: About) -> dict[str, Any]:
    """Return the crate's metadata: the files, the software, and what was made from what."""
    from rocrate.model import ContextEntity, Person
    from rocrate.rocrate import ROCrate

    crate = ROCrate()
    crate.metadata.extra_terms["sha256"] = "https://schema.org/sha256"
    crate.name = f"Energy of language model inference: sweep {provenance.sweep}"
    crate.description = (
        f"{len(_measurements(provenance))} measurements of sweep {provenance.sweep}, the verdicts "
        "on them, the tables and figures made from them, the locks of the environments and the "
        "SHA-256 of every file."
    )
    crate.license = _license(crate, about.license)
    crate.root_dataset["datePublished"] = _last_day(provenance)
    people = [crate.add(Person(crate, f"#{quote(n)}", {"name": n})) for n in about.authors]
    if people:
        crate.root_dataset["author"] = _one_or_all(people)
    files = {path: _add(crate, path, data) for path, data in sorted(contents.items())}
    software = crate.add(
        ContextEntity(
            crate,
            "#llm-energy",
            {
                "@type": "SoftwareApplication",
                "name": "llm-energy",
                "url": files["CITATION.cff"],
                "version": provenance.git_commit or "unknown",
                "softwareRequirements": _one_or_all(
                    [files[path] for path in files if Path(path).match("envs/*.txt")]
                ),
            },
        )
    )
    made = {provenance.folder / name for name in ("tables", "figures", "data")}
    action = crate.add_action(
        software,
        identifier="#tables",
        object=_one_or_all([files[path] for path in _measurements(provenance)]),
        result=[f for p, f in files.items() if Path(p).parent in made],
        properties={"name": "Making tables and figures from the measurements"},
    )
    crate.root_dataset["mentions"] = action
    return crate.metadata.generate()


def _one_or_all(values: list[Any]) -> Any:
    """Return what JSON-LD has where a property has these values."""
    return values[0] if len(values) == 1 else values


def _license(crate: Any, license: str) -> Any:
    """Return a licence as the crate has it; an SPDX id and a URL are entities."""
    from rocrate.model import ContextEntity

    if " " in license:
        return license
    url = license if "://" in license else f"https://spdx.org/licenses/{license}"
    told = {"@type": "CreativeWork", "name": license, "description": f"Licence {license}"}
    return crate.add(ContextEntity(crate, url, told))


def _add(crate: Any, path: str, data: bytes) -> Any:
    formats = (known for suffix, known in FORMATS.items() if path.endswith(suffix))
    properties = {
        "name": Path(path).name,
        "description": next(told for end, told in DESCRIPTIONS.items() if Path(path).match(end)),
        "contentSize": str(len(data)),
        "encodingFormat": next(formats, "text/plain"),
        "sha256": sha256_bytes(data),
    }
    return crate.add_file(dest_path=path, properties=properties)


def _of_checkout(provenance: Provenance, root: Path) -> Sequence[str]:
    """Return what of the checkout goes along: the locks, the grammar of paths, how to cite it.

    Raises LlmEnergyError where a lock is another one now.
    """
    for lock in provenance.environments.values():
        if not (root / lock.path).is_file() or sha256_file(root / lock.path) != lock.sha256:
            raise LlmEnergyError(f"{lock.path}: it changed after the tables were made; make paper")
    locks = {lock.path for lock in provenance.environments.values()}
    own = str(registry.lock_path(root, registry.WORKFLOW).relative_to(root))
    return (*sorted(locks | {own}), "results/README.md", "CITATION.cff", "LICENSE")


def _measurements(provenance: Provenance) -> list[str]:
    pattern = str(paths.measurement(provenance.folder, paths.ANY, paths.ANY, paths.ANY))
    return [path for path in provenance.files if Path(path).match(pattern)]


def _last_day(provenance: Provenance) -> str:
    """Return the day of the last measurement: a crate's date may not depend on when it is made."""
    days = [str(read_json(path)["clock"]["utc"])[:10] for path in _measurements(provenance)]
    return max(days, default="1970-01-01")
