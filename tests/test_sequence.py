"""edit_sequence on the tiny model: chunk by chunk, cut and resumed, restrained during the run, always the same bits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

import oracles
from prunejax import chunks, course, resume
from prunejax.editors.anchor import wanted_values
from prunejax.editors.memit import MemitSettings
from prunejax.editors.rome import RomeSettings, rome
from prunejax.errors import InputError
from prunejax.fold import accumulated
from prunejax.models.checkpoints import Model
from prunejax.run import open_run
from prunejax.stored import read_state
from prunejax.update import dense
from tiny_runs import CONTEXTS, REQUESTS, SETTINGS, TENSOR, contents, edit_tiny

N = len(REQUESTS)
RESTRAINED = "clip@3"


class CutError(Exception):
    """What stands for a lost connection or a full disk."""


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven edits are written as 1-3, 4-6 and 7; the state after six is one that is kept."""
    monkeypatch.setattr(course, "CHUNK", 3)
    monkeypatch.setattr(chunks, "KEEP_STATE", 6)


def compared(folder: Path) -> dict[str, bytes | None]:
    """What must be equal to the bit: all but wall times."""
    return {name: content for name, content in contents(folder).items() if name != "timing.csv"}


def fail_at(monkeypatch: pytest.MonkeyPatch, name: str, call: int, *, after: bool = False) -> None:
    """Make one call (counted from 1) of a function that edits chunks end in a CutError, before or after its work."""
    module = chunks if hasattr(chunks, name) else resume
    function, calls = getattr(module, name), []

    def failing(*arguments: Any, **named: Any) -> Any:
        calls.append(name)
        result = function(*arguments, **named) if len(calls) < call or after else None
        if len(calls) == call:
            raise CutError(name)
        return result

    monkeypatch.setattr(module, name, failing)


@pytest.fixture(scope="module")
def whole(tiny_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a run that was never cut, made once for every restraint."""
    folder, made = tmp_path_factory.mktemp("whole"), {}

    def get(restrain: str = "") -> Path:
        if restrain not in made:
            made[restrain] = edit_tiny(folder / f"run-{len(made)}", tiny_model, restrain).folder
        return made[restrain]

    return get


def test_a_run_is_written_chunk_by_chunk(whole: Callable[[str], Path]) -> None:
    run = open_run(whole(""))
    assert [(e.seq, e.kind, e.first, e.last) for e in run.events()] == [
        (0, "edit", 1, 3),
        (1, "edit", 4, 6),
        (2, "edit", 7, 7),
    ]
    assert run.n_edits == N
    assert {name for name, content in contents(run.folder).items() if content is not None} == {
        *("run.json", "requests.jsonl", "contexts.json", "events.jsonl", "diagnostics.csv", "timing.csv", ".lock"),
        *(f"updates/{chunk}.safetensors" for chunk in ("000001-000003", "000004-000006", "000007-000007")),
        *("state/000006.safetensors", "state/000007.safetensors"),
    }
    assert (run.requests, run.contexts) == (REQUESTS, CONTEXTS)


def test_run_json_says_what_is_needed_to_do_it_again(whole: Callable[[str], Path], tiny_model: Model) -> None:
    facts = open_run(whole(RESTRAINED)).facts
    assert facts["settings"] == RomeSettings(**SETTINGS).__dict__ | {"layers": [1]}
    assert (facts["editor"], facts["seed"], facts["restrain"], facts["chunk"]) == ("rome", 0, RESTRAINED, 3)
    assert facts["model"]["sha256"] == tiny_model.sha256
    assert facts["versions"].keys() >= {"prunejax", "jax"}
    for name in ("requests", "contexts"):
        assert len(facts[name]["sha256"]) == 64


def test_diagnostics_has_a_row_for_every_edit_under_its_own_name(whole: Callable[[str], Path]) -> None:
    rows = pd.read_csv(whole("") / "diagnostics.csv", dtype={"case": str}, keep_default_na=False)
    assert rows["edit"].tolist() == list(range(1, N + 1))
    assert rows["case"].tolist() == [request.case_id for request in REQUESTS]
    assert rows["finite"].all()
    arrays = {path.name: load_file(path) for path in (whole("") / "updates").iterdir()}
    first = arrays["000001-000003.safetensors"]
    norm = np.linalg.norm(np.outer(first[f"{TENSOR}.left"][1], first[f"{TENSOR}.right"][1]))
    assert rows["update_norm"][1] == pytest.approx(norm, rel=1e-5)


def test_the_same_seed_gives_the_same_bits(whole: Callable[[str], Path], tiny_model: Model, tmp_path: Path) -> None:
    again = edit_tiny(tmp_path / "run", tiny_model)
    assert compared(again.folder) == compared(whole(""))


def test_few_edits_are_one_program_and_leave_the_model_alone(tiny_model: Model, tmp_path: Path) -> None:
    """As many programs as shapes: of few requests one, and none for another run of them."""
    before = np.array(tiny_model.weight(TENSOR))
    wanted_values.clear_cache()
    for name in ("run", "again"):
        edit_tiny(tmp_path / name, tiny_model)
        assert wanted_values._cache_size() == 1
    assert tiny_model.overrides == {}
    np.testing.assert_array_equal(tiny_model.weight(TENSOR), before)


@pytest.mark.parametrize("restrain", ["", RESTRAINED])
def test_the_fold_over_the_events_is_the_stored_state(
    whole: Callable[[str], Path], tiny_model: Model, restrain: str
) -> None:
    run, original = open_run(whole(restrain)), {TENSOR: tiny_model.weight(TENSOR)}
    for n in (6, 7):
        folded = np.asarray(original[TENSOR]) + np.asarray(dense(accumulated(run, n, original)[TENSOR]))
        assert oracles.distance(read_state(run, n)[TENSOR], folded) < 1e-5


CUTS = [
    ("edit_batch", 1, False),  # before anything
    ("edit_batch", 2, True),  # within the first chunk
    ("edit_batch", 3, True),  # all of a chunk computed, nothing written
    ("edit_batch", 4, False),  # a chunk written
    ("edit_batch", 6, False),  # within the second chunk
    ("edit_batch", 7, False),  # within the last one
    ("write_diagnostics", 1, True),  # diagnostics ahead of the events
    ("write_diagnostics", 2, True),
    ("record_chunk", 2, False),
    ("record_chunk", 2, True),  # the event written, and nothing after it
    ("record_chunk", 3, True),
    ("write_timing", 2, False),
]


@pytest.mark.parametrize(("name", "call", "after"), CUTS)
def test_cut_and_resumed_is_never_cut(
    whole: Callable[[str], Path],
    tiny_model: Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    call: int,
    after: bool,
) -> None:
    expected = compared(whole(""))
    with monkeypatch.context() as patched:
        fail_at(patched, name, call, after=after)
        with pytest.raises(CutError):
            edit_tiny(tmp_path, tiny_model)
    assert open_run(tmp_path).n_edits < N or name == "record_chunk"
    edit_tiny(tmp_path, tiny_model)
    assert compared(tmp_path) == expected


@pytest.mark.parametrize("restrain", [RESTRAINED, f"{RESTRAINED},raw"])
@pytest.mark.parametrize(
    ("name", "call", "after"),
    [
        ("edit_batch", 4, False),  # after the first restraint
        ("restrain_during", 1, False),  # between a chunk and its restraint
        ("restrain_during", 2, True),
        ("record_event", 1, False),  # the restrained state not written
        ("record_event", 2, True),
    ],
)
def test_a_restrained_run_cut_and_resumed_is_never_cut(
    whole: Callable[[str], Path],
    tiny_model: Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    restrain: str,
    name: str,
    call: int,
    after: bool,
) -> None:
    expected = compared(whole(restrain))
    with monkeypatch.context() as patched:
        fail_at(patched, name, call, after=after)
        with pytest.raises(CutError):
            edit_tiny(tmp_path, tiny_model, restrain)
    edit_tiny(tmp_path, tiny_model, restrain)
    assert compared(tmp_path) == expected


def test_a_torn_event_line_is_made_again(whole: Callable[[str], Path], tiny_model: Model, tmp_path: Path) -> None:
    expected = compared(whole(""))
    edit_tiny(tmp_path, tiny_model)
    events = tmp_path / "events.jsonl"
    events.write_text(events.read_text()[:-20])
    state = (whole("") / "state/000006.safetensors").read_bytes()
    (tmp_path / "state/000006.safetensors").write_bytes(state)
    assert open_run(tmp_path).n_edits == 6
    edit_tiny(tmp_path, tiny_model)
    assert compared(tmp_path) == expected


def test_a_finished_run_is_not_computed_again(
    tiny_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit_tiny(tmp_path, tiny_model)
    before = contents(tmp_path)
    fail_at(monkeypatch, "edit_batch", 1)
    assert edit_tiny(tmp_path, tiny_model).n_edits == N
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("named", "changed"),
    [
        ("settings", {"settings": RomeSettings(**SETTINGS | {"steps": 5})}),
        ("editor", {"editor": "r-rome"}),
        ("seed", {"seed": 1}),
        ("restrain", {"restrain": "clip@3"}),
        ("requests", {"requests": REQUESTS[:6]}),
        ("requests", {"requests": REQUESTS[::-1]}),
        ("contexts", {"contexts": ("{}", "Rome is a. {}")}),
    ],
)
def test_a_folder_of_another_run_is_refused_and_left_alone(
    whole: Callable[[str], Path], tiny_model: Model, named: str, changed: dict[str, Any]
) -> None:
    folder = whole("")
    before = contents(folder)
    with pytest.raises(InputError, match=rf"other settings \(.*{named} "):
        edit_tiny(folder, tiny_model, **changed)
    assert contents(folder) == before


@pytest.mark.parametrize("raw", [False, True])
def test_a_restraint_during_the_run_is_the_slow_loop(
    whole: Callable[[str], Path], tiny_model: Model, raw: bool
) -> None:
    """Every three edits W becomes W_0 + F(what accumulated); raw, what accumulates is never restrained itself."""
    run = open_run(whole(f"{RESTRAINED},raw" if raw else RESTRAINED))
    editor = rome(RomeSettings(**SETTINGS))
    batches = editor.prepare(tiny_model, REQUESTS, CONTEXTS, 1)
    inverse = editor.init(tiny_model, None, 8)
    original = np.asarray(tiny_model.weight(TENSOR), np.float64)
    weight, accumulated_so_far, states = original, np.zeros_like(original), {}
    for number, batch in enumerate(batches, 1):
        edited = tiny_model.with_weights({TENSOR: jax.numpy.asarray(weight, "float32")})
        with jax.default_matmul_precision("highest"):
            updates, *_ = editor.step(edited, inverse, batch, jax.random.key(0))
        delta = np.asarray(updates[TENSOR].left, np.float64) @ np.asarray(updates[TENSOR].right, np.float64)
        weight, accumulated_so_far = weight + delta, accumulated_so_far + delta
        if number % 3 == 0:
            twice = weight + oracles.restrained_delta("clip", weight - original, sigma_max(original))
            weight = oracles.restrained_weight("clip", original, original + accumulated_so_far)
            assert oracles.distance(weight, twice) > 0.1  # never W_n + F(W_n - W_0)
            if not raw:
                accumulated_so_far = weight - original
        states[number] = weight
    for n in (6, 7):
        assert oracles.distance(read_state(run, n)[TENSOR], states[n]) < 1e-4
    assert [e.last for e in run.events() if e.kind == "restrain"] == [3, 6]


def sigma_max(matrix: np.ndarray) -> float:
    return float(np.linalg.svd(matrix, compute_uv=False)[0])


def test_the_two_restraints_during_the_run_and_none_are_three_runs(whole: Callable[[str], Path]) -> None:
    """Else the test before would prove nothing about `raw`."""
    states = [load_file(whole(r) / "state/000007.safetensors")[TENSOR] for r in ("", RESTRAINED, f"{RESTRAINED},raw")]
    for i, state in enumerate(states):
        for other in states[i + 1 :]:
            assert oracles.distance(state, other) > 1e-3


def test_batches_are_cut_and_resumed_as_if_never_cut(tiny_model: Model, tmp_path: Path) -> None:
    """MEMIT, two at a time and the last one alone; a chunk ends with a batch."""
    settings = MemitSettings(layers=(1,), steps=2, second_moment="identity", moment_weight=1.0)
    given = {"editor": "memit", "settings": settings, "batch": 2}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(course, "CHUNK", 5)  # four edits, then three
        whole = edit_tiny(tmp_path / "whole", tiny_model, **given)
        assert [(event.first, event.last) for event in whole.events()] == [(1, 4), (5, 7)]
        with pytest.MonkeyPatch.context() as cut:
            fail_at(cut, "record_chunk", 2, after=False)
            with pytest.raises(CutError):
                edit_tiny(tmp_path / "cut", tiny_model, **given)
        edit_tiny(tmp_path / "cut", tiny_model, **given)
    assert compared(tmp_path / "cut") == compared(tmp_path / "whole")
    noted = pd.read_csv(tmp_path / "cut" / "diagnostics.csv")
    assert noted["edit"].tolist() == list(range(1, 8))
