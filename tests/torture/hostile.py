"""Give every input of ``hostile.yaml`` to its reader, and count what came of it.

    .venvs/dev/bin/python tests/torture/hostile.py
    .venvs/pytorch-cpu/bin/python tests/torture/hostile.py --into gguf

Each runs in a process of its own, in a folder of its own, under a bound of time and memory, and
with a secret in its environment. The exit status is 1 where one fares otherwise than it must.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import io
import json
import os
import re
import resource
import select
import shutil
import signal
import sys
import tarfile
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]

import yaml

from llm_energy.core.errors import ConfigError, LlmEnergyError

SECRET = "hf_" + "PlantedForTheTortureTests"
LIMIT_S = 120
MOST_MEMORY_MB = 1500  # above what the process had before
LONGEST_MESSAGE = 2000  # characters of one line
MOST_LINES = 102  # of a config, in which each mistake has its own
MARK = "ran"  # the file that hostile code would make
OTHERS = ("outside.json", "outside.safetensors")


@dataclass(frozen=True)
class Outcome:
    """What came of an input: refused, harmless, traceback, harm or endless; and its message."""

    what: str
    message: str = ""


def content(parts: Any) -> bytes:
    """Return the bytes that a content of the data file describes.

    >>> content(["a", {"hex": "ff"}, {"u32": 1}, {"repeat": ["b", "c"], "times": 2}])
    b'a\\xff\\x01\\x00\\x00\\x00bcbc'
    """
    match parts:
        case str():
            return parts.encode()
        case list():
            return b"".join(map(content, parts))
        case {"hex": digits}:
            return bytes.fromhex(str(digits))
        case {"u32": number}:
            return number.to_bytes(4, "little")
        case {"u64": number}:
            return number.to_bytes(8, "little")
        case {"sized": part}:
            return content({"u64": len(content(part))}) + content(part)
        case {"repeat": part, "times": times}:
            return content(part) * times
    raise ValueError(f"{parts!r:.80}: no content")


def write(entry: dict[str, Any], name: str) -> Path:
    """Write an entry's content beside its working folder and return the path."""
    path = Path("..", "given", entry.get("name", name))
    if "\0" not in path.name:
        path.write_bytes(content(entry["content"]))
    return path


# the readers, each as its stage calls it


def into_config(entry: dict[str, Any]) -> None:
    """Read a config as Snakemake does, and check it."""
    from snakemake.common.configfile import load_configfile
    from snakemake.exceptions import WorkflowError

    from llm_energy.plan.config.load import load_sweep

    path = write(entry, "sweep.yaml")
    try:
        config = load_configfile(str(path))
    except WorkflowError as error:
        raise LlmEnergyError(f"Snakemake: {error!s:.500}") from None
    load_sweep({"models": [{"id": "m", "model_name": "a/b"}], **config}, [path])


def into_prompts(entry: dict[str, Any]) -> None:
    """Read prompts from a user's file."""
    from llm_energy.inputs.prompts import sets

    sets.read_file(write(entry, ""), sets.DEFAULT_COLUMN)


def into_trace(entry: dict[str, Any]) -> None:
    """Read a trace of requests to its end."""
    from llm_energy.inputs.traffic.trace_file import read_trace

    for _ in read_trace(write(entry, "trace.csv")):
        pass


def into_model(entry: dict[str, Any]) -> None:
    """Fetch a model from a folder that has some files other than a sound one."""
    from support.checkpoints import write_safetensors

    from llm_energy.inputs.models import files, stage

    folder = Path("..", "given", "model")
    folder.mkdir()
    write_safetensors(folder / "model.safetensors", {"a": ("BF16", [3, 5])})
    for name, text in {"config.json": "{}", "tokenizer.json": "{}", **entry["files"]}.items():
        (folder / name).unlink(missing_ok=True)
        if text is not None:
            (folder / name).write_bytes(content(text))
    source = {"kind": "folder", "path": str(folder)}
    stage.fetch({"id": "m", "model_name": "m", "revision": None, "source": source}, "model")
    for path in Path("model").iterdir():
        assert files.matches(path.name, files.WANTED_FILES), path


def into_gguf(entry: dict[str, Any]) -> None:
    """Convert a GGUF file, as far as it can be."""
    from llm_energy.inputs.models.gguf import convert_gguf

    convert_gguf(write(entry, "model.gguf"), Path("model"))


def into_archive(entry: dict[str, Any]) -> None:
    """Lay out an archive that holds a sound sweep and more, or another plan."""
    from support import builders

    from llm_energy.publish.provenance.archive import unpack

    here, sound = Path.cwd(), Path("..", "given", "sound").resolve()
    grid = builders.plan([("pytorch", "float32")], 1)
    builders.write_sweep(sound, [builders.measurement()], grid)
    os.chdir(here)  # that helper enters what it writes
    if "plan" in entry:
        (sound / "results/test/plan.json").write_bytes(content(entry["plan"]))
    with tarfile.open("../given/a.tar.gz", "w:gz", compresslevel=1) as file:
        file.add(sound, arcname=".")
        for member in entry.get("members", []):
            data = content(member.get("content", ""))
            for number in range(times := member.get("times", 1)):
                info = tarfile.TarInfo(member["name"] + (str(number) if times > 1 else ""))
                info.type, info.size = member.get("type", "0").encode(), len(data)
                info.linkname = member.get("link", "")
                file.addfile(info, io.BytesIO(data))
    unpack(Path("../given/a.tar.gz"), Path("paper"))


def into_measurement(entry: dict[str, Any]) -> None:
    """Judge a sweep in which one repeat was changed; an invalid verdict is a refusal."""
    from support import builders

    from llm_energy.analysis.validate import validate

    plan = builders.write_sweep(Path.cwd(), [builders.measurement()])
    path = Path("results/test/pytorch/measurements/m--pytorch--float32/r01.json")
    if "content" in entry:
        path.write_bytes(content(entry["content"]))
    else:
        before, after = entry["replace"]
        text = path.read_text()
        assert before in text, before
        path.write_bytes(text.replace(before, after).encode("utf-8", "surrogatepass"))
    verdict = validate("test", "pytorch", plan).verdicts[0]
    if verdict.verdict == "invalid":
        raise LlmEnergyError(f"{[flag.id for flag in verdict.flags]} {verdict.reason}")


def into_power(entry: dict[str, Any]) -> None:
    """Read a time series of power."""
    from llm_energy.records import power_trace

    list(power_trace.read(write(entry, "r01.trace.csv")))


def into_wall(entry: dict[str, Any]) -> None:
    """Read the export of a wall meter."""
    from llm_energy.analysis.energy import wall_meter

    wall_meter.read(write(entry, "wall.csv"))


def into_answer(entry: dict[str, Any]) -> None:
    """Take what a server sent in place of an event."""
    from llm_energy.backends.served.answer import Answer, Events
    from llm_energy.records import Request

    answer = Answer(Request("r", (1, 2)), b"", 1, 1, 0.0)
    sent = b"data: " + content(entry["content"])
    events = Events()
    for event in events.feed(sent) + events.feed(b"\n\n"):
        answer.take(event, 0.0)


def into_published(entry: dict[str, Any]) -> None:
    """Make the tables of a sweep whose model and reason have these words."""
    from llm_energy.publish.tables import Results, render

    for name, text in render(Results((_aggregate(entry),))):
        if name.endswith(".csv"):
            cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
            assert not [c for c in cells if c.startswith(("=", "+", "@"))], f"a formula in {name}"
        elif name.endswith(".tex"):
            assert not re.search(r"\\(?:input|write)\b|\^\^", text), f"a command in {name}"
        elif name.endswith(".md"):
            assert "<script" not in text, f"a script in {name}"
            assert "\n# head" not in text, f"a heading in {name}"


def into_report(entry: dict[str, Any]) -> None:
    """Make the report of such a sweep."""
    from support import builders
    from support.report_sweep import nothing_compared

    from llm_energy.publish.report import Sources, render

    plan = builders.plan([("pytorch", "float32")], 1)
    page = render(Sources(plan, [_aggregate(entry)], [], [], nothing_compared()))
    assert len(re.findall(r"<script\b", page)) == 3, "a script in the report"
    markup = re.sub(r"<script\b.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"<(?:link|img|iframe)\b", markup), "something fetched by the report"


def _aggregate(entry: dict[str, Any]) -> Any:
    from support import builders

    told = content(entry["content"]).decode()
    return builders.aggregate([builders.unusable_row("failed", told, model=told)])


READERS: dict[str, Callable[[dict[str, Any]], None]] = {
    name.removeprefix("into_"): reader
    for name, reader in list(globals().items())
    if name.startswith("into_")
}


HERE = tuple(name for name in READERS if name != "gguf")  # that one takes another environment
# Imported before the forks, so that it is done once.
SLOW = ("gguf", "transformers", "torch")
MODULES = ("snakemake.common.configfile", "snakemake.exceptions", "support.builders")
MODULES += ("support.checkpoints", "jsonschema", "llm_energy.plan.config.load")
MODULES += ("llm_energy.analysis.validate", "llm_energy.publish.tables")
MODULES += ("llm_energy.publish.provenance.archive", "llm_energy.inputs.models.stage")
MODULES += ("llm_energy.inputs.prompts.sets", "llm_energy.inputs.traffic.trace_file")


def load(*into: str) -> None:
    """Import what some readers import, as far as this environment has it."""
    for name in SLOW if "gguf" in into else MODULES:
        importlib.import_module(name)


def entries(*into: str, big: bool = True) -> list[dict[str, Any]]:
    """Return the inputs for some readers, with or without those that take long."""
    found = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    return [one for one in found if one["into"] in into and (big or not one.get("big"))]


def attempt(entry: dict[str, Any], place: Path) -> Outcome:
    """Give one input to its reader, in a process of its own and below ``place``."""
    (place / "here").mkdir(parents=True)
    (place / "given").mkdir()
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        status = 1
        try:
            os.close(reading)
            told = _inside(entry, place)
            with open(writing, "w", encoding="utf-8", errors="backslashreplace") as stream:
                json.dump(vars(told), stream)
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with open(reading, "rb") as stream:
        if not select.select([stream], [], [], LIMIT_S)[0]:
            os.kill(child, signal.SIGKILL)
        answered = stream.read()
    _, status = os.waitpid(child, 0)
    if not answered:
        return Outcome("endless", f"killed with the status {status}")
    return Outcome(**json.loads(answered))


def _inside(entry: dict[str, Any], place: Path) -> Outcome:
    os.chdir(place / "here")
    os.environ["HF_TOKEN"] = SECRET
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        READERS[entry["into"]](entry)
        told = Outcome("harmless")
    except LlmEnergyError as error:
        lines = str(error).splitlines()
        told = Outcome("refused", str(error)[: LONGEST_MESSAGE * MOST_LINES])
        most = MOST_LINES if isinstance(error, ConfigError) else 1
        if len(lines) > most or any(len(line) > LONGEST_MESSAGE for line in lines):
            return Outcome("harm", f"a message of {len(str(error))} characters: {error!s:.200}")
    except AssertionError as error:
        return Outcome("harm", f"{error!s:.500}")
    except BaseException:
        return Outcome("traceback", traceback.format_exc()[-1500:])
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    if grown_mb > MOST_MEMORY_MB:
        return Outcome("harm", f"{grown_mb:.0f} MB of memory")
    if harm := _harm(place, told.message):
        return Outcome("harm", harm)
    return told


def _harm(place: Path, message: str) -> str:
    """Say what an input has made or told that it may not, or nothing."""
    if SECRET in message:
        return "a secret in the message"
    for path in place.rglob("*"):
        if path.name == MARK:
            return f"code ran: {path}"
        if path.is_relative_to(place / "given"):
            continue
        if path.name in OTHERS or (path.parent == place and path.name != "here"):
            return f"a file where none may be: {path}"
        if path.is_file() and SECRET.encode() in path.read_bytes():
            return f"a secret in {path}"
    return ""


def fault(entry: dict[str, Any], found: Outcome) -> str | None:
    """Say how an input fared otherwise than it must, or None."""
    if found.what != entry["expect"]:
        return f"{found.what}, not {entry['expect']}: {found.message}"
    if found.what == "refused" and (entry["says"] or "") not in found.message:
        return f"refused without the words {entry['says']!r}: {found.message:.500}"
    return None


def main(argv: list[str] | None = None) -> int:
    """Parse the command line, try every input, print the counts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--into", nargs="+", choices=READERS, default=HERE)
    into = parser.parse_args(argv).into
    load(*into)
    counts: Counter[str] = Counter()
    wrong = 0
    for entry in entries(*into):
        place = Path(tempfile.mkdtemp())
        begin_s = time.monotonic()
        found = attempt(entry, place)
        shutil.rmtree(place, ignore_errors=True)
        told = fault(entry, found)
        accepted = found.what == "harmless" and told
        counts["wrongly accepted" if accepted else found.what] += 1
        if told:
            wrong += 1
            print(f"{entry['id']} ({entry['tries']}): {told}", flush=True)
        elif (took_s := time.monotonic() - begin_s) > 10:
            print(f"{entry['id']}: {found.what} after {took_s:.0f} s", flush=True)
    for what in ("refused", "harmless", "wrongly accepted", "traceback", "harm", "endless"):
        print(f"{counts[what]:5d}  {what}")
    print(f"{wrong:5d}  fare otherwise than they must")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
