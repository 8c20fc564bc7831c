"""The ready entries of docs/served.md, by their ids."""

from __future__ import annotations

import re
from typing import Any

import yaml
from support.project import ROOT

PAGE = ROOT / "docs" / "served.md"


def entries() -> dict[str, dict[str, Any]]:
    """Return each block of the page that is one entry of ``backends``."""
    blocks = re.findall(r"^```yaml\n(id: .*?)^```$", PAGE.read_text("utf-8"), re.M | re.S)
    found = [yaml.safe_load(block) for block in blocks]
    return {entry["id"]: entry for entry in found}
