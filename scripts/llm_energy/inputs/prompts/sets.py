"""Read prompts and draw those of a workload: the built-in set, a user's file, a dataset."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_energy.core.errors import LlmEnergyError
from llm_energy.core.files import parse_json, sha256_file
from llm_energy.records.files.paths import ROOT

BUILTIN = ROOT / "config" / "prompts" / "general-v1.jsonl"
DEFAULT_COLUMN = "text"


@dataclass(frozen=True)
class Prompt:
    """One prompt as text; ``id`` is unique within its source."""

    id: str
    text: str


def choose(
    settings: dict[str, Any], count: int, base: Path = Path()
) -> tuple[list[Prompt], dict[str, Any]]:
    """Return the ``count`` prompts that ``settings`` ask for, and a description of their source.

    ``settings`` is the config's ``prompts``: ``source`` builtin, file or dataset, ``path`` (taken
    relative to ``base``), ``text_column`` and ``seed``. The built-in set is asked again, under new
    ids, when it is smaller than ``count``; a user's file is not: that raises LlmEnergyError.
    """
    kind = settings["source"]
    if kind == "builtin":
        prompts, source = builtin(), describe_builtin()
    else:
        prompts, path = of_user(settings, count, base)
        source = {"path": settings["path"], "sha256": sha256_path(path)}
    drawn = draw(prompts, count, settings["seed"])
    return drawn, {
        "source": kind,
        **source,
        "seed": settings["seed"],
        "available": len(prompts),
        "repeated": max(0, count - len(prompts)),
    }


def of_user(settings: dict[str, Any], count: int, base: Path) -> tuple[list[Prompt], Path]:
    """Read a user's file or dataset, as ``choose`` does, and return its prompts and its path.

    Fewer than ``count``, or one that cannot be read, raises LlmEnergyError.
    """
    path = base / Path(settings["path"]).expanduser()
    read = {"file": read_file, "dataset": read_dataset}[settings["source"]]
    prompts = read(path, settings.get("text_column") or DEFAULT_COLUMN)
    if len(prompts) < count:
        raise LlmEnergyError(
            f"{path}: has {len(prompts)} prompts, the workload asks {count} requests; "
            f"add prompts or lower requests to at most {len(prompts)}"
        )
    return prompts, path


def builtin() -> list[Prompt]:
    """Return the built-in prompt set, in its file's order."""
    return read_file(BUILTIN, DEFAULT_COLUMN)


def describe_builtin() -> dict[str, str]:
    """Name the version of the built-in set and give its file's hash."""
    return {"name": BUILTIN.stem, "sha256": sha256_file(BUILTIN)}


def draw(prompts: Sequence[Prompt], count: int, seed: int) -> list[Prompt]:
    """Draw ``count`` prompts without replacement; fewer are always the first of more.

    The order is that of a hash of (seed, id), so it depends on no random number generator and a
    prompt that is added moves no other. Past the end the draw starts over with ids ``<id>#2``, ...

    >>> four = draw([Prompt(i, i) for i in "abcde"], 4, seed=1)
    >>> draw([Prompt(i, i) for i in "abcde"], 2, seed=1) == four[:2]
    True
    """
    drawn: list[Prompt] = []
    cycle = 1
    while len(drawn) < count:
        key = f"{seed}:{cycle}:"
        ordered = sorted(prompts, key=lambda p: hashlib.sha256((key + p.id).encode()).digest())
        suffix = f"#{cycle}" if cycle > 1 else ""
        drawn += [Prompt(p.id + suffix, p.text) for p in ordered[: count - len(drawn)]]
        cycle += 1
    return drawn


def sha256_path(path: Path) -> str:
    """Return the SHA-256 of a file, or of the names and hashes of a folder's files."""
    if path.is_file():
        return sha256_file(path)
    files = (p for p in sorted(path.rglob("*")) if p.is_file())
    lines = (f"{sha256_file(p)}  {p.relative_to(path).as_posix()}\n" for p in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


# a user's file


def read_file(path: Path, text_column: str) -> list[Prompt]:
    """Read prompts from JSONL (``.jsonl``), CSV (``.csv``) or plain text (else, one a line).

    JSONL and CSV may have a column ``id``; else the id tells the line. Every fault raises
    LlmEnergyError with the line.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")  # with or without the mark that Excel writes
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise LlmEnergyError(
            f"{path}: line {line}: not UTF-8 ({error.reason}); save the file as UTF-8"
        ) from None
    except (OSError, ValueError) as error:  # a null character in the path
        why = getattr(error, "strerror", error)
        raise LlmEnergyError(f"{path}: cannot read the prompts ({why})") from None
    readers = {".jsonl": _jsonl_rows, ".csv": _csv_rows}
    rows = readers.get(path.suffix.lower(), _text_rows)(path, text, text_column)
    return _checked(path, "line", rows)


Row = tuple[int, str | None, Any]  # line or row number, id, text


def _text_rows(path: Path, text: str, text_column: str) -> list[Row]:
    # split at line ends only: str.splitlines also splits inside prompts, at form feeds for one
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    return [(n, None, line) for n, line in enumerate(lines, 1)] if text else []


def _jsonl_rows(path: Path, text: str, text_column: str) -> list[Row]:
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        row = parse_json(line.encode(), f"{path}: line {number}")
        if not isinstance(row, dict):
            raise LlmEnergyError(f"{path}: line {number}: found {line[:40]}, allowed an object")
        if text_column not in row:
            raise _no_column(f"{path}: line {number}", text_column, row)
        rows.append((number, row.get("id"), row[text_column]))
    return rows


def _csv_rows(path: Path, text: str, text_column: str) -> list[Row]:
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        if reader.fieldnames is not None and text_column not in reader.fieldnames:
            raise _no_column(str(path), text_column, reader.fieldnames)
        return [(reader.line_num, row.get("id"), row[text_column]) for row in reader]
    except csv.Error as error:
        raise LlmEnergyError(f"{path}: line {reader.line_num}: not valid CSV ({error})") from None


def _no_column(where: str, text_column: str, columns: Iterable[str]) -> LlmEnergyError:
    found = ", ".join(map(str, columns)) or "none"
    return LlmEnergyError(
        f"{where}: no column {text_column!r}, found {found}; name the right one in text_column"
    )


def _checked(path: Path, unit: str, rows: Sequence[Row]) -> list[Prompt]:
    if not rows:
        raise LlmEnergyError(f"{path}: the file is empty; it needs one prompt a {unit}")
    prompts: dict[str, Prompt] = {}
    for number, name, text in rows:
        where = f"{path}: {unit} {number}"
        if not isinstance(text, str):
            raise LlmEnergyError(f"{where}: the prompt is {text!r}, allowed a text")
        if not text.strip():
            raise LlmEnergyError(f"{where}: the prompt is empty; remove the {unit} or fill it")
        name = f"{unit}-{number}" if name in (None, "") else str(name)
        if name in prompts:
            raise LlmEnergyError(f"{where}: the id {name!r} is used twice; make ids unique")
        prompts[name] = Prompt(name, text)
    return list(prompts.values())


# a Hugging Face dataset on disk


def read_dataset(path: Path, text_column: str) -> list[Prompt]:
    """Read one text column of a dataset folder: Parquet files, or Arrow as by save_to_disk.

    Needs pyarrow. Ids are ``row-N``, over the files in the order of their names.
    """
    if not path.is_dir():
        raise LlmEnergyError(f"{path}: no such folder; a dataset is a folder on disk")
    if (path / "dataset_dict.json").is_file():
        splits = ", ".join(sorted(p.name for p in path.iterdir() if p.is_dir()))
        raise LlmEnergyError(f"{path}: holds several splits; name one of them: {path}/<{splits}>")
    files = sorted(p for p in path.rglob("*") if p.suffix in (".parquet", ".arrow"))
    if not files:
        raise LlmEnergyError(f"{path}: no .parquet or .arrow file; save it with save_to_disk")
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise LlmEnergyError(
            f"{path}: reading a dataset needs pyarrow, which is not installed here; "
            "install it into this environment, or export the prompts to JSONL and use source: file"
        ) from None
    texts: list[Any] = []
    for file in files:
        try:
            if file.suffix == ".parquet":
                table = pyarrow.parquet.read_table(file)
            else:
                with pyarrow.memory_map(str(file)) as mapped:
                    table = pyarrow.ipc.open_stream(mapped).read_all()
        except pyarrow.ArrowInvalid as error:
            raise LlmEnergyError(f"{file}: cannot be read ({error})") from None
        if text_column not in table.column_names:
            raise _no_column(str(file), text_column, table.column_names)
        texts += table.column(text_column).to_pylist()
    return _checked(path, "row", [(number, None, text) for number, text in enumerate(texts, 1)])
