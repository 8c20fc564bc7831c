"""Make the report: one HTML file that needs no network, with everything escaped that is not ours.

Scripts run only by their hash (Content-Security-Policy), so what a config, a prompt or an output
holds is text even if its escaping failed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import textwrap
from pathlib import Path
from typing import Any

from llm_energy.publish import answers
from llm_energy.publish.length_plots import length_plots
from llm_energy.publish.plots import describe
from llm_energy.publish.report import abstract, cells, charts, content, methods
from llm_energy.publish.report.library import drawing_library
from llm_energy.publish.report.sources import Sources, read_sources
from llm_energy.records.registry.metrics import METRICS

HERE = Path(__file__).parent
TERMINAL_WIDTH = 100
MOST_DRAWN_AT_ONCE = 500  # rows; of more, a plot is drawn when it comes into view
__all__ = ["Sources", "read_sources", "render"]


def render(sources: Sources, figures: list[dict[str, Any]] = ()) -> str:
    """Return the page of a sweep; ``figures`` is the index of those that were drawn."""
    import jinja2
    from markupsafe import Markup

    script = (HERE / "report.js").read_text(encoding="utf-8")
    library, refused = drawing_library()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    data, plots = page_data(sources)
    if refused:
        print(textwrap.fill(f"The report has no plots: {refused}.", TERMINAL_WIDTH))
        plots = {name: plot | {"reason": plot["reason"] or refused} for name, plot in plots.items()}
    return environment.get_template("report.html.j2").render(
        sweep=sources.plan.sweep,
        banner=abstract.banner(sources),
        abstract=abstract.abstract(sources),
        warnings=abstract.warnings(sources),
        findings=sources.comparisons.findings,
        comparisons=sources.comparisons,
        answers=content.answer_records(sources),
        answer_heads=list(answers.HEADS.values()),
        answers_explained=answers.EXPLANATION,
        plots=plots,
        figures=figures,
        methods=methods.methods(sources),
        software=methods.software(sources),
        backends=sources.backends,
        style=Markup((HERE / "report.css").read_text(encoding="utf-8")),
        library=Markup(library),
        script=Markup(script),
        hashes=[script_hash(library), script_hash(script)],
        data=Markup(script_json(data)),
    )


def page_data(sources: Sources) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the data that the page's script reads, and what the page says of each plot."""
    flags = content.Flags()
    described = describe(
        sources.rows, [row for row in sources.every_row if row.n], sources.comparisons.pareto
    )
    rows = content.row_records(sources, described)
    by_length = length_plots(sources.every_row, sources.phases)
    plots = charts.charts(described, by_length)
    data = {
        "sweep": sources.plan.sweep,
        "large": len(rows) > MOST_DRAWN_AT_ONCE,
        "heads": {name: metric.head for name, metric in METRICS.items()},
        "rows": rows,
        "parts": content.part_records(sources),
        **{name: content.length_records(plot) for name, plot in by_length.items()},
        "windows": content.window_table(sources, flags),
        "flags": flags.records,
        "checks": sources.titles,
        "comparisons": content.comparison_records(sources.comparisons.comparisons),
        "limits": content.limit_records(sources.comparisons.limits),
        "cells": cells.cell_records(sources),
        "specs": {name: plot.pop("spec") for name, plot in plots.items()},
        "timeline": charts.cell_chart(),
    }
    return data, plots


def script_json(value: Any) -> str:
    """Return JSON that can stand inside a script element: nothing in it can end the element.

    >>> script_json("</script>")
    '"\\\\u003c/script\\\\u003e"'
    """
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text


def script_hash(script: str) -> str:
    """Return the source expression of a Content-Security-Policy that lets this very script run."""
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
