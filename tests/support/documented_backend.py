"""The example of docs/adding-a-backend.md, as a backend that the conformance suite can run."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

from llm_energy.backends import base
from llm_energy.backends.compatibility import matrix

PAGE = Path(__file__).resolve().parents[2] / "docs" / "adding-a-backend.md"
NAME = "example"


def code() -> str:
    """Return the page's only block of Python."""
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S)
    return block


def register() -> None:
    """Make the example a backend of this process: its module, and its column in the matrix.

    It takes the arguments of Transformers, so its column is a copy of that backend's.
    """
    module = types.ModuleType("documented_example")
    exec(compile(code(), str(PAGE), "exec"), module.__dict__)
    sys.modules[module.__name__] = module
    base.MODULES[NAME] = module.__name__
    data = matrix()
    data["backends"][NAME] = data["backends"]["pytorch"]
    for section in data["sections"]:
        for row in section["rows"]:
            row[NAME] = row["pytorch"]
