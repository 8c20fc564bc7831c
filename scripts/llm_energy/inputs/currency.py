"""Tell by content whether a measurement is what a run would measure now; no time counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from llm_energy.core.errors import LlmEnergyError, RecordError
from llm_energy.core.files import parse_json, read_object
from llm_energy.records import Spec, parse_record, read_record
from llm_energy.records.files import paths

# A measurement's file begins with what it was made of. The rest is most of it, and not read.
HEAD_ENDS = b',\n "effective": '
PIECE_BYTES = 32768


def read_head(path: Path) -> dict[str, Any]:
    """Return the keys of a measurement's file up to what the engine reported; or RecordError."""
    content = b""
    try:
        with open(path, "rb") as stream:
            while piece := stream.read(PIECE_BYTES):
                content += piece
                if (end := content.find(HEAD_ENDS)) > 0:
                    content = content[:end] + b"}"
                    break
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error.strerror})") from None
    head = parse_json(content, path)
    if not isinstance(head, dict):
        raise RecordError(f"{path}: is no JSON object")
    return head


def is_of(
    head: Mapping[str, Any],
    spec: Spec,
    model: Mapping[str, Any] | None,
    prompts_sha256: Mapping[str, str] | None,
) -> bool:
    """Return whether a measurement is of this spec, this model and these prompts.

    ``head`` is from ``read_head``. ``model`` has the keys ``weights_sha256`` and
    ``tokenizer_sha256`` of the model's manifest, ``prompts_sha256`` a hash by
    ``Workload.prompts_key``. None is not
    yet known, and nothing speaks against the measurement then. A spec that an older version wrote
    is the same one if it says the same.
    """
    for key in ("weights_sha256", "tokenizer_sha256"):
        if model is not None and head.get(key) != model.get(key):
            return False
    if prompts_sha256 is not None:
        asked = {w.id: prompts_sha256.get(w.prompts_key(spec.repeat)) for w in spec.workloads}
        if head.get("prompts_sha256") != asked:
            return False
    try:
        return parse_record(Spec, head.get("spec"), "spec") == spec
    except LlmEnergyError:
        return False


def current(pairs: Iterable[tuple[str, str]]) -> list[Path]:
    """Return the measurements, given with their specs, that are what a run would measure now.

    They are of the spec, the model and the prompts that lie there.
    """
    known: dict[str, tuple[dict[str, Any] | None, dict[str, str] | None]] = {}
    found = []
    for path, spec_path in pairs:
        try:
            head, spec = read_head(Path(path)), read_record(Spec, spec_path)
        except RecordError:  # not measured, or damaged
            continue
        if spec.model not in known:
            known[spec.model] = _model_and_prompts(paths.sweep_folder(spec.sweep), spec.model)
        if is_of(head, spec, *known[spec.model]):
            found.append(Path(path))
    return found


def _model_and_prompts(
    folder: Path, model: str
) -> tuple[dict[str, Any] | None, dict[str, str] | None]:
    prompts = read_prompts_ends(paths.prompts(folder, model)) or {}
    try:
        manifest = read_object(paths.manifest(folder, model))
    except RecordError:
        manifest = None
    return manifest, prompts.get("sha256")


def read_prompts_ends(path: Path) -> dict[str, Any] | None:
    """Return the keys of a prompt set's file but its ids; None where it is missing or damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    head = content.find(b',\n "source": ')
    tail = content.rfind(b',\n "sha256": ')
    if 0 < head < tail:
        content = content[:head] + content[tail:]
    try:
        found = parse_json(content, path)
    except RecordError:
        return None
    return found if isinstance(found, dict) else None
