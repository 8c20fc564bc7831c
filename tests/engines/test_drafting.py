"""vLLM drafting tokens ahead, in a process of its own: what that imports disturbs later engines."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import replace

import pytest
from support.subject import Subject

from llm_energy.backends.vllm.backend import CAPABILITIES, Backend

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None, reason="vllm is not installed here"
    ),
]
DRAFTED = {
    "method": "ngram",
    "num_speculative_tokens": 3,
    "prompt_lookup_min": 2,
    "prompt_lookup_max": 4,
}
PROMPTS = [list(range(5, 21)), list(range(5, 20))]


@pytest.fixture
def looping_folder(tiny_folder, tmp_path):
    """Return a model that sees the last token alone, so that its answers soon go in circles."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "looping"
    shutil.copytree(tiny_folder, folder)
    weights = load_file(folder / "model.safetensors")
    for name in weights:
        if "o_proj" in name:
            weights[name] = weights[name] * 0
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_drafts_are_counted_and_the_answers_are_those_of_the_plain_engine(looping_folder):
    answers = []
    for more in ({}, {"speculative_config": DRAFTED}):
        subject = Subject("vllm", CAPABILITIES, looping_folder, Backend())
        asked = subject.spec()
        try:
            used = subject.engine.load(replace(asked, engine=asked.engine | more), looping_folder)
            answers.append(subject.ids(PROMPTS, max_output_tokens=64))
            counted, steps = subject.engine.events(), subject.engine.steps()
        finally:
            subject.engine.close()
    assert answers[0] == answers[1]
    assert used["arguments"]["speculative_config"] == DRAFTED
    assert used["speculative_method"] == "ngram"
    assert steps is None
    assert counted["drafted_tokens"] >= counted["accepted_tokens"] > 0
    # Each step gives every request in flight one token of its own, besides those accepted.
    own = sum(map(len, answers[1])) - counted["accepted_tokens"]
    assert own / len(PROMPTS) <= counted["steps"] <= own + 2
