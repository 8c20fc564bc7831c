"""The records that stages hand to each other: frozen dataclasses, each with one JSON form.

The same shapes stand as JSON Schema in ``workflow/schemas/``; a test holds the two equal. All
durations are seconds, all times seconds on the host's monotonic clock, all energies joules. Absent
is ``None`` with a reason beside it, never 0.
"""

from __future__ import annotations

from llm_energy.records.interval import (
    BoardActivity,
    ComponentEnergy,
    HostActivity,
    Interval,
    Status,
    TraceSummary,
)
from llm_energy.records.measurement import (
    Clock,
    Condition,
    Failure,
    Host,
    Measurement,
    MeterReport,
    Preflight,
    Quality,
)
from llm_energy.records.model import (
    ModelManifest,
    PromptSet,
    QualityText,
    Request,
)
from llm_energy.records.results import (
    Aggregate,
    AggregateRow,
    Flag,
    Metrics,
    MetricsTable,
    Outlier,
    Severity,
    Statistic,
    Verdict,
    Verdicts,
    VerdictWord,
    check_titles,
)
from llm_energy.records.spec import (
    Arrivals,
    ArrivalSet,
    MeterSettings,
    Note,
    Protocol,
    Sharding,
    Spec,
    ThermalPolicy,
    Workload,
    is_greedy,
)
from llm_energy.records.storage import (
    SCHEMA_VERSION,
    holds_already,
    parse_record,
    read_record,
    rows_text,
    write_record,
    write_rows,
)
from llm_energy.records.window import (
    Completion,
    Histogram,
    Outcome,
    RequestTable,
    SteadyState,
    TrafficReport,
    Window,
)

__all__ = [
    "SCHEMA_VERSION",
    "Aggregate",
    "AggregateRow",
    "ArrivalSet",
    "Arrivals",
    "BoardActivity",
    "Clock",
    "Completion",
    "ComponentEnergy",
    "Condition",
    "Failure",
    "Flag",
    "Histogram",
    "Host",
    "HostActivity",
    "Interval",
    "Measurement",
    "MeterReport",
    "MeterSettings",
    "Metrics",
    "MetricsTable",
    "ModelManifest",
    "Note",
    "Outcome",
    "Outlier",
    "Preflight",
    "PromptSet",
    "Protocol",
    "Quality",
    "QualityText",
    "Request",
    "RequestTable",
    "Severity",
    "Sharding",
    "Spec",
    "Statistic",
    "Status",
    "SteadyState",
    "ThermalPolicy",
    "TraceSummary",
    "TrafficReport",
    "Verdict",
    "VerdictWord",
    "Verdicts",
    "Window",
    "Workload",
    "check_titles",
    "holds_already",
    "is_greedy",
    "parse_record",
    "read_record",
    "rows_text",
    "write_record",
    "write_rows",
]
