"""What only the PyTorch backend has: padded batches, Transformers' habits, memory errors."""

from __future__ import annotations

import functools
import gc
import time
import weakref
from functools import partial

import pytest
from support.subject import PROMPT, Subject

from llm_energy.backends import base
from llm_energy.backends.arguments import ARGUMENTS
from llm_energy.backends.pytorch import backend, batches, weights
from llm_energy.backends.pytorch import compiled as pytorch_compiled
from llm_energy.backends.pytorch.continuous import ContinuousEngine
from llm_energy.backends.steps import StepLog
from llm_energy.core.errors import OutOfMemory, Unsupported
from llm_energy.records import SCHEMA_VERSION, MeterSettings, Protocol, Spec

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.engine

LENGTHS = (3, 12, 1, 9, 6, 10)
PROMPTS = [PROMPT[:length] for length in LENGTHS]
INT8 = {"load_in_8bit": True}


@pytest.fixture(scope="module")
def subject(tiny_folder):
    subject = Subject("pytorch", backend.CAPABILITIES, tiny_folder, base.create("pytorch")).load()
    yield subject
    subject.engine.close()


@pytest.fixture
def load(tiny_folder):
    """Return a function that loads the tiny model with changed native arguments."""
    engines = []

    def load_with(device="auto", arguments=None, **engine):
        native = {"flow": "eager", "dtype": "bfloat16", "quantization": None}
        native |= {"device_map": None, "tp_plan": None}
        spec = Spec(
            SCHEMA_VERSION, "s", "c", "tiny", "pytorch", "p", 1, 1, device, native | engine,
            (), (), Protocol(), MeterSettings(), arguments=arguments or {},
        )  # fmt: skip
        engines.append(base.create("pytorch"))
        return engines[-1].load(spec, tiny_folder)

    yield load_with
    for engine in engines:
        engine.close()


@pytest.mark.parametrize("kernel", ARGUMENTS["pytorch"]["attn_implementation"].choices)
def test_an_argument_of_the_entry_is_read_back_from_the_loaded_model(load, kernel):
    asked = {"attn_implementation": kernel}
    assert load(arguments=asked)["arguments"] == asked


# batches


def test_static_batches_have_the_exact_size(subject):
    batching = subject.prepare(PROMPTS, batch_size=4)["batching"]

    assert batching["batch_sizes"] == [4, 2]
    assert batching["prompt_widths"] == [12, 10]
    assert batching["padding_tokens"] == 4 * 12 + 2 * 10 - sum(LENGTHS)


def test_dynamic_batches_keep_to_the_budget_and_pad_less(subject):
    fixed = subject.prepare(PROMPTS, batch_size=3)["batching"]
    dynamic = subject.prepare(PROMPTS, batch_size=3, strategy="dynamic")["batching"]

    assert dynamic["max_batch_tokens"] == 3 * (12 + 8)
    assert dynamic["prompt_widths"] == [12, 6]
    assert dynamic["padding_tokens"] < fixed["padding_tokens"]
    assert dynamic["batch_sizes"] == [3, 3]


def test_the_way_of_batching_changes_no_token(subject):
    plain = subject.ids(PROMPTS, batch_size=1)

    assert subject.ids(PROMPTS, batch_size=4) == plain
    assert subject.ids(PROMPTS, strategy="dynamic", max_batch_tokens=41) == plain
    assert subject.ids(PROMPTS, strategy="continuous", batch_size=2) == plain
    assert [c.output_token_ids for c in subject.engine.generate()] == plain


def test_continuous_batching_begins_a_request_when_another_has_ended(subject):
    marks = []
    subject.prepare(PROMPTS, strategy="continuous", batch_size=2)
    subject.engine.steps()
    completions = subject.engine.generate(lambda label, tokens: marks.append((label, tokens)))

    assert [label for label, _ in marks] == ["steady_begin", "steady_end"]
    assert completions[2].service_start_s >= completions[0].last_token_s
    assert all(c.padding_tokens == 0 for c in completions)
    assert subject.engine.events()["mean_running_requests"] == pytest.approx(2.0)
    steps = subject.engine.steps()
    computed = sum(p * s for p, s in zip(steps.prefill_tokens, steps.steps, strict=True))
    decoded = sum(d * s for d, s in zip(steps.decode_tokens, steps.steps, strict=True))
    assert computed == sum(LENGTHS)
    assert decoded == sum(len(c.output_token_ids) - 1 for c in completions)


def test_continuous_batching_ends_at_an_end_token_as_static_batches_do(subject, monkeypatch):
    plain = subject.serve(PROMPTS, max_output_tokens=8, min_output_tokens=0)
    stop = plain[0].output_token_ids[2]
    monkeypatch.setattr(subject.engine, "_eos_token_ids", [stop])
    monkeypatch.setattr(subject.engine, "_eos_set", frozenset([stop]))
    ends = {"max_output_tokens": 8, "min_output_tokens": 0}
    static, continuous = (
        [(c.output_token_ids, c.finish_reason) for c in subject.serve(PROMPTS, **ends, **asked)]
        for asked in ({}, {"strategy": "continuous", "batch_size": 2})
    )
    assert continuous == static
    assert continuous[0] == (plain[0].output_token_ids[:3], "stop")


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"max_output_tokens": 8, "min_output_tokens": 4}, "knows no shortest answer"),
        ({"repetition_penalty": 1.5}, "what RepetitionPenaltyLogitsProcessor does"),
        ({"no_repeat_ngram_size": 2}, "what NoRepeatNGramLogitsProcessor does"),
    ],
)
def test_what_continuous_batching_would_leave_out_is_unsupported(subject, asked, reason):
    subject.prepare(PROMPTS, **asked)  # in static batches, since plans refuse it
    engine = subject.engine
    ends = engine._eos_token_ids
    with pytest.raises(Unsupported, match=reason):
        ContinuousEngine(engine.model, engine._config, engine._requests, ends, 2, StepLog())


def test_pads_are_masked_whatever_their_id(subject, monkeypatch):
    plain = subject.ids(PROMPTS)
    monkeypatch.setattr(subject.engine, "_pad_token_id", 77)

    assert subject.ids(PROMPTS) == plain


def test_later_batches_wait_for_earlier_ones(subject):
    completions = subject.serve(PROMPTS, batch_size=2)

    assert len({completion.arrival_s for completion in completions}) == 1
    assert completions[2].first_token_s > completions[0].last_token_s


def test_a_token_has_the_time_at_which_its_forward_pass_is_done(subject, monkeypatch):
    real, done_s = subject.engine.model.forward, []

    @functools.wraps(real)
    def forward(*arguments, **keywords):
        result = real(*arguments, **keywords)
        done_s.append(time.monotonic())
        return result

    subject.prepare([PROMPT], max_output_tokens=5)
    monkeypatch.setattr(subject.engine.model, "forward", forward)
    (completion,) = subject.engine.generate()

    assert len(done_s) == 5
    for token_s, this_s, next_s in zip(
        completion.token_times_s, done_s, [*done_s[1:], float("inf")], strict=True
    ):
        assert this_s <= token_s < next_s


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"max_output_tokens": 10_000}, r"request r0: 3 prompt tokens and 10000 output tokens"),
        (
            {"strategy": "dynamic", "max_batch_tokens": 19},
            r"request r1: 12 prompt .* 8 output tokens are more than max_batch_tokens of 19",
        ),
    ],
)
def test_a_request_that_cannot_fit_is_named(subject, asked, reason):
    with pytest.raises(Unsupported, match=reason):
        subject.prepare(PROMPTS, **asked)


@pytest.mark.parametrize("prompt", [(), (5, 10**6)])
def test_a_prompt_of_another_tokenizer_is_named(subject, prompt):
    with pytest.raises(Unsupported, match="request r1: the prompt is empty or has an id outside"):
        subject.prepare([PROMPT, prompt])


@pytest.mark.parametrize("precision", ["float32", "int4"])
def test_another_architecture_runs(tmp_path_factory, precision):
    from support.tiny_model import build

    folder = build(tmp_path_factory.mktemp("gpt2"), "gpt2")
    subject = Subject("pytorch", backend.CAPABILITIES, folder, base.create("pytorch"))
    subject.load(precision)

    assert [len(ids) for ids in subject.ids(PROMPTS)] == [8] * len(PROMPTS)
    if precision == "float32":
        assert subject.ids(PROMPTS) == subject.ids(PROMPTS, batch_size=1)
    subject.engine.close()


# windows hold the work alone


@pytest.mark.parametrize("precision", ["float32", "int8", "int4"])
@pytest.mark.parametrize("do_sample", [False, True])
def test_a_pass_prints_and_logs_nothing(tiny_folder, capfd, caplog, precision, do_sample):
    subject = Subject("pytorch", backend.CAPABILITIES, tiny_folder, base.create("pytorch"))
    subject.load(precision)
    subject.serve(PROMPTS, do_sample=do_sample, min_p=0.1 * do_sample, repetition_penalty=1.1)
    capfd.readouterr()
    caplog.clear()

    subject.engine.generate()

    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    subject.engine.close()


def test_a_pass_leaves_nothing_for_the_garbage_collector(subject):
    subject.serve(PROMPTS, do_sample=True, repetition_penalty=1.1, no_repeat_ngram_size=3)
    gc.collect()
    gc.disable()
    try:
        subject.engine.generate()
        # The collector is off in a window: a cycle that holds a KV cache would add up there.
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_neutral_arguments_build_no_logits_processor(subject):
    subject.prepare(PROMPTS, do_sample=True, min_output_tokens=0)
    merged, _ = subject.engine.model._prepare_generation_config(subject.engine._config)

    assert list(subject.engine.model._get_logits_processor(merged, 4)) == []


# memory


def failing(model, allocate):
    """Return a forward that allocates half a megabyte and then fails as ``allocate`` does."""
    held = []

    @functools.wraps(model.forward)
    def forward(*arguments, **keywords):
        cache = torch.zeros(2**17)
        held.append(weakref.ref(cache))
        allocate()
        return cache

    return forward, held


def raise_cuda_error():
    raise torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB"
    )


def raise_memory_error():
    raise MemoryError


@pytest.mark.parametrize(
    ("allocate", "reason"),
    [
        (raise_cuda_error, "CUDA out of memory"),
        (raise_memory_error, "MemoryError"),
        (partial(torch.empty, 2**55), ".*DefaultCPUAllocator"),
    ],
    ids=["cuda", "python", "cpu-allocator"],
)
def test_running_out_of_memory_is_told_and_survived(subject, monkeypatch, allocate, reason):
    plain = subject.ids(PROMPTS[:1])
    subject.prepare(PROMPTS)
    forward, held = failing(subject.engine.model, allocate)
    with monkeypatch.context() as patched:
        patched.setattr(subject.engine.model, "forward", forward)
        with pytest.raises(OutOfMemory, match=f"out of memory in generate: {reason}") as caught:
            subject.engine.generate()

        assert caught.value.__context__ is None
        assert [reference() for reference in held] == [None]
    assert subject.ids(PROMPTS[:1]) == plain


def test_running_out_of_memory_while_loading_is_told(load, monkeypatch):
    transformers = pytest.importorskip("transformers")

    def from_pretrained(*arguments, **keywords):
        raise_cuda_error()

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", from_pretrained)
    with pytest.raises(OutOfMemory, match="in load: CUDA out of memory"):
        load()


def test_another_error_stays_itself(subject, monkeypatch):
    def break_down():
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    subject.prepare(PROMPTS)
    monkeypatch.setattr(
        subject.engine.model, "forward", failing(subject.engine.model, break_down)[0]
    )
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        subject.engine.generate()


def test_close_lets_the_model_go(tiny_folder):
    subject = Subject("pytorch", backend.CAPABILITIES, tiny_folder, base.create("pytorch"))
    subject.load()
    subject.serve(PROMPTS)
    model = weakref.ref(subject.engine.model)

    subject.engine.close()

    assert model() is None


def test_close_needs_no_load():
    base.create("pytorch").close()


# what was asked for is what was loaded


def test_scales_count_as_weights(load):
    quantized = load(quantization=INT8)

    assert quantized["quantization"] == {"Linear8bitLt": 14}
    assert quantized["weight_bytes_by_dtype"]["int8"] > 0
    assert (
        quantized["weight_bytes_by_dtype"]["float32"] > load()["weight_bytes_by_dtype"]["float32"]
    )


def test_a_quantisation_that_changes_nothing_is_refused(load):
    with pytest.raises(Unsupported, match="quantised no module"):
        load(quantization=INT8 | {"llm_int8_skip_modules": ["model", "lm_head"]})


def test_another_precision_than_asked_for_is_refused(load, monkeypatch):
    transformers = pytest.importorskip("transformers")
    real = transformers.AutoModelForCausalLM.from_pretrained

    def from_pretrained(*arguments, **keywords):
        return real(*arguments, **keywords | {"dtype": torch.float32})

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", from_pretrained)
    with pytest.raises(Unsupported, match="asked for bfloat16, the engine loaded float32"):
        load()


@pytest.mark.parametrize("place", ["disk", "cpu"])
def test_offloaded_weights_are_refused(place):
    with pytest.raises(Unsupported, match=f"does not fit on cuda: .*{place}"):
        weights.check_placement(torch.nn.Module(), "cuda", {"model": "0", "lm_head": place})


def test_weights_without_memory_are_refused():
    with pytest.raises(Unsupported, match="placed on meta"):
        weights.check_placement(torch.nn.Linear(2, 2, device="meta"), "cpu", None)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this host has a CUDA device")
def test_a_device_that_is_not_there_is_refused(load):
    with pytest.raises(Unsupported, match="finds none on this host"):
        load(device="cuda")


def test_tensor_parallelism_is_refused(load):
    with pytest.raises(Unsupported, match="takes a process for each rank"):
        load(tp_plan="auto")


def test_a_folder_without_a_causal_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    subject = Subject("pytorch", backend.CAPABILITIES, tmp_path, base.create("pytorch"))
    with pytest.raises(Unsupported, match="transformers cannot load"):
        subject.load()


# the flow compiled


def on_any_device():
    """Trace steps into graphs on a CPU too, but make no kernels of them: that takes minutes."""
    config = transformers.CompileConfig(backend="eager", mode="default")
    config._compile_all_devices = True
    return config


@pytest.fixture
def compiled(subject, monkeypatch):
    """Let the loaded model compile its decoding steps."""
    steps = pytorch_compiled.CompiledSteps(torch, subject.engine.model, on_any_device())
    monkeypatch.setattr(subject.engine, "_compiled", steps)
    yield subject
    steps.forget()


def test_compiled_steps_give_the_ids_of_uncompiled_ones(compiled):
    expected = uncompiled(compiled)
    assert compiled.ids(PROMPTS, batch_size=4) == expected
    once = compiled.engine.events()["compilations"]
    assert once >= 2  # a full batch, and what is left over
    assert [one.output_token_ids for one in compiled.engine.generate()] == expected
    assert compiled.engine.events()["compilations"] == once


@pytest.mark.parametrize(
    "asked", [{"do_sample": True, "top_k": 20}, {"repetition_penalty": 1.5}], ids=str
)
def test_compiled_steps_choose_tokens_as_uncompiled_ones(compiled, asked):
    assert compiled.ids(PROMPTS, batch_size=4, **asked) == uncompiled(compiled, **asked)


def test_compiled_steps_end_where_uncompiled_ones_end(compiled, monkeypatch):
    stops = sorted({ids[3] for ids in uncompiled(compiled)})
    monkeypatch.setattr(compiled.engine, "_eos_token_ids", stops)
    monkeypatch.setattr(compiled.engine, "_eos_set", frozenset(stops))
    expected = uncompiled(compiled, min_output_tokens=1)
    assert max(map(len, expected)) < 8
    served = compiled.serve(PROMPTS, batch_size=4, min_output_tokens=1)
    assert [one.output_token_ids for one in served] == expected
    assert {one.finish_reason for one in served} == {"stop"}
    for one in served:
        assert len(one.token_times_s) == len(one.output_token_ids)
        assert list(one.token_times_s) == sorted(one.token_times_s)


def uncompiled(subject, **asked):
    """Return the ids of the flow eager."""
    with pytest.MonkeyPatch.context() as eager:
        eager.setattr(subject.engine, "_compiled", None)
        ids = subject.ids(PROMPTS, batch_size=4, **asked)
        assert subject.engine.events() == {}
        return ids


def test_one_token_needs_no_compiled_step(compiled):
    for one in compiled.serve(PROMPTS, batch_size=4, max_output_tokens=1):
        assert len(one.token_times_s) == len(one.output_token_ids) == 1


def test_a_sliding_window_is_not_compiled_anew_at_each_step(compiled):
    sizes = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "sliding_window": 4}
    model = transformers.MistralForCausalLM(transformers.MistralConfig(**sizes, **heads)).eval()
    steps = pytorch_compiled.CompiledSteps(torch, model, on_any_device())
    ids, clock = torch.arange(3, 9)[None], batches.StepClock()
    asked = transformers.GenerationConfig(
        max_new_tokens=20, pad_token_id=0, compile_config=steps.config
    )
    expected = model.generate(ids, generation_config=asked)
    steps.prepare([1], expected.shape[1])
    kept = {"past_key_values": steps.cache(1), "custom_generate": partial(steps.decode, clock)}
    assert torch.equal(model.generate(ids, generation_config=asked, **kept), expected)
    assert 0 < steps.compilations() <= 3
    steps.forget()


def test_every_workload_is_compiled_for_itself(compiled):
    for batch_size in (2, 3):
        compiled.prepare(PROMPTS, batch_size=batch_size)
        assert compiled.engine.events() == {"compilations": 0}
        compiled.engine.generate()
        assert compiled.engine.events()["compilations"] > 0


def test_a_model_that_is_not_compiled_is_no_measurement_of_a_compiled_one(compiled, monkeypatch):
    model = compiled.engine.model
    monkeypatch.setattr(model, "_valid_auto_compile_criteria", lambda *_: False)
    compiled.prepare(PROMPTS, batch_size=4)
    with pytest.raises(Unsupported, match="does not compile"):
        compiled.engine.generate()


def test_the_flow_compiled_needs_a_gpu(load):
    with pytest.raises(Unsupported, match="use the flow eager on this CPU"):
        load(device="cpu", flow="compiled")
