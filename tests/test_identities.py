"""The identities between editors, on random keys; the notebook asks them of real ones."""

import numpy as np
import pytest

from oracles import distance, rotation
from prunejax import identities
from prunejax.editors import EDITORS
from prunejax.editors.memit import MemitSettings, memit
from prunejax.editors.moments import Moments, SecondMoment
from prunejax.editors.overview import COLUMNS, overview
from prunejax.identities import IDENTITIES, Material, check_identities, material_of
from prunejax.update import dense
from tiny import EDITS, TEMPLATES

TENSOR = "transformer.h.1.mlp.c_proj.weight"


@pytest.fixture(scope="module")
def given() -> Material:
    rng = np.random.default_rng(0)
    root = rotation(rng, 40) * np.geomspace(1, 0.05, 40)
    return Material(root @ root.T, *(rng.normal(size=(n, 40)) @ root.T for n in (4, 6)))


def test_they_hold_in_both_precisions(given):
    found = check_identities(given)
    assert found["holds"].all(), found
    assert set(found["identity"]) == set(IDENTITIES)
    assert dict(zip(found["precision"], found["bound"], strict=True)) == {"float32": 1e-4, "float64": 1e-9}


def test_a_wrong_solve_is_noticed(given, monkeypatch):
    """Of each identity of the solve: by a solve that takes the slack for another one."""
    monkeypatch.setattr(identities, "solve", lambda *some: 1.01 * identities_solve(*some))
    found = check_identities(given)
    wrong = ~found["holds"]
    assert set(found["identity"][wrong]) == set(IDENTITIES) - {"UltraEdit dual = primal"}
    monkeypatch.setattr(identities, "ridge_update", lambda *some: _doubled(*some))
    assert not check_identities(given)["holds"].any()


identities_solve, identities_ridge = identities.solve, identities.ridge_update


def _doubled(*some):
    update = identities_ridge(*some)
    return update._replace(left=1.01 * update.left)


def test_material_is_the_keys_that_an_edit_averages(tiny_model):
    """From MEMIT's own update: of one key it is along C^-1 k."""
    groups = (("{}",), TEMPLATES[1:])
    c = np.eye(64, dtype=np.float32)
    found = material_of(tiny_model, EDITS, groups, c, 1, 1)
    assert (found.keys.shape, found.earlier.shape) == ((1, 64), (2, 64))
    settings = MemitSettings(layers=(1,), steps=2, moment_weight=1.0)
    editor = memit(settings)
    batch = editor.prepare(tiny_model, EDITS[:1], groups, 1)[0]
    state = editor.init(tiny_model, Moments({TENSOR: SecondMoment(c, 100)}, ""), 1)
    updates, *_ = editor.step(tiny_model, state, batch, None)
    left = np.asarray(updates[TENSOR].left)[:, 0]
    assert distance(left / np.linalg.norm(left), found.keys[0] / np.linalg.norm(found.keys[0])) < 1e-5
    assert dense(updates[TENSOR]).shape == (64, 16)


def test_the_map_has_every_editor_and_says_what_they_choose():
    found = overview()
    assert list(found.index) == list(EDITORS)
    assert list(found.columns) == list(COLUMNS)
    assert set(found.index[found["earlier keys"] == "yes"]) == {"memit-seq", "alphaedit", "nse", "encore"}
    assert set(found.index[found["value found on"] == "unedited weights"]) == {"nse"}
    assert found.loc["pmet", "value stands at"] == "value"
    assert found.loc["ultraedit", "regimes"] == "batched, sequential, sequential-batched"
    assert found.loc["rome", "regimes"] == "single, sequential"
    assert not (found == "").any(axis=None)
