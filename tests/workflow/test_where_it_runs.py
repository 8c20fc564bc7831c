"""The routes to run by: what each needs of the system, containers, and other batch systems."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support import fake_apptainer
from support.project import ROOT, Project
from support.slurm_project import simulated_sweep

from llm_energy.core.errors import LlmEnergyError
from llm_energy.environments import registry, tools

CONTAINERFILE = ROOT / "envs" / "Containerfile"


@pytest.fixture
def project(tmp_path):
    """Return a copy of the project with a sweep on the simulated host, as sim.yaml."""
    project = Project(tmp_path / "copy")
    project.write_config("sim", simulated_sweep("sim"))
    return project


def on_bare_path(project: Project, *arguments: str) -> list[str]:
    """Run Snakemake where the system has nothing but the shell's own tools; give what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--configfile", "sim.yaml", *arguments],
        cwd=project.folder,
        env=os.environ | {"PATH": str(_bare_path(project.folder.parent))},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 1, done.stdout
    return done.stdout.splitlines()


def _bare_path(folder: Path) -> Path:
    bare = folder / "bare"
    bare.mkdir()
    for name in ("sh", "bash", "git", "which", "env"):
        (bare / name).symlink_to(shutil.which(name))
    return bare


# What is missing


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ("--cores", "1", "--use-conda"),
            r"error: --use-conda needs conda, not found on the PATH: install Miniforge .*",
        ),
        (
            ("--cores", "1", "--sdm", "apptainer"),
            r"error: --sdm apptainer needs apptainer or singularity, not found on the PATH: .*",
        ),
        (
            ("--profile", "profiles/slurm"),
            r"error: the slurm profile needs sbatch, not found on the PATH: run it on a login .*",
        ),
    ],
)
def test_a_missing_program_is_named_in_one_line_with_how_to_get_it(project, arguments, line):
    said = on_bare_path(project, *arguments)
    assert [text for text in said if re.fullmatch(line, text)], said
    assert not [text for text in said if "Traceback" in text]


def test_without_make_the_command_that_installs_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    command = registry.install_command("vllm", registry.variant())
    assert command == (
        "make envs BACKENDS=vllm; `make envs` needs make, not found on the PATH: "
        "install it (Debian: apt-get install make)"
    )


def test_tools_that_are_there_and_names_of_other_things_are_no_matter(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    tools.require(["local", "dryrun"])
    with pytest.raises(LlmEnergyError, match=r"needs conda.*\n.*needs sbatch"):
        tools.require(["conda", "slurm"])
    (tmp_path / "conda").touch(mode=0o755)
    tools.require(["conda"])


# Which jobs are submitted


def test_the_profile_says_what_each_rule_needs_that_is_submitted():
    text = (ROOT / "Snakefile").read_text()
    submitted = re.search(r"^SUBMITTED = \((.*)\)$", text, re.MULTILINE)[1]
    profile = yaml.safe_load((ROOT / "profiles" / "slurm" / "profile.yaml").read_text())
    assert set(re.findall(r"\w+", submitted)) == set(profile["set-resources"])


def test_the_profile_of_a_cluster_changes_no_setting_of_the_default_profile():
    default, slurm = (
        yaml.safe_load((ROOT / "profiles" / name / "profile.yaml").read_text())
        for name in ("default", "slurm")
    )
    assert not set(default) & set(slurm)
    assert slurm["set-resources"]["measure"]["tasks"] == 0
    assert slurm["set-resources"]["measure"]["nodes"] == 1


# Containers


def test_every_stage_runs_in_the_image_that_the_config_names(project, tmp_path, monkeypatch):
    image = tmp_path / "workflow.sif"
    image.touch()
    project.write_config("sim", simulated_sweep("sim", containers={"workflow": str(image)}))
    python = registry.interpreter(ROOT, "workflow")
    binaries = fake_apptainer.install(tmp_path / "apptainer", python)
    monkeypatch.setenv("PATH", os.pathsep.join([str(binaries), os.environ["PATH"]]))
    counts = project.jobs("--configfile", "sim.yaml")
    project.snakemake("--configfile", "sim.yaml", "--sdm", "apptainer")
    ran = (tmp_path / "apptainer" / "log").read_text().split()
    assert ran == [str(image)] * (sum(counts.values()) - counts["all"])


def test_an_environment_without_an_image_is_named(project, tmp_path, monkeypatch):
    binaries = fake_apptainer.install(tmp_path / "apptainer", Path(sys.executable))
    monkeypatch.setenv("PATH", os.pathsep.join([str(binaries), os.environ["PATH"]]))
    done = project.snakemake("--configfile", "sim.yaml", "--sdm", "apptainer", check=False)
    assert done.returncode == 1
    assert "the config lacks containers.workflow. docs/environments.md" in done.stdout


def test_images_may_be_named_for_every_environment_of_a_backend():
    schema = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
    assert set(schema["properties"]["containers"]["properties"]) == {
        "workflow",
        *registry.ENGINES,
    }


def test_the_containerfile_has_no_known_fault():
    linter = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([linter, CONTAINERFILE], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_build_step_of_the_containerfile_needs_no_more_than_it_copies(tmp_path):
    text = CONTAINERFILE.read_text()
    for source in re.findall(r"^COPY (\S+) ", text, re.MULTILINE):
        place = tmp_path / source
        shutil.copytree(ROOT / source, place) if (ROOT / source).is_dir() else shutil.copy2(
            ROOT / source, place
        )
    [command] = re.findall(r"^RUN (make .*?) &&", text, re.MULTILINE)
    done = subprocess.run(
        ["sh", "-c", f"{command} PYTHON={sys.executable}"],
        cwd=tmp_path,
        env=os.environ | {"ENVIRONMENT": "pytest"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert registry.is_installed(tmp_path, "pytest")


# conda's torch


@pytest.mark.parametrize("imports", [True, False])
def test_the_cpu_build_of_torch_is_put_in_only_where_the_other_does_not_import(tmp_path, imports):
    python = tmp_path / "python"
    python.write_text(
        "#!/bin/sh\n"
        f'case "$2" in "import torch") exit {0 if imports else 1};; *) echo 2.13.0;; esac\n'
    )
    uv = tmp_path / "uv"
    uv.write_text(f'#!/bin/sh\necho "$@" > {tmp_path / "asked"}\n')
    for program in (python, uv):
        program.chmod(0o755)
    for name in ("pytorch-cpu", "vllm-cpu"):
        subprocess.run(
            ["bash", ROOT / "envs" / f"{name}.post-deploy.sh"],
            env={"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
            check=True,
        )
        assert (tmp_path / "asked").exists() != imports
    if not imports:
        asked = (tmp_path / "asked").read_text()
        assert f"--python {python} " in asked
        assert asked.endswith("--torch-backend cpu torch==2.13.0\n")


# Other batch systems


@pytest.mark.parametrize("system", ["kubernetes", "aws-batch"])
def test_the_profile_of_another_batch_system_is_one_that_its_plugin_takes(project, system):
    if not registry.is_installed(ROOT, "executors"):
        pytest.skip("environment executors is not built here: run make test-envs")
    done = subprocess.run(
        [
            *(registry.interpreter(ROOT, "executors"), "-m", "snakemake"),
            *("--profile", f"profiles/{system}", "--configfile", "sim.yaml", "--list-rules"),
        ],
        cwd=project.folder,
        env=os.environ | {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout
    assert "measure (Measure one repeat of one cell.)" in done.stdout
