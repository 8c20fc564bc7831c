"""The backend of any server, on one that is scripted: what is counted, refused, and never run."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support import fake_server
from support.subject import Subject, parameters

pytest.importorskip("aiohttp")  # which the environments of engines with servers hold
import psutil

from llm_energy.backends.compatibility import translate
from llm_energy.backends.engine_errors import outcome
from llm_energy.backends.openai.backend import Backend
from llm_energy.core.errors import Unsupported
from llm_energy.records import Request, Workload

pytestmark = pytest.mark.engine

REQUESTS = [Request(f"r{k}", (k + 1, k + 2, k + 3)) for k in range(4)]
TOKENS = 4
KEY = "FAKE_SERVER_KEY"


def command(fault: str) -> dict:
    program = [sys.executable, str(Path(fake_server.__file__)), "{port}", fault]
    return {"command": program, "key_variable": KEY}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model's folder with a tokenizer of words and nothing else."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = tmp_path_factory.mktemp("words")
    words = {f"w{k}": k for k in range(20)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(made / "tokenizer.json"))
    return made


@pytest.fixture
def loaded(folder):
    """Return a maker of backends with a server, and hold that no process of it is left."""
    made, before = [], set(psutil.Process().children(recursive=True))

    def make(**server):
        backend = Backend()
        made.append(backend)
        subject = Subject("openai", frozenset(), folder, backend)
        spec = subject.spec()
        effective = backend.load(
            replace(spec, device="cpu", engine=spec.engine | {"server": server}), folder
        )
        return backend, effective

    yield make
    for backend in made:
        backend.close()
        backend.close()
    assert set(psutil.Process().children(recursive=True)) <= before


def prepare(backend: Backend, forced: bool = False, requests=REQUESTS) -> dict:
    asked = parameters(max_output_tokens=TOKENS, min_output_tokens=TOKENS if forced else 0)
    native = translate(asked, "openai", None, "cpu").generate
    return backend.prepare(Workload("w", len(requests), asked, native), requests)


def test_a_usage_block_counts_where_a_server_gives_no_ids(loaded):
    backend, effective = loaded(kind="plain", **command("no_ids"))
    assert prepare(backend)["token_source"] == effective["token_source"] == "usage"
    done = backend.generate(lambda *mark: pytest.fail("chunks were counted"))

    for one in done:
        assert (one.prompt_tokens, one.output_tokens, one.output_token_ids) == (3, TOKENS, ())
        assert len(one.token_times_s) == TOKENS
        assert list(one.token_times_s) == sorted(one.token_times_s)
        assert (one.token_times_s[0], one.token_times_s[-1]) == (
            one.first_token_s,
            one.last_token_s,
        )


def test_a_server_that_closes_connections_unsaid_is_asked_over_new_ones(loaded):
    backend, _ = loaded(kind="plain", **command("closes_unsaid"))
    prepare(backend, requests=REQUESTS * 5)
    assert len(backend.generate()) == 5 * len(REQUESTS)


def test_a_prompt_goes_as_text_of_the_same_ids_where_a_server_takes_no_ids(loaded):
    backend, _ = loaded(kind="transformers", **command("without_done"))
    prepare(backend, forced=True)
    asked = json.loads(backend._asked[0].body)
    assert asked["prompt"] == "w1 w2 w3"
    assert [one.prompt_tokens for one in backend.generate()] == [3] * len(REQUESTS)


def test_a_prompt_without_such_a_text_is_refused(loaded):
    backend, _ = loaded(kind="transformers", **command("without_done"))
    unreadable = [Request("r0", (99, 1))]  # 99 is no word of the tokenizer
    with pytest.raises(Unsupported, match=r"r0: .* no text gives these 2 token ids again"):
        prepare(backend, forced=True, requests=unreadable)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("no_usage", r"neither token ids nor a usage block with completion_tokens \(found None\)"),
        ("other_usage", r"the server counts \(4, 4\) .* what was sent and came back is \(3, 4\)"),
        ("wrong_usage", "5 tokens came, 0 to 4 were asked for"),
        ("closed_early", "closed after 1 tokens, before its end"),
    ],
)
def test_what_the_usage_block_does_not_bear_out_fails_the_window(loaded, fault, says):
    backend, _ = loaded(kind="plain", **command(fault))
    prepare(backend)
    with outcome() as found:
        backend.generate()
    assert found.outcome == "failed"
    assert re.search(says, found.reason), found.reason


def test_a_forced_length_is_refused_where_the_api_has_no_word_for_it(loaded):
    backend, _ = loaded(kind="plain", **command("no_ids"))
    with pytest.raises(Unsupported, match="min_output_tokens"):
        prepare(backend, forced=True)


def test_more_at_once_than_the_client_sends_in_time_is_refused_for_timed_traffic(loaded):
    backend, _ = loaded(kind="plain", **command("no_ids"))
    asked = parameters(max_output_tokens=TOKENS, min_output_tokens=0, batch_size=501)
    native = translate(asked, "openai", None, "cpu").generate
    backend.prepare(Workload("w", len(REQUESTS), asked, native), REQUESTS)
    with pytest.raises(Unsupported, match=r"batching\.batch_size: found 501 .* at most 500"):
        backend.prepare(Workload("w", len(REQUESTS), asked, native, "a" * 64), REQUESTS)


def test_a_command_is_run_by_no_shell(loaded, tmp_path):
    there = tmp_path / "there"
    program = [*command("none")["command"], f"; touch {there}", f"$(touch {there})"]
    with outcome() as found:
        loaded(kind="plain", command=program)
    assert found.outcome != "ok"  # the fake server takes no more than its two arguments
    assert not there.exists()


def test_a_program_that_is_not_there_says_so(loaded):
    with outcome() as found:
        loaded(kind="plain", command=["/no/such/program", "{port}"])
    assert found.outcome == "unsupported"
    assert "/no/such/program" in found.reason


def test_a_server_that_is_there_already_is_asked_and_left_alone(loaded, monkeypatch):
    ours, _ = loaded(kind="plain", **command("no_ids"))
    monkeypatch.setenv("A_KEY", ours._server.key)
    url = ours._server.url
    backend, effective = loaded(kind="plain", url=url, key_variable="A_KEY", gpus=["GPU-1"])
    prepare(backend)
    assert len(backend.generate()) == len(REQUESTS)
    assert effective["server_started_by"] == "somebody else"
    assert (effective["server_host"], effective["device_uuids"]) == ("this host", ["GPU-1"])
    assert os.environ["A_KEY"] not in json.dumps(effective)
    backend.close()
    assert ours._client.healthy()


def test_no_server_at_a_url_is_a_row_that_says_so(loaded):
    with pytest.raises(Unsupported, match=r"no server to measure at http://127\.0\.0\.1:9: "):
        loaded(kind="plain", url="http://127.0.0.1:9")
