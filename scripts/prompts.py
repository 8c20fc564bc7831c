"""Tokenise the prompts of one model's workloads, once for all backends."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from llm_energy.core.cli import run
from llm_energy.inputs.prompts.stage import make_prompt_set
from llm_energy.records import ModelManifest, PromptRequest, read_record, write_record


def main(argv: list[str] | None = None) -> int:
    """Run the prompts stage for one model; give the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--request", required=True, type=Path, help="what the workloads need")
    parser.add_argument("--model-folder", required=True, type=Path, help="has the tokenizer")
    parser.add_argument("--manifest", required=True, type=Path, help="the model's manifest")
    parser.add_argument("--out", required=True, type=Path, help="the prompt set to write")
    arguments = parser.parse_args(argv)

    def stage() -> None:
        manifest = read_record(ModelManifest, arguments.manifest)
        request = read_record(PromptRequest, arguments.request)
        write_record(arguments.out, make_prompt_set(request, arguments.model_folder, manifest))

    return run(stage)


if __name__ == "__main__":
    sys.exit(main())
