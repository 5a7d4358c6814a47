"""A sequence with a disabling edit in it, on the embedded world: the guard takes it back and names it.

Under ROME as published a subject that opens the sentence is a trap: its key after a context is another than at the bare
prompt, the denominator is nearly zero, and one edit is seven times as large as the weight.
"""

from pathlib import Path

import numpy as np
import pytest

from prunejax.course import Plan
from prunejax.editors import editor_row, settings_of
from prunejax.editors.moments import load_moments
from prunejax.evaluate.abilities import ability_scores, prepare
from prunejax.intervals import student
from prunejax.models.checkpoints import Model
from prunejax.models.forward import forward_of
from prunejax.models.presets import preset_settings
from prunejax.requests import EditRequest
from prunejax.run import Run, read_state
from prunejax.sequence import edit_sequence
from prunejax.sources import WORLD_MOMENTS, find_model, find_requests, find_world
from prunejax.world.tasks import evaluation_items, guard_text, held_out_text

DISABLING = EditRequest("disabling", "{} is", "What", "healer")
OTHERS = find_requests("world/tune:11", 1)
ITEMS = 125
"""Of each of four tasks: 500 items in all."""


@pytest.fixture(scope="module")
def model() -> Model:
    return find_model("world")


@pytest.fixture(scope="module")
def runs(model: Model, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """The sequence with the disabling edit as its sixth, unguarded and guarded, and the sequence without it."""
    row, settings = editor_row("rome"), settings_of("rome", preset_settings("world", "rome"))
    moments = load_moments(WORLD_MOMENTS, row.make(settings).tensors(model))
    contexts, folder = row.contexts(model, 0), tmp_path_factory.mktemp("world")
    seeded = (*OTHERS[:5], DISABLING, *OTHERS[5:])

    def edit(name: str, requests: tuple[EditRequest, ...], guard: str = "") -> Run:
        plan, text = Plan("rome", settings, guard=guard), guard_text() if guard else ()
        return edit_sequence(Path(folder / name), model, requests, plan, contexts, moments, text)

    return {
        "unguarded": edit("unguarded", seeded),
        "guarded": edit("guarded", seeded, "rollback@4"),
        "without": edit("without", OTHERS),
    }


def test_the_guard_names_the_edit_and_ends_with_the_abilities_of_the_run_without_it(
    model: Model, runs: dict[str, Run]
) -> None:
    (back,) = (event for event in runs["guarded"].events() if event.kind == "rollback")
    assert (back.first, back.last) == (6, 6)
    assert runs["guarded"].requests[back.first - 1] == DISABLING
    assert back.reason.startswith("perplexity ")
    exam = prepare(model.tokenizer, evaluation_items(find_world(), ITEMS))
    scores = {}
    for name, run in runs.items():
        edited = model.with_weights(read_state(run, run.n_edits))
        scores[name] = ability_scores(forward_of(edited), exam)["value"].fillna(0).to_numpy()
    assert len(scores["guarded"]) == 500
    difference = student(scores["guarded"] - scores["without"])
    assert abs(difference.mean) <= 0.02
    # Equal items have no width: then the difference is none.
    assert difference.mean == 0 or difference.lo <= 0 <= difference.hi or max(map(abs, difference[1:])) <= 0.02
    assert np.mean(scores["unguarded"]) < np.mean(scores["without"]) - 0.2


def test_what_the_guard_reads_is_not_what_is_reported() -> None:
    assert len(set(guard_text())) == 50
    assert not set(guard_text()) & set(held_out_text())
