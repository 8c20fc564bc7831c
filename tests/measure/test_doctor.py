"""The doctor tells the truth about a host: what it can measure, why not, and what would mend it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support import builders

from llm_energy.core import locks
from llm_energy.measure.doctor import findings
from llm_energy.measure.doctor.self_test import SelfTest
from llm_energy.records import ComponentEnergy, Condition, Interval, MeterReport

ROOT = Path(__file__).resolve().parents[2]
GPU = {
    "uuid": "GPU-1",
    "power_limit_w": 700.0,
    "default_power_limit_w": 700.0,
    "persistence_mode": True,
}
REPORT = MeterReport({"GPU-1": 0.1}, None, None, "not asked for", False)


def examination(*energy: ComponentEnergy, **changes) -> findings.Examination:
    healthy = findings.Examination(
        idle=Interval("deep_idle", 0.0, 10.0, energy or builders.energy(10.0)),
        gpus=(GPU,),
        report=REPORT,
        conditions=(Condition("host load", True, "0.1 a processor", "at most 0.5"),),
        settings={"governor": "performance", "turbo": None},
    )
    return replace(healthy, **changes)


def found(seen: findings.Examination) -> dict[str, findings.Finding]:
    return {finding.about: finding for finding in findings.findings(seen, ROOT)}


def test_a_component_is_measured_estimated_or_unavailable_with_its_idle_power():
    by_name = found(examination())
    gpu = by_name["GPU energy of GPU-1"]
    assert (gpu.word, gpu.found) == ("measured", "100.0 W idle by nvml_total_energy")
    assert by_name["memory energy"].word == "estimated"
    assert (by_name["CPU energy"].word, by_name["CPU energy"].found) == (
        "unavailable",
        "powercap is not readable",
    )


def test_a_counter_without_permission_comes_with_the_exact_command():
    reason = "energy_uj is not readable; until the next boot: sudo chmod o+r /sys/x"
    part = ComponentEnergy("cpu", "package-0", "unavailable", "unavailable", None, reason)
    cpu = found(examination(part))["CPU energy of package-0"]
    assert cpu.found == "energy_uj is not readable"
    assert cpu.remedy == "until the next boot: sudo chmod o+r /sys/x"


def test_the_tick_is_said_as_what_it_does_to_a_window():
    counter = found(examination())["counter of GPU-1"]
    assert counter.word == "good"
    assert "every 100 ms" in counter.found
    assert "30 s is known to 0.33%" in counter.found
    still = examination(report=replace(REPORT, counter_tick_s={"GPU-1": None}))
    assert found(still)["counter of GPU-1"].word == "problem"


@pytest.mark.parametrize(
    ("change", "about", "command"),
    [
        ({"power_limit_w": 400.0}, "power limit of GPU-1", "sudo nvidia-smi -i GPU-1 -pl 700"),
        ({"persistence_mode": False}, "persistence of GPU-1", "sudo nvidia-smi -i GPU-1 -pm 1"),
    ],
)
def test_a_gpu_that_is_set_otherwise_comes_with_the_command_that_sets_it(change, about, command):
    assert about not in found(examination())
    finding = found(examination(gpus=(GPU | change,)))[about]
    assert (finding.word, finding.remedy) == ("problem", command)


def test_a_condition_that_does_not_hold_is_a_problem():
    broken = Condition("host load", False, "3.0 a processor", "at most 0.5")
    finding = found(examination(conditions=(broken,)))["host load"]
    assert (finding.word, finding.remedy) == ("problem", "allowed is at most 0.5")


@pytest.mark.parametrize(
    ("test", "word"),
    [
        (SelfTest("GPU-1", 10.0, 1.0, 1.0, 1.0, 1.01, 0.97), "good"),
        (SelfTest("GPU-1", 10.0, 1.0, 1.0, 1.0, 0.8, 1.0), "problem"),
        (SelfTest("GPU-1", 10.0, 1.0, 1.0, 1.0, 1.0, 1.2), "problem"),
        (SelfTest("GPU-1", 10.0, reason="a load needs PyTorch"), "unavailable"),
    ],
)
def test_the_self_test_of_the_sensors_is_judged(test, word):
    assert found(examination(self_tests=(test,)))["self-test of GPU-1"].word == word


def test_a_held_lock_is_seen_without_waiting_for_it():
    name = f"llm-energy-test-doctor-{os.getpid()}"
    assert findings._lock(name).word == "good"
    with locks.exclusive_host(name):
        assert findings._lock(name).word == "problem"
    assert findings._lock(name).word == "good"


def test_a_backend_that_is_not_installed_comes_with_its_command(tmp_path):
    (tmp_path / "envs").symlink_to(ROOT / "envs")
    engines = {f.about: f for f in findings.findings(examination(), tmp_path)}
    assert engines["backend vllm"].word == "unavailable"
    assert engines["backend vllm"].remedy == "make envs BACKENDS=vllm"


def test_the_conclusion_never_calls_an_estimate_measured():
    measured = findings.conclusion(findings.findings(examination(), ROOT))
    assert measured.startswith("Measured here: GPU energy. Estimated: memory energy.")
    none = examination(*builders.estimated_only(10.0), gpus=())
    said = findings.conclusion(findings.findings(none, ROOT))
    assert said.startswith("Nothing can be measured here: every joule will be an estimate")


def test_the_table_shows_every_finding_and_its_remedy():
    listed = findings.findings(examination(), ROOT)
    text = findings.table(listed)
    for finding in listed:
        assert finding.about in text
        assert finding.remedy is None or f"-> {finding.remedy}" in text


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_the_command_examines_this_host(options):
    """Whatever this host is, the command ends well and says of each component how it is known."""
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/doctor.py", "--idle-s", "0.2", "--no-self-test", *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    if options:
        names = {f["about"].partition(" of ")[0] for f in json.loads(done.stdout)["findings"]}
        assert {"GPU energy", "CPU energy", "memory energy", "measuring lock"} <= names
    else:
        assert done.stdout.rstrip().splitlines()[-1].startswith(("Measured", "Nothing"))
