"""A node's power by its management controller: what is read, what is written, what is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from threading import Event

import pytest
import record_node_power as script
from support.fake_ipmitool import ANSWER, FakeIpmitool
from support.fake_redfish import ROOT, certificate, chassis, environment, power, serving

from llm_energy.analysis.energy import wall_meter
from llm_energy.core.errors import LlmEnergyError
from llm_energy.meter.node_power import dcmi
from llm_energy.meter.node_power.dcmi import Dcmi
from llm_energy.meter.node_power.recorder import PASSWORD, record
from llm_energy.meter.node_power.redfish import Redfish

SECRET = "correct-horse"


@pytest.fixture
def ipmitool(tmp_path, monkeypatch):
    tool = FakeIpmitool(tmp_path, SECRET)
    monkeypatch.setenv("PATH", f"{tool.bin}{os.pathsep}{os.environ['PATH']}")
    return tool


@pytest.fixture
def secret(monkeypatch):
    monkeypatch.setenv(PASSWORD, SECRET)


class After(Event):
    """Be set once it was waited for so many times, without any waiting."""

    def __init__(self, times):
        super().__init__()
        self.left = times

    def wait(self, timeout=None):
        self.left -= 1
        return self.left < 0


# by IPMI


def test_ipmitool_of_this_node_is_asked_without_a_password(ipmitool, monkeypatch):
    monkeypatch.delenv(PASSWORD, raising=False)
    ipmitool.answer(220)
    assert Dcmi().power_w() == 220.0
    assert ipmitool.asked == ["dcmi power reading"]


def test_the_password_of_another_host_goes_by_the_environment_alone(ipmitool, secret):
    ipmitool.answer(431)
    assert Dcmi("bmc7", "reader").power_w() == 431.0
    assert ipmitool.asked == ["-I lanplus -H bmc7 -U reader -E dcmi power reading"]


def test_a_wrong_password_is_one_error_that_does_not_show_it(ipmitool, monkeypatch):
    monkeypatch.setenv(PASSWORD, "battery-staple")
    ipmitool.answer(431)
    with pytest.raises(LlmEnergyError, match=f"wrong user or password, see {PASSWORD}") as found:
        Dcmi("bmc7", "reader").power_w()
    assert "battery-staple" not in str(found.value)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (None, "load the module ipmi_devintf and run as root"),
        ("", "tells no power: nothing"),
        (ANSWER.format(watts=220, state="deactivated"), "Power reading state is: deactivated"),
        (ANSWER.format(watts=0, state="activated"), "tells no power"),
    ],
)
def test_what_is_no_reading_is_said(ipmitool, answer, told):
    ipmitool.answer(answer)
    with pytest.raises(LlmEnergyError, match=told):
        Dcmi().power_w()


def test_a_missing_tool_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LlmEnergyError, match="ipmitool is not on the PATH: install the package"):
        Dcmi().power_w()


def test_a_tool_that_hangs_is_given_up(ipmitool, monkeypatch):
    (ipmitool.bin / "ipmitool").write_text("#!/bin/sh\nexec sleep 9\n")
    monkeypatch.setattr(dcmi, "TIMEOUT_S", 0.2)
    with pytest.raises(LlmEnergyError, match=r"no answer in 0\.2 s"):
        Dcmi().power_w()


# by Redfish


@pytest.mark.parametrize(
    ("resources", "asked", "watts"),
    [
        (chassis(node=environment(345.5)), None, 345.5),
        (chassis(node=power(344)), None, 344.0),
        (chassis(node=environment(None) | power(344)), None, 344.0),
        (chassis(node=environment(345.5) | power(1)), None, 345.5),
        (chassis(node=power(500), fan={}), None, 500.0),
        (chassis(node=power(500), GPU_1=environment(90)), "node", 500.0),
    ],
)
def test_the_one_chassis_that_tells_a_power_is_read(resources, asked, watts, secret):
    with serving(resources, "reader", SECRET) as url:
        meter = Redfish(url, "reader", asked)
        assert [meter.power_w(), meter.power_w()] == [watts, watts]


@pytest.mark.parametrize(
    ("resources", "asked", "told"),
    [
        (chassis(node=power(500), GPU_1=environment(90)), None, "GPU_1, node tell a power: choose"),
        (chassis(node=power(500)), "rack", "of its chassis node, 'rack' tells no power"),
        (chassis(node=power(None), fan={}), None, "of its chassis node, fan, none tells a power"),
        (chassis(), None, "of its chassis none, none tells a power"),
        (chassis(node={"Power": {"PowerControl": "?"}}), None, "none tells a power"),
        ({ROOT: {"Members": [{"@odata.id": "http://elsewhere/1"}]}}, None, "none tells a power"),
        ({ROOT: {"Location": "http://127.0.0.1:9/"}}, None, "answered 302"),
        ({ROOT: 503}, None, "answered 503"),
        ({}, None, "answered 404"),
        ({ROOT: "<html>"}, None, "no JSON object: no Redfish service"),
        ({ROOT: "[]"}, None, "no JSON object"),
    ],
)
def test_a_service_without_one_power_is_said(resources, asked, told, secret):
    with serving(resources, "reader", SECRET) as url, pytest.raises(LlmEnergyError) as found:
        Redfish(url, "reader", asked).power_w()
    assert told in str(found.value)
    assert url in str(found.value)


def test_a_wrong_password_of_redfish_is_one_error(monkeypatch):
    monkeypatch.setenv(PASSWORD, "battery-staple")
    service = serving(chassis(node=power(1)), "reader", SECRET)
    with service as url, pytest.raises(LlmEnergyError, match=PASSWORD) as found:
        Redfish(url, "reader").power_w()
    assert "answered 401 Unauthorized: a wrong user or password" in str(found.value)
    assert "battery-staple" not in str(found.value)


def test_nobody_there_is_said(secret):
    with serving({}, "reader", SECRET) as url:
        pass
    with pytest.raises(LlmEnergyError, match=r"cannot be asked: .*refused"):
        Redfish(url, "reader").power_w()


def test_a_certificate_that_a_controller_signed_itself_must_be_given(tmp_path, secret):
    own = certificate(tmp_path)
    with serving(chassis(node=power(500)), "reader", SECRET, own) as url:
        assert Redfish(url, "reader", ca=own).power_w() == 500.0
        with pytest.raises(LlmEnergyError, match="give the certificate that signed its own"):
            Redfish(url, "reader").power_w()


def test_no_password_goes_in_the_clear(secret):
    with pytest.raises(LlmEnergyError, match="http://bmc7: needs https://"):
        Redfish("http://bmc7", "reader")


# the recording


def test_readings_are_what_a_wall_meter_is_read_from(ipmitool, tmp_path):
    """A reading that fails is told once, and leaves a gap."""
    ipmitool.answer(220, 221, None, None, 224)
    said = []
    path = tmp_path / "node.csv"
    assert record(Dcmi(), path, 1.0, After(4), said.append) == (3, 2)
    assert [one.power_w for one in wall_meter.read(path)] == [220.0, 221.0, 224.0]
    times_s = [one.time_s for one in wall_meter.read(path)]
    assert times_s == sorted(times_s)
    assert abs(time.time() - times_s[-1]) < 60
    assert len(said) == 1
    assert "asking on: ipmitool: Could not open device" in said[0]


def test_without_a_first_reading_there_is_no_file(ipmitool, tmp_path):
    ipmitool.answer(None)
    with pytest.raises(LlmEnergyError, match="Could not open device"):
        record(Dcmi(), tmp_path / "node.csv", 1.0, After(9), print)
    assert not (tmp_path / "node.csv").exists()


def test_a_place_that_cannot_be_written_is_said(ipmitool, tmp_path):
    ipmitool.answer(220)
    with pytest.raises(LlmEnergyError, match=r"node\.csv: cannot be written: No such file"):
        record(Dcmi(), tmp_path / "none" / "node.csv", 1.0, After(9), print)


def test_a_file_that_is_there_is_kept(ipmitool, tmp_path):
    path = tmp_path / "node.csv"
    path.write_text("measured yesterday")
    with pytest.raises(LlmEnergyError, match="exists already; name another file"):
        record(Dcmi(), path, 1.0, After(9), print)
    assert path.read_text() == "measured yesterday"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["dcmi", "--host", "bmc7"], "--user: needed where a controller is asked over the network"),
        (["redfish", "https://bmc7"], "--user: needed"),
        (["dcmi", "--user", "reader"], "and only there"),
        (["redfish", "https://bmc7", "--user", "u"], f"variable {PASSWORD} is not set"),
        (["redfish", "https://bmc7", "--user", "u", "--ca", "/none"], "is not set"),
        (["dcmi", "--period-s", "0"], "--period-s: found 0.0, needed seconds above 0"),
    ],
)
def test_a_command_that_lacks_something_is_one_error(words, told, monkeypatch, capsys, tmp_path):
    monkeypatch.delenv(PASSWORD, raising=False)
    assert script.main([*words, "--out", str(tmp_path / "node.csv")]) == 1
    assert told in capsys.readouterr().err


def test_a_certificate_that_cannot_be_read_is_one_error(secret, tmp_path):
    with pytest.raises(LlmEnergyError, match=r"none\.pem: no file of certificates"):
        Redfish("https://bmc7", "reader", ca=tmp_path / "none.pem")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_recording_with_its_file_whole(ipmitool, tmp_path, number):
    ipmitool.answer(220)
    path = tmp_path / "node.csv"
    words = [sys.executable, script.__file__, "dcmi", "--out", str(path), "--period-s", "0.05"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as recording:
        begin_s = time.monotonic()
        while not (path.exists() and path.read_text().count("\n") > 3):
            assert time.monotonic() - begin_s < 30
            time.sleep(0.02)
        recording.send_signal(number)
        _, said = recording.communicate(timeout=30)
    assert recording.returncode == 0
    lines = path.read_text().splitlines()
    assert said.strip() == f"{path}: {len(lines) - 1} readings, 0 failed"
    assert lines[0] == "time,power_w"
    assert {line.partition(",")[2] for line in lines[1:]} == {"220"}
