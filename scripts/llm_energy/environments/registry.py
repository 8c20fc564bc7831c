"""Name the isolated environments: which one a backend needs, where it lies, what is pinned in it.

``envs/<name>.txt`` is the complete lock of an environment and ``.venvs/<name>`` what ``make envs``
builds from it; the Makefile asks this module which ones to build.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import sys
from collections.abc import Collection, Iterable
from pathlib import Path

from llm_energy.core.errors import LlmEnergyError
from llm_energy.core.files import sha256_file
from llm_energy.environments import tools
from llm_energy.records.files.paths import ROOT
from llm_energy.records.registry.engines import REGISTRY, SIMULATED, is_simulated

NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")

# The distribution whose version is the engine's, per environment.
ENGINES = {name: package for e in REGISTRY.values() for name, package in e.environments.items()}
# These have one build, for NVIDIA GPUs, whose engine the user installs (see external.py).
CUDA_ONLY = frozenset(id for id, engine in REGISTRY.items() if engine.cuda_only)
# The Python that an environment's lock is for, where it isn't that of all others.
PYTHON = "3.11"
PYTHONS = {name: engine.python for engine in REGISTRY.values() for name in engine.environments}

WORKFLOW = "workflow"


def variant(device: str = "auto", forced: str = "auto") -> str:
    """Choose the build of a backend's environment, ``cpu`` or ``cuda``.

    ``forced`` (the backend's own ``environment`` key) wins over ``device`` (the sweep's), and both
    over what this host has: a cluster's head node has no GPU, though its jobs may get one.
    """
    for choice in (forced, device):
        if choice in ("cpu", "cuda"):
            return choice
        if choice != "auto":
            raise LlmEnergyError(f"device {choice!r}: allowed are auto, cpu, cuda")
    return "cuda" if NVIDIA_DRIVER.exists() or shutil.which("nvidia-smi") else "cpu"


def environment_name(backend: str, variant: str) -> str:
    """Name the environment of a backend's variant.

    >>> environment_name("pytorch", "cpu"), environment_name("pytorch", "cuda")
    ('pytorch-cpu', 'pytorch')
    >>> environment_name("simulated", "cuda"), environment_name("tensorrt", "cpu")
    ('workflow', 'tensorrt')
    >>> environment_name("openai", "cpu")
    'openai'
    """
    if is_simulated(backend):
        return WORKFLOW
    known = REGISTRY[backend].environments if backend in REGISTRY else ()
    name = backend if variant == "cuda" or len(known) == 1 else f"{backend}-{variant}"
    if name not in ENGINES:
        backends = ", ".join(engine for engine in ENGINES if not engine.endswith("-cpu"))
        raise LlmEnergyError(f"no environment for backend {backend!r}: there are {backends}")
    return name


def preparing_name(backends: list[str], device: str) -> str:
    """Name the environment that converts models and tokenises prompts for a sweep's backends.

    >>> preparing_name(["vllm"], "cpu"), preparing_name(["simulated"], "cpu")
    ('pytorch-cpu', 'workflow')
    """
    backend = SIMULATED if all(map(is_simulated, backends)) else "pytorch"
    return environment_name(backend, variant(device))


def engine_package(name: str) -> str:
    """Return the distribution whose version is the engine's version in environment ``name``."""
    return ENGINES[name]


def interpreter(root: Path, name: str) -> Path:
    """Return the path of an environment's Python below the project's root, built or not."""
    return root / ".venvs" / name / "bin" / "python"


def python_version(name: str) -> str:
    """Return the version of Python that an environment's lock is for."""
    return PYTHONS.get(name, PYTHON)


def lock_path(root: Path, name: str) -> Path:
    """Return the path of an environment's lock, which holds every pin and its hashes."""
    return root / "envs" / f"{name}.txt"


def stamp_path(root: Path, name: str) -> Path:
    """Return path of the file that ``make envs`` writes last: the SHA-256 of the lock it used."""
    return root / ".venvs" / name / ".installed"


def is_installed(root: Path, name: str) -> bool:
    """Return whether ``make envs`` has built the environment, and from the lock as it is now."""
    stamp = stamp_path(root, name)
    return stamp.is_file() and stamp.read_text().strip() == sha256_file(lock_path(root, name))


def pins(root: Path, name: str) -> dict[str, str]:
    """Read an environment's lock: every distribution's name and its one version."""
    lines = lock_path(root, name).read_text(encoding="utf-8").splitlines()
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ]+) \\$", "\n".join(lines), re.MULTILINE))


def pinned_version(root: Path, name: str, package: str) -> str:
    """Return the version of ``package`` in an environment's lock; LlmEnergyError if it has none."""
    try:
        return pins(root, name)[package]
    except KeyError:
        raise LlmEnergyError(f"{lock_path(root, name)}: no pin for {package!r}") from None


def let_pip_add_nothing() -> None:
    """Have the pip that conda starts install the pins of ``envs/*.yaml`` and nothing besides.

    They are complete, and what a lock leaves out on purpose would break it.
    """
    os.environ["PIP_NO_DEPS"] = "1"


def require_images(images: Collection[str], names: Iterable[str]) -> None:
    """Raise LlmEnergyError where containers are to be used and an environment has no image."""
    if missing := sorted(set(names) - set(images)):
        keys = ", ".join(f"containers.{name}" for name in missing)
        raise LlmEnergyError(
            f"--sdm apptainer needs an image for each environment; the config lacks {keys}. "
            "docs/environments.md says how to build them"
        )


def make_envs() -> str:
    """Return the command that builds environments, which works in any folder."""
    return "make envs" if Path.cwd() == ROOT else f"make -C {shlex.quote(str(ROOT))} envs"


def install_command(backend: str, wanted: str | None = None) -> str:
    """Return the command that builds a backend's environment.

    The variant ``wanted`` is named only where this host would choose the other one by itself.

    >>> install_command("vllm")
    'make envs BACKENDS=vllm'
    """
    command = f"{make_envs()} BACKENDS={backend}"
    if wanted not in (None, variant()):
        command += f" VARIANT={wanted}"
    return "; ".join([command, *tools.missing(["make"])])


def main(argv: list[str] | None = None) -> int:
    """Print the stamps that ``make envs`` has to make for the given backends."""
    parser = argparse.ArgumentParser(
        prog="llm_energy.environments.registry", description=main.__doc__
    )
    parser.add_argument("backends", nargs="*")
    parser.add_argument("--variant", default="auto")
    arguments = parser.parse_args(argv)
    try:
        chosen = variant(forced=arguments.variant)
        for backend in arguments.backends:
            if backend in CUDA_ONLY and chosen != "cuda":
                raise LlmEnergyError(
                    f"backend {backend!r} needs an NVIDIA GPU and its driver, and this host shows "
                    "neither: in a sweep its cells are rows that say so; docs/tensorrt.md says "
                    f"where it runs (VARIANT=cuda builds for another host)"
                )
            print(stamp_path(Path(), environment_name(backend, chosen)))
    except LlmEnergyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
