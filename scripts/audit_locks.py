"""Audit the locks: known vulnerabilities of every pin, and the licences of the built environments.

    python scripts/audit_locks.py --tools .venvs/audit/bin

Vulnerabilities are asked of a service in the network, which has to be reached.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llm_energy.core.cli import run
from llm_energy.core.errors import LlmEnergyError
from llm_energy.environments.registry import interpreter, lock_path
from llm_energy.records.files.paths import ROOT

SERVICES = {"osv": "https://api.osv.dev", "pypi": "https://pypi.org/pypi/<package>/<version>/json"}
UNSTATED = "UNKNOWN"


def main(argv: list[str] | None = None) -> int:
    """Parse the command line, print licences and then vulnerabilities."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = sorted(path.stem for path in (ROOT / "envs").glob("*.txt"))
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(known)}")
    parser.add_argument("--tools", type=Path, required=True, help="folder with pip-audit")
    parser.add_argument("--service", choices=sorted(SERVICES), default="osv")
    arguments = parser.parse_args(argv)
    if unknown := sorted(set(arguments.names) - set(known)):
        parser.error(f"no lock of {', '.join(unknown)}; there are {', '.join(known)}")
    names = arguments.names or known

    def audit() -> None:
        for name in names:
            if interpreter(ROOT, name).exists():
                print(f".venvs/{name}: {licences(arguments.tools, name)}")
        faults = 0
        for name in names:
            found = vulnerabilities(arguments.tools, name, arguments.service)
            print(f"envs/{name}.txt: {len(found)} known vulnerabilities", *found, sep="\n  ")
            faults += len(found)
        if faults:
            raise LlmEnergyError(
                f"{faults} known vulnerabilities; raise the pins in envs/*.in, then make locks"
            )

    return run(audit)


def licences(tools: Path, name: str) -> str:
    """Count the licences that an environment's packages state, and name those that state none.

    Some packages state a whole text, of which the first line is taken.
    """
    command = [tools / "pip-licenses", "--python", interpreter(ROOT, name), "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, list[str]] = defaultdict(list)
    for one in json.loads(done.stdout):
        found[one["License"].strip().splitlines()[0]].append(one["Name"])
    unstated = found.pop(UNSTATED, [])
    counts = sorted(found.items(), key=lambda pair: (-len(pair[1]), pair[0]))
    parts = [f"{len(packages)} {licence}" for licence, packages in counts]
    return ", ".join(parts) + (f"; none stated by {', '.join(unstated)}" if unstated else "")


def vulnerabilities(tools: Path, name: str, service: str) -> list[str]:
    """Return a line for each known vulnerability of a lock's pins.

    Raises LlmEnergyError where the service can't be asked, or doesn't know a package: pip-audit
    passes that over and calls the lock sound.
    """
    lock = lock_path(ROOT, name)
    command = [tools / "pip-audit", "--requirement", lock, "--disable-pip", "--require-hashes"]
    command += ["--progress-spinner", "off", "--format", "json", "--vulnerability-service", service]
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        pins = json.loads(done.stdout)["dependencies"]
    except ValueError:
        raise _unasked(name, service, (done.stderr.splitlines() or ["no answer"])[-1]) from None
    if passed_over := [pin["name"] for pin in pins if "skip_reason" in pin]:
        raise _unasked(name, service, f"no answer on {', '.join(passed_over)}")
    return list(_lines(pins))


def _unasked(name: str, service: str, why: str) -> LlmEnergyError:
    [other] = set(SERVICES) - {service}
    return LlmEnergyError(
        f"envs/{name}.txt was not audited: the service {service} ({SERVICES[service]}) gave no "
        f"answer: {why}; run this where it can be reached, or ask another: SERVICE={other}"
    )


def _lines(pins: list[dict[str, Any]]) -> Iterator[str]:
    for pin in pins:
        for fault in pin["vulns"]:
            fixed = ", ".join(fault["fix_versions"]) or "no version"
            yield f"{pin['name']} {pin['version']}: {fault['id']}, mended in {fixed}"


if __name__ == "__main__":
    sys.exit(main())
