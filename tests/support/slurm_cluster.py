"""A real SLURM of one host, for tests: start its daemons without systemd, and stop just those.

    python3 tests/support/slurm_cluster.py start
    python3 tests/support/slurm_cluster.py stop

It needs root and Debian's packages slurmctld, slurmd, slurm-client and munge. The host plays two
nodes with two GPUs each. The GPUs are stand-ins: character devices that SLURM hands out and nobody
computes on. There is no accounting. A configuration of SLURM that this script did not write is left
alone, with an error.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

MARK = "# Written by tests/support/slurm_cluster.py; gone when it stops."
CONFIG = Path("/etc/slurm")  # the job steps of the executor look nowhere else
FOLDER = Path("/run/llm-energy-test-slurm")
NODES = {"node1": ("/dev/zero", "/dev/full"), "node2": ("/dev/random", "/dev/urandom")}
PORTS = {"slurmctld": 26817, "node1": 26818, "node2": 26819}
DAEMONS = ("munged", "slurmctld", "slurmd")
START_LIMIT_S = 60


def slurm_conf(host: str) -> str:
    """Write the configuration of a cluster of this host; job steps need no control groups."""
    nodes = "\n".join(
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={PORTS[name]} CPUs=16 "
        f"RealMemory=100000 Gres=gpu:standin:{len(gpus)} State=UNKNOWN"
        for name, gpus in NODES.items()
    )
    return f"""{MARK}
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={PORTS["slurmctld"]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={FOLDER}/munge.socket
CryptoType=crypto/munge
StateSaveLocation={FOLDER}/state
SlurmdSpoolDir={FOLDER}/%n
SlurmctldPidFile={FOLDER}/slurmctld.pid
SlurmdPidFile={FOLDER}/%n.pid
SlurmctldLogFile={FOLDER}/slurmctld.log
SlurmdLogFile={FOLDER}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,bf_interval=5
GresTypes=gpu
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MinJobAge=3600
KillWait=2
ReturnToService=2
{nodes}
PartitionName=gpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def gres_conf() -> str:
    """Return gres.conf, which gives every node its stand-in GPUs."""
    lines = [
        f"NodeName={name} Name=gpu Type=standin File={device}"
        for name, devices in NODES.items()
        for device in devices
    ]
    return "\n".join([MARK, "AutoDetect=off", *lines]) + "\n"


def start() -> None:
    """Start munged, slurmctld and a slurmd a node, and wait until the nodes are idle."""
    config = CONFIG / "slurm.conf"
    if config.exists() and MARK not in config.read_text():
        raise SystemExit(f"error: {config} is of another SLURM: the tests leave it alone")
    stop()
    CONFIG.mkdir(exist_ok=True)
    FOLDER.mkdir(mode=0o755)
    for name in ("state", *NODES):
        (FOLDER / name).mkdir()
    config.write_text(slurm_conf(socket.gethostname().partition(".")[0]))
    (CONFIG / "gres.conf").write_text(gres_conf())
    _start_munge()
    _run("slurmctld")
    for name in NODES:
        _run("slurmd", "-N", name)
    _wait_until_idle()


def stop() -> None:
    """End the daemons that this script started, by their pid files, and take its files away."""
    if FOLDER.exists():  # jobs would outlive the daemons
        subprocess.run(["scancel", "--user=root"], capture_output=True)
        _wait_until_nothing_runs()
    for pid_file in sorted(FOLDER.glob("*.pid"), reverse=True):  # munged, which all use, last
        _end(int(pid_file.read_text()))
    shutil.rmtree(FOLDER, ignore_errors=True)
    for name in ("slurm.conf", "gres.conf"):
        path = CONFIG / name
        if path.exists() and MARK in path.read_text():
            path.unlink()


def _start_munge() -> None:
    key = FOLDER / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    _run(
        *("munged", "--force", f"--key-file={key}", f"--socket={FOLDER}/munge.socket"),
        *(f"--pid-file={FOLDER}/a-munged.pid", f"--log-file={FOLDER}/munged.log"),
        f"--seed-file={FOLDER}/munged.seed",
    )


def _run(*command: str) -> None:
    path = os.pathsep.join((os.environ["PATH"], "/usr/sbin", "/sbin"))
    done = subprocess.run(command, env=os.environ | {"PATH": path}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"error: {' '.join(command)}: {done.stderr.strip()}")


def _wait_until_idle() -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        done = subprocess.run(["sinfo", "-h", "-N", "-o", "%T"], capture_output=True, text=True)
        if done.stdout.split() == ["idle"] * len(NODES):
            return
        time.sleep(0.2)
    logs = "\n".join(path.read_text()[-2000:] for path in sorted(FOLDER.glob("*.log")))
    raise SystemExit(f"error: no idle nodes after {START_LIMIT_S} s: {done}\n{logs}")


def _wait_until_nothing_runs() -> None:
    """Wait for the jobs that were cancelled; come back too where no daemon answers."""
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        shown = subprocess.run(["squeue", "--noheader"], capture_output=True, text=True)
        if shown.returncode or not shown.stdout:
            return
        time.sleep(0.2)


def _end(pid: int) -> None:
    """Ask a daemon to end and wait until it has; leave a process alone that is none of them."""
    deadline = time.monotonic() + START_LIMIT_S
    try:
        if Path(f"/proc/{pid}/comm").read_text().strip() not in DAEMONS:
            return
        os.kill(pid, signal.SIGTERM)
        while time.monotonic() < deadline:
            os.kill(pid, 0)
            time.sleep(0.05)
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, FileNotFoundError):
        pass


if __name__ == "__main__":
    if sys.argv[1:] not in (["start"], ["stop"]):
        raise SystemExit(f"usage: {sys.argv[0]} start|stop")
    if os.geteuid():
        raise SystemExit(f"error: {sys.argv[0]} must run as root")
    start() if sys.argv[1] == "start" else stop()
