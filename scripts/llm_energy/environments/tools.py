"""Say in one line which program of the system a command needs, and how to get it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable

from llm_energy.core.errors import LlmEnergyError

# What asks for it, the programs of which one must be there, and how to get one or do without.
NEEDED = {
    "conda": (
        "--use-conda",
        ("conda",),
        "install Miniforge or load your cluster's conda module, or leave --use-conda out and build "
        "the environments with `make envs`",
    ),
    "apptainer": (
        "--sdm apptainer",
        ("apptainer", "singularity"),
        "install Apptainer or load your cluster's module of it, or leave --sdm out and build the "
        "environments with `make envs`",
    ),
    "slurm": (
        "the slurm profile",
        ("sbatch",),
        "run it on a login node of your cluster (Debian's client: apt-get install slurm-client), "
        "or leave --profile out to measure on this host",
    ),
    "make": ("`make envs`", ("make",), "install it (Debian: apt-get install make)"),
}


def missing(names: Iterable[str]) -> list[str]:
    """Return one sentence for every tool of ``names`` that is not on the PATH.

    Names of other things, such as the executors that need no program, are passed over.
    """
    found = []
    for name in names:
        if name in NEEDED and not any(map(shutil.which, NEEDED[name][1])):
            asker, programs, remedy = NEEDED[name]
            found.append(f"{asker} needs {' or '.join(programs)}, not found on the PATH: {remedy}")
    return found


def require(names: Iterable[str]) -> None:
    """Raise LlmEnergyError with one line for every tool of ``names`` that is missing."""
    if sentences := missing(names):
        raise LlmEnergyError("\n".join(sentences))
