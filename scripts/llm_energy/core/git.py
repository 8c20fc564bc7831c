"""Ask git which commit the project is at."""

from __future__ import annotations

import subprocess
from pathlib import Path


def git_state(repository: Path) -> tuple[str | None, bool | None]:
    """Return the commit and whether tracked files differ from it; (None, None) outside git."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(repository), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return None, None
