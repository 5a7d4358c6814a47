"""Bad words of the command line, and runs taken up with other ones."""

import json

from bad_inputs.breaking import Break, Table, changed, new_edit, on_run
from desk import Desk
from prunejax.requests import write_requests
from tiny import save_tiny
from tiny_runs import REQUESTS


def again(**options: object) -> Break:
    """The edit into the run that exists, with some options changed."""
    return lambda desk: desk.edit(**options)


def verb(name: str, *words: object) -> Break:
    """A verb on the run."""
    return on_run(lambda run: None, name, *words)


def setting(*pairs: str) -> Break:
    """The edit with settings added."""
    return changed(set=["layers=1", "second_moment=identity", *pairs])


def mend(*pairs: str) -> Break:
    """The edit by MEND with these settings."""
    return changed(editor="mend", set=list(pairs))


def occupied_folder(desk: Desk) -> list[object]:
    folder = desk.root / "occupied"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    return desk.edit(out=folder)


def other_requests(desk: Desk) -> list[object]:
    return desk.edit(requests=write_requests(desk.root / "other.jsonl", REQUESTS[::-1]))


def other_contexts(desk: Desk) -> list[object]:
    (desk.root / "other.json").write_text(json.dumps(["{}", "Rome is a. {}"]))
    return desk.edit(contexts=desk.root / "other.json")


def other_model(desk: Desk) -> list[object]:
    return desk.edit(model=save_tiny(desk.root / "other", seed=1))


def single(**options: object) -> Break:
    """The verb that edits each request apart."""
    return lambda desk: ["single", *new_edit(desk, **options)[1:]]


def plan(*words: object) -> Break:
    """The forecast of an edit of the model."""
    return lambda desk: ["plan", "--model", desk.model, "--editor", "rome", "--set", "layers=1", *words]


def enough(**changes: object) -> Break:
    """The verb that counts keys."""

    def words(desk: Desk) -> list[object]:
        options = {"model": desk.model, "text": desk.root / "text.txt", "requests": desk.root / "requests.jsonl"}
        options |= {"layer": 1, "out": desk.root / "new.csv"} | changes
        return ["enough", *(word for name, value in options.items() for word in (f"--{name}", value))]

    return words


BAD: Table = {
    "model missing": (changed(model="nowhere"), "model 'nowhere'"),
    "model a file": (lambda desk: new_edit(desk, model=desk.root / "text.txt"), "neither 'world' nor a folder nor"),
    "model a folder of other things": (lambda desk: new_edit(desk, model=desk.root), "config.json: no such file"),
    "model of too long a name": (changed(model="x" * 300), "model 'xxx"),
    "unknown editor": (changed(editor="memo"), "editor 'memo': there are ft-l, ft-m, rome, r-rome"),
    "unknown preset": (changed(preset="gpt5"), "preset 'gpt5': there are"),
    "unknown hyper-parameter": (setting("speed=1"), "hyper-parameter 'speed': rome has layers, steps"),
    "no number": (setting("lr=fast"), "hyper-parameter lr=fast: a value of type float was expected"),
    "no whole number": (setting("steps=2.5"), "hyper-parameter steps=2.5: a value of type int was expected"),
    "not a number": (setting("lr=nan"), "hyper-parameter lr=nan"),
    "an infinite number": (setting("lr=inf"), "hyper-parameter lr=inf"),
    "steps beyond counting": (setting("steps=99999999999"), "steps"),
    "a number of 5,000 digits": (setting("steps=" + "9" * 5000), "hyper-parameter steps=9999"),
    "no layers": (setting("layers=first"), "hyper-parameter layers=first"),
    "negative": (setting("ridge=-1"), "must not be negative"),
    "no steps": (setting("steps=0"), "steps must be at least 1"),
    "unknown second moment": (setting("second_moment=mean"), "second_moment 'mean': corpus or identity"),
    "layer beyond the model": (setting("layers=3"), "the model has layers 0 to 2"),
    "layer below the model": (setting("layers=-1"), "the model has layers 0 to 2"),
    "two layers": (setting("layers=0,1"), "ROME edits exactly one layer"),
    "a layer of FT-L beyond the model": (
        changed(editor="ft-l", set=["layers=3"]),
        "the model has layers 0 to 2",
    ),
    "a layer of MEND below the model": (mend("layers=-1,0"), "the model has layers 0 to 2"),
    "a layer of MEMIT below the model": (changed(editor="memit", set=["layers=-1"]), "the model has layers 0 to 2"),
    "no network": (mend("layers=0"), "network: none is named"),
    "a network that is not there": (mend("layers=0", "network=nowhere"), "network nowhere: no such file"),
    "a network of too long a name": (mend("layers=0", f"network={'x' * 300}"), ": no such file"),
    "a network for other layers": (mend("layers=0", "network=world"), "was trained for layers [0, 1, 2], not [0]"),
    "a network for another model": (mend("layers=0,1,2", "network=world"), "has not the shape that this model needs"),
    "a network that is a model": (
        lambda desk: mend("layers=0", f"network={desk.model / 'model.safetensors'}")(desk),
        "not a hypernetwork",
    ),
    "no assignment": (setting("steps"), "--set 'steps': write NAME=VALUE"),
    "unknown restraint in the run": (changed(restrain="tanh@3"), "restraint 'tanh': not one of"),
    "base of 1 in the run": (changed(restrain="log:1@3"), "BASE must be e or a finite decimal number above 1"),
    "restraint without edits": (changed(restrain="log:2"), "give SPEC@EDITS"),
    "restraint every so many digits": (changed(restrain="log:2@" + "9" * 5000), "give SPEC@EDITS"),
    "a guard of no kind": (changed(guard="undo@3"), "guard 'undo@3': give stop@EDITS or rollback@EDITS"),
    "a guard without a text": (changed(guard="stop@3"), "give --guard-text, a file"),
    "a text without a guard": (changed(**{"guard-text": "world"}), "--guard-text without --guard"),
    "a guard's text that is nowhere": (changed(guard="stop@3", **{"guard-text": "no.txt"}), "text no.txt: no such"),
    "a guard of a run that had none": (again(guard="stop@3", **{"guard-text": "world"}), "guard None -> "),
    "a guard of no number": (changed(guard="stop@3,norm=big"), "'big' is no number for norm"),
    "a guard that asks twice": (changed(guard="stop@3,held=0.1,held=0.2"), "each once"),
    "a guard past all edits": (changed(guard="stop@" + "9" * 5000), "give stop@EDITS or rollback@EDITS"),
    "mask of nothing": (changed(restrain="rect:0"), "restraint"),
    "negative seed": (changed(seed=-1), "--seed"),
    "huge seed": (changed(seed=1 << 70), "--seed"),
    "batch of none": (changed(batch=0), "--batch"),
    "batch of an editor that has none": (changed(batch=2), "batch 2: "),
    "other settings": (again(set=["layers=1", "steps=5", "lr=8", "clamp=100", "second_moment=identity"]), "settings "),
    "other editor": (again(editor="r-rome"), "editor 'rome' -> 'r-rome'"),
    "other seed": (again(seed=1), "seed 0 -> 1"),
    "other restraint in the run": (again(restrain="clip@50"), "restrain '' -> 'clip@50'"),
    "other requests": (other_requests, "requests "),
    "other contexts": (other_contexts, "contexts "),
    "other model": (other_model, "model "),
    "a folder with something else": (occupied_folder, "not empty and holds no run.json"),
    "a file as folder": (lambda desk: desk.edit(out=desk.root / "requests.jsonl"), "is a file, a folder was expected"),
    "unknown verb": (lambda desk: ["edti"], "No such command 'edti'"),
    "unknown option": (changed(colour="red"), "No such option '--colour'"),
    "missing option": (changed(editor=None), "Missing option '--editor'"),
    "missing argument": (lambda desk: ["spectra"], "Missing argument 'RUN'"),
    "no run": (lambda desk: ["spectra", desk.root], "no run.json in it"),
    "no mesh": (changed(mesh="model=x"), "--mesh 'model=x': write data=N"),
    "a mesh of 5,000 digits": (changed(mesh="model=" + "9" * 5000), "--mesh 'model=999"),
    "more devices than there are": (changed(mesh="model=4096"), "needs 4096 devices"),
    "edits beyond the run": (verb("spectra", "--edits", "1,8"), "has 7 edits, 8 were asked for"),
    "edits not numbers": (verb("evaluate", "--edits", "1,all"), "--edits '1,all': whole numbers"),
    "edits of 5,000 digits": (verb("spectra", "--edits", "9" * 5000), "--edits '999"),
    "negative edits": (verb("spectra", "--edits", "-1"), "--edits '-1': whole numbers"),
    "unknown restraint": (verb("spectra", "--restraint", "none,tanh"), "restraint 'tanh': not one of"),
    "base of 1": (verb("evaluate", "--restraint", "log:1", "--tasks", "editing"), "BASE must be e or"),
    "base below 1": (verb("spectra", "--restraint", "scaled-log:0.5"), "BASE must be e or"),
    "no restraint": (verb("spectra", "--restraint", ","), "none is named"),
    "random of no seed": (verb("spectra", "--restraint", "random:x"), "restraint 'random:x': not one of"),
    "random of 5,000 digits": (verb("spectra", "--restraint", "random:" + "9" * 5000), "restraint 'random:999"),
    "restraints within one another without end": (
        verb("spectra", "--restraint", "rescale:" * 3000 + "none"),
        "restraint 'rescale:",
    ),
    "unknown task": (verb("evaluate", "--tasks", "singing"), "task 'singing'"),
    "measured on another model": (
        lambda desk: ["spectra", desk.run, "--model", save_tiny(desk.root / "other", seed=1)],
        "another checksum",
    ),
    "measured on no model": (lambda desk: ["spectra", desk.run], "give its folder with --model"),
    "chunk beyond the run": (verb("check", "--redo", "2"), "has chunks 1 to 1, 2 was asked for"),
    "exported into the base": (
        lambda desk: ["export", desk.run, "--model", desk.model, "--out", desk.model / "new"],
        "lies in the folder of the base model",
    ),
    "exported over something": (
        lambda desk: ["export", desk.run, "--model", desk.model, "--out", desk.root],
        "exists; nothing is overwritten",
    ),
    "exported beyond the run": (
        lambda desk: ["export", desk.run, "--model", desk.model, "--edits", "8", "--out", desk.root / "new"],
        "has 7 edits, 8 were asked for",
    ),
    "exported under no restraint": (
        lambda desk: ["export", desk.run, "--model", desk.model, "--restraint", "x", "--out", desk.root / "new"],
        "restraint 'x': not one of",
    ),
    "single edits of no editor": (single(editor="memo"), "editor 'memo'"),
    "single edits with bad requests": (single(requests="nowhere.jsonl"), "requests nowhere.jsonl: no such file"),
    "plan of no model": (lambda desk: ["plan", "--model", "gpt9", "--editor", "rome"], "model 'gpt9': none of"),
    "plan of tokens beyond the model": (plan("--tokens", "65"), "tokens at most the model's 64 positions"),
    "plan of no throughput": (plan("--throughput", "0"), "--throughput"),
    "plan of a throughput that is no number": (plan("--throughput", "nan"), "--throughput"),
    "enough of a layer beyond the model": (enough(layer=3), "the model has layers 0 to 2"),
    "enough of a ridge that is no number": (enough(ridge="nan"), "--ridge"),
    "enough of no text": (enough(text="nowhere.txt"), "nowhere.txt: no such file"),
    "unknown data set": (lambda desk: ["get", "nothing"], "data set 'nothing': there are counterfact, "),
    "place without a data set": (
        lambda desk: ["get", "--out", desk.root / "new"],
        "--out without NAME: say which data set",
    ),
    "data set into a folder": (lambda desk: ["get", "zsre", "--out", desk.root], "is a folder, a file was expected"),
    "unknown series": (
        lambda desk: ["records", "--series", "nothing", "--out", desk.root / "new", "--runs", desk.root / "runs"],
        "nothing",
    ),
    "unknown notebook": (lambda desk: ["reproduce", "--only", "zz"], "zz"),
}
