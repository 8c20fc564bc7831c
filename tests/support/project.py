"""A copy of the project in a folder of its own, in which tests run the real workflow."""

from __future__ import annotations

import atexit
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from unittest import mock

import yaml

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("Snakefile", "workflow", "scripts", "config", "envs", "profiles")

# Most of what a start of Snakemake costs are its imports. So one process has imported it, and each
# run is a fork of that: the real command line, output and exit, with a copy's own modules.
IMPORTED = """
import json, os, sys
import jsonschema, requests, smart_open, snakemake.cli
snakemake.cli.get_argument_parser()  # imports the plugins

for line in sys.stdin:
    folder, arguments, environment, output = json.loads(line)
    if (child := os.fork()) == 0:
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(os.open(output, os.O_WRONLY | os.O_APPEND), 1)
        os.dup2(1, 2)
        snakemake.cli.main(arguments)
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


ONE_ANSWER = threading.Lock()


@functools.cache
def _imported() -> subprocess.Popen:
    """Start the process that has Snakemake imported; it ends with this one."""
    process = subprocess.Popen(
        [sys.executable, "-c", IMPORTED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(process.communicate)
    return process


def _run_imported(
    arguments: list[str], cwd: Path, env: dict[str, str]
) -> subprocess.CompletedProcess:
    with ONE_ANSWER, tempfile.NamedTemporaryFile("r", errors="replace") as output:
        asked = [str(cwd), arguments, env, output.name]
        process = _imported()
        print(json.dumps(asked), file=process.stdin, flush=True)
        status = int(process.stdout.readline())
        return subprocess.CompletedProcess(arguments, status, output.read())


class Project:
    """Run Snakemake on a copy of the project; the environments are shared with the original."""

    def __init__(self, folder: Path) -> None:
        self.folder = self.root = folder
        folder.mkdir(parents=True, exist_ok=True)
        for part in PARTS:
            source = ROOT / part
            if source.is_dir():
                ignore = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source, folder / part, ignore=ignore)
            else:
                shutil.copy2(source, folder / part)
        (folder / ".venvs").symlink_to(ROOT / ".venvs")

    def write_config(self, name: str, config: dict) -> str:
        """Write a sweep config and give its path, relative to the project."""
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        return path.name

    def snakemake(
        self, *arguments: str, check: bool = True, **environment: str
    ) -> subprocess.CompletedProcess:
        """Run ``snakemake --cores 1`` with ``arguments``; stdout and stderr come as one text.

        With variables of the ``environment``, some of which only a start of Python reads, the
        interpreter is started anew.
        """
        arguments = ["--cores", "1", *arguments]
        # Threads that spin while they wait take each other's time where other work goes on.
        env = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"} | environment
        if environment:
            result = subprocess.run(
                [sys.executable, "-m", "snakemake", *arguments],
                cwd=self.folder,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=env,
            )
        else:
            result = _run_imported(arguments, self.folder, env)
        if check:
            assert result.returncode == 0, result.stdout
        return result

    def jobs(self, *arguments: str) -> dict[str, int]:
        """Return the jobs that a run would do now, by rule."""
        shown = self.snakemake("--dry-run", "--quiet", "rules", *arguments).stdout
        counts = dict(re.findall(r"^(\w+) +(\d+)$", shown, flags=re.MULTILINE))
        counts.pop("total", None)
        return {rule: int(count) for rule, count in counts.items()}

    def read(self, path: str):
        """Read a JSON file of the project."""
        return json.loads((self.folder / path).read_text(encoding="utf-8"))

    def tiny_model(self, name: str, architecture: str) -> str:
        """Build a random model of a few layers and give its folder."""
        python = ROOT / ".venvs" / "pytorch-cpu" / "bin" / "python"
        builder = ROOT / "tests" / "support" / "tiny_model.py"
        folder = self.folder / "local-models" / name
        subprocess.run([python, builder, folder, architecture], check=True, capture_output=True)
        return str(folder)


class Deployed(Project):
    """A folder that snakedeploy makes for a user; its module is the project in a git repository.

    Git is told that the address of the repository is a folder beside it.
    """

    def __init__(self, folder: Path) -> None:
        beside = folder.parent / "git"
        source = Project(beside / "llm-energy")
        git = ["git", "-C", source.folder, "-c", "user.name=a", "-c", "user.email=a@b.c"]
        (source.folder / ".venvs").unlink()
        for command in (["init", "--quiet", "-b", "main"], ["add", "."], ["commit", "-qm", "all"]):
            subprocess.run([*git, *command], check=True)
        self.folder = folder
        self.environment = {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"url.file://{beside}/.insteadOf",
            "GIT_CONFIG_VALUE_0": "https://github.com/lab/",
            "XDG_CACHE_HOME": str(folder.parent / "cache"),
        }
        tool = ROOT / ".venvs" / "publishing" / "bin" / "snakedeploy"
        address = ("https://github.com/lab/llm-energy", folder, "--branch", "main")
        environment = os.environ | self.environment
        subprocess.run([tool, "deploy-workflow", *address], env=environment, check=True)

    def snakemake(self, *arguments: str, **options) -> subprocess.CompletedProcess:
        """Run Snakemake as a project does."""
        with mock.patch.dict(os.environ, self.environment):
            return super().snakemake(*arguments, **options)

    def build_environments(self, command: str) -> None:
        """Stand in for the command that a run says, which builds environments beside the module."""
        [folder] = re.findall(r"make -C (\S+/llm-energy-source/[0-9a-f]{40}) envs", command)
        self.root = Path(folder)
        (self.root / ".venvs").symlink_to(ROOT / ".venvs")


def example(name: str) -> dict:
    """Return the content of an example config."""
    path = ROOT / "config" / "examples" / f"{name}.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def tiny_sweep(folder: str, **changes) -> dict:
    """Return a sweep of one cell on a tiny model that takes seconds."""
    sweep = {
        "name": "tiny",
        "models": [
            {"id": "tiny", "model_name": "tiny", "source": {"kind": "folder", "path": folder}}
        ],
        "backends": ["pytorch"],
        "precisions": ["float32"],
        "workloads": [
            {"id": "b1", "requests": 4, "batching": {"batch_size": 1}},
            {"id": "b4", "requests": 4, "batching": {"batch_size": 4}},
        ],
        "prompts": {"source": "builtin", "chat_template": False},
        "parameters": {"max_output_tokens": 8, "min_output_tokens": 8},
        "device": "cpu",
        "protocol": {
            "repeats": 1,
            "window_min_duration_s": 0.2,
            "deep_idle_duration_s": 0.1,
            "loaded_idle_duration_s": 0.1,
            "hot_idle_duration_s": 0.1,
            "warmup_min_passes": 1,
            "warmup_max_passes": 1,
            "preflight_max_wait_s": 0,
            "thermal_policy": "none",
        },
    }
    return sweep | changes
