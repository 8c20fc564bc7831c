"""What an engine says while it loads: it cannot do this, memory is short, or it has crashed."""

from __future__ import annotations

import pytest

from llm_energy.backends.engine_errors import (
    Result,
    outcome,
    reporting_out_of_memory,
    reporting_refusals,
)

# As engines have said it.
REFUSED = [
    AttributeError("Model GPT2LMHeadModel does not support BitsAndBytes quantization yet."),
    RuntimeError("Unsupported CPU attention configuration: head_dim=20"),
    RuntimeError("FlashAttention only supports Ampere GPUs or newer."),
    AssertionError("The model doesn't support LoRA"),
    NotImplementedError("float8 on this device"),
    ValueError("Unknown quantization method: no-such-method"),
    TypeError("EngineArgs.__init__() got an unexpected keyword argument 'no_such_argument'"),
    ImportError("Using bitsandbytes needs accelerate"),
]
CRASHED = [
    AttributeError("'NoneType' object has no attribute 'shape'"),
    RuntimeError("CUDA error: device-side assert triggered"),
    RuntimeError("Engine core initialization failed. See root cause above."),
    KeyError("model.layers.0.mlp.gate_proj.weight"),
    AssertionError(),
]


class Engine:
    @reporting_out_of_memory
    def load(self, error: Exception) -> None:
        with reporting_refusals("the engine cannot load m"):
            raise error

    def _release(self) -> None:
        pass


def ended(error: Exception) -> Result:
    with outcome() as result:
        Engine().load(error)
    return result


@pytest.mark.parametrize("error", REFUSED, ids=str)
def test_a_configuration_that_the_engine_refuses_is_unsupported(error):
    assert ended(error).outcome == "unsupported"
    assert str(error) in ended(error).reason


@pytest.mark.parametrize("error", CRASHED, ids=repr)
def test_a_crash_while_loading_is_a_failure(error):
    assert ended(error) == Result("failed", f"{type(error).__name__}: {error}")


@pytest.mark.parametrize("kind", [RuntimeError, ValueError])
def test_short_memory_is_no_refusal(kind):
    found = ended(kind("CUDA out of memory: the allocator does not support more"))
    assert found.outcome == "oom"


def test_a_refusal_without_words_is_told_by_its_type():
    assert ended(NotImplementedError()).reason == "the engine cannot load m: NotImplementedError"
