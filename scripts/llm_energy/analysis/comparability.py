"""Decide what a comparison holds fixed, and name what two measurements do not share.

Everything that bears on joules per token is a condition. A comparison lets those vary that its
question is about, and refuses two windows that differ in any other.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

from llm_energy.records.comparison import Contrast, Difference

Conditions = Mapping[str, str]
UNRECORDED = "not recorded"


@dataclass(frozen=True)
class Field:
    """One condition: what it is in words, and which contrasts let it vary.

    ``of_energy`` conditions say how joules were metered, so that times and rates need not share
    them.
    """

    title: str
    varies: frozenset[Contrast] = frozenset()
    of_energy: bool = False


def _varies(*contrasts: Contrast) -> frozenset[Contrast]:
    return frozenset(contrasts)


# In the order in which differences are told. Quantised weights are made from the same files, so
# a precision has the weights of its model. A backend brings its own software and its own way of
# putting requests together; that is what a comparison of backends asks about. Two sweeps are
# compared to see what another day, machine or version changed, so only the work must agree.
FIELDS: dict[str, Field] = {
    "weights": Field("weights (SHA-256)", _varies("model")),
    "tokenizer": Field("tokenizer (SHA-256)", _varies("model")),
    "prompts": Field("prompt token ids (SHA-256)", _varies("model", "batch_size", "choice")),
    "requests": Field("requests in a pass", _varies("batch_size", "choice")),
    "prompt_lengths": Field("prompt tokens a request", _varies("model")),
    "output_lengths": Field("output tokens a request"),
    "token_rule": Field("rule for the output length"),
    "decoding": Field("decoding"),
    "precision": Field("precision", _varies("precision", "choice")),
    "batch_size": Field("batch size", _varies("batch_size", "choice")),
    "batching": Field("batching", _varies("backend", "choice")),
    "traffic": Field("arrival of requests"),
    "sharding": Field("sharding"),
    "protocol": Field("protocol"),
    "engine": Field("engine and its version", _varies("backend", "sweep")),
    "device": Field("device"),
    "driver": Field("driver of the GPUs", _varies("sweep")),
    "hardware": Field("processor and kind of GPUs", _varies("sweep")),
    "host": Field("host", _varies("sweep")),
    "boards": Field("GPUs", _varies("sweep")),
    "power_limit_w": Field("power limit of the GPUs (W)", _varies("sweep")),
    "energy_status": Field("measured or estimated", of_energy=True),
    "energy_components": Field("components of the joules", of_energy=True),
    "energy_methods": Field("methods of metering", of_energy=True),
}
# One tokenizer cuts a text into more tokens than another, so joules per token of two models are one
# quantity only where they share it; joules per request are where the requests are the same.
PER_TOKEN = ("tokenizer", "prompts", "prompt_lengths")


def differences(
    contrast: Contrast,
    reference: Conditions,
    other: Conditions,
    *,
    energy: bool = True,
    per_token: bool = True,
) -> list[Difference]:
    """Return the conditions that should agree and do not.

    ``energy`` says that joules are compared, ``per_token`` that they are per token. What neither
    side recorded agrees.
    """
    names = _held(contrast, energy, per_token)
    first = [reference.get(name, UNRECORDED) for name in names]
    second = [other.get(name, UNRECORDED) for name in names]
    if first == second:
        return []
    return [
        Difference(name, a, b) for name, a, b in zip(names, first, second, strict=True) if a != b
    ]


@functools.cache
def _held(contrast: Contrast, energy: bool, per_token: bool) -> tuple[str, ...]:
    """Name the conditions that a comparison holds fixed."""
    tokens = PER_TOKEN if per_token and contrast == "model" else ()
    return tuple(
        name
        for name, field in FIELDS.items()
        if (energy or not field.of_energy) and (contrast not in field.varies or name in tokens)
    )


def in_words(found: Difference) -> str:
    """Say in what two sides differ.

    >>> in_words(Difference("power_limit_w", "300", "400"))
    'power limit of the GPUs (W): 300 and 400'
    """
    title = FIELDS[found.field].title if found.field in FIELDS else found.field
    return f"{title}: {found.reference} and {found.other}"
