"""Patterns below a sweep's folder: what an archive must hold, and what is made from that alone."""

from __future__ import annotations

from pathlib import Path

from llm_energy.records.files.paths import (
    ANY,
    BESIDE,
    aggregate,
    arrivals,
    audit,
    comparisons,
    config,
    data,
    figure,
    load,
    measurement,
    metrics,
    phases,
    plan,
    prompts,
    provenance,
    report,
    spec,
    table,
    verdicts,
)

_HERE = Path()
_REPEAT = measurement(_HERE, ANY, ANY, "r*")
MEASURED = tuple(
    str(path)
    for path in (
        *(plan(_HERE), config(_HERE), arrivals(_HERE), spec(_HERE, ANY, ANY), prompts(_HERE, ANY)),
        *(_REPEAT, *(beside(_REPEAT) for beside in BESIDE)),
    )
)
MADE = tuple(
    str(path)
    for path in (
        *(audit(_HERE, ANY), verdicts(_HERE, ANY)),
        *(metrics(_HERE, ANY), aggregate(_HERE, ANY)),
        *(comparisons(_HERE), load(_HERE), phases(_HERE)),
        *(table(_HERE, ANY, ANY), figure(_HERE, ANY, ANY), data(_HERE, ANY, ANY)),
    )
)
# The names in a sweep's folder that no entry of an axis may have.
OWN_NAMES = frozenset(
    Path(pattern).parts[0]
    for pattern in (*MEASURED, *MADE, report(_HERE).name, provenance(_HERE).name)
) - {ANY}
MANIFESTS = ("*/manifest*.json",)  # below results/models/
