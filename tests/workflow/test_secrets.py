"""A token reaches the hub, and nothing that the pipeline writes or says."""

from __future__ import annotations

import pytest
from support.fake_hub import hub
from support.project import Project, tiny_sweep

pytestmark = pytest.mark.engine

TOKEN = "hf_PlantedTokenOfTheTests"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_a_token_reaches_the_download_and_never_a_file_or_the_terminal(tmp_path, monkeypatch):
    project = Project(tmp_path / "copy")
    repository = project.folder.parent / "repository"
    project.tiny_model("tiny", "llama")
    (project.folder / "local-models" / "tiny").rename(repository)
    model = {"id": "tiny", "model_name": "some/tiny", "revision": COMMIT}
    config = project.write_config("tiny", tiny_sweep("", models=[model]))
    said: set[str | None] = set()
    with hub({"some/tiny": (COMMIT, repository)}, said) as (address, _):
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        output = project.snakemake("--configfile", config, "--verbose").stdout
    assert f"Bearer {TOKEN}" in said
    assert TOKEN not in output
    written = [path for path in project.folder.rglob("*") if path.is_file()]
    assert any(path.name == "r01.json" for path in written)
    assert any(path.suffix == ".log" for path in written)
    assert [path for path in written if TOKEN.encode() in path.read_bytes()] == []
    assert [path for path in (tmp_path / "home").rglob("*") if path.is_file()]  # HF_HOME obeyed
