"""The page on adding a backend: a short example that the conformance suite itself runs."""

from __future__ import annotations

import inspect

from support.documented_backend import PAGE, code

from llm_energy.backends.base import Backend


def test_the_example_is_short_and_has_every_method_of_a_backend():
    example: dict = {}
    exec(code(), example)
    wanted = {name for name, _ in inspect.getmembers(Backend, inspect.isfunction)}
    wanted = {name for name in wanted if not name.startswith("_")}

    assert len(code().splitlines()) < 80
    assert wanted == {"load", "prepare", "generate", "events", "close"}
    for name in wanted:
        ours = inspect.signature(getattr(example["Backend"], name)).parameters
        assert list(ours) == list(inspect.signature(getattr(Backend, name)).parameters)
    assert example["CAPABILITIES"]


def test_the_page_names_the_suite_as_the_contract():
    assert "The contract is the conformance suite, `tests/engines/test_conformance.py`" in (
        " ".join(PAGE.read_text(encoding="utf-8").split())
    )
