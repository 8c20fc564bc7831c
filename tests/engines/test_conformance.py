"""What every backend must do, whatever its engine: the same work, truly counted and truly timed."""

from __future__ import annotations

import gc
import itertools
import json
import time

import pytest
from support.subject import PROMPT

from llm_energy.analysis.energy.roofline import demand

pytestmark = pytest.mark.engine

MIXED = [PROMPT[:3], PROMPT, PROMPT[:1], PROMPT[4:9], PROMPT[2:8]]
INTEGERS = {"int8": "int8", "int4": "uint8"}  # as which bitsandbytes keeps such weights
MANY = 48  # output tokens: more than a server on a busy host hands out at once
SAMPLED = {"do_sample": True, "max_output_tokens": 8}


# lengths and reasons


@pytest.mark.parametrize("count", [1, 2, 17])
def test_forced_lengths_are_exact(backend, count):
    for completion in backend.serve(MIXED, max_output_tokens=count):
        assert len(completion.output_token_ids) == count
        assert completion.finish_reason == "length"


def test_a_natural_end_is_a_stop_and_its_token_counts(stopping, reference):
    backend, stop = stopping
    (completion,) = backend.serve([PROMPT], max_output_tokens=20, min_output_tokens=0)
    expected = reference(PROMPT, 20)

    assert completion.finish_reason == "stop"
    assert list(completion.output_token_ids) == expected[: expected.index(stop) + 1]


@pytest.mark.parametrize("least", [1, 6])
def test_natural_lengths_lie_between_the_minimum_and_the_maximum(stopping, least):
    backend, stop = stopping
    completions = backend.serve([PROMPT, *MIXED], max_output_tokens=12, min_output_tokens=least)

    for completion in completions:
        ids = completion.output_token_ids
        assert least <= len(ids) <= 12
        assert stop not in ids[:-1]
        assert (completion.finish_reason == "stop") == (ids[-1] == stop)
        assert completion.finish_reason == "stop" or len(ids) == 12


def test_a_forced_length_goes_past_the_end_of_sequence(stopping, reference):
    backend, stop = stopping
    (completion,) = backend.serve([PROMPT], max_output_tokens=12)

    assert completion.finish_reason == "length"
    assert list(completion.output_token_ids) == reference(PROMPT, 12, banned=[stop])


# the same work


def test_greedy_ids_are_those_of_plain_forward_passes(backend, reference, eos):
    served = backend.ids(MIXED, max_output_tokens=12)

    assert [list(ids) for ids in served] == [reference(p, 12, banned=eos) for p in MIXED]


def test_greedy_is_deterministic(backend):
    first = backend.ids(MIXED)

    assert [c.output_token_ids for c in backend.engine.generate()] == first
    assert backend.ids(MIXED, random_seed=2) == first


def test_a_batch_gives_what_its_requests_give_alone(backend):
    together = backend.ids(MIXED, batch_size=5)

    assert together == [backend.ids([prompt], batch_size=1)[0] for prompt in MIXED]


def test_completions_come_in_the_order_of_the_requests(backend):
    completions = backend.serve(MIXED, batch_size=2, strategy="dynamic")

    assert [c.request_id for c in completions] == [f"r{i}" for i in range(len(MIXED))]
    assert [c.prompt_tokens for c in completions] == [len(prompt) for prompt in MIXED]


def test_one_seed_gives_the_same_sample_in_every_pass(backend):
    first = backend.ids(MIXED, random_seed=7, **SAMPLED)
    if "random_seed" in backend.hints:
        pytest.skip(f"the seed is a hint for {backend.name}")

    assert [c.output_token_ids for c in backend.engine.generate()] == first
    assert backend.ids(MIXED, random_seed=7, **SAMPLED) == first


def test_another_seed_gives_another_sample(backend):
    assert backend.ids(MIXED, random_seed=7, **SAMPLED) != backend.ids(
        MIXED, random_seed=8, **SAMPLED
    )


def test_the_models_own_generation_defaults_do_not_slip_in(stopping, reference):
    backend, stop = stopping
    greedy = reference(PROMPT, 12, banned=[stop])

    assert list(backend.ids([PROMPT], max_output_tokens=12)[0]) == greedy
    # With the model's top_k of 1 a sample would be the greedy sequence.
    assert list(backend.ids([PROMPT], do_sample=True, max_output_tokens=12)[0]) != greedy


# prompts


def test_unicode_prompts_pass_as_their_ids(backend, reference, tiny_folder, eos):
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_folder)
    prompt = tokenizer("naïve Straße 電力 ⚡🔋 e\u0301")["input_ids"]
    (completion,) = backend.serve([prompt])

    assert completion.prompt_tokens == len(prompt)
    assert list(completion.output_token_ids) == reference(prompt, 8, banned=eos)


def test_a_prompt_may_be_one_token(backend, reference, eos):
    (completion,) = backend.serve([PROMPT[:1]])

    assert completion.prompt_tokens == 1
    assert list(completion.output_token_ids) == reference(PROMPT[:1], 8, banned=eos)


def test_a_prompt_may_fill_the_context(backend, tiny_folder, reference, eos):
    context = json.loads((tiny_folder / "config.json").read_text())["max_position_embeddings"]
    prompt = list(itertools.islice(itertools.cycle(PROMPT), context - 2))
    (completion,) = backend.serve([prompt], max_output_tokens=2)

    assert completion.prompt_tokens == context - 2
    assert list(completion.output_token_ids) == reference(prompt, 2, banned=eos)


def test_a_batch_may_be_larger_than_the_requests(backend):
    assert backend.ids(MIXED, batch_size=64) == backend.ids(MIXED, batch_size=5)


def test_pads_are_counted_apart_from_prompt_tokens(backend):
    backend.needs("static_batches")
    completions = backend.serve(MIXED, batch_size=2)

    assert [c.prompt_tokens for c in completions] == [3, 12, 1, 5, 6]
    assert [c.padding_tokens for c in completions] == [9, 0, 4, 0, 0]


def test_nothing_is_served_from_a_cache_of_earlier_passes(backend):
    backend.serve([PROMPT] * 3)

    assert [c.cached_prompt_tokens for c in backend.engine.generate()] == [0, 0, 0]


# continuous batching


def test_a_full_batch_is_marked_once_from_beginning_to_end(backend):
    backend.needs("continuous_batching")
    marks = []
    backend.prepare([*MIXED, *MIXED], max_output_tokens=MANY, batch_size=2)
    completions = backend.engine.generate(lambda label, n: marks.append((label, n)))

    assert [label for label, _ in marks] == ["steady_begin", "steady_end"]
    # Two requests have begun; all but three have ended, and one of these may be half-way.
    assert 2 <= marks[0][1] < 2 * MANY
    assert (len(completions) - 3) * MANY <= marks[1][1] <= (len(completions) - 1) * MANY


@pytest.mark.parametrize("requests", [1, 2, 3])
def test_a_batch_that_nothing_waits_to_join_is_not_marked(backend, requests):
    marks = []
    backend.prepare(MIXED[:requests], batch_size=2)
    backend.engine.generate(lambda *mark: marks.append(mark))

    assert marks == []


def test_static_batches_are_not_marked(backend):
    if "continuous_batching" in backend.capabilities:
        pytest.skip("its batches are not static")
    marks = []
    backend.prepare([*MIXED, *MIXED], batch_size=2)
    backend.engine.generate(lambda *mark: marks.append(mark))

    assert marks == []


def test_events_count_from_prepare_on_and_can_be_written(backend):
    backend.prepare(MIXED, batch_size=2)
    begin = backend.engine.events()
    backend.engine.generate()
    first = backend.engine.events()
    backend.engine.generate()
    second = backend.engine.events()

    counts = [name for name, value in begin.items() if isinstance(value, int)]
    for name in counts:
        assert begin[name] == 0
        assert second[name] == 2 * first[name]
    assert json.loads(json.dumps(second)) == second


def test_means_are_of_what_came_since_they_were_last_asked_for(backend):
    backend.prepare(MIXED, batch_size=2)
    backend.engine.generate()
    counted, idle = backend.engine.events(), backend.engine.events()
    assert counted.keys() == idle.keys()
    for name, value in idle.items():
        assert value == (counted[name] if isinstance(value, int) else None)


# time


def test_times_are_in_order_and_inside_the_call(backend):
    backend.prepare(MIXED, batch_size=2, max_output_tokens=MANY)
    begin = time.monotonic()
    completions = backend.engine.generate()
    end = time.monotonic()

    for completion in completions:
        assert begin <= completion.arrival_s <= completion.first_token_s
        assert completion.first_token_s <= completion.last_token_s <= end
    spread = [c.first_token_s < c.last_token_s for c in completions]
    # A server on a busy host may hand out a whole answer at once.
    assert any(spread) if backend.flow == "server" else all(spread)


def test_each_output_token_has_its_time(backend):
    backend.needs("token_times")
    for completion in backend.serve(MIXED, batch_size=2, max_output_tokens=6):
        times = completion.token_times_s
        assert len(times) == len(completion.output_token_ids)
        assert list(times) == sorted(times)
        assert (times[0], times[-1]) == (completion.first_token_s, completion.last_token_s)


def test_steps_compute_each_token_of_the_requests_once(backend):
    backend.needs("steps")
    backend.prepare(MIXED, batch_size=2, max_output_tokens=6)
    backend.engine.steps()
    completions = [*backend.engine.generate(), *backend.engine.generate()]
    table = backend.engine.steps()

    computed = {number: [0, 0] for number in range(len(completions))}
    ends_s = {}
    for run in table.runs:
        computed[run.request][0] += run.steps * run.prefill_tokens
        computed[run.request][1] += run.steps * run.decode_tokens
        if run.prefill_tokens + run.decode_tokens:
            ends_s[run.request] = table.end_s[run.first_step + run.steps - 1]
    for number, completion in enumerate(completions):
        prompt, output = completion.prompt_tokens, len(completion.output_token_ids)
        assert computed[number] == [prompt - completion.cached_prompt_tokens, output - 1]
        assert ends_s[number] == pytest.approx(completion.last_token_s, abs=0.02)


# decoder parameters


def test_repetition_penalty_has_an_effect(backend):
    backend.needs("repetition_penalty")

    assert backend.ids(MIXED, repetition_penalty=5.0) != backend.ids(MIXED)


def test_no_ngram_repeats_where_that_is_asked_for(backend):
    backend.needs("no_repeat_ngram_size")

    def repeats(ids):
        return len(ids) - len(set(ids))

    asked = {"max_output_tokens": 12}
    assert sum(map(repeats, backend.ids(MIXED, **asked))) > 0
    assert sum(map(repeats, backend.ids(MIXED, no_repeat_ngram_size=1, **asked))) == 0


@pytest.mark.parametrize(("name", "value"), [("top_k", 1), ("top_p", 1e-6), ("min_p", 1.0)])
def test_the_narrowest_sampling_is_greedy(backend, name, value):
    backend.needs(name)

    assert backend.ids(MIXED, **SAMPLED, **{name: value}) == backend.ids(MIXED)


def test_neutral_sampling_draws_from_the_whole_vocabulary(backend, reference, eos):
    ranked = []
    for _ in range(50):  # the 50 likeliest first tokens are what a common default top_k leaves
        ranked += reference(PROMPT, 1, banned=eos + ranked)

    drawn = {ids[0] for ids in backend.ids([PROMPT] * 16, do_sample=True, max_output_tokens=1)}
    assert drawn - set(ranked)


def test_temperature_has_an_effect(backend):
    assert backend.ids(MIXED, **SAMPLED) != backend.ids(MIXED, temperature=0.05, **SAMPLED)


def test_effective_settings_are_those_asked_for(backend):
    asked = {"repetition_penalty": 1.3, "top_p": 0.9, "temperature": 0.7}
    asked = {k: v for k, v in asked.items() if k == "temperature" or k in backend.capabilities}
    effective = backend.prepare(MIXED, do_sample=True, **asked)["generation"]

    assert {name: effective[name] for name in asked} == asked


@pytest.mark.parametrize("do_sample", [True, False])
def test_what_the_engine_uses_is_what_it_was_passed(backend, do_sample):
    effective = backend.prepare(MIXED, do_sample=do_sample)["generation"]

    assert effective
    assert effective.items() <= backend.passed.items()


# scores


def test_a_text_is_scored_as_plain_forward_passes_score_it(backend, plain_logits):
    backend.needs("score")
    passages = [PROMPT, PROMPT[:2], PROMPT[::-1]]
    backend.prepare(MIXED, do_sample=True, temperature=0.3)  # of which a score knows nothing
    scores = backend.engine.score(passages)

    assert [len(score) for score in scores] == [len(passage) - 1 for passage in passages]
    for score, passage in zip(scores, passages, strict=True):
        expected = plain_logits(passage).log_softmax(-1)
        chosen = [float(expected[at, token]) for at, token in enumerate(passage[1:])]
        assert score == pytest.approx(chosen, rel=1e-3, abs=1e-3)


def test_an_engine_serves_on_after_a_score(backend):
    backend.needs("score")
    before = backend.ids(MIXED)
    backend.engine.score([PROMPT])

    assert backend.ids(MIXED) == before


# precision and memory


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16", "int8", "int4"])
def test_every_precision_is_real(backend, new_subject, precision):
    backend.needs(precision)
    if backend.flow == "server" and precision != "float32":
        # It gets the arguments that the same engine gets in process, where each precision is tried;
        # its load runs the same check of the weights, and a server takes 18 s to start.
        pytest.skip("a server's weights are loaded as they are in process")
    subject = backend if precision == "float32" else new_subject().load(precision)
    lengths = [len(ids) for ids in subject.ids(MIXED, max_output_tokens=4)]
    effective = subject.effective
    if subject is not backend:
        subject.engine.close()

    assert lengths == [4] * len(MIXED)
    computed = "bfloat16" if precision in ("int8", "int4") else precision
    assert effective["dtype"] == computed
    if precision in INTEGERS:
        assert effective["weight_bytes_by_dtype"][INTEGERS[precision]] > 0
    share = effective["weight_bytes"] / backend.effective["weight_bytes"]
    assert share == pytest.approx(1.0 if precision == "float32" else 0.5, abs=0.02) or (
        precision in ("int8", "int4") and share < 0.48
    )


def test_a_load_says_what_it_used(backend):
    effective = backend.effective

    assert effective["device"].split(":")[0] in ("cpu", "cuda")
    assert bool(effective["device_uuids"]) == effective["device"].startswith("cuda")
    assert effective["engine_version"]
    assert effective["weight_bytes"] > 0
    if "num_threads" in effective:
        assert "omp" in effective["openmp"]
        assert effective["memory_allocator"]
    json.dumps(effective)


def test_a_load_says_enough_of_the_model_to_bound_its_work(backend, tiny_folder):
    backend.needs("architecture")
    told = backend.effective["architecture"]
    config = json.loads((tiny_folder / "config.json").read_text())

    assert told["hidden_size"] == config["hidden_size"]
    assert demand(told, 10**6, backend.effective["weight_bytes"], 4, 4).kv_bytes > 0


def test_close_frees_the_memory(backend, new_subject):
    if not backend.effective.get("in_process", True):
        pytest.skip("the engine runs in a process of its own, which ends with it")
    torch = pytest.importorskip("torch")
    is_fake = pytest.importorskip("torch._subclasses.fake_tensor").is_fake

    def live_bytes():
        gc.unfreeze()  # vLLM hides what exists when it has loaded from the collector, and from us
        gc.collect()
        tensors = [item for item in gc.get_objects() if issubclass(type(item), torch.Tensor)]
        # What views share counts once; a compiler's tensors, and those at 0, have no memory.
        held = [item.untyped_storage() for item in tensors if not is_fake(item)]
        return sum({item.data_ptr(): item.nbytes() for item in held if item.data_ptr()}.values())

    before = live_bytes()
    subject = new_subject().load()
    subject.serve(MIXED)
    assert live_bytes() - before >= 0.9 * subject.effective["weight_bytes"]

    subject.engine.close()

    assert live_bytes() - before < 0.1 * subject.effective["weight_bytes"]
