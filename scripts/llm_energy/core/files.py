"""Write whole files or none, and hash what was read."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from llm_energy.core.errors import LlmEnergyError, RecordError

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


def require_folder(folder: Path) -> None:
    """Raise LlmEnergyError if a file lies where ``folder``, or a folder above it, would be made."""
    there = next((path for path in (folder, *folder.parents) if path.exists()), None)
    if there is not None and not there.is_dir():
        raise LlmEnergyError(_unwritable(there, os.strerror(errno.ENOTDIR)))


def _unwritable(folder: Path, reason: str) -> str:
    return f"{folder}: cannot write ({reason}); make it a folder that you may write to"


def require_room(folder: Path) -> None:
    """Raise LlmEnergyError unless ``folder`` takes ROOM_BYTES more, whatever limits it.

    Better before something is measured than when it is to be written.
    """
    probe = folder / f".room.{os.getpid()}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(probe, "wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, ROOM_BYTES)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise LlmEnergyError(
                f"{folder}: no room for {ROOM_BYTES // 2**20} MiB ({error.strerror}); {ROOM_REMEDY}"
            ) from None
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # can't be asked there
            raise LlmEnergyError(_unwritable(folder, error.strerror)) from None
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


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
    """Return the one JSON text of ``value``: sorted keys, no spaces, no NaN.

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
    """Return whether a file is there as ``write_json`` would write ``value``."""
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


def read_object(path: str | Path) -> dict[str, Any]:
    """Read a JSON file that must hold a mapping, or raise as ``read_json`` does."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise RecordError(f"{path}: found {type(found).__name__}, allowed a mapping")
    return found


def parse_json(content: bytes, path: str | Path) -> Any:
    """Return the JSON value that was read from ``path``, or raise as ``read_json`` does.

    Numbers that are none or overflow (NaN, Infinity, 1e999, 400 digits) and texts that no UTF-8
    file can hold (lone surrogates) are refused with their key.
    """
    if (parser := _fast_parser()) is not None and not _may_overflow(content):
        try:
            return parser(content)
        except ValueError:  # where it is stricter than the standard library, that one decides
            pass
    try:
        value = json.loads(
            content.decode("utf-8"), parse_constant=_Refused, parse_float=_float, parse_int=_int
        )
        problem = next(_refused(value, ""), None)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: not valid JSON ({error})") from None
    except RecursionError:
        raise RecordError(f"{path}: not valid JSON (it is nested too deep)") from None
    if problem:
        raise RecordError(f"{path}{problem}")
    return value


class _Refused(str):
    """The text of a number that is none, or that a double can't hold."""


def _float(text: str) -> float | _Refused:
    return value if math.isfinite(value := float(text)) else _Refused(text)


def _int(text: str) -> int | _Refused:
    return int(text) if len(text) < 309 else _Refused(text)


def _refused(value: Any, place: str) -> Iterator[str]:
    """Yield the place of each value that is refused, and why."""
    if isinstance(value, _Refused):
        yield f"{place}: found {value!s:.40}, allowed a finite number of at most 308 digits"
    elif isinstance(value, str):
        if not value.isascii() and SURROGATE.search(value):
            yield f"{place}: found {value!a:.80}, allowed Unicode text without lone surrogates"
    elif isinstance(value, list):
        for number, one in enumerate(value):
            if type(one) is not int:
                yield from _refused(one, f"{place}[{number}]")
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from _refused(key, place)
            yield from _refused(one, f"{place}.{key}")


SURROGATE = re.compile("[\ud800-\udfff]")
_DIGITS = bytes.maketrans(b"123456789E", b"000000000e")
_HUGE = re.compile(rb"[\s:,\[][-]?[0-9]+(?:\.[0-9]+)?[eE][+]?[0-9]{3}")


def _may_overflow(content: bytes) -> bool:
    """Return whether a number could overflow; most files need no regular expression for it."""
    plain = content.translate(_DIGITS)
    if b"0" * 200 in plain:  # with an exponent of two digits
        return True
    return (b"0e000" in plain or b"0e+000" in plain) and bool(_HUGE.search(b" " + content))


@functools.cache
def _fast_parser() -> Callable[[bytes], Any] | None:
    """Return pydantic's parser, which takes half the time, where its package is installed."""
    try:
        from pydantic_core import from_json
    except ImportError:
        return None
    return functools.partial(from_json, allow_inf_nan=False)


def read_yaml(path: str | Path) -> Any:
    """Read a YAML file of the project's own; libyaml takes a tenth of PyYAML's time for it."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(Path(path).read_text(encoding="utf-8"), loader)


def sha256_bytes(data: bytes) -> str:
    """Return the SHA-256 of ``data`` as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_json(value: Any) -> str:
    """Return the SHA-256 of the canonical JSON of ``value``."""
    return sha256_bytes(canonical_json(value).encode("utf-8"))


def sha256_file(path: str | Path) -> str:
    """Return the SHA-256 of a file's content, read in pieces."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
