"""Make an environment around an engine that the user has installed.

TensorRT-LLM comes from NVIDIA: in its release container, or from NVIDIA's own package index, which
no lock of ours can hash. So its environment is a venv that sees the packages of the Python that has
the engine, checked for the pinned version, and gets from the lock, by hash, what measuring needs
and that Python lacks.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from llm_energy.core.cli import run
from llm_energy.core.errors import LlmEnergyError
from llm_energy.core.files import sha256_file, write_text
from llm_energy.environments import registry

DESCRIBE = """
import importlib.metadata, json, sys
known = [d for d in importlib.metadata.distributions() if d.read_text("METADATA")]
found = {d.metadata["Name"]: d.version for d in known}
print(json.dumps({"python": sys.version_info[:2], "packages": found}))
"""
STANZA = re.compile(
    r"^([a-z0-9-]+)==\S+ \\\n(?:    --hash=\S+(?: \\)?\n)+(?:    # via .*\n)?", re.M
)


def describe(python: str) -> tuple[str, dict[str, str]]:
    """Return a Python's version and its packages by normalised name."""
    try:
        shown = subprocess.run([python, "-c", DESCRIBE], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise LlmEnergyError(
            f"{python} does not run ({error}); name another: make envs TENSORRT_PYTHON=..."
        ) from None
    found = json.loads(shown.stdout)
    names = {re.sub(r"[-_.]+", "-", n).lower(): v for n, v in found["packages"].items() if n}
    return ".".join(map(str, found["python"])), names


def check(root: Path, name: str, python: str) -> dict[str, str]:
    """Return the packages of ``python`` if it can serve; LlmEnergyError says what to do if not."""
    package = registry.engine_package(name)
    pinned, wanted = (
        registry.pinned_version(root, name, package),
        registry.python_version(name),
    )
    version, packages = describe(python)
    found = packages.get(package)
    if found == pinned and version == wanted:
        return packages
    holds = f"{package} {found}" if found else f"no {package}"
    raise LlmEnergyError(
        f"backend {name!r} needs a Python {wanted} with {package} {pinned}, and {python} is Python "
        f"{version} with {holds}. NVIDIA's release container has it, and NVIDIA's own index serves "
        f"it: see docs/tensorrt.md. Then: make envs BACKENDS={name} TENSORRT_PYTHON=/path/to/python"
    )


def needed(root: Path, name: str, roots: set[str]) -> set[str]:
    """Return the packages of a lock that ``roots`` need, themselves included."""
    via = {
        match[1]: set(re.findall(r"[a-z0-9-]+", (match[0].partition("# via ")[2])))
        for match in STANZA.finditer(registry.lock_path(root, name).read_text("utf-8"))
    }
    found: set[str] = set()
    fresh = roots & via.keys()
    while fresh:
        found |= fresh
        fresh = {package for package, by in via.items() if by & fresh} - found
    return found


def requirements(root: Path, name: str, wanted: set[str]) -> str:
    """Return the lines of a lock, hashes included, that are about the wanted packages."""
    lock = registry.lock_path(root, name).read_text("utf-8")
    return "".join(match[0] for match in STANZA.finditer(lock) if match[1] in wanted)


def adopt(root: Path, name: str, python: str, uv: str) -> None:
    """Build ``.venvs/<name>`` around ``python`` and write its stamp."""
    present = check(root, name, python)
    sensors = set(re.findall(r"^([a-z0-9-]+)==", (root / "envs/sensors.in").read_text(), re.M))
    lacking = needed(root, name, sensors) - present.keys()
    place = registry.interpreter(root, name).parent.parent
    venv = [uv, "venv", "--quiet", "--allow-existing", "--system-site-packages"]
    subprocess.run([*venv, "--python", python, place], check=True)
    with tempfile.TemporaryDirectory() as folder:
        # On a file: uv takes no more than one "-" for its input, and says less when it fails.
        chosen = Path(folder, "requirements.txt")
        chosen.write_text(requirements(root, name, lacking), encoding="utf-8")
        install = [uv, "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
        if lacking:
            subprocess.run([*install, "--python", place, "-r", chosen], check=True)
    stamp = sha256_file(registry.lock_path(root, name)) + "\n"
    write_text(registry.stamp_path(root, name), stamp)


def main(argv: list[str] | None = None) -> int:
    """Adopt the engine of a Python for one backend."""
    parser = argparse.ArgumentParser(
        prog="llm_energy.environments.external", description=main.__doc__
    )
    parser.add_argument("name", choices=sorted(registry.CUDA_ONLY))
    parser.add_argument("--python", required=True, help="the Python that has the engine")
    parser.add_argument("--uv", default="uv", help="the uv to run (default: the one on PATH)")
    arguments = parser.parse_args(argv)
    return run(lambda: adopt(Path(), arguments.name, arguments.python, arguments.uv))


if __name__ == "__main__":
    sys.exit(main())
