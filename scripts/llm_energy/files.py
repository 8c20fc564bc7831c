"""Write whole files or none, and hash what was read."""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llm_energy.errors import LlmEnergyError, RecordError

ROOM_BYTES = 8 * 2**20  # a repeat's record and power trace, with some to spare
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
ROOM_REMEDY = "free some space there, then run the same command again"


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` so that a reader sees the old file or the new one, never a part."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write as ``write_text`` does; LlmEnergyError where the folder does not take the file."""
    path = Path(path)
    try:
        _replace(path, content)
    except OSError as error:
        raise LlmEnergyError(
            f"{path.parent}: cannot write {path.name} there ({error.strerror}); make it a folder "
            "that you may write to, with space left"
        ) from None


def require_room(folder: Path) -> None:
    """Raise LlmEnergyError unless ``folder`` takes ROOM_BYTES more, whatever limits it.

    Better before something is measured than when it is to be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".room.{os.getpid()}.tmp"
    try:
        with open(probe, "wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, ROOM_BYTES)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise LlmEnergyError(
                f"{folder}: no room for {ROOM_BYTES // 2**20} MiB ({error.strerror}); {ROOM_REMEDY}"
            ) from None
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # can't be asked there
            raise
    finally:
        probe.unlink(missing_ok=True)


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def canonical_json(value: Any) -> str:
    """Give the one JSON text of ``value``: sorted keys, no spaces, no NaN.

    >>> canonical_json({"b": 1, "a": [1.5, None]})
    '{"a":[1.5,null],"b":1}'
    """
    return _CANONICAL.encode(value)


_CANONICAL = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
)


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically; NaN and infinity are refused (ValueError)."""
    write_text(path, _json_text(value))


def is_written(path: Path, value: Any) -> bool:
    """Tell whether a file is there as ``write_json`` would write ``value``."""
    try:
        return path.read_text(encoding="utf-8") == _json_text(value)
    except (OSError, UnicodeDecodeError):
        return False


def _json_text(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read_json(path: str | Path) -> Any:
    """Read JSON; a file that cannot be read or is no JSON raises a RecordError that names it."""
    try:
        with open(path, "rb") as stream:
            return parse_json(stream.read(), path)
    except FileNotFoundError:
        raise RecordError(f"{path}: no such file") from None
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error.strerror})") from None


def parse_json(content: bytes, path: str | Path) -> Any:
    """Give the JSON value that was read from ``path``, or raise as ``read_json`` does."""
    if (parser := _fast_parser()) is not None:
        try:
            return parser(content)
        except ValueError:  # where it is stricter than the standard library, that one decides
            pass
    try:
        return json.loads(content.decode("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: not valid JSON ({error})") from None


@functools.cache
def _fast_parser() -> Callable[[bytes], Any] | None:
    """Give pydantic's parser, which takes half the time, where its package is installed."""
    try:
        from pydantic_core import from_json
    except ImportError:
        return None
    return from_json


def read_yaml(path: str | Path) -> Any:
    """Read a YAML file of the project's own; libyaml takes a tenth of PyYAML's time for it."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(Path(path).read_text(encoding="utf-8"), loader)


def sha256_bytes(data: bytes) -> str:
    """Give the SHA-256 of ``data`` as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_json(value: Any) -> str:
    """Give the SHA-256 of the canonical JSON of ``value``."""
    return sha256_bytes(canonical_json(value).encode("utf-8"))


def sha256_file(path: str | Path) -> str:
    """Give the SHA-256 of a file's content, read in pieces."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
