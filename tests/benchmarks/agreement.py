"""Compare the greedy float32 ids of two engines, and say what each difference is worth.

    .venvs/dev/bin/python tests/benchmarks/agreement.py results/models/<model>/files

Both engines serve the same prompts, one after the other, each in its own environment. Prints the
share of requests with identical ids. For each other request, whole forward passes of transformers
give the gap between the two likeliest tokens at the first difference: below 1e-3 it is a numeric
tie, which two correct engines may break either way. The exit status says whether at least 95 % are
identical or every difference is such a tie.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from llm_energy.analysis.sameness import common_prefix
from llm_energy.environments.registry import environment_name, interpreter, variant

ROOT = Path(__file__).resolve().parents[2]
BACKENDS = ("pytorch", "vllm")
TIE = 1e-3  # of two logits
SHARE = 0.95


def serve(backend: str, folder: Path, prompts: list[list[int]], asked: dict) -> list[list[int]]:
    """Serve the prompts greedily in float32 and give the output ids."""
    from support.subject import Subject

    from llm_energy.backends import base

    subject = Subject(backend, frozenset(), folder, base.create(backend)).load("float32")
    ids = subject.ids(prompts, **asked)
    subject.engine.close()
    return [list(map(int, one)) for one in ids]


def tokenise(folder: Path, count: int) -> list[list[int]]:
    """Return the ids of so many built-in prompts, evenly from all of them."""
    from transformers import AutoTokenizer

    lines = (ROOT / "config/prompts/general-v1.jsonl").read_text(encoding="utf-8").splitlines()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chosen = lines[:: len(lines) // count][:count]
    return [tokenizer(json.loads(line)["text"])["input_ids"] for line in chosen]


def gaps(folder: Path, sequences: list[list[int]]) -> list[float]:
    """Return the gap between the two largest logits after each sequence, without cache or batch."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        tops = [model(torch.tensor([ids])).logits[0, -1].topk(2).values for ids in sequences]
    return [float(first - second) for first, second in tops]


CALLS = {"serve": serve, "tokenise": tokenise, "gaps": gaps}


def call(backend: str, name: str, folder: Path, *arguments: object):
    """Run one of the functions above in the environment of a backend."""
    with tempfile.TemporaryDirectory() as place:
        question, answer = Path(place, "question.json"), Path(place, "answer.json")
        question.write_text(json.dumps([name, str(folder.resolve()), backend, arguments]))
        python = interpreter(ROOT, environment_name(backend, variant()))
        unset = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        child = [python, __file__, "--answer", question, answer]
        done = subprocess.run(child, env=unset, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"error: {name} in the environment of {backend}:\n{done.stderr}")
        return json.loads(answer.read_text())


def answer(question: str, out: str) -> int:
    """Answer a question of ``call``, inside the environment."""
    name, folder, backend, arguments = json.loads(Path(question).read_text())
    first = (backend,) if name == "serve" else ()
    result = CALLS[name](*first, Path(folder), *arguments)
    Path(out).write_text(json.dumps(result))
    return 0


def main() -> int:
    """Run the comparison; exit 1 if a difference is no tie and too many requests differ."""
    if sys.argv[1:2] == ["--answer"]:
        return answer(*sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--output-tokens", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=8)
    options = parser.parse_args()

    prompts = call("pytorch", "tokenise", options.model, options.requests)
    asked = {"max_output_tokens": options.output_tokens, "batch_size": options.batch_size}
    first, second = (call(name, "serve", options.model, prompts, asked) for name in BACKENDS)
    prefixes = [common_prefix(a, b) for a, b in zip(first, second, strict=True)]
    same = sum(a == b for a, b in zip(first, second, strict=True))
    differ = [i for i in range(len(prompts)) if first[i] != second[i]]
    print(
        f"{' and '.join(BACKENDS)}, float32, greedy, batch {options.batch_size}: {same} of "
        f"{len(prompts)} requests x {options.output_tokens} tokens identical "
        f"({same / len(prompts):.1%}); shortest common prefix {min(prefixes)}"
    )
    stems = [prompts[i] + first[i][: prefixes[i]] for i in differ]
    worst = 0.0
    for i, gap in zip(differ, call("pytorch", "gaps", options.model, stems), strict=True):
        worst = max(worst, gap)
        tie = "a numeric tie" if gap < TIE else "no tie"
        print(f"request {i}: first difference at token {prefixes[i]}, top-2 gap {gap:.2e}: {tie}")
    return int(same < SHARE * len(prompts) and worst >= TIE)


if __name__ == "__main__":
    sys.exit(main())
