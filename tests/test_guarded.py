"""A guarded run on the tiny model: what broke it is found, named, and taken back to the bit, wherever it is cut."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from prunejax import guarded, resume
from prunejax.checking import problems, redone
from prunejax.contexts import Contexts
from prunejax.course import Plan
from prunejax.editors import settings_of
from prunejax.errors import InputError
from prunejax.fold import accumulated
from prunejax.guard import Look
from prunejax.models.checkpoints import Model
from prunejax.points import evaluate_run
from prunejax.requests import EditRequest
from prunejax.run import Run, open_run
from prunejax.sequence import edit_sequence
from prunejax.stored import read_state
from prunejax.update import dense
from prunejax.watching import read_looks, watch_of, write_look
from tiny import TEXTS
from tiny_runs import CONTEXTS, REQUESTS, SETTINGS, TENSOR, contents

SMALL = "rollback@3,perplexity=1e9,denominator=3.2"
"""Of the seven edits of a tiny run the fifth and the seventh have a smaller denominator, after any others."""

OTHERS: dict[str, tuple[dict[str, Any], Contexts]] = {
    "rome": (SETTINGS, CONTEXTS),
    "memit-seq": (
        {"layers": (1,), "steps": 4, "moment_weight": 0.1, "second_moment": "identity"},
        (("{}",), CONTEXTS[1:]),
    ),
    "ft-m": ({"layers": (1,), "steps": 4, "lr": 0.01, "box": 0.0}, CONTEXTS),
}


def edit(
    folder: Path,
    model: Model,
    guard: str = "",
    requests: tuple[EditRequest, ...] = REQUESTS,
    editor: str = "rome",
    restrain: str = "",
    batch: int = 1,
) -> Run:
    settings, contexts = OTHERS[editor]
    plan = Plan(editor, settings_of(editor, settings), restrain=restrain, batch=batch, guard=guard)
    return edit_sequence(folder, model, requests, plan, contexts, None, TEXTS if guard else ())


def compared(folder: Path) -> dict[str, bytes | None]:
    return {name: content for name, content in contents(folder).items() if name != "timing.csv"}


@pytest.fixture(scope="module")
def whole(tiny_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of whose seven edits two were rolled back."""
    return edit(tmp_path_factory.mktemp("guarded"), tiny_model, SMALL)


def test_a_run_goes_on_as_if_the_edits_that_broke_it_had_not_been(
    whole: Run, tiny_model: Model, tmp_path: Path
) -> None:
    kept = tuple(request for number, request in enumerate(REQUESTS, 1) if number not in (5, 7))
    without = edit(tmp_path, tiny_model, requests=kept)
    assert whole.rolled_back(7) == {5, 7}
    assert whole.rolled_back(6) == {5}
    assert whole.n_edits == 7
    np.testing.assert_array_equal(read_state(whole, 7)[TENSOR], read_state(without, 5)[TENSOR])
    original = {TENSOR: tiny_model.weight(TENSOR)}
    for n, m in ((4, 4), (5, 4), (6, 5), (7, 5)):
        (mine, other) = (
            np.asarray(dense(accumulated(run, k, original)[TENSOR])) for run, k in ((whole, n), (without, m))
        )
        np.testing.assert_allclose(mine, other, atol=1e-6)


def test_the_edits_are_named_and_stay_on_record(whole: Run) -> None:
    events = [(event.kind, event.first, event.last) for event in whole.events()]
    assert events[:1] == [("edit", 1, 3)]
    assert events[1:4] == [("edit", 4, 4), ("edit", 5, 5), ("rollback", 5, 5)]
    assert events[4:] == [("edit", 6, 6), ("edit", 7, 7), ("rollback", 7, 7)]
    assert "a denominator of 3.16 (at least 3.2)" in whole.events()[3].reason
    assert (whole.folder / whole.events()[2].file).exists()
    assert guarded.name_edits(whole, 5, 5) == "edit 5: The mother tongue of Ada Lovelace is -> Polish (case 4)"
    assert guarded.name_edits(whole, 1, 5).startswith("edits 1 to 5: The capital of France is -> Madrid (case 007); ")
    assert guarded.name_edits(whole, 1, 5).endswith(" and 2 more")


def test_looks_are_on_record(whole: Run, tiny_model: Model) -> None:
    looks = read_looks(whole.folder / "guard.csv")
    assert looks["edits"].tolist() == [3, 5, 6, 7]
    assert (looks["alarm"] != "").tolist() == [False, True, False, True]
    assert (looks["denominator"] < 3.2).tolist() == [False, True, False, True]
    weight, original = (np.asarray(w) for w in (read_state(whole, 7)[TENSOR], tiny_model.weight(TENSOR)))
    # The last look was at the seventh edit, which is taken back; the one before it at what remained.
    assert looks["norm"][2] == pytest.approx(np.linalg.norm(weight - original) / np.linalg.norm(original), rel=1e-5)
    unedited = watch_of(Plan("rome", None, guard=SMALL).guarded, tiny_model, REQUESTS, [TENSOR], TEXTS).unedited
    np.testing.assert_allclose(looks["ratio"], looks["perplexity"] / unedited, rtol=1e-6)


def test_a_guarded_run_can_be_checked_made_again_and_scored(whole: Run, tiny_model: Model) -> None:
    assert problems(whole, tiny_model) == []
    assert all(redone(whole, tiny_model, None, number) for number in range(1, 6))
    rows = evaluate_run(whole, tiny_model, [4, 5, 7], ["none"], ["editing"])
    efficacy = rows[rows["metric"] == "efficacy"]
    assert efficacy["n"].tolist() == [4, 5, 7]  # what was rolled back was asked for all the same
    (whole.folder / "records/evaluation.csv").unlink()
    (whole.folder / "records").rmdir()


def test_a_look_that_was_changed_is_found(whole: Run, tiny_model: Model, tmp_path: Path) -> None:
    """One that raised no alarm."""
    run = dataclasses.replace(whole, folder=Path(shutil.copytree(whole.folder, tmp_path / "run")))
    head, first, *others = (run.folder / "guard.csv").read_text().splitlines()
    edits, perplexity, *rest = first.split(",")
    changed = ",".join([edits, f"{0.9 * float(perplexity):.9g}", *rest])
    (run.folder / "guard.csv").write_text("\n".join([head, changed, *others, ""]))
    (said,) = problems(run, tiny_model)
    assert said.endswith("or guard.csv: what is noted of edits 1 to 3 is not what was recorded")


CUTS = [
    *(("edit_until", call, False) for call in (2, 3, 4, 5, 7)),
    *(("write_look", call, after) for call in (1, 2, 4) for after in (False, True)),
    *(("record_broken", call, after) for call in (1, 2) for after in (False, True)),
    *(("record_event", call, after) for call in (1, 2) for after in (False, True)),
]


@pytest.mark.parametrize(("name", "call", "after"), CUTS)
def test_cut_anywhere_and_taken_up_it_is_never_cut(
    whole: Run, tiny_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, call: int, after: bool
) -> None:
    function, calls = getattr(guarded, name), []

    def failing(*words: Any, **more: Any) -> Any:
        calls.append(1)
        result = function(*words, **more) if len(calls) < call or after else None
        if len(calls) == call:
            raise KeyboardInterrupt
        return result

    with monkeypatch.context() as patched:
        for module in (guarded, resume):
            if hasattr(module, name):
                patched.setattr(module, name, failing)
        with pytest.raises(KeyboardInterrupt):
            edit(tmp_path, tiny_model, SMALL)
    edit(tmp_path, tiny_model, SMALL)
    assert compared(tmp_path) == compared(whole.folder)


def test_a_stopped_run_is_over(tiny_model: Model, tmp_path: Path) -> None:
    run = edit(tmp_path, tiny_model, SMALL.replace("rollback", "stop"))
    assert run.n_edits == 5
    assert run.stopped == "a denominator of 3.16 (at least 3.2)"
    assert [event.kind for event in run.events()] == ["edit", "edit", "edit", "stop"]
    original = {TENSOR: tiny_model.weight(TENSOR)}
    edited = np.asarray(original[TENSOR]) + np.asarray(dense(accumulated(run, 5, original)[TENSOR]))
    np.testing.assert_allclose(read_state(run, 5)[TENSOR], edited, atol=1e-5)
    assert problems(run, tiny_model) == []
    before = contents(tmp_path)
    assert edit(tmp_path, tiny_model, SMALL.replace("rollback", "stop")).n_edits == 5
    assert contents(tmp_path) == before


def test_what_a_guard_saw_of_a_bad_edit_does_not_hang_on_the_good_ones_before_it(
    tiny_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Edits 1 to 5 are on record when the run is cut, and the fifth has the smallest denominator of all six."""
    every = read_looks(edit(tmp_path / "every", tiny_model, "stop@1,perplexity=1e9").folder / "guard.csv")
    spec = f"stop@7,perplexity=1e9,norm={every['norm'][5] * (1 - 1e-6):.9g}"
    assert (every["norm"][:5] < every["norm"][5] * (1 - 1e-6)).all()
    assert every["denominator"][4] < every["denominator"][5]
    whole = edit(tmp_path / "whole", tiny_model, spec)
    assert [(event.kind, event.last) for event in whole.events()] == [("edit", 5), ("edit", 6), ("stop", 6)]
    with monkeypatch.context() as patched:
        patched.setattr(guarded, "record_broken", cut)
        with pytest.raises(KeyboardInterrupt):
            edit(tmp_path / "cut", tiny_model, spec)
    assert open_run(tmp_path / "cut").n_edits == 5
    assert problems(open_run(tmp_path / "cut"), tiny_model) == []
    edit(tmp_path / "cut", tiny_model, spec)
    assert compared(tmp_path / "cut") == compared(whole.folder)


def cut(*words: Any, **more: Any) -> None:
    raise KeyboardInterrupt


def test_nothing_more_can_be_written(tiny_model: Model, tmp_path: Path) -> None:
    """Every edit after the third would take the update past its norm."""
    run = edit(tmp_path, tiny_model, "rollback@3,perplexity=1e9,norm=2,most=2")
    assert run.rolled_back(7) == {4, 5}
    assert run.stopped.startswith("2 in succession were rolled back, the last for an update of 2.")
    assert [event.kind for event in run.events()] == ["edit", *2 * ["edit", "rollback"], "stop"]
    assert problems(run, tiny_model) == []
    state = read_state(run, 5)[TENSOR]
    assert edit(tmp_path, tiny_model, "rollback@3,perplexity=1e9,norm=2,most=2").n_edits == 5
    three = edit(tmp_path / "three", tiny_model, requests=REQUESTS[:3])
    np.testing.assert_allclose(state, read_state(three, 3)[TENSOR], atol=1e-5)


@pytest.mark.parametrize(("editor", "batch"), [("memit-seq", 1), ("memit-seq", 2), ("ft-m", 1)])
def test_what_an_editor_carries_goes_back_too(tiny_model: Model, tmp_path: Path, editor: str, batch: int) -> None:
    """Keys of an edit that was rolled back are not remembered, and sums do not hold it."""
    every = edit(tmp_path / "every", tiny_model, f"rollback@{batch},perplexity=1e9", editor=editor, batch=batch)
    norms = read_looks(every.folder / "guard.csv")["norm"].to_numpy()
    grown = np.diff(norms, prepend=0.0)
    limit = f"{norms[np.argmax(grown[1:]) + 1] * (1 - 1e-6):.9g}"
    run = edit(tmp_path / "run", tiny_model, f"rollback@4,perplexity=1e9,norm={limit}", editor=editor, batch=batch)
    undone = run.rolled_back(run.n_edits)
    assert undone
    for name, array in load_file(run.folder / run.events()[-1].state_file).items():
        if name.endswith((".keys", ".turned", ".factor")):
            assert len(array) == len(REQUESTS) - len(undone)  # of seven that there is room for
    left = tuple(request for number, request in enumerate(REQUESTS, 1) if number not in undone)
    without = edit(tmp_path / "without", tiny_model, requests=left, editor=editor, batch=batch)
    weights = (read_state(one, one.n_edits)[TENSOR] for one in (run, without))
    np.testing.assert_allclose(*weights, atol=1e-5)
    assert problems(run, tiny_model) == []


def test_a_restraint_follows_the_rollback(tiny_model: Model, tmp_path: Path) -> None:
    run = edit(tmp_path, tiny_model, SMALL.replace("@3", "@2"), restrain="clip@5")
    kinds = [(event.kind, event.last) for event in run.events()]
    assert kinds[-6:] == [("edit", 5), ("rollback", 5), ("restrain", 5), ("edit", 6), ("edit", 7), ("rollback", 7)]
    assert problems(run, tiny_model) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"guard": "rollback@3", "batch": 2, "editor": "memit-seq"}, "falls within a batch of 2"),
        ({"guard": "stop@3,denominator=0.1", "editor": "memit-seq"}, "divides by nothing"),
    ],
)
def test_a_guard_that_cannot_work_is_refused(tiny_model: Model, tmp_path: Path, changed: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        edit(tmp_path / "run", tiny_model, **changed)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", [[], ["x"], [" ".join(TEXTS) * 20]])
def test_a_text_that_says_nothing_is_refused(tiny_model: Model, tmp_path: Path, text: list[str]) -> None:
    plan = Plan("rome", settings_of("rome", SETTINGS), guard=SMALL)
    with pytest.raises(InputError, match="text"):
        edit_sequence(tmp_path / "run", tiny_model, REQUESTS, plan, CONTEXTS, None, text)
    assert not (tmp_path / "run").exists()


def test_no_look_is_written_after_what_cannot_be_read(whole: Run, tmp_path: Path) -> None:
    run = dataclasses.replace(whole, folder=tmp_path)
    (tmp_path / "guard.csv").write_text("edits,perplexity\nthree,1\n")
    with pytest.raises(InputError, match="no table of looks"):
        write_look(run, 5, Look(1.0, 1.0, 0.1, 1.0, 0.5))
    assert (tmp_path / "guard.csv").read_text() == "edits,perplexity\nthree,1\n"


def test_another_guard_is_another_run(whole: Run, tiny_model: Model) -> None:
    before = contents(whole.folder)
    for guard in ("", SMALL.replace("@3", "@2")):
        with pytest.raises(InputError, match=r"guard .* -> "):
            edit(whole.folder, tiny_model, guard)
    assert contents(whole.folder) == before


DOCTORED: dict[str, tuple[str, Callable[[str], str], str]] = {
    "an alarm taken out": (
        "guard.csv",
        lambda t: t.replace("a denominator of 3.16 (at least 3.2)", ""),
        "its alarms are",
    ),
    "the last look lost": ("guard.csv", lambda t: "\n".join(t.splitlines()[:-1]) + "\n", "its alarms are not those"),
    "no table": ("guard.csv", lambda t: t.replace("edits", "edit", 1), "no table of looks"),
    "another text": ("guard.json", lambda t: t.replace("the", "a", 1), "not the text that run.json names"),
    "another edit": (
        "events.jsonl",
        lambda t: t.replace('"rollback", "first": 5', '"rollback", "first": 4'),
        "not follow",
    ),
}


@pytest.mark.parametrize("how", DOCTORED)
def test_a_doctored_guard_is_not_trusted(whole: Run, tiny_model: Model, tmp_path: Path, how: str) -> None:
    name, change, said = DOCTORED[how]
    shutil.copytree(whole.folder, tmp_path, dirs_exist_ok=True)
    before = (tmp_path / name).read_text()
    assert change(before) != before
    (tmp_path / name).write_text(change(before))
    assert any(said in line for line in problems(open_run(tmp_path), tiny_model))
