"""Collect what a report about a backend needs, in the environment that has it.

    python tests/support/collect_report.py tensorrt

writes report-tensorrt.zip: what scripts/doctor.py finds on this host, how the package differs from
what is written down of it, and what the conformance suite says. Nothing leaves the host, and no
prompt or output is in it. Read it before you attach it to an issue.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from llm_energy.core.cli import run
from llm_energy.core.errors import LlmEnergyError
from llm_energy.environments import registry

CONTRACTS = {"tensorrt": ROOT / "tests" / "support" / "tensorrt_contract.py"}
PACKAGES = (  # there is no pip in an environment that uv has made
    "import importlib.metadata as m;"
    "print(*sorted(f'{d.name}=={d.version}' for d in m.distributions()), sep='\\n')"
)
SUITE = ("tests/engines", "-v", "-rs", "-p", "no:cacheprovider", "--tb=short")


def commands(backend: str, python: Path) -> Iterator[tuple[str, list[str | Path]]]:
    """Return each part of the report: its file's name and the command whose output it is."""
    yield "doctor.json", [python, ROOT / "scripts" / "doctor.py", "--json", "--no-self-test"]
    yield "packages.txt", [python, "-c", PACKAGES]
    if backend in CONTRACTS:
        yield "contract.txt", [python, CONTRACTS[backend]]
    suite = ROOT / "tests" / "support" / "in_environment.py"
    yield "conformance.txt", [sys.executable, suite, python.parent.parent, *SUITE, "-k", backend]


def outcome(command: list[str | Path]) -> tuple[str, str, str]:
    """Run a command; give its output, its errors, and in a word or two how it ended."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    except OSError as error:
        return "", f"it does not start: {error}", "did not start"
    end = "ok" if done.returncode == 0 else f"exit status {done.returncode}"
    return done.stdout, done.stderr, end


def collect(backend: str, out: Path) -> None:
    """Run every command and put what they print into ``out``, errors beside it."""
    name = registry.environment_name(backend, registry.variant())
    python = registry.interpreter(ROOT, name)
    if not python.exists():
        command = registry.install_command(backend)
        raise LlmEnergyError(f"backend {backend} is not installed: {command}")
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for part, command in commands(backend, python):
            print(f"{part} ...", end=" ", flush=True)
            output, errors, end = outcome(command)
            archive.writestr(part, output)
            if errors:
                archive.writestr(f"{part}.errors", errors)
            print(end)
    print(f"{out}: read it, then attach it to the issue.")


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and collect."""
    parser = argparse.ArgumentParser(description="Collect what a report about a backend needs.")
    backends = sorted({name.removesuffix("-cpu") for name in registry.ENGINES})
    parser.add_argument("backend", choices=backends)
    arguments = parser.parse_args(argv)
    out = Path(f"report-{arguments.backend}.zip")
    return run(lambda: collect(arguments.backend, out))


if __name__ == "__main__":
    sys.exit(main())
