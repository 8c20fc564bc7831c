"""Write what a sweep found as tidy tables that pandas, R and databases read as they are."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pandas
from pyarrow.lib import ArrowException
from pyarrow.parquet import read_table

from llm_energy.publish.csv_text import csv_text
from llm_energy.publish.data import dictionary
from llm_energy.publish.data.frames import Sweep, tables
from llm_energy.records.files import paths


def render(sweep: Sweep, jobs: int = 1) -> Iterator[tuple[str, bytes]]:
    """Yield every file by its name: each table as Parquet and CSV, and what their columns mean.

    The same sweep gives the same bytes. ``jobs`` processes read the measurements.
    """
    made = tables(sweep, jobs)
    for name, table in made.items():
        frame = table.frame()
        yield f"{name}.parquet", parquet(frame)
        yield f"{name}.csv", csv_text(*table.plain()).encode("utf-8")
    yield "README.md", dictionary.page(sweep, made).encode("utf-8")
    yield "datapackage.json", dictionary.package(sweep, made).encode("utf-8")


def not_reproduced(sweep: Sweep, folder: Path) -> Iterator[Path]:
    """Yield the files of a sweep's folder that are not what its records give.

    Of a Parquet file the table counts, since its bytes name the version that wrote them.
    """
    for name, content in render(sweep):
        path = paths.data(folder, *name.rsplit(".", 1))
        if not path.is_file() or not _says(path, content):
            yield path


def _says(path: Path, content: bytes) -> bool:
    try:
        if path.suffix == ".parquet":
            return read_table(path).equals(read_table(io.BytesIO(content)))
    except (OSError, ArrowException):
        return False
    return path.read_bytes() == content


def parquet(frame: pandas.DataFrame) -> bytes:
    """Return a frame as Parquet."""
    stream = io.BytesIO()
    frame.to_parquet(stream, engine="pyarrow", index=False)
    return stream.getvalue()
