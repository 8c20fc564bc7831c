"""Record what a node draws, by its management controller, until Ctrl-C or SIGTERM ends it.

    python scripts/record_node_power.py dcmi --out node7.csv
    python scripts/record_node_power.py dcmi --host bmc7 --user reader --out node7.csv
    python scripts/record_node_power.py redfish https://bmc7 --user reader --out node7.csv

``dcmi`` asks ipmitool, without a host that of this node. The password of a controller on the
network is in the environment variable NODE_POWER_PASSWORD. scripts/wall_meter.py sets the file
beside a sweep. Run it on another host where you can, so that no processor time of the node goes
into it.
"""

from __future__ import annotations

import argparse
import math
import signal
import sys
from functools import partial
from pathlib import Path
from threading import Event

from llm_energy.core.cli import run
from llm_energy.core.errors import LlmEnergyError
from llm_energy.meter.node_power.dcmi import Dcmi
from llm_energy.meter.node_power.recorder import NodeMeter, record
from llm_energy.meter.node_power.redfish import Redfish


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ways = parser.add_subparsers(dest="way", required=True)
    dcmi = ways.add_parser("dcmi", help="by IPMI, with ipmitool")
    dcmi.add_argument("--host", help="that of the controller; else this node's own")
    redfish = ways.add_parser("redfish", help="by Redfish")
    redfish.add_argument("url", help="that of the controller, such as https://bmc7")
    redfish.add_argument("--chassis", help="which one is the node, where several tell a power")
    redfish.add_argument("--ca", type=Path, help="the certificate that signed the controller's")
    for way in (dcmi, redfish):
        way.add_argument("--user", help="who asks the controller over the network")
        way.add_argument("--out", type=Path, required=True, help="the CSV file to write")
        way.add_argument("--period-s", type=float, default=1.0, help="from reading to reading")
    arguments = parser.parse_args(argv)
    return run(lambda: _record(arguments))


def _record(arguments: argparse.Namespace) -> None:
    if not 0 < arguments.period_s < math.inf:
        raise LlmEnergyError(f"--period-s: found {arguments.period_s}, needed seconds above 0")
    meter = _meter(arguments)
    stop = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    say = partial(print, file=sys.stderr, flush=True)
    count, missed = record(meter, arguments.out, arguments.period_s, stop, say)
    say(f"{arguments.out}: {count} readings, {missed} failed")


def _meter(arguments: argparse.Namespace) -> NodeMeter:
    over_network = arguments.way == "redfish" or arguments.host is not None
    if over_network != (arguments.user is not None):
        raise LlmEnergyError(
            "--user: needed where a controller is asked over the network, and only there"
        )
    if arguments.way == "redfish":
        return Redfish(arguments.url, arguments.user, arguments.chassis, arguments.ca)
    return Dcmi(arguments.host, arguments.user)


if __name__ == "__main__":
    sys.exit(main())
