"""One ``backend`` fixture: every engine that this environment holds, behind the same few calls.

A backend joins the suite by standing in ``llm_energy.backends.base.MODULES``, with
``CAPABILITIES`` in its module and its rows in the compatibility matrix; no test names it.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from support import documented_backend, fake_tensorrt
from support.subject import PROMPT, Subject

from llm_energy.backends import base
from llm_energy.core.errors import BackendUnavailable
from llm_energy.environments.registry import ENGINES
from llm_energy.records.registry.engines import REGISTRY

# The threads of a tiny model spend their time waiting for each other, above all on a busy host.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# An environment is one backend's. Another engine's packages may lie there too, but not those that
# its own lock pins, so it is not what a sweep would measure.
HERE = Path(sys.prefix).name.removesuffix("-cpu") if Path(sys.prefix).name in ENGINES else None


documented_backend.register()
if HERE == "pytorch":  # whose packages the stand-in for TensorRT-LLM runs models with
    fake_tensorrt.register()
STOOD_IN = {documented_backend.NAME, "tensorrt"} if HERE == "pytorch" else {documented_backend.NAME}


def elsewhere(name: str) -> bool:
    """Return whether a backend has an environment of its own, which is not this one."""
    name = "pytorch" if name in STOOD_IN else name
    return HERE is not None and name in ENGINES and name != HERE


collect_ignore = [f"test_{name}.py" for name in base.MODULES if elsewhere(name)]
if elsewhere("pytorch"):  # whose packages convert models and tokenise prompts
    collect_ignore.append("test_models_engine.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what explains many failures: a package that is not the one written down."""
    items.sort(key=lambda item: item.name != "test_the_package_is_as_written_down")


STOP_POSITION = 3  # of the output token that the model of ``stopping`` takes for its end


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model folder of random weights that loads in well under a second."""
    from support.tiny_model import build

    folder = tmp_path_factory.mktemp("tiny")
    build(folder, "llama")
    return folder


@pytest.fixture(scope="session")
def plain_logits(tiny_folder: Path) -> Callable[[Sequence[int]], Any]:
    """Return the logits at every place by one whole forward pass in float32, no cache, no batch."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)

    def logits(ids: Sequence[int]) -> Any:
        with torch.inference_mode():
            return model(torch.tensor([list(ids)])).logits[0]

    return logits


@pytest.fixture(scope="session")
def reference(plain_logits: Callable[[Sequence[int]], Any]) -> Callable[..., list[int]]:
    """Return greedy ids by the plainest means: one whole forward pass a token.

    ``banned`` ids are never chosen, which is what a forced length does to the end of sequence.
    """

    def greedy(prompt: Sequence[int], count: int, banned: Sequence[int] = ()) -> list[int]:
        ids = list(prompt)
        for _ in range(count):
            logits = plain_logits(ids)[-1].clone()
            logits[list(banned)] = -float("inf")
            ids.append(int(logits.argmax()))
        return ids[len(prompt) :]

    return greedy


@pytest.fixture(scope="session")
def eos(tiny_folder: Path) -> list[int]:
    """Return the ids that end a sequence of the tiny model."""
    value = json.loads((tiny_folder / "config.json").read_text())["eos_token_id"]
    return value if isinstance(value, list) else [value]


def named(way: tuple[str, str | None]) -> str:
    """Name a backend in reports, where a stand-in must not be taken for the engine."""
    name, flow = way
    if flow:
        return f"{name}-{flow}"
    return f"{name}-stand-in" if name == "tensorrt" and name in STOOD_IN else name


# Each backend, and each of its flows that has a module of its own. What `openai` does is its
# server's doing: test_openai_api.py has a scripted one, tests/workflow real ones.
WAYS = [
    (name, flow)
    for name in sorted(base.MODULES)
    if not elsewhere(name) and name != "openai"
    for flow in (None, *(REGISTRY[name].flows if name in REGISTRY else ()))
]


@pytest.fixture(scope="session", params=WAYS, ids=named)
def backend_way(request: pytest.FixtureRequest) -> tuple[str, str | None]:
    """Return each backend of this environment with its flow, and skip what is not installed."""
    name, flow = request.param
    try:
        base.create(name, flow)
    except (BackendUnavailable, ImportError) as error:
        pytest.skip(f"backend {name} is not installed here: {error}")
    return name, flow


@pytest.fixture(scope="session")
def new_subject(backend_way: tuple[str, str | None], tiny_folder: Path) -> Callable[..., Subject]:
    """Return a maker of backends without a model yet."""
    name, flow = backend_way
    capabilities = importlib.import_module(base.module_of(name, flow)).CAPABILITIES

    def make(folder: Path = tiny_folder) -> Subject:
        return Subject(name, capabilities, folder, base.create(name, flow), flow=flow)

    return make


@pytest.fixture(scope="session")
def backend(new_subject: Callable[..., Subject]):
    """Return a backend with the tiny model loaded in float32."""
    subject = new_subject().load()
    yield subject
    subject.engine.close()


@pytest.fixture(scope="session")
def stopping(
    new_subject: Callable[..., Subject],
    reference: Callable[..., list[int]],
    tiny_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
):
    """Return a backend whose model ends early on PROMPT and brings its own generation defaults.

    Its end of sequence is the token that greedy decoding gives at STOP_POSITION of PROMPT.
    """
    stop = reference(PROMPT, STOP_POSITION + 1)[STOP_POSITION]
    folder = tmp_path_factory.mktemp("stopping") / "model"
    shutil.copytree(tiny_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"eos_token_id": stop}))
    own = {
        "do_sample": True,
        "temperature": 0.01,
        "top_k": 1,
        "top_p": 0.01,
        "repetition_penalty": 9.0,
        "max_new_tokens": 2,
        "suppress_tokens": reference(PROMPT, 1),
        "eos_token_id": stop,
    }
    (folder / "generation_config.json").write_text(json.dumps(own))
    subject = new_subject(folder).load()
    yield subject, stop
    subject.engine.close()
