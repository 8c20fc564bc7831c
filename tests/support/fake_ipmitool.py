"""A stand-in for ipmitool that answers from a script, one answer a call."""

from __future__ import annotations

from pathlib import Path

# As ipmitool 1.8.19 prints it.
ANSWER = """
    Instantaneous power reading:                   {watts} Watts
    Minimum during sampling period:                  6 Watts
    Maximum during sampling period:                430 Watts
    Average power reading over sample period:      219 Watts
    IPMI timestamp:            Tue Nov 28 09:42:21 2023    Sampling period:  5 s
    Power reading state is:                   {state}

"""
NO_DEVICE = "Could not open device at /dev/ipmi0 or /dev/ipmi/0: No such file or directory"
SCRIPT = """#!/bin/sh
echo "$@" >> {folder}/asked
case "$*" in
*-E*) [ "$IPMI_PASSWORD" = {password} ] || {{
    echo "> RAKP 2 HMAC is invalid" >&2
    echo "Error: Unable to establish IPMI v2 / RMCP+ session" >&2
    exit 1
}};;
esac
number=$(wc -l < {folder}/asked)
[ -f {folder}/$number ] || number=last
[ -f {folder}/$number.error ] && {{ cat {folder}/$number.error >&2; exit 1; }}
cat {folder}/$number
"""


class FakeIpmitool:
    """Put ``bin/ipmitool`` below a folder; it answers each call as it was told to."""

    def __init__(self, folder: Path, password: str) -> None:
        self.bin = folder / "bin"
        self._folder = folder
        self.bin.mkdir()
        tool = self.bin / "ipmitool"
        tool.write_text(SCRIPT.format(folder=folder, password=password))
        tool.chmod(0o755)

    def answer(self, *watts: int | str | None) -> None:
        """Give these answers, the last one for good: a power, a text, or None for a failure."""
        for number, value in enumerate(watts, 1):
            text = (
                value if isinstance(value, str) else ANSWER.format(watts=value, state="activated")
            )
            names = [str(number)] + (["last"] if number == len(watts) else [])
            for name in names:
                (self._folder / name).write_text(text)
                if value is None:
                    (self._folder / f"{name}.error").write_text(f"{NO_DEVICE}\n")

    @property
    def asked(self) -> list[str]:
        """Return the arguments of each call."""
        return (self._folder / "asked").read_text().splitlines()
