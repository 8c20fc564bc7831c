"""Take chosen files out of a stranger's folder, tar or zip file: all of them sound, or none.

Nothing in it is trusted: not its names, its links, its sizes or its checksums.
"""

from __future__ import annotations

import bz2
import contextlib
import functools
import gzip
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from llm_energy.core.errors import LlmEnergyError

MOST_FILES = 200_000  # ten thousand cells with five repeats of a spec, a record and a trace each
MOST_BYTES = 4 << 30
CHUNK = 1 << 20
COMPRESSED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
# What the readers of these formats raise for content that is damaged, locked or made to mislead.
UNREADABLE = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError),
    *(ValueError, OverflowError, IndexError, RuntimeError, NotImplementedError, MemoryError),
)


@dataclass(frozen=True)
class Entry:
    """One file in an archive; ``open`` is None where it is a link or no plain file."""

    name: PurePosixPath
    open: Callable[[], IO[bytes]] | None


def entries(archive: Path, place: Path, stack: contextlib.ExitStack) -> list[Entry]:
    """Return what an archive holds but folders; it stays open as long as ``stack`` does.

    Each name is relative and has no ``..``. A compressed stream is read to its end into ``place``,
    so that its checksum is compared. Raises LlmEnergyError.
    """
    if not archive.exists():
        raise LlmEnergyError(f"{archive}: no such archive")
    found: dict[PurePosixPath, Entry] = {}
    try:
        reader = _folder if archive.is_dir() else _zip if zipfile.is_zipfile(archive) else _tar
        for name, opener in reader(archive, place, stack):
            path = PurePosixPath(name.lstrip("/"))
            if ".." in path.parts or "\0" in name:
                raise LlmEnergyError(f"{archive}: {name!r:.200} leads outside of it")
            if path in found:
                raise LlmEnergyError(f"{archive}: it holds {name!r:.200} twice")
            if len(found) == MOST_FILES:
                raise LlmEnergyError(f"{archive}: it holds more than {MOST_FILES} files")
            found[path] = Entry(path, opener)
    except UNREADABLE as error:
        raise _unreadable(archive, error) from None
    return list(found.values())


def extract(archive: Path, wanted: dict[Path, Entry]) -> None:
    """Write each entry to its path, or raise LlmEnergyError; sizes and checksums are compared."""
    left = MOST_BYTES
    for path, entry in wanted.items():
        if entry.open is None:
            raise LlmEnergyError(
                f"{archive}: {entry.name} is a link or no plain file; pack the files themselves"
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with entry.open() as source, open(path, "xb") as target:
                left = _copy(archive, source, target, left)
        except UNREADABLE as error:
            raise _unreadable(archive, error) from None


def _unreadable(archive: Path, error: BaseException) -> LlmEnergyError:
    return LlmEnergyError(
        f"{archive}: neither a folder nor a readable tar or zip file "
        f"({type(error).__name__}: {error!s:.200}); fetch or pack it again"
    )


def _copy(archive: Path, source: IO[bytes], target: IO[bytes], left: int) -> int:
    """Copy to the end; ``left`` are the bytes that it may have, and what remains is returned."""
    while piece := source.read(CHUNK):
        left -= len(piece)
        if left < 0:
            raise LlmEnergyError(f"{archive}: it unpacks to more than {MOST_BYTES >> 30} GiB")
        target.write(piece)
    return left


def _folder(archive: Path, place: Path, stack: contextlib.ExitStack) -> Iterator[tuple[str, Any]]:
    root = archive.resolve()
    for folder, inner, files in os.walk(root):
        links = [name for name in inner if os.path.islink(os.path.join(folder, name))]
        inner[:] = [name for name in inner if not name.startswith(".")]
        for path in (Path(folder, name) for name in sorted((*files, *links))):
            # a link out of the folder could name a file of somebody else
            plain = path.is_file() and path.resolve().is_relative_to(root)
            yield (
                str(path.relative_to(root)),
                functools.partial(open, path, "rb") if plain else None,
            )


def _zip(archive: Path, place: Path, stack: contextlib.ExitStack) -> Iterator[tuple[str, Any]]:
    file = stack.enter_context(zipfile.ZipFile(archive))
    for member in file.infolist():
        if not member.is_dir():
            yield member.filename, functools.partial(file.open, member)


def _tar(archive: Path, place: Path, stack: contextlib.ExitStack) -> Iterator[tuple[str, Any]]:
    with open(archive, "rb") as stream:
        head = stream.read(6)
    opener = next((one for magic, one in COMPRESSED.items() if head.startswith(magic)), None)
    if opener is not None:
        archive, packed = place / "archive.tar", archive
        with opener(packed, "rb") as source, open(archive, "xb") as target:
            _copy(packed, source, target, MOST_BYTES)
    file = stack.enter_context(tarfile.TarFile(archive))
    for member in file:
        if not member.isdir():
            whole = member.isreg() and not member.issparse()
            yield member.name, functools.partial(file.extractfile, member) if whole else None
    # the reader takes a damaged header for the end, which zeros mark
    with open(archive, "rb") as stream:
        stream.seek(file.offset)
        rest = stream.read(CHUNK)
        if not rest or rest.strip(b"\0"):
            raise tarfile.ReadError(f"damaged or cut at byte {file.offset}")
