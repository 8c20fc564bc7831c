"""Let a run of the workflow say one line of each step that is done."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Collection, Iterable


class OneLineAStep(logging.Filter):
    """Keep what Snakemake says between jobs from a handler, and say what is done in its place.

    ``quiet`` are rules whose jobs say themselves what they do. What the user silenced comes to no
    filter that stands behind Snakemake's own, and stays silent.
    """

    def __init__(self, quiet: Collection[str] = ()):
        super().__init__()
        self._quiet = quiet
        self._rules: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a record is none of those between jobs; the last of these is told here."""
        event = getattr(getattr(record, "event", None), "name", None)
        if event == "JOB_FINISHED":
            self._rules += re.findall(r"\(Rule: (\w+)\)", record.getMessage())
        elif event == "PROGRESS":
            told = [rule for rule in dict.fromkeys(self._rules) if rule not in self._quiet]
            self._rules = []
            if told and told != ["all"]:
                line = f"{', '.join(told)}: done ({record.done} of {record.total} steps)"
                print(line, file=sys.stderr)
        else:
            return event != "JOB_STARTED" and record.msg != "Select jobs to execute..."
        return False


def one_line_a_step(handlers: Iterable[logging.Handler], quiet: Collection[str]) -> None:
    """Let the terminal's handlers say one line of each step that is done; log files keep all."""
    for handler in handlers:
        if not isinstance(handler, logging.FileHandler):
            handler.addFilter(OneLineAStep(quiet))
