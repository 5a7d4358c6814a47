"""Single edits on the tiny model: each stands alone, beside what was there before."""

import numpy as np
import pandas as pd
import pytest

from prunejax.editors import settings_of
from prunejax.editors.rome import RomeSettings, rome
from prunejax.errors import InputError
from prunejax.evaluate.editing import editing_scores, prepare
from prunejax.models.checkpoints import Model
from prunejax.models.forward import forward_of
from prunejax.single import single_edits
from prunejax.update import dense
from tiny_runs import CONTEXTS, REQUESTS, SETTINGS, TENSOR

TWO = REQUESTS[:2]
SIZES = ["frobenius:weight", "kappa:weight", "sigma_max:update", "sigma_max:weight"]


@pytest.fixture(scope="module")
def weight(tiny_model: Model) -> np.ndarray:
    """The edited matrix as it was before any test here."""
    return np.array(tiny_model.weight(TENSOR))


@pytest.fixture(scope="module")
def rows(tiny_model: Model, weight: np.ndarray):
    return single_edits(tiny_model, TWO, "rome", RomeSettings(**SETTINGS), CONTEXTS, None)


def updates_of(model: Model) -> list[np.ndarray]:
    """Each request's update from the unedited weights."""
    editor = rome(RomeSettings(**SETTINGS))
    state, batches = editor.init(model, None, 8), editor.prepare(model, TWO, CONTEXTS, 1)
    return [np.asarray(dense(editor.step(model, state, batch, None)[0][TENSOR]), np.float64) for batch in batches]


def test_before_are_the_scores_of_the_unedited_model(tiny_model: Model, rows) -> None:
    unedited = editing_scores(forward_of(tiny_model), prepare(tiny_model.tokenizer, TWO))
    found = rows[~rows["metric"].isin(SIZES)].merge(unedited, on=["case", "metric"])
    assert len(found) == len(unedited)
    assert found["before"].tolist() == found["value"].tolist()


def test_after_are_the_scores_of_the_case_under_its_own_edit_alone(tiny_model: Model, weight: np.ndarray, rows) -> None:
    for number, (request, update) in enumerate(zip(TWO, updates_of(tiny_model), strict=True)):
        edited = tiny_model.with_weights({TENSOR: (weight + update).astype(np.float32)})
        expected = editing_scores(forward_of(edited), prepare(tiny_model.tokenizer, TWO))
        of_edit = rows[(rows["edit"] == number) & ~rows["metric"].isin(SIZES)]
        assert set(of_edit["case"]) == {request.case_id}
        found = of_edit.merge(expected, on=["case", "metric"])
        assert len(found) == len(of_edit) == 7
        assert found["after"].tolist() == found["value"].tolist()
    assert (rows["before"] != rows["after"]).any()


def test_sizes_are_those_of_the_dense_matrices(tiny_model: Model, weight: np.ndarray, rows) -> None:
    found = rows.set_index(["edit", "metric"])
    for number, update in enumerate(updates_of(tiny_model)):
        assert found.loc[(number, "sigma_max:update"), "before"] == 0
        assert found.loc[(number, "sigma_max:update"), "after"] == pytest.approx(np.linalg.norm(update, 2), rel=1e-4)
        for side, matrix in (("before", weight.astype(np.float64)), ("after", weight + update)):
            sigma = np.linalg.svd(matrix, compute_uv=False)
            sizes = {"sigma_max": sigma[0], "kappa": sigma[0] / sigma[-1], "frobenius": np.linalg.norm(sigma)}
            for name, expected in sizes.items():
                assert found.loc[(number, f"{name}:weight"), side] == pytest.approx(expected, rel=1e-3), (name, side)


def test_the_model_is_not_changed(tiny_model: Model, weight: np.ndarray, rows) -> None:
    np.testing.assert_array_equal(tiny_model.weight(TENSOR), weight)
    assert tiny_model.overrides == {}


def test_edits_do_not_add_up(tiny_model: Model, rows) -> None:
    """The second request edited alone is the second request edited after the first."""
    settings = RomeSettings(**SETTINGS)
    alone = single_edits(tiny_model, TWO[1:], "rome", settings, CONTEXTS, None)
    second = rows[rows["edit"] == 1].assign(edit=0).reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, second, rtol=1e-5)


def test_an_editor_that_does_not_exist_is_named(tiny_model: Model) -> None:
    with pytest.raises(InputError, match="editor 'rime': there are ft-l, ft-m, rome, r-rome"):
        single_edits(tiny_model, TWO, "rime", settings_of("rome", SETTINGS), CONTEXTS, None)
