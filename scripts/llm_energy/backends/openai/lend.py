"""Run a module with the packages of the client's environment behind those of its own.

    python -m llm_energy.backends.openai.lend MODULE [ARGUMENT ...]

So ``transformers serve`` runs in the PyTorch backend's environment, whose packages come first, and
finds the web server there that this environment lacks.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence

from llm_energy.records.files.paths import ROOT

PACKAGES = ROOT / ".venvs" / "openai" / "lib"


def main(arguments: Sequence[str]) -> None:
    """Run the module with the rest of the arguments, as ``python -m`` would."""
    sys.path += map(str, PACKAGES.glob("python3*/site-packages"))
    sys.argv[:] = arguments
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
