"""A run that was left alone is trusted; one that was damaged or doctored is not, and what is wrong is named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from prunejax import sequence
from prunejax.checking import problems, redone
from prunejax.errors import InputError
from prunejax.events import tables_digest
from prunejax.files import sha256
from prunejax.models.checkpoints import Model
from prunejax.run import open_run
from tiny_runs import TENSOR, edit_tiny

RESTRAINED = "log:1.2@3"
UPDATE, STATE = "updates/000004-000006.safetensors", "state/000007.safetensors"


@pytest.fixture(scope="module")
def runs(tiny_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Runs by what restrains them, each made once."""
    folder = tmp_path_factory.mktemp("checked")
    made: dict[str, Path] = {}

    def get(restrain: str) -> Path:
        if restrain not in made:
            made[restrain] = edit_tiny(folder / str(len(made)), tiny_model, restrain).folder
        return made[restrain]

    return get


@pytest.fixture
def run(runs: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(runs(RESTRAINED), tmp_path / "run"))


def events(folder: Path, change: Callable[[list[dict]], list[dict]]) -> None:
    path = folder / "events.jsonl"
    lines = change([json.loads(line) for line in path.read_text().splitlines()])
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def signed_anew(folder: Path, name: str, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    """A file of arrays changed, and the checksum in the events with it."""
    arrays = load_file(folder / name)
    change(arrays)
    save_file(arrays, folder / name)
    old = {"updates": "sha256", "state": "state"}[name.split("/")[0]]

    def sign(lines: list[dict]) -> list[dict]:
        number = int(name[-18:-12])
        for line in lines:
            if line["last"] == number and line["kind"] == "edit":
                line[old] = sha256(folder / name)
        return lines

    events(folder, sign)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)


def edited(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a flipped bit of an update": (lambda f: flip(f / UPDATE), f"{UPDATE}: its checksum is not the recorded one"),
    "an update cut off": (
        lambda f: (f / UPDATE).write_bytes((f / UPDATE).read_bytes()[:-9]),
        f"{UPDATE}: its checksum is not the recorded one",
    ),
    "an update lost": (lambda f: (f / UPDATE).unlink(), f"{UPDATE}: no such file"),
    "an update nobody names": (
        lambda f: shutil.copy(f / UPDATE, f / "updates/000008-000009.safetensors"),
        "000008-000009.safetensors: no event names it",
    ),
    "an update not finite": (
        lambda f: signed_anew(f, UPDATE, lambda a: a[f"{TENSOR}.left"].fill(np.nan)),
        f"{UPDATE}: an update of {TENSOR} is not finite",
    ),
    "an update of another rank": (
        lambda f: signed_anew(f, UPDATE, lambda a: a.update({f"{TENSOR}.right": a[f"{TENSOR}.right"][:2].copy()})),
        f"{UPDATE}: holds no update of {TENSOR} for 3 edits",
    ),
    "an update of another tensor": (
        lambda f: signed_anew(f, UPDATE, lambda a: a.update({"other.left": np.zeros((3, 2), np.float32)})),
        f"{UPDATE}: holds other.left, which the run does not edit",
    ),
    "a flipped bit of the state": (lambda f: flip(f / STATE), f"{STATE}: its checksum is not the recorded one"),
    "a state not finite": (
        lambda f: signed_anew(f, STATE, lambda a: a[TENSOR].fill(np.inf)),
        f"{STATE}: a weight is not finite",
    ),
    "a state without its tensor": (
        lambda f: signed_anew(f, STATE, lambda a: a.update({"x": a.pop(TENSOR)})),
        f"{STATE}: holds no {TENSOR}",
    ),
    "an update changed and signed anew": (
        lambda f: signed_anew(f, UPDATE, lambda a: a.update({f"{TENSOR}.left": 1.5 * a[f"{TENSOR}.left"]})),
        f"{TENSOR} is not W_0 and what the updates add up to",
    ),
    "a request reworded": (
        lambda f: edited(f / "requests.jsonl", "Madrid", "London"),
        "requests.jsonl: not the requests that run.json names",
    ),
    "a context changed": (
        lambda f: edited(f / "contexts.json", "I think", "You think"),
        "contexts.json: not the contexts that run.json names",
    ),
    "an event lost": (lambda f: events(f, lambda lines: lines[:1] + lines[2:]), "line 3 does not follow"),
    "two events swapped": (
        lambda f: events(f, lambda lines: [lines[2], lines[1], lines[0], *lines[3:]]),
        "line 3 does not follow",
    ),
    "an event of no kind": (
        lambda f: edited(f / "events.jsonl", '"restrain"', '"retrain"'),
        "line 2 is not an event: kind 'retrain'",
    ),
    "an event that is none": (
        lambda f: edited(f / "events.jsonl", '"seq": 1', '"sequence": 1'),
        "line 2 is not an event",
    ),
    "a row of diagnostics lost": (
        lambda f: (f / "diagnostics.csv").write_text(
            "\n".join((f / "diagnostics.csv").read_text().splitlines()[:-2]) + "\n"
        ),
        "diagnostics.csv: its rows are not those of edits 1 to 7",
    ),
    "diagnostics emptied": (lambda f: (f / "diagnostics.csv").write_text(""), "diagnostics.csv: no table of edits"),
    "diagnostics lost": (lambda f: (f / "diagnostics.csv").unlink(), "diagnostics.csv: no such file"),
    "a row of diagnostics renumbered": (
        lambda f: edited(f / "diagnostics.csv", "\n2,", "\n02,"),
        "diagnostics.csv: its rows are not those of edits 1 to 7",
    ),
    "a verdict of diagnostics changed": (
        lambda f: edited(f / "diagnostics.csv", "True", "False"),
        "what is noted of edits 1 to 3 is not what was recorded",
    ),
    "a table of looks without numbers": (
        lambda f: (f / "guard.csv").write_text("edits,alarm\nten,\n"),
        "guard.csv: a row does not begin with the number of an edit",
    ),
    "records cut off": (
        lambda f: ((f / "records").mkdir(), (f / "records/evaluation.csv").write_text("editor,restr")),
        "evaluation.csv: cut off in its last line",
    ),
}


@pytest.mark.parametrize("restrain", ["", RESTRAINED, f"{RESTRAINED},raw", "rect:20"])
def test_a_run_that_was_left_alone_is_whole_and_each_chunk_can_be_made_again(
    runs: Callable[[str], Path], tiny_model: Model, monkeypatch: pytest.MonkeyPatch, restrain: str
) -> None:
    run = open_run(runs(restrain))
    assert problems(run, tiny_model) == []
    chunks = [event for event in run.events() if event.kind == "edit"]
    for number in range(1, len(chunks) + 1):
        assert redone(run, tiny_model, None, number)
    with pytest.raises(InputError, match=f"has chunks 1 to {len(chunks)}, 9 was asked for"):
        redone(run, tiny_model, None, 9)


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_wrong_is_named(run: Path, tiny_model: Model, damage: str) -> None:
    break_it, said = DAMAGE[damage]
    break_it(run)
    assert any(said in line for line in problems(open_run(run), tiny_model))


def test_a_chunk_that_was_doctored_throughout_is_found_by_making_it_again(run: Path, tiny_model: Model) -> None:
    """Update, state and checksums agree with one another, and not with the requests."""
    arrays = load_file(run / "updates/000007-000007.safetensors")
    left, right = arrays[f"{TENSOR}.left"], arrays[f"{TENSOR}.right"]
    more = 0.1 * left.T @ right
    signed_anew(run, "updates/000007-000007.safetensors", lambda a: a.update({f"{TENSOR}.left": 1.1 * left}))
    signed_anew(run, STATE, lambda a: a.update({TENSOR: a[TENSOR] + more}))
    opened = open_run(run)
    assert problems(opened, tiny_model) == []
    assert redone(opened, tiny_model, None, 1)
    assert not redone(opened, tiny_model, None, 3)


def test_what_is_noted_of_a_chunk_is_made_again_too(run: Path, tiny_model: Model) -> None:
    """Its digest was signed anew."""
    edited(run / "diagnostics.csv", "True", "False")
    events(
        run,
        lambda lines: [
            line | ({"tables": tables_digest(run, line["last"])} if "tables" in line else {}) for line in lines
        ],
    )
    opened = open_run(run)
    assert problems(opened, tiny_model) == []
    assert not redone(opened, tiny_model, None, 1)
    assert redone(opened, tiny_model, None, 2)


def test_what_is_noted_of_later_edits_does_not_count(tmp_path: Path) -> None:
    """As that of a chunk that was cut before its event."""
    (tmp_path / "diagnostics.csv").write_text("edit,case\n1,a\u2028b\n2,NA\n")
    two = tables_digest(tmp_path, 2)
    with (tmp_path / "diagnostics.csv").open("a") as file:
        file.write("3,c\n")
    assert tables_digest(tmp_path, 2) == two
    assert len({tables_digest(tmp_path, n) for n in range(4)}) == 4
    three = tables_digest(tmp_path, 3)
    (tmp_path / "guard.csv").write_text("edits,alarm\n3,\n")
    assert tables_digest(tmp_path, 2) == two
    assert tables_digest(tmp_path, 3) != three
    assert tables_digest(tmp_path / "none", 3) == ""


def test_a_run_of_no_edits_yet_is_whole(tiny_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequence, "go_on", lambda *words: None)
    run = edit_tiny(tmp_path / "run", tiny_model)
    assert problems(run, tiny_model) == []
