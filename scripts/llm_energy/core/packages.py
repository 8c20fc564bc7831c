"""Say which packages this process could import, and their versions."""

from __future__ import annotations

import functools
import importlib.metadata
import sys
from collections.abc import Iterable


def installed_packages() -> dict[str, str]:
    """Return name and version of every package that this process could import.

    Of a package that lies twice on the import path, Python takes the first. A folder that an
    interrupted installation left without its METADATA names no package.
    """
    return dict(_found_on(tuple(sys.path)))


@functools.cache  # reading a hundred METADATA files takes a tenth of a second
def _found_on(import_path: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for package in importlib.metadata.distributions(path=list(import_path)):
        if package.read_text("METADATA") or package.read_text("PKG-INFO"):
            found.setdefault(package.metadata["Name"], package.version)
    return dict(sorted(found.items()))


def versions(names: Iterable[str]) -> dict[str, str]:
    """Return the versions of those packages of these names that are installed."""
    installed = installed_packages()
    return {name: installed[name] for name in names if name in installed}
