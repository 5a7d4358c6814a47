"""A sequence with a disabling edit in it, on the embedded world: the guard takes it back and names it.

Under ROME as published a subject that opens the sentence is a trap: its key after a context is another than at the bare
prompt, the denominator is nearly zero, and one edit is seven times as large as the weight.
"""

import pandas as pd
import pytest

from prunejax.evaluate import editing
from prunejax.evaluate.editing import editing_scores
from prunejax.evaluate.perplexity import perplexity, prepare
from prunejax.guard_live import apart, check_edits_alone, item_scores, seeded_runs
from prunejax.models.checkpoints import Model
from prunejax.models.forward import forward_of
from prunejax.records import read_records
from prunejax.requests import EditRequest
from prunejax.run import Run
from prunejax.sources import RECORDS, find_model, find_requests
from prunejax.stored import read_state
from prunejax.watching import read_looks
from prunejax.world.tasks import guard_text, held_out_text

DISABLING = EditRequest("disabling", "{} is", "What", "healer")


@pytest.fixture(scope="module")
def model() -> Model:
    return find_model("world")


@pytest.fixture(scope="module")
def runs(model: Model, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("world")
    return seeded_runs(folder, model, find_requests("world/tune:11", 1), DISABLING, "rollback@4")


def test_the_guard_names_the_edit_and_ends_with_the_abilities_of_the_run_without_it(
    model: Model, runs: dict[str, Run]
) -> None:
    (back,) = (event for event in runs["guarded"].events() if event.kind == "rollback")
    assert (back.first, back.last) == (6, 6)
    assert runs["guarded"].requests[back.first - 1] == DISABLING
    assert back.reason.startswith("perplexity ")
    scores = item_scores(model, runs)
    assert len(scores) == 500
    difference = apart(scores, "guarded", "without")
    assert difference.lo <= 0 <= difference.hi or max(map(abs, difference)) <= 0.02
    assert apart(scores, "unguarded", "without").hi < -0.2


def test_a_look_sees_what_the_scores_say(model: Model, runs: dict[str, Run]) -> None:
    """The last look: the share of the edits in the weights that are held, and the perplexity of the guard's text."""
    run, last = runs["guarded"], read_looks(runs["guarded"].folder / "guard.csv").iloc[-1]
    edited = forward_of(model.with_weights(read_state(run, run.n_edits)))
    kept = [request for request in run.requests if request != DISABLING]
    scores = editing_scores(edited, editing.prepare(model.tokenizer, kept))
    held = scores.loc[scores["metric"] == "efficacy_top1", "value"].mean()
    assert last["held"] == pytest.approx(held)
    assert held > 0.5
    text = prepare(model.tokenizer, guard_text())
    found, unedited = (perplexity(forward, text) for forward in (edited, forward_of(model)))
    assert last["perplexity"] == pytest.approx(found, rel=1e-5)
    assert last["ratio"] == pytest.approx(found / unedited, rel=1e-5)


def test_an_interval_of_nothing_is_nothing() -> None:
    scores = pd.DataFrame({"a": [1.0, 0.0, 1.0], "b": [1.0, 0.0, 1.0], "c": [0.0, 0.0, 1.0]})
    assert apart(scores, "a", "b") == (0.0, 0.0, 0.0)
    found = apart(scores, "c", "a")
    assert found.mean == pytest.approx(-1 / 3)
    assert found.lo < found.mean < found.hi


def test_what_the_guard_reads_is_not_what_is_reported() -> None:
    assert len(set(guard_text())) == 50
    assert not set(guard_text()) & set(held_out_text())


def test_a_recorded_edit_made_again_agrees_and_one_that_was_moved_does_not(model: Model) -> None:
    records = read_records(RECORDS / "disabling_cases.csv")
    check = check_edits_alone(records, model, 2, seed=0)
    assert check.agrees, check.rows
    moved = records.assign(value=records["value"] * 1.1)
    assert not check_edits_alone(moved, model, 2, seed=0).rows["agrees"].any()
