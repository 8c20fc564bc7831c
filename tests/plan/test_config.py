"""A sweep config in each of its forms gives the sweep that was meant, complete."""

from __future__ import annotations

import copy
import json
import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from snakemake.utils import validate
from support import builders
from support.project import ROOT

from llm_energy import records
from llm_energy.core.errors import ConfigError
from llm_energy.plan.config.load import load_sweep, model_id
from llm_energy.plan.config.messages import Places, allowed
from llm_energy.plan.config.schema import fill_defaults, keys, rule, schema

CONFIGS = sorted([ROOT / "config/config.yaml", *(ROOT / "config/examples").glob("*.yaml")])


def read(path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def sweep_of(**config):
    return load_sweep({"models": [{"id": "m", "model_name": "org/m"}], **config})


# valid forms


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configs_of_the_repository_are_valid(path):
    assert load_sweep(read(path), [path], ROOT).name


def test_default_sweep_is_the_demonstration():
    sweep = load_sweep(read(ROOT / "config/config.yaml"))
    assert [b.id for b in sweep.backends] == ["pytorch", "vllm"]
    assert [p.precision for p in sweep.precisions] == ["float32", "int8", "int4"]
    assert [w.parameters["batching"]["batch_size"] for w in sweep.workloads] == [1, 4]
    assert sweep.repeats == 3
    lengths = [w.parameters[k] for w in sweep.workloads for k in _LENGTHS]
    assert len(set(lengths)) == 1
    assert sweep.models[0].source["kind"] == "pypi"


_LENGTHS = ("min_output_tokens", "max_output_tokens")


def test_smallest_config_takes_every_default():
    sweep = sweep_of()
    assert [(b.id, b.environment) for b in sweep.backends] == [("pytorch", "auto")]
    assert [p.id for p in sweep.precisions] == ["bfloat16"]
    assert [(w.id, w.requests) for w in sweep.workloads] == [("default", 8)]
    assert sweep.models[0].source == {"kind": "hub"}
    assert sweep.models[0].revision is None
    assert (sweep.device, sweep.repeats, sweep.order_seed) == ("auto", 5, 0)
    assert sweep.protocol == records.Protocol()
    assert sweep.meter == records.MeterSettings()
    assert not sweep.policy.allow_mixed_backends
    assert not sweep.policy.ignore_backend_warnings


def test_neutral_parameters_are_the_defaults():
    (workload,) = sweep_of().workloads
    assert workload.parameters == {
        "max_output_tokens": 128,
        "min_output_tokens": 0,
        "random_seed": 0,
        "decoder": {
            "temperature": 1.0,
            "top_p": 1.0,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "no_repeat_ngram_size": 0,
            "do_sample": False,
        },
        "batching": {"batch_size": 1, "strategy": "static", "max_batch_tokens": None},
        "sharding": {"strategy": "none", "num_devices": 1},
        "traffic_simulation": None,
    }


def test_shorthands_mean_their_records():
    short = sweep_of(backends=["pytorch"], precisions=["int8", "float16"])
    full = sweep_of(
        backends=[{"id": "pytorch", "environment": "auto"}],
        precisions=[
            {"id": "int8", "precision": "int8", "compute_precision": "bfloat16"},
            {"id": "float16", "precision": "float16", "compute_precision": "float16"},
        ],
    )
    assert short == full


def test_workload_overrides_parameters_which_override_defaults():
    sweep = sweep_of(
        parameters={"max_output_tokens": 64, "decoder": {"top_k": 5, "temperature": 0.5}},
        prompts={"seed": 3, "chat_template": False},
        workloads=[
            {"id": "a", "decoder": {"top_k": 7}, "prompts": {"seed": 4}},
            {"id": "b", "max_output_tokens": 32},
        ],
    )
    a, b = sweep.workloads
    assert (a.parameters["max_output_tokens"], b.parameters["max_output_tokens"]) == (64, 32)
    assert (a.parameters["decoder"]["top_k"], b.parameters["decoder"]["top_k"]) == (7, 5)
    assert a.parameters["decoder"]["temperature"] == b.parameters["decoder"]["temperature"] == 0.5
    assert a.parameters["decoder"]["top_p"] == 1.0
    assert (a.prompts["seed"], b.prompts["seed"]) == (4, 3)
    assert a.prompts["chat_template"] is False
    assert a.prompts["source"] == "builtin"


@pytest.mark.parametrize(("batch_size", "requests"), [(1, 8), (3, 9), (8, 8), (32, 32)])
def test_requests_default_to_whole_batches(batch_size, requests):
    (workload,) = sweep_of(parameters={"batching": {"batch_size": batch_size}}).workloads
    assert workload.requests == requests


def test_dynamic_batching_takes_any_number_of_requests():
    (workload,) = sweep_of(
        workloads=[{"id": "w", "requests": 7, "batching": {"strategy": "dynamic", "batch_size": 4}}]
    ).workloads
    assert workload.requests == 7


def test_offline_traffic_is_no_traffic():
    (workload,) = sweep_of(parameters={"traffic_simulation": {"mode": "offline"}}).workloads
    assert workload.parameters["traffic_simulation"] is None


def test_sources_of_every_kind(tmp_path):
    builders.model_folder(tmp_path / "folder")
    (tmp_path / "a.gguf").touch()
    sources = [
        {"kind": "hub"},
        {"kind": "folder", "path": "folder"},
        {"kind": "gguf", "path": "a.gguf", "sha256": "0" * 64},
        {"kind": "pypi", "package": "p", "version": "1.0", "file": "p/a.gguf"},
    ]
    models = [{"id": f"m{i}", "model_name": "m", "source": s} for i, s in enumerate(sources)]
    models[0]["revision"] = "a" * 40
    sweep = load_sweep({"models": models}, root=tmp_path)
    assert [model.source for model in sweep.models] == sources
    assert sweep.models[0].revision == "a" * 40


# the single-experiment form


def test_single_experiment_is_a_sweep_of_one_cell():
    sweep = load_sweep(
        {
            "model_name": "meta-llama/Llama-3.2-1B",
            "backend": "vllm",
            "fp_precision": "float16",
            "batching": {"batch_size": 4},
            "decoder": {"temperature": 0.7, "do_sample": True},
            "max_output_tokens": 100,
        }
    )
    (model,), (backend,), (precision,) = sweep.models, sweep.backends, sweep.precisions
    assert (model.id, model.model_name) == ("llama-3.2-1b", "meta-llama/Llama-3.2-1B")
    assert model.source == {"kind": "hub"}
    assert backend.id == "vllm"
    assert (precision.id, precision.precision) == ("float16", "float16")
    (workload,) = sweep.workloads
    assert workload.parameters["batching"]["batch_size"] == 4
    assert workload.parameters["decoder"]["temperature"] == 0.7
    assert workload.parameters["max_output_tokens"] == 100


@pytest.mark.parametrize(
    ("given", "precision", "compute"),
    [
        ({"fp_precision": "float32"}, "float32", "float32"),
        ({"quantization": {"load_in_8bit": True}}, "int8", "bfloat16"),
        ({"quantization": {"load_in_4bit": True}, "fp_precision": "float16"}, "int4", "float16"),
        (
            {"quantization": {"load_in_4bit": False}, "fp_precision": "float16"},
            "float16",
            "float16",
        ),
        ({"quantization": {"load_in_8bit": False}}, "bfloat16", "bfloat16"),
    ],
)
def test_fp_precision_and_quantization_are_one_precision(given, precision, compute):
    (entry,) = sweep_of(precisions=["float32", "int8"], **given).precisions
    assert (entry.id, entry.precision, entry.compute_precision) == (precision, precision, compute)


def test_single_key_replaces_its_axis_and_leaves_the_others():
    config = read(ROOT / "config/config.yaml")
    sweep, plain = load_sweep(config | {"backend": "vllm"}), load_sweep(config)
    assert [b.id for b in sweep.backends] == ["vllm"]
    assert sweep.models == plain.models
    assert sweep.precisions == plain.precisions
    assert sweep.workloads == plain.workloads


def test_single_key_keeps_the_entry_that_it_names():
    sweep = sweep_of(
        backends=[{"id": "pytorch", "environment": "cpu"}, "vllm"],
        models=[
            {"id": "a", "model_name": "o/a"},
            {"id": "b", "model_name": "o/b", "revision": "r"},
        ],
        backend="pytorch",
        model_name="o/b",
    )
    assert [(b.id, b.environment) for b in sweep.backends] == [("pytorch", "cpu")]
    assert [(m.id, m.revision) for m in sweep.models] == [("b", "r")]
    variant = sweep_of(backends=["vllm", {"id": "v2", "engine": "vllm"}], backend="v2")
    assert [(b.id, b.engine) for b in variant.backends] == [("v2", "vllm")]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("smollm2-135", "smollm2-135m"),
        ("SmolLM2-135M", "smollm2-135m"),
        ("smollm2-135m-instruct", "HuggingFaceTB/SmolLM2-135M-Instruct"),
    ],
)
def test_a_name_that_is_nearly_an_entry_s_is_not_asked_of_the_hub(name, meant):
    models = [{"id": "smollm2-135m", "model_name": "HuggingFaceTB/SmolLM2-135M-Instruct"}]
    with pytest.raises(ConfigError, match=rf"model_name: .*; did you mean '{meant}'\?$"):
        sweep_of(models=models, model_name=name)


@pytest.mark.parametrize("name", ["gpt2", "other/smollm2-135m", "smollm2-135m"])
def test_a_name_unlike_every_entry_s_or_with_an_owner_is_taken(name):
    models = [
        {"id": "smollm2-135m", "model_name": "a/b"},
        {"id": "gpt2-xl", "model_name": "openai-community/gpt2-xl"},
    ]
    (model,) = sweep_of(models=models, model_name=name).models
    assert name in (model.id, model.model_name)


def test_top_level_parameter_replaces_workloads_that_set_it_otherwise():
    workloads = [{"id": "b1", "batching": {"batch_size": 1}}, {"id": "b8", "requests": 16}]
    kept = sweep_of(workloads=workloads, max_output_tokens=7).workloads
    assert [w.id for w in kept] == ["b1", "b8"]
    assert {w.parameters["max_output_tokens"] for w in kept} == {7}
    (replaced,) = sweep_of(workloads=workloads, batching={"batch_size": 2}).workloads
    assert replaced.id == "default"
    assert replaced.parameters["batching"]["batch_size"] == 2


def test_model_name_that_is_a_path_is_a_folder(tmp_path):
    builders.model_folder(tmp_path / "My_Model")
    (model,) = load_sweep({"model_name": "./My_Model"}, root=tmp_path).models
    assert (model.id, model.source) == ("my_model", {"kind": "folder", "path": "./My_Model"})


@given(st.text(min_size=1))
def test_model_id_is_always_a_valid_id(name):
    assert re.search(rule({"$ref": "#/$defs/id"})["pattern"], model_id(name))


# values from the command line


def test_text_becomes_what_the_schema_wants():
    sweep = sweep_of(
        protocol={"repeats": "3", "window_min_duration_s": "1e1", "warmup_cv": "0.1"},
        policy={"allow_mixed_backends": "true"},
        meter={"codecarbon": "False", "carbon_intensity_g_per_kwh": "null"},
        parameters={"max_output_tokens": 32.0, "traffic_simulation": "null"},
        workloads=[{"id": "w", "batching": {"batch_size": "2"}}],
    )
    assert sweep.repeats == 3
    assert sweep.protocol.window_min_duration_s == 10.0
    assert sweep.protocol.warmup_cv == 0.1
    assert sweep.policy.allow_mixed_backends is True
    assert sweep.meter == records.MeterSettings(codecarbon=False)
    (workload,) = sweep.workloads
    assert workload.parameters["max_output_tokens"] == 32
    assert workload.parameters["batching"]["batch_size"] == 2


def test_whole_seconds_and_fractions_give_the_same_sweep():
    assert repr(sweep_of(protocol={"window_min_duration_s": 30})) == repr(
        sweep_of(protocol={"window_min_duration_s": 30.0})
    )


def test_config_itself_is_not_changed():
    config = read(ROOT / "config/config.yaml") | {"backend": "vllm", "random_seed": "4"}
    before = copy.deepcopy(config)
    load_sweep(config)
    assert config == before


# the schema


def test_every_key_has_a_description_and_says_what_it_allows():
    for path, wanted in keys():
        assert wanted.get("description"), path
        assert allowed(wanted), path


def test_every_level_refuses_unknown_keys():
    for path, wanted in [("top level", schema()), *keys()]:
        wanted = rule(wanted["items"]) if "items" in wanted else wanted
        assert "properties" not in wanted or wanted["additionalProperties"] is False, path


def test_parents_of_defaults_have_a_default_themselves():
    found = {path: wanted for path, wanted in keys()}
    for path, wanted in found.items():
        parent = path.rpartition(".")[0]
        if "default" in wanted and parent and not parent.endswith("[]") and "[]" not in parent:
            assert found[parent].get("default") == {} or parent == "quantization", path


def test_schema_has_no_boolean_subschema():
    def subschemas(value, name=""):
        if isinstance(value, dict):
            for key, below in value.items():
                if name in ("properties", "$defs") or key in ("items", "if", "then", "else", "not"):
                    assert isinstance(below, dict), key
                subschemas(below, key)

    subschemas(schema())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_snakemake_can_validate_and_fill_in_too(path):
    filled = read(path)
    validate(filled, str(ROOT / "workflow/schemas/config.schema.yaml"))
    assert filled == fill_defaults(schema(), read(path))
    assert load_sweep(filled, root=ROOT) == load_sweep(read(path), root=ROOT)


def test_readme_explains_every_key():
    text = (ROOT / "config/README.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"^\| `([^`]+)` \|", text, flags=re.MULTILINE))
    parts = re.compile(
        r"^(workloads\[\]\.)?(prompts|decoder|batching|sharding|traffic_simulation)\."
    )
    for path, _ in keys():
        # a workload and the top level refer to the tables of `prompts` and `parameters`
        told = parts.sub(lambda m: "prompts." if m[2] == "prompts" else f"parameters.{m[2]}.", path)
        told = re.sub(r"(\.checkpoints)\.[^.]+", r"\1.<name>", told)  # each has the same keys
        assert told in shown, path


def test_readme_shows_the_defaults():
    text = (ROOT / "config/README.md").read_text(encoding="utf-8")
    for path, wanted in keys():
        if wanted.get("default", {}) != {} and f"| `{path}` |" in text:
            (row,) = [line for line in text.splitlines() if line.startswith(f"| `{path}` |")]
            assert f" | `{json.dumps(wanted['default'])}` | " in row


# whatever comes in


@pytest.mark.parametrize("key", [1, None, True, 2.5])
def test_key_that_is_no_text_is_an_unknown_key(key):
    with pytest.raises(ConfigError, match="unknown key"):
        sweep_of(**{"parameters": {key: 1}})


def test_place_of_a_key_inside_an_anchor_is_found(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text("a: &a {repeats: 0}\nprotocol:\n  <<: *a\n", encoding="utf-8")
    places = Places(read(path), [path])
    assert places.find(("protocol", "repeats"))[1] == f"{path}:2"


def test_no_more_mistakes_are_listed_than_one_reads(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("models: []\n" * 20_000, encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        load_sweep({"models": []}, [path])
    assert len(error.value.problems) == 101
    assert error.value.problems[-1] == "and 19900 more"


@pytest.mark.parametrize(
    "name",
    ["a b", "a/b/c", "/a", "a/", "-a/b", "a--b/c", "a/b..c", "a/b.git", "a" * 97, "ö"],
)
def test_a_name_that_no_repository_can_have_is_refused(name):
    with pytest.raises(ConfigError, match=r"models\[0\]\.model_name: found .* owner/name") as error:
        load_sweep({"models": [{"id": "m", "model_name": name}]})
    str(error.value).encode()


@pytest.mark.parametrize(
    "name", ["gpt2", "a/b", "Qwen/Qwen3-0.6B", "01-ai/Yi-6B", "_a/b_", "a/b.c"]
)
def test_names_of_repositories_are_taken(name):
    assert load_sweep({"models": [{"id": "m", "model_name": name}]}).models[0].model_name == name


@pytest.mark.parametrize("image", ["", " ", "{x}", "docker://a/{wildcards.sweep}:1", "a}"])
def test_an_image_has_no_wildcard_in_its_name(image):
    with pytest.raises(
        ConfigError, match=r"containers\.vllm: found .*, allowed the name of an image"
    ):
        load_sweep({"models": [{"id": "m", "model_name": "m"}], "containers": {"vllm": image}})


def test_a_lone_surrogate_is_told_wherever_it_stands():
    wrong = {"prompts": {"path": "\ud800"}, "models": ["a\udfff"], "x\ud800": 1}
    with pytest.raises(ConfigError) as told:
        sweep_of(**wrong)
    places = {line.split(": ")[1] for line in told.value.problems}
    assert places == {"prompts.path", "models[0]", "'x\\ud800'"}
