"""Every regime that the table says works, run on the embedded world; every other one refused with its reason."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prunejax.course import Plan
from prunejax.editors import EDITORS, EditorRow, settings_of
from prunejax.editors.moments import Moments, load_moments
from prunejax.editors.regimes import REGIMES, regime_of
from prunejax.errors import InputError
from prunejax.fold import accumulated
from prunejax.models.checkpoints import Model
from prunejax.models.presets import preset_settings
from prunejax.sequence import edit_sequence
from prunejax.single import single_edits
from prunejax.sources import WORLD_MOMENTS, find_model, find_requests
from prunejax.update import dense

SIZES = {"batched": (2, 2), "sequential": (2, 1), "sequential-batched": (4, 2)}
"""How many requests, and how many at once. All are the same two, which the last edits twice, so that a program serves
several regimes."""


@pytest.fixture(scope="module")
def model() -> Model:
    return find_model("world")


@pytest.fixture(scope="module")
def moments(model: Model) -> Moments:
    return load_moments(WORLD_MOMENTS, [model.family.edited_tensor(layer) for layer in (0, 1)])


def run_regime(regime: str, name: str, row: EditorRow, model: Model, moments: Moments, folder: Path) -> None:
    settings = settings_of(name, preset_settings("world", name))
    contexts = row.contexts(model, 0)[:3]
    two = find_requests("world/tune:2", 1)
    if regime == "single":
        found = single_edits(model, two, name, settings, contexts, moments)
        grown = found[found["metric"] == "sigma_max:update"]["after"]
        assert len(grown) == 2
        assert (grown > 0).all()
        return
    n, batch = SIZES[regime]
    assert regime_of(n, batch) == regime
    plan = Plan(name, settings, batch=batch)
    again = [replace(request, case_id=f"{request.case_id} again") for request in two]
    run = edit_sequence(folder / regime, model, [*two, *again][:n], plan, contexts, moments)
    assert run.n_edits == n
    original = {tensor: model.weight(tensor) for tensor in run.tensors}
    assert any(np.linalg.norm(dense(update)) > 0 for update in accumulated(run, n, original).values())


@pytest.mark.parametrize("name", EDITORS)
def test_the_table_of_editors_and_regimes(name: str, model: Model, moments: Moments, tmp_path: Path) -> None:
    row = EDITORS[name]
    assert set(row.refuses) <= set(REGIMES)
    for regime in REGIMES:
        if reason := row.refused(regime):
            with pytest.raises(InputError, match=reason):
                run_regime(regime, name, row, model, moments, tmp_path)
        else:
            run_regime(regime, name, row, model, moments, tmp_path)


def test_who_refuses_what() -> None:
    refused = {name: sorted(row.refuses) for name, row in EDITORS.items() if row.refuses}
    batches = ["batched", "sequential-batched"]
    assert refused == {"rome": batches, "r-rome": batches, "mend": batches, "ultraedit": ["single"]}
