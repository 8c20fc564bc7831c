"""Run pytest inside a backend's environment, which holds no pytest and gets none.

    python tests/support/in_environment.py .venvs/pytorch-cpu tests/engines -q

pytest comes from ``.venvs/pytest``, at the end of the import path: what both environments hold is
taken from the backend's. Give ``-p no:cacheprovider`` and the like as to pytest itself.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTEST = ROOT / ".venvs" / "pytest"

RUN = """
import sys
sys.path.append(sys.argv.pop(1))
import pytest
sys.exit(pytest.main())
"""


def main(argv: list[str] | None = None) -> int:
    """Run ``ENVIRONMENT [PYTEST ARGUMENT ...]`` and give pytest's own exit status."""
    environment, *arguments = sys.argv[1:] if argv is None else argv
    lent = next(PYTEST.glob("lib/python3*/site-packages"), None)
    python = Path(environment, "bin", "python")
    if lent is None or not python.exists():
        missing = PYTEST if lent is None else environment
        print(f"error: no environment {missing}: run make envs test-envs", file=sys.stderr)
        return 2
    return subprocess.call([python, "-c", RUN, lent, *arguments])


if __name__ == "__main__":
    sys.exit(main())
