"""Inspect this host and say what can be measured on it, how well, and what would mend the rest."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from llm_energy.core.cli import run
from llm_energy.measure import host, preflight
from llm_energy.measure.doctor import findings, self_test
from llm_energy.meter.meter import open_meter
from llm_energy.records import MeterSettings
from llm_energy.records.files.paths import ROOT

IDLE_S = 5.0
SELF_TEST_S = 10.0


def main(argv: list[str] | None = None) -> int:
    """Parse the command line, examine the host, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument(
        "--idle-s", type=float, default=IDLE_S, metavar="SECONDS", help="how long to watch it idle"
    )
    parser.add_argument(
        "--no-self-test", action="store_true", help="put no load on the GPUs (saves a minute)"
    )
    arguments = parser.parse_args(argv)
    return run(lambda: _print(arguments))


def _print(arguments: argparse.Namespace) -> None:
    found = findings.findings(_examine(arguments), ROOT)
    if arguments.json:
        print(
            json.dumps(
                {"conclusion": findings.conclusion(found), "findings": [asdict(f) for f in found]},
                indent=2,
            )
        )
    else:
        print(findings.table(found))
        print(f"\n{findings.conclusion(found)}")


def _examine(arguments: argparse.Namespace) -> findings.Examination:
    meter = open_meter(MeterSettings(sampling_period_s=None))
    try:
        free_bytes = preflight.free_disk_bytes(Path.cwd())
        conditions = tuple(preflight.conditions(meter.glance(), None, free_bytes))
        meter.measure_ticks()
        idle = findings.idle_interval(meter, arguments.idle_s)
        gpus, report = meter.gpus(), meter.report()
    finally:
        meter.close()
    return findings.Examination(
        idle=idle,
        gpus=gpus,
        report=report,
        conditions=conditions,
        settings=host.describe(ROOT, gpus).settings,
        # Each run of it has a meter of its own.
        self_tests=() if arguments.no_self_test else self_test.of_gpus(gpus, SELF_TEST_S),
    )


if __name__ == "__main__":
    sys.exit(main())
