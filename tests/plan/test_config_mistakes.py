"""Every mistake in a sweep config gives one clear line: file, line, key, found, allowed."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from support import builders

from llm_energy.core.errors import ConfigError
from llm_energy.plan.config.load import load_sweep

BASE = """\
name: base
models:
  - id: tiny
    model_name: tiny
    source: {kind: folder, path: model}
backends: [pytorch]
precisions: [float32]
workloads:
  - id: b1
    requests: 8
    batching: {batch_size: 1}
  - id: b4
    requests: 8
    batching: {batch_size: 4}
prompts:
  source: builtin
parameters:
  max_output_tokens: 16
  min_output_tokens: 16
protocol:
  repeats: 2
meter:
  codecarbon: false
policy:
  allow_mixed_backends: false
"""
MISTAKES = yaml.safe_load(
    Path(__file__).with_name("config_mistakes.yaml").read_text(encoding="utf-8")
)
EACH = pytest.mark.parametrize("mistake", MISTAKES, ids=[mistake["id"] for mistake in MISTAKES])


def text_with(mistake: dict) -> str:
    """Return the valid config with one mistake in it."""
    line = mistake["line"]
    text = mistake["becomes"] if "becomes" in mistake else f"{line}\n{mistake['then']}"
    assert f"{line}\n" in BASE
    return BASE.replace(f"{line}\n", f"{text}\n", 1)


def line_of(mistake: dict) -> int:
    """Return the line that a mistake is reported for."""
    return BASE.split("\n").index(mistake["line"]) + 1 + mistake.get("at", 0)


def problems(text: str, root: Path, files: tuple[str, ...] = ("sweep.yaml",)) -> list[str]:
    """Load a config from its text and give the lines of its error."""
    with pytest.raises(ConfigError) as caught:
        load_sweep(yaml.safe_load(text), files, root)
    return caught.value.problems


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """Return a folder to work in, with the model of the valid config."""
    builders.model_folder(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_config_without_mistake_is_valid(root):
    assert load_sweep(yaml.safe_load(BASE), root=root).name == "base"


@EACH
def test_mistake_gives_one_line(mistake, root):
    text = text_with(mistake)
    (root / "sweep.yaml").write_text(text, encoding="utf-8")
    (line,) = problems(text, root)
    assert line.startswith(f"sweep.yaml:{line_of(mistake)}: {mistake['says'][0]}")
    for part in mistake["says"]:
        assert part in line
    assert "\n" not in line


def test_there_are_enough_mistakes():
    assert len({mistake["id"] for mistake in MISTAKES}) == len(MISTAKES) >= 34


def test_all_mistakes_of_a_config_are_reported_at_once(root):
    text = BASE.replace("[pytorch]", "[pytroch]").replace("repeats: 2", "repeats: 0")
    text = text.replace("path: model", "path: nowhere").replace("min_output_tokens: 16", "x: 1")
    (root / "sweep.yaml").write_text(text, encoding="utf-8")
    places = [line.split(": ")[:2] for line in problems(text, root)]
    assert places == [
        ["sweep.yaml:5", "models[0].source.path"],
        ["sweep.yaml:6", "backends[0]"],
        ["sweep.yaml:19", "parameters.x"],
        ["sweep.yaml:21", "protocol.repeats"],
    ]


def test_key_from_the_command_line_is_named_so(root):
    (root / "sweep.yaml").write_text(BASE, encoding="utf-8")
    config = yaml.safe_load(BASE) | {"backend": "vlm"}
    config["protocol"]["repeats"] = "0"
    with pytest.raises(ConfigError) as caught:
        load_sweep(config, ["sweep.yaml"], root)
    assert [line.split(": found")[0] for line in caught.value.problems] == [
        "--config: backend",
        "--config: protocol.repeats",
    ]


def test_key_is_looked_up_in_the_file_that_won(root):
    (root / "first.yaml").write_text(BASE, encoding="utf-8")
    (root / "second.yaml").write_text("device: auto\nprotocol: {repeats: 0}\n", encoding="utf-8")
    config = yaml.safe_load(BASE) | {"device": "auto", "protocol": {"repeats": 0}}
    with pytest.raises(ConfigError, match=r"^second\.yaml:2: protocol\.repeats: found 0"):
        load_sweep(config, ["first.yaml", "second.yaml"], root)


@pytest.mark.parametrize("config", [None, [], "models", 3, True])
def test_config_that_is_no_mapping_is_refused(config):
    with pytest.raises(ConfigError, match="allowed a mapping"):
        load_sweep(config)


def test_config_without_models_says_what_to_add():
    with pytest.raises(ConfigError) as caught:
        load_sweep({"name": "empty"})
    (line,) = caught.value.problems
    assert "models: missing" in line
    assert "'model_name'" in line


@pytest.mark.parametrize("text", ["models: [", "- a", "", "a: &a {b: *a}"])
def test_file_that_cannot_be_searched_still_gives_messages(text, root):
    (root / "sweep.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="models: missing"):
        load_sweep({}, ["sweep.yaml", "no-such-file.yaml"], root)


@pytest.mark.parametrize(
    ("config", "part"),
    [
        (
            {"model_name": "./nowhere"},
            "model_name: found './nowhere', allowed a folder that exists",
        ),
        (
            {"model_name": "a", "max_output_tokens": 2, "min_output_tokens": 3},
            "min_output_tokens: found 3, allowed at most max_output_tokens, which is 2",
        ),
        (
            {"model_name": "a", "sharding": {"strategy": "device_map"}},
            "sharding.num_devices: found 1, allowed 2 or more with the strategy 'device_map'",
        ),
        (
            {"model_name": "a", "quantization": {"load_in_8_bit": True}},
            "quantization.load_in_8_bit: unknown key, allowed load_in_4bit, load_in_8bit; "
            "did you mean 'load_in_8bit'?",
        ),
    ],
)
def test_mistake_in_the_single_form_names_the_key_as_written(config, part):
    with pytest.raises(ConfigError) as caught:
        load_sweep(config)
    assert caught.value.problems == [line for line in caught.value.problems if part in line]
    assert len(caught.value.problems) == 1
