"""What a config names on this host is looked at before any job begins."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import builders

from llm_energy.core.errors import ConfigError
from llm_energy.plan import plan, summary
from llm_energy.plan.config.load import load_sweep

SYNTHETIC = {"source": "synthetic", "input_tokens": 40, "chat_template": False}


def config(folder: Path, **changes) -> dict:
    source = {"kind": "folder", "path": str(folder)}
    return {"models": [{"id": "m", "model_name": "m", "source": source}], **changes}


def problems(asked: dict, root: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_sweep(asked, root=root)
    return caught.value.problems


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("model.safetensors", "no safetensors weights"),
        ("config.json", "config.json is missing"),
        ("tokenizer.json", "no tokenizer (tokenizer.json, "),
    ],
)
def test_a_folder_that_makes_no_model_is_refused_once(tmp_path, missing, message):
    folder = builders.model_folder(tmp_path / "model")
    (folder / missing).unlink()
    [told] = problems(config(folder), tmp_path)
    assert "models[0].source.path" in told
    assert message in told


@pytest.mark.parametrize(
    ("name", "content", "column", "message"),
    [
        ("p.txt", "Grüße\n".encode("latin-1"), None, "line 1: not UTF-8"),
        ("p.csv", b"a,b\n1,2\n", "text", "no column 'text', found a, b"),
        ("p.jsonl", b'{"prompt": "x"}\n', None, "no column 'text', found prompt"),
        ("p.txt", b"one\n\nthree\n", None, "line 2: the prompt is empty"),
        ("p.txt", b"one\ntwo\n", None, "has 2 prompts, the workload asks 8 requests"),
    ],
)
def test_prompts_are_read_before_any_job(tmp_path, name, content, column, message):
    (tmp_path / name).write_bytes(content)
    prompts = {"source": "file", "path": name} | ({"text_column": column} if column else {})
    asked = config(builders.model_folder(tmp_path / "model"), prompts=prompts)
    [told] = problems(asked, tmp_path)
    assert "prompts.path: " in told
    assert message in told


def test_a_tokenizer_without_a_chat_template_is_refused_where_one_is_asked(tmp_path):
    folder = builders.model_folder(tmp_path / "model")
    assert load_sweep(config(folder), root=tmp_path)
    (folder / "chat_template.jinja").unlink()
    [told] = problems(config(folder), tmp_path)
    assert "models[0].chat_template: found true, allowed false" in told
    (folder / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    assert load_sweep(config(folder), root=tmp_path)


def test_base_and_instruct_models_fit_one_sweep(tmp_path):
    base = builders.model_folder(tmp_path / "base")
    (base / "chat_template.jinja").unlink()
    asked = config(base)
    asked["models"][0]["chat_template"] = False
    asked["models"] += config(builders.model_folder(tmp_path / "chat"))["models"]
    asked["models"][1]["id"] = "chat"
    sweep = load_sweep(asked, root=tmp_path)
    made = plan.make_plan(sweep, lambda backend: plan.Engine("cpu", None))
    requests = made.prompt_requests
    given = {id: one.workloads["default"].prompts["chat_template"] for id, one in requests.items()}
    assert given == {"m": False, "chat": True}
    assert not any("chat_template" in model for model in made.models.values())


@pytest.mark.parametrize(("limit", "noted"), [(56, False), (55, True), (None, False)])
def test_a_workload_beyond_the_context_is_noted(tmp_path, limit, noted):
    folder = builders.model_folder(tmp_path / "m", max_position_embeddings=limit)
    asked = config(folder, prompts=SYNTHETIC, parameters={"max_output_tokens": 16})
    made = plan.make_plan(
        load_sweep(asked, root=tmp_path), lambda backend: plan.Engine("cpu", None)
    )
    told = "workload default: 40 prompt and 16 output tokens are beyond its context of 55"
    assert (told in summary.describe(made)) is noted


def test_prompts_drawn_anew_for_each_block_are_described(tmp_path):
    folder = builders.model_folder(tmp_path / "m", max_position_embeddings=20)
    asked = config(folder, prompts=SYNTHETIC | {"resample": True})
    made = plan.make_plan(
        load_sweep(asked, root=tmp_path), lambda backend: plan.Engine("cpu", None)
    )
    assert "beyond its context of 20" in summary.describe(made)
