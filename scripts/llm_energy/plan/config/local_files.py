"""Check the files of this host that a sweep config names, before any job begins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llm_energy.core.errors import LlmEnergyError
from llm_energy.inputs.models import files
from llm_energy.inputs.models.config import has_chat_template
from llm_energy.inputs.models.quantization import differences
from llm_energy.inputs.prompts import sets
from llm_energy.plan.config.messages import Key, Problem, found

# Which keys of `source` a kind needs, and which it may have.
SOURCE_KEYS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "hub": ((), ()),
    "folder": (("path",), ()),
    "gguf": (("path",), ("sha256",)),
    "pypi": (("package", "version", "file"), ("sha256",)),
    "simulated": (("parameter_count",), ()),
}


def local(source: dict[str, Any], root: Path) -> Path:
    """Return the folder that a model's source names."""
    return root / Path(source["path"]).expanduser()


def source_problems(model: dict[str, Any], root: Path) -> Iterator[Problem]:
    """Check that a source has the keys of its kind, and that what it names makes a model."""
    source, kind = model["source"], model["source"]["kind"]
    at = (*model["at"], "source")
    needed, optional = SOURCE_KEYS[kind]
    for key in needed:
        if key not in source:
            yield (*at, key), f"missing, a source of kind '{kind}' needs {', '.join(needed)}"
    for key in source:
        if key not in ("kind", *needed, *optional):
            yield (
                (*at, key),
                f"found {found(source[key])}, a source of kind '{kind}' has no such key; remove it "
                "or set another kind",
            )
    if model["revision"] is not None and kind != "hub":
        yield (
            (*model["at"], "revision"),
            f"found {found(model['revision'])}, allowed for the kind 'hub' only; remove it",
        )
    if "path" in needed and "path" in source:
        place = (*at, "path") if at[0] == "models" else model["at"]
        missing = list(missing_file(source["path"], place, kind == "folder", root))
        yield from missing
        if kind == "folder" and not missing:
            try:
                files.choose(local(source, root), source["path"])
                precision = model.get("precision")  # of a checkpoint
                wrong = differences(precision, local(source, root)) if precision else []
            except LlmEnergyError as error:
                wrong = [str(error)]
            for text in wrong:
                yield place, text


def is_model(folder: Path) -> bool:
    """Return whether a folder has all that makes a model."""
    try:
        return folder.is_dir() and bool(files.choose(folder, ""))
    except LlmEnergyError:
        return False


def missing_file(path: str, at: Key, folder: bool, root: Path) -> Iterator[Problem]:
    """Check that a file, or a folder, is there."""
    try:
        place = root / Path(path).expanduser()
        there = place.is_dir() if folder else place.is_file()
    except (ValueError, OSError, RuntimeError):  # a null character, a name too long, no such home
        there = False
    if not there:
        what = "folder" if folder else "file"
        yield at, f"found {found(path)}, allowed a {what} that exists; there is none"


def prompts_problems(workload: dict[str, Any], at: Key, root: Path) -> Iterator[Problem]:
    """Read a workload's own prompts as the prompts stage will; a dataset is left to that.

    Reading one takes a package that is slow to import.
    """
    if workload["prompts"]["source"] == "file":
        try:
            sets.of_user(workload["prompts"], workload["requests"], root)
        except LlmEnergyError as error:
            yield at, str(error)


def template_problems(
    models: list[dict[str, Any]], workloads: list[dict[str, Any]], root: Path
) -> Iterator[Problem]:
    """Find models in folders that lack the chat template which their prompts are to be put into."""
    for model in models:
        source, own = model["source"], model.get("chat_template")
        asking = [w["id"] for w in workloads if w["prompts"]["chat_template"]]
        if own is False or not (own or asking) or source["kind"] != "folder":
            continue
        try:
            lacks = "path" in source and not has_chat_template(local(source, root))
        except (ValueError, OSError, RuntimeError):  # said of the path itself
            continue
        if lacks and is_model(local(source, root)):
            yield (
                (*model["at"], "chat_template"),
                f"found {found(True)}, allowed false, since the tokenizer in {source['path']} has "
                "no chat template; set chat_template: false in the model's entry"
                + ("" if own else f" (workloads {', '.join(asking)} ask for one)"),
            )
