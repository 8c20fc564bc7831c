"""Each backend's process sees its own environment only, and measuring needs none to say so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import builders
from support.project import ROOT

from llm_energy.core.files import read_json
from llm_energy.environments import registry
from llm_energy.records import (
    Measurement,
    MeterSettings,
    Protocol,
    read_record,
    write_record,
)

# What one environment has and another must not: the other engine, and what only the stages use.
FOREIGN = {
    "pytorch": ["vllm", "vllm_bnb_plugin", "snakemake", "pytest"],
    "vllm": ["accelerate", "gguf", "snakemake", "pytest"],
    "workflow": ["torch", "transformers", "vllm", "bitsandbytes"],
}
BRIEF = Protocol(
    deep_idle_duration_s=0,
    loaded_idle_duration_s=0,
    hot_idle_duration_s=0,
    preflight_max_wait_s=0,
)


@pytest.mark.parametrize("name", sorted(FOREIGN))
def test_no_package_of_another_environment_can_be_imported(name: str) -> None:
    variant = registry.variant()
    place = name if name == "workflow" else registry.environment_name(name, variant)
    if not registry.stamp_path(ROOT, place).is_file():
        pytest.skip(f"environment {place} is not built here")
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    try: importlib.import_module(name)\n"
        "    except ModuleNotFoundError as error: assert error.name == name, error\n"
        "    else: print(name)\n"
    )
    command = [registry.interpreter(ROOT, place), "-c", code, *FOREIGN[name]]
    # As the measure rule starts it: without what the shell would put on the path.
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, env=clean, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_the_measure_rule_drops_what_would_reach_into_the_environment() -> None:
    rule = (ROOT / "workflow" / "rules" / "measure.smk").read_text(encoding="utf-8")
    (line,) = [line for line in rule.splitlines() if line.strip().startswith("unset ")]
    assert "PYTHONPATH" in line.split()


@pytest.mark.parametrize("backend", ["pytorch", "vllm"])
def test_a_bare_interpreter_says_which_backend_is_missing_and_how_to_install_it(
    tmp_path: Path, backend: str
) -> None:
    spec = builders.spec(
        backend=backend,
        protocol=BRIEF,
        meter=MeterSettings(codecarbon=False, sampling_period_s=None),
    )
    out = tmp_path / "r01.json"
    plan = builders.write_sweep(tmp_path, [])
    write_record(tmp_path / "spec.json", spec)
    options = {
        "--spec": tmp_path / "spec.json",
        "--manifest": tmp_path / "results" / "models" / "m" / "manifest.json",
        "--prompts": plan.parent / "prompts" / "m.json",
        "--plan": plan,
        "--out": out,
    }
    arguments = [str(part) for pair in options.items() for part in pair]
    # -S leaves out every installed package, -E what the shell would add; and the lock is ours.
    command = [sys.executable, "-S", "-E", str(ROOT / "scripts" / "measure.py"), *arguments]
    done = subprocess.run(
        command, env=os.environ | {"TMPDIR": str(tmp_path)}, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr
    measurement = read_record(Measurement, out)
    assert measurement.outcome == "unsupported"
    assert f"make envs BACKENDS={backend}" in measurement.reason
    assert measurement.windows == ()
    assert read_json(out)["host"]["python"]


@pytest.mark.parametrize("part", ["core", "records", "backends.base", "meter", "measure"])
def test_what_measures_is_imported_with_the_standard_library_alone(part: str) -> None:
    code = (
        "import importlib, pkgutil, sys\n"
        "part = importlib.import_module(sys.argv[1])\n"
        "for found in pkgutil.walk_packages(getattr(part, '__path__', []), part.__name__ + '.'):\n"
        "    importlib.import_module(found.name)\n"
    )
    command = [sys.executable, "-S", "-E", "-c", code, f"llm_energy.{part}"]
    done = subprocess.run(command, cwd=ROOT / "scripts", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
