"""A run says one line of each step, and its log file keeps what Snakemake says."""

from __future__ import annotations

import logging

from snakemake_interface_logger_plugins.common import LogEvent

from llm_energy.core.terminal import one_line_a_step


def test_each_step_is_one_line_on_the_terminal_and_whole_in_the_log(tmp_path, capsys):
    logger = logging.Logger("of the test")
    shown, log = logging.StreamHandler(), logging.FileHandler(tmp_path / "log")
    for handler in (shown, log):
        logger.addHandler(handler)
    one_line_a_step(logger.handlers, ["measure"])

    def done(rule: str, number: int) -> None:
        logger.info("Select jobs to execute...")
        logger.info("Execute 1 jobs...", extra={"event": LogEvent.JOB_STARTED})
        logger.info(f"Finished jobid: 3 (Rule: {rule})", extra={"event": LogEvent.JOB_FINISHED})
        progress = {"event": LogEvent.PROGRESS, "done": number, "total": 4}
        logger.info("progress", extra=progress)

    for number, rule in enumerate(("models", "measure", "tables", "all"), 1):
        done(rule, number)
    logger.warning("Something else")
    assert capsys.readouterr().err.splitlines() == [
        "models: done (1 of 4 steps)",
        "tables: done (3 of 4 steps)",
        "Something else",
    ]
    assert (tmp_path / "log").read_text().count("Finished jobid: 3") == 4
