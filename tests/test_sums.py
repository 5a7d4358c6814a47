"""Runs that keep sums of dense updates, and runs of editors that carry something from edit to edit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import oracles
from prunejax import chunks, course
from prunejax.course import Plan
from prunejax.editors import editor_row, settings_of
from prunejax.editors.moments import Moments, SecondMoment
from prunejax.errors import InputError
from prunejax.fold import accumulated, one_edit
from prunejax.models.checkpoints import Model
from prunejax.points import evaluate_run, spectra_of_run
from prunejax.run import Run, open_run
from prunejax.sequence import edit_sequence
from prunejax.stored import read_state
from prunejax.update import Dense, dense
from tiny_runs import CONTEXTS, REQUESTS, TENSOR, contents

SETTINGS: dict[str, dict[str, Any]] = {
    "rome": {"layers": (1,), "steps": 4, "lr": 8.0, "clamp": 100.0, "second_moment": "identity"},
    "memit-seq": {"layers": (1,), "steps": 4, "moment_weight": 0.1, "second_moment": "identity"},
    "alphaedit": {"layers": (1,), "steps": 4, "cut": "energy", "threshold": 0.3},
    "ultraedit": {"layers": (1,), "lr": 0.01},
    "ft-m": {"layers": (1,), "steps": 4, "lr": 0.01, "box": 0.0},
}
GROUPS = (("{}",), CONTEXTS[1:])


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven edits are written after 3, 6 and 7; sums after 1, 2, 3, 5, 6 and 7."""
    monkeypatch.setattr(course, "CHUNK", 3)


@pytest.fixture(scope="module")
def moments() -> Moments:
    rng = np.random.default_rng(0)
    keys = rng.normal(size=(300, 64)) * np.geomspace(0.05, 2, 64)
    return Moments({TENSOR: SecondMoment((keys.T @ keys / 300).astype(np.float32), 300)}, "0" * 64)


def edit(folder: Path, model: Model, moments: Moments, editor: str, restrain: str = "", batch: int = 1) -> Run:
    plan = Plan(editor, settings_of(editor, SETTINGS[editor]), restrain=restrain, batch=batch)
    contexts = CONTEXTS if editor == "rome" else GROUPS
    return edit_sequence(folder, model, REQUESTS, plan, contexts, moments)


RUNS = [("rome", "rect:20", 1), ("rome", "mask:20+clip@3", 1), ("ft-m", "", 1), ("ft-m", "", 2)]


@pytest.mark.parametrize(("editor", "restrain", "batch"), RUNS)
def test_sums_fold_into_the_weights_as_they_were_edited(
    tiny_model: Model, moments: Moments, tmp_path: Path, editor: str, restrain: str, batch: int
) -> None:
    run = edit(tmp_path, tiny_model, moments, editor, restrain, batch)
    ends = [event.last for event in run.events() if event.kind == "edit"]
    assert ends == ([1, 2, 3, 5, 6, 7] if batch == 1 else [2, 4, 6, 7])
    original = {TENSOR: tiny_model.weight(TENSOR)}
    weight = np.asarray(original[TENSOR]) + np.asarray(dense(accumulated(run, 7, original)[TENSOR]))
    assert oracles.distance(read_state(run, 7)[TENSOR], weight) < 1e-5
    stored = load_file(run.folder / run.events()[0].file)
    assert set(stored) == {f"{TENSOR}.dense"}
    if "20" in restrain:
        assert np.sum(stored[f"{TENSOR}.dense"] != 0) == 64 * 16 - int(64 * 16 * 0.8)


def test_a_count_within_a_sum_is_refused_and_the_others_are_named(
    tiny_model: Model, moments: Moments, tmp_path: Path
) -> None:
    run = edit(tmp_path, tiny_model, moments, "ft-m")
    original = {TENSOR: tiny_model.weight(TENSOR)}
    with pytest.raises(InputError, match="keeps sums of edits, after 1, 2, 3, 5, 6, 7; 4 is not among them"):
        accumulated(run, 4, original)
    assert isinstance(accumulated(run, 5, original)[TENSOR], Dense)
    assert one_edit(run, 4) is None
    assert one_edit(run, 3) is not None
    rows = spectra_of_run(run, tiny_model, [0, 2, 7], ["none", "clip", "cap:1"])
    ranks = rows[(rows["metric"] == f"rank:update:{TENSOR}") | rows["metric"].str.startswith("rank:update")]
    assert ranks[ranks["n_edits"] == 7]["mean"].max() == 16, "a sum of matrices has full rank"
    scores = evaluate_run(run, tiny_model, [2, 7], ["none", "cap:1"], ["editing"])
    assert set(scores["n_edits"]) == {2, 7}


class CutError(Exception):
    """A run was cut."""


@pytest.mark.parametrize(
    ("editor", "restrain"),
    [("memit-seq", ""), ("alphaedit", "rect:20"), ("ultraedit", "log:e@3"), ("ft-m", ""), ("rome", "mask:20")],
)
def test_cut_and_resumed_is_never_cut(
    tiny_model: Model,
    moments: Moments,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    editor: str,
    restrain: str,
) -> None:
    """To the bit, with what the editor carries: before the last edit."""
    whole = edit(tmp_path / "whole", tiny_model, moments, editor, restrain)
    function: Callable = chunks.edit_batch
    calls = []

    def failing(*some: Any) -> Any:
        calls.append(1)
        if len(calls) == 7:
            raise CutError
        return function(*some)

    with monkeypatch.context() as patched:
        patched.setattr(chunks, "edit_batch", failing)
        with pytest.raises(CutError):
            edit(tmp_path / "cut", tiny_model, moments, editor, restrain)
    assert 0 < open_run(tmp_path / "cut").n_edits < 7
    edit(tmp_path / "cut", tiny_model, moments, editor, restrain)
    both = [
        {name: content for name, content in contents(folder).items() if name != "timing.csv"}
        for folder in (whole.folder, tmp_path / "cut")
    ]
    assert both[0] == both[1]


def test_a_masked_update_of_alphaedit_goes_back_into_its_null_space(
    tiny_model: Model, moments: Moments, tmp_path: Path
) -> None:
    run = edit(tmp_path, tiny_model, moments, "alphaedit", "rect:20")
    update = np.asarray(dense(accumulated(run, 7, {TENSOR: tiny_model.weight(TENSOR)})[TENSOR]), np.float64)
    editor = editor_row("alphaedit").make(settings_of("alphaedit", SETTINGS["alphaedit"]))
    (metric,) = editor.init(tiny_model, moments, 1).fixed.metrics
    projector = np.asarray(metric.inverse, np.float64)
    assert oracles.distance(projector @ update, update) < 1e-5
    assert 1 <= round(float(np.trace(projector))) < 64


def test_an_editor_that_refuses_a_regime_says_why(tiny_model: Model, moments: Moments, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="batch 2: ROME edits one request at a time; its form for batches is emmet"):
        edit(tmp_path / "run", tiny_model, moments, "rome", batch=2)
    assert not (tmp_path / "run").exists()
