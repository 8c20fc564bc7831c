"""Read a node's power by IPMI: ``ipmitool dcmi power reading`` (DCMI 1.5, section 6.6.1)."""

from __future__ import annotations

import os
import re
import subprocess

from llm_energy.core.errors import LlmEnergyError
from llm_energy.meter.node_power.recorder import PASSWORD, password

POWER = re.compile(r"Instantaneous power reading\s*:\s*(\d+)\s*Watts")
STATE = re.compile(r"Power reading state is\s*:\s*(\w+)")
TIMEOUT_S = 10.0


class Dcmi:
    """Ask the controller of this host, or that of another one over the network."""

    def __init__(self, host: str | None = None, user: str | None = None) -> None:
        self._host = host
        remote = ("-I", "lanplus", "-H", host, "-U", user or "", "-E") if host else ()
        self._command = ("ipmitool", *remote, "dcmi", "power", "reading")
        self._environment = os.environ | {"LC_ALL": "C"}
        if host:  # by the one that -E reads, which depends on the version
            self._environment |= dict.fromkeys(("IPMI_PASSWORD", "IPMITOOL_PASSWORD"), password())

    def power_w(self) -> float:
        """Return what the controller shows; raise LlmEnergyError that says why it shows none."""
        try:
            done = subprocess.run(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=TIMEOUT_S,
                start_new_session=True,  # Ctrl-C ends the recording and no reading
            )
        except FileNotFoundError:
            raise LlmEnergyError(
                "ipmitool is not on the PATH: install the package of that name, or read the "
                "controller by Redfish"
            ) from None
        except subprocess.TimeoutExpired:
            raise LlmEnergyError(f"ipmitool gave no answer in {TIMEOUT_S:g} s") from None
        if done.returncode != 0:
            said = " ".join((done.stderr or done.stdout).split()) or f"status {done.returncode}"
            raise LlmEnergyError(f"ipmitool: {said}{self._remedy(said)}")
        power, state = POWER.search(done.stdout), STATE.search(done.stdout)
        if power is None or (state and state[1] != "activated") or not int(power[1]):
            said = "; ".join(" ".join(line.split()) for line in done.stdout.splitlines() if line)
            raise LlmEnergyError(f"ipmitool: the controller tells no power: {said or 'nothing'}")
        return float(power[1])

    def _remedy(self, said: str) -> str:
        if self._host and ("RAKP" in said or "Unable to establish" in said):
            return f" (a wrong user or password, see {PASSWORD}, or {self._host} is no controller)"
        if "Could not open device" in said:
            return " (load the module ipmi_devintf and run as root, or name the controller's host)"
        return ""
