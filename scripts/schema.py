"""Print the JSON Schema of a kind of record, for whoever reads the results with other tools."""

from __future__ import annotations

import argparse
import json
import sys

from llm_energy import records
from llm_energy.publish.provenance.provenance import Provenance
from llm_energy.records.comparison import Comparisons
from llm_energy.records.files.storage import schema
from llm_energy.records.load_curve import LoadCurves
from llm_energy.records.phases import Phases
from llm_energy.records.steps import StepFile

RECORDS = {
    "aggregate": records.Aggregate,
    "arrivals": records.ArrivalSet,
    "audit": records.Audit,
    "comparisons": Comparisons,
    "failure": records.Failure,
    "load": LoadCurves,
    "measurement": records.Measurement,
    "metrics": records.MetricsTable,
    "model-manifest": records.ModelManifest,
    "phases": Phases,
    "plan": records.Plan,
    "prompt-request": records.PromptRequest,
    "prompt-set": records.PromptSet,
    "provenance": Provenance,
    "spec": records.Spec,
    "steps": StepFile,
    "table-sources": records.TableSources,
    "verdicts": records.Verdicts,
}


def main(argv: list[str] | None = None) -> int:
    """Print the schema of the record that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=RECORDS, help="the kind of record")
    record = RECORDS[parser.parse_args(argv).name]
    print(json.dumps(schema(record), indent=2, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
