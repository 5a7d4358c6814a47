"""Bad run folders: descriptions, events, updates, states, records."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from bad_inputs.breaking import Break, Table, both, content, json_file, lacking, on_run
from desk import Desk
from tiny_runs import TENSOR

UPDATE = "updates/000001-000007.safetensors"
EVENTS = "events.jsonl"


def described(**changes: object) -> Break:
    """The spectra of a run whose run.json has these entries; `...` removes one."""
    return on_run(json_file("run.json", **changes))


def event(**changes: object) -> Callable[[Path], object]:
    """Changes entries of the one event; `...` removes one."""

    def change(run: Path) -> None:
        entries = json.loads((run / EVENTS).read_text()) | changes
        (run / EVENTS).write_text(json.dumps({key: value for key, value in entries.items() if value is not ...}) + "\n")

    return change


def told(**changes: object) -> Break:
    """The spectra of a run whose one event has these entries."""
    return on_run(event(**changes))


def one_more(entries: dict[str, object]) -> Callable[[Path], object]:
    """Appends an event."""
    return lambda run: (run / EVENTS).write_text((run / EVENTS).read_text() + json.dumps(entries) + "\n")


def climbing(desk: Desk) -> list[object]:
    """An event whose file lies outside the run, whole and rightly signed."""
    shutil.copy(desk.run / UPDATE, desk.root / "000001-000007.safetensors")
    event(file="../000001-000007.safetensors")(desk.run)
    return ["spectra", desk.run, "--model", desk.model]


def a_file(desk: Desk) -> list[object]:
    return ["spectra", desk.root / "text.txt", "--model", desk.model]


BAD: Table = {
    "a file": (a_file, "no run.json in it"),
    "no description": (on_run(lacking("run.json")), "no run.json in it"),
    "a description that is not JSON": (on_run(content("run.json", "{")), "run.json: not valid JSON"),
    "a description that is not UTF-8": (on_run(content("run.json", b'{"\xff": 1}')), "run.json: not UTF-8 text"),
    "a list as description": (on_run(content("run.json", "[]")), "run.json: not a run's description"),
    "null as description": (on_run(content("run.json", "null")), "run.json: not a run's description"),
    "a description nested without end": (on_run(content("run.json", "[" * 100_000)), "nested too deeply"),
    "a folder as description": (on_run(both(lacking("run.json"), lambda r: (r / "run.json").mkdir())), "is a folder"),
    "tensors that are a text": (described(tensors=TENSOR), "run.json: tensors "),
    "tensors that are numbers": (described(tensors=[1]), "run.json: tensors "),
    "no tensors": (described(tensors=[]), "edits no weights, so there are no spectra"),
    "a tensor twice": (described(tensors=[TENSOR, TENSOR]), "run.json: tensors "),
    "a tensor that climbs out": (described(tensors=["../../x"]), "tensor ../../x: not an MLP kernel"),
    "a tensor that the model has not": (described(tensors=[TENSOR.replace("1", "7")]), "the model has 3 layers"),
    "a layer of 5,000 digits": (described(tensors=[TENSOR.replace("1", "9" * 5000)]), "tensor transformer.h.999"),
    "a tensor of attention": (described(tensors=["transformer.h.1.attn.c_attn.weight"]), "not an MLP kernel"),
    "no model": (described(model=...), "run.json: model "),
    "a model that is a text": (described(model="tiny"), "run.json: model "),
    "a model without checksum": (described(model={"name": "tiny"}), "run.json: model "),
    "a model of a dtype that is none": (
        on_run(
            lambda r: json_file(
                "run.json", model=json.loads((r / "run.json").read_text())["model"] | {"dtype": "int8"}
            )(r)
        ),
        "dtype 'int8'",
    ),
    "no editor": (described(editor=...), "run.json: editor "),
    "an editor that is a number": (described(editor=7), "run.json: editor "),
    "a seed that is a text": (described(seed="0"), "run.json: seed "),
    "a batch of 0": (described(batch=0), "run.json: batch "),
    "a negative batch": (described(batch=-1), "run.json: batch "),
    "a negative chunk": (described(chunk=-50), "run.json: chunk "),
    "a chunk that is a text": (described(chunk="50"), "run.json: chunk "),
    "a batch that is a text": (described(batch="1"), "run.json: batch "),
    "no requests": (described(requests=...), "run.json: requests "),
    "settings that are a list": (described(settings=[]), "run.json: settings "),
    "settings of no editor": (on_run(json_file("run.json", settings={"speed": 1}), "check", "--redo", "1"), "'speed'"),
    "an unknown editor": (on_run(json_file("run.json", editor="memo"), "check", "--redo", "1"), "editor 'memo'"),
    "requests lost": (on_run(lacking("requests.jsonl")), "requests.jsonl: no such file"),
    "requests emptied": (on_run(content("requests.jsonl", "")), "requests.jsonl: no records"),
    "contexts lost": (on_run(lacking("contexts.json")), "contexts.json: no such file"),
    "contexts that are a number": (on_run(content("contexts.json", "3")), "contexts.json: a JSON list of templates"),
    "contexts that are numbers": (on_run(content("contexts.json", "[3]")), "contexts.json: template 1 must be text"),
    "another model's": (on_run(json_file("run.json", model={"name": "x", "sha256": "0" * 64})), "another checksum"),
    "events that are not JSON": (on_run(content(EVENTS, "{\n")), "events.jsonl: line 1 is not an event"),
    "events that are not UTF-8": (on_run(content(EVENTS, b"\xff\n")), "events.jsonl: not UTF-8 text"),
    "an event that is a number": (on_run(content(EVENTS, "7\n")), "line 1 is not an event"),
    "an event that is a list": (on_run(content(EVENTS, "[]\n")), "line 1 is not an event"),
    "an event nested without end": (on_run(content(EVENTS, "[" * 100_000 + "\n")), "line 1 is not an event"),
    "an event of 5,000 digits": (on_run(content(EVENTS, '{"seq": ' + "9" * 5000 + "}\n")), "line 1 is not an event"),
    "an event with a word too many": (told(colour="red"), "line 1 is not an event"),
    "an event without seq": (told(seq=...), "line 1 is not an event"),
    "an event of another place": (told(seq=5), "line 6 does not follow the one before it"),
    "a seq that is a text": (told(seq="0"), "line 1 is not an event: seq '0'"),
    "an event of no kind": (told(kind="retrain"), "line 1 is not an event: kind 'retrain'"),
    "a first that is a text": (told(first="1"), "line 1 is not an event: first '1'"),
    "a first of 0": (told(first=0), "line 1 is not an event: first 0"),
    "a last before the first": (told(last=-7), "line 1 is not an event: last -7"),
    "a last that is a truth value": (told(last=True), "line 1 is not an event: last True"),
    "a last beyond all numbers": (told(last=10**30), "line 1 is not an event: "),
    "a last that is broken": (told(last=7.0), "line 1 is not an event: last 7.0"),
    "another last than its file": (told(last=6), "line 1 is not an event: file "),
    "no file": (told(file=...), "run file"),
    "a file that is a number": (told(file=7), "line 1 is not an event: file 7"),
    "a file outside the run": (climbing, "line 1 is not an event: file '../000001-000007.safetensors'"),
    "a file from the root": (told(file="/etc/passwd"), "line 1 is not an event: file '/etc/passwd'"),
    "a checksum that is a number": (told(sha256=7), "line 1 is not an event: sha256 7"),
    "a restraint that is none": (
        on_run(one_more({"seq": 1, "kind": "restrain", "first": 7, "last": 7, "restraint": "tanh"})),
        "restraint 'tanh'",
    ),
    "raw that is a text": (told(raw="yes"), "line 1 is not an event: raw 'yes'"),
}
