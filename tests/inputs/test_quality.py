"""Scoring a fixed text outside the windows, and holding outputs against those in float32."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from support import builders
from support.simulated import Clock, SimulatedBackend, SimulatedMeter, spec

from llm_energy.analysis.aggregate import aggregate
from llm_energy.analysis.normalise import normalise
from llm_energy.analysis.sameness import reference_outputs
from llm_energy.core.errors import LlmEnergyError, OutOfMemory
from llm_energy.core.files import sha256_file
from llm_energy.inputs.models.simulated import BEGIN, Tokenizer
from llm_energy.inputs.prompts import sets
from llm_energy.inputs.quality import (
    BUILTIN,
    PASSAGE_TOKENS,
    is_score_of,
    make_text,
    measure_quality,
)
from llm_energy.measure.protocol import run_repeat
from llm_energy.publish.tables import quality as quality_table
from llm_energy.publish.tables.writers.table import Results
from llm_energy.records import (
    Quality,
    QualitySettings,
    QualityText,
    Request,
    Verdicts,
    write_record,
)

SETTINGS = QualitySettings(None, 40)
TEXT = QualityText("text", "s" * 64, ((1, 2, 3), (4, 5)))
GREEDY, SAMPLED = {}, {"decoder": {"do_sample": True, "temperature": 1.0}}


class Scoring(SimulatedBackend):
    """A backend that finds every token equally likely and notes when it was asked."""

    asked_at_s = None

    def score(self, passages):
        self._may_fail("score")
        self.asked_at_s = self.clock()
        self.clock.sleep(1.0)
        return [[-0.5] * (len(passage) - 1) for passage in passages]


def repeat_with(backend, clock, text=TEXT):
    asked = spec()
    meter = SimulatedMeter(clock)
    requests = {"b1": (Request("q", (1, 2)),)}
    return meter, run_repeat(
        asked, None, requests, backend, meter, quality_text=text, clock=clock, sleep=clock.sleep
    )


# the text


def test_the_built_in_text_is_prose_with_sources_and_its_readme_states_it():
    rows = [json.loads(line) for line in BUILTIN.read_text("utf-8").splitlines()]
    assert all("public domain" in row["source"] for row in rows)
    assert sum(len(row["text"].split()) for row in rows) > 400
    readme = (BUILTIN.parent / "README.md").read_text("utf-8")
    assert sha256_file(BUILTIN) in readme
    for row in rows:
        assert row["source"].split(",")[0] in readme


def test_the_text_is_cut_to_the_tokens_asked_for_and_begins_as_the_tokenizer_begins():
    text = make_text(Tokenizer(), SETTINGS, limit=None)
    assert (text.name, text.sha256) == ("prose-v1", sha256_file(BUILTIN))
    assert [len(passage) for passage in text.passages] == [40]
    assert text.passages[0][0] == BEGIN
    longer = make_text(Tokenizer(), replace(SETTINGS, tokens=10_000), limit=None)
    assert len(longer.passages) == len(sets.read_file(BUILTIN, "text"))
    assert longer.passages[0][:40] == text.passages[0]


def test_passages_fit_the_context_and_the_memory(tmp_path):
    (tmp_path / "long.txt").write_text("word " * 2000 + "\nx\n")
    settings = QualitySettings("long.txt", 10_000)
    assert len(make_text(Tokenizer(), settings, None, tmp_path).passages[0]) == PASSAGE_TOKENS
    assert len(make_text(Tokenizer(), settings, 64, tmp_path).passages[0]) == 63


def test_a_text_without_two_tokens_is_an_error(tmp_path):
    class Letters:
        def __call__(self, text):
            return {"input_ids": [7]}

    (tmp_path / "short.txt").write_text("x\n")
    with pytest.raises(LlmEnergyError, match=r"short.txt: no passage has two tokens"):
        make_text(Letters(), QualitySettings("short.txt", 9), None, tmp_path)


# the score


def test_the_text_is_scored_after_everything_that_is_metered():
    clock = Clock()
    backend = Scoring(clock, gpus=["GPU-1"])
    meter, repeat = repeat_with(backend, clock)
    assert repeat.quality.nll_per_token == pytest.approx(0.5)
    assert repeat.quality.perplexity == pytest.approx(math.exp(0.5))
    assert (repeat.quality.tokens, repeat.quality.text) == (3, "text")
    assert backend.asked_at_s >= repeat.baselines[-1].end_s
    assert meter.open is None
    assert meter.names[-1] == "loaded_idle_after"
    assert backend.closed


def test_without_a_text_nothing_is_scored():
    clock = Clock()
    backend = Scoring(clock)
    assert repeat_with(backend, clock, None)[1].quality is None
    assert backend.asked_at_s is None


@pytest.mark.parametrize(
    ("backend", "reason"),
    [
        (SimulatedBackend, "gives no log-probabilities"),
        (lambda clock: Scoring(clock, fail={"score": OutOfMemory("full")}), "OutOfMemory: full"),
        (lambda clock: Scoring(clock, fail={"score": KeyError("x")}), "KeyError"),
    ],
)
def test_what_prevents_a_score_is_its_reason_and_costs_nothing_else(backend, reason):
    clock = Clock()
    _, repeat = repeat_with(backend(clock), clock)
    assert (repeat.outcome, repeat.windows[0].outcome) == ("ok", "ok")
    assert (repeat.quality.total_nll, repeat.quality.nll_per_token) == (None, None)
    assert reason in repeat.quality.reason


@pytest.mark.parametrize(
    ("scores", "reason"),
    [([[-1.0], [-1.0]], "scored 2 of 3 tokens"), ([[-1.0, -math.inf], [-1.0]], "sum to -inf")],
)
def test_a_score_that_cannot_be_is_none(scores, reason):
    class Odd:
        def score(self, passages):
            return scores

    quality = measure_quality(Odd(), TEXT)
    assert quality.total_nll is None
    assert reason in quality.reason


def test_a_score_is_of_one_text_alone():
    scored = measure_quality(Scoring(Clock()), TEXT)
    assert is_score_of(scored, TEXT)
    assert not is_score_of(scored, replace(TEXT, passages=((1, 2),)))
    assert not is_score_of(None, TEXT)
    assert is_score_of(None, None)


def test_a_hopeless_model_has_no_finite_perplexity():
    assert Quality("t", "s", "i", 2, 2e6).perplexity is None


# into the metrics


def test_the_score_enters_every_row_of_the_metrics():
    scored = builders.measurement(quality=Quality("t", "s", "i", 4, 8.0))
    rows = list(builders.window_metrics(scored, builders.verdict(scored)))
    assert {row.nll_per_token for row in rows} == {2.0}
    assert {row.perplexity for row in rows} == {math.exp(2.0)}
    unscored = builders.measurement()
    assert next(builders.window_metrics(unscored, builders.verdict(unscored))).nll_per_token is None


def measured(folder, precision, repeat=1, ids=((1, 2, 3, 4), (5, 6, 7, 8)), parameters=GREEDY):
    """Write the measurement of one repeat with two outputs, and give its verdict."""
    window = builders.window(output_token_ids=dict(zip(("q0", "q1"), ids, strict=True)))
    workloads = (builders.workload(**parameters),)
    record = builders.measurement(
        builders.spec(precision, repeat, workloads=workloads), windows=(window,)
    )
    path = folder / f"{precision}-{repeat}.json"
    write_record(path, record)
    judged = builders.verdict(record)
    return replace(judged, measurement=str(path), measurement_sha256=sha256_file(path))


def agreed(verdicts):
    table = normalise(Verdicts(1, "test", "pytorch", tuple(verdicts)))
    return {(row.precision, row.repeat): row.agreement_with_float32 for row in table.rows}


def test_outputs_are_held_against_those_in_float32_as_far_as_they_agree(tmp_path):
    found = agreed(
        [
            measured(tmp_path, "int4", ids=((1, 2, 9, 9), (5, 6, 7, 8))),
            measured(tmp_path, "float32"),
            measured(tmp_path, "float32", 2),
            measured(tmp_path, "int8", ids=((9, 2, 3, 4), (5, 6))),
        ]
    )
    assert found == {
        ("int4", 1): pytest.approx(0.75),
        ("float32", 1): 1.0,
        ("float32", 2): 1.0,
        ("int8", 1): pytest.approx(0.25),
    }


def test_without_a_usable_float32_cell_there_is_nothing_to_agree_with(tmp_path):
    reference = replace(measured(tmp_path, "float32"), verdict="invalid")
    assert agreed([measured(tmp_path, "int4"), reference]) == {("int4", 1): None}


def test_sampled_outputs_are_not_held_against_each_other(tmp_path):
    both = [measured(tmp_path, name, parameters=SAMPLED) for name in ("float32", "int4")]
    assert set(agreed(both).values()) == {None}


def test_the_reference_is_the_first_usable_repeat(tmp_path):
    first = replace(measured(tmp_path, "float32"), verdict="invalid")
    second = measured(tmp_path, "float32", 2, ids=((9,), (9,)))
    assert reference_outputs([first, second]) == {("m", "b1"): {"q0": (9,), "q1": (9,)}}


def test_no_reference_is_an_unusable_window_of_a_usable_repeat(tmp_path):
    def judged_windows(number, ids):
        windows = tuple(builders.window(id, output_token_ids={"q0": ids}) for id in ("b1", "b2"))
        workloads = tuple(builders.workload(id) for id in ("b1", "b2"))
        asked = builders.spec("float32", number, workloads=workloads)
        path = tmp_path / f"{number}.json"
        record = builders.measurement(asked, windows=windows)
        write_record(path, record)
        judged = replace(builders.verdict(record), measurement=str(path))
        return judged, replace(judged, workload="b2")

    (usable, unusable), later = judged_windows(1, (1,)), judged_windows(2, (2,))
    unusable = replace(unusable, verdict="invalid")
    expected = {("m", "b1"): {"q0": (1,)}}
    assert reference_outputs([usable, unusable]) == expected
    expected[("m", "b2")] = {"q0": (2,)}
    assert reference_outputs([usable, unusable, *later]) == expected


# what a table must say beside it


def test_the_quality_table_tells_what_the_models_manifest_says():
    note = "dequantised 4-bit checkpoint"
    measured = builders.measurement(
        quality=Quality("t", "s", "i", 4, 8.0), model_notes=builders.manifest(notes=(note,)).notes
    )
    rows = builders.window_metrics(measured, builders.verdict(measured))
    plan = builders.plan([("pytorch", "float32")], repeats=1)
    done = aggregate([builders.metrics_table(rows)], plan, {})
    sheet = quality_table.table(Results((done,))).sheet
    assert f"The model: {note}." in sheet.notes
