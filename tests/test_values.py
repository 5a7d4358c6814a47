"""The values of the first edits: right at birth, and where later edits carry them."""

import numpy as np
import pandas as pd
import pytest

from prunejax import values
from prunejax.errors import InputError
from prunejax.models.checkpoints import Model
from prunejax.points import weights_after
from prunejax.records import check
from prunejax.restraint import parse
from prunejax.run import Run
from prunejax.tokens import tokenize_fact
from prunejax.values import early_values, keys_and_values, principal_plane, summary_of_early
from tiny_runs import REQUESTS, edit_tiny

LAYER = 1


@pytest.fixture(scope="module")
def run(tiny_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return edit_tiny(tmp_path_factory.mktemp("values") / "run", tiny_model)


@pytest.fixture(scope="module")
def rows(run: Run, tiny_model: Model) -> pd.DataFrame:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(values, "EARLY", 4)
        return check(early_values(run, tiny_model, [7], ["none", "clip"]))


def slow_value(model: Model, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Key and value of one request, by running the layers without padding or jit."""
    request = REQUESTS[number]
    fact = tokenize_fact(model.tokenizer, request.prompt, request.subject)
    tokens, positions = np.array([fact.ids]), np.arange(len(fact.ids))[None]
    seen = model.decoder.run_layers(
        model.decoder.embed(tokens, positions),
        positions,
        0,
        LAYER + 1,
        taps=("key", "value"),
        overrides=model.overrides,
    )
    return tuple(np.asarray(seen.taps[tap][LAYER, 0, fact.subject_last]) for tap in ("key", "value"))


def edited(run: Run, model: Model, n: int, spec: str = "none") -> Model:
    return model.with_weights(weights_after(run, model, n, parse(spec)))


def measured(rows: pd.DataFrame, metric: str, n: int, number: int, spec: str = "none") -> float:
    here = (rows["metric"] == metric) & (rows["n_edits"] == n) & (rows["restraint"] == spec)
    return rows.loc[here & (rows["case"] == REQUESTS[number].case_id), "value"].item()


@pytest.mark.parametrize(("n", "spec"), [(7, "none"), (7, "clip"), (0, "none")])
def test_a_value_is_held_against_the_one_right_after_its_edit(
    run: Run, tiny_model: Model, rows: pd.DataFrame, n: int, spec: str
) -> None:
    for number in (0, 2):
        key, value = slow_value(edited(run, tiny_model, number + 1), number)
        key_now, value_now = slow_value(edited(run, tiny_model, n, spec), number)
        moved = np.linalg.norm(value_now - value) / np.linalg.norm(value)
        assert measured(rows, "value_change", n, number, spec) == pytest.approx(moved, rel=1e-3)
        assert measured(rows, "value_norm", n, number, spec) == pytest.approx(np.linalg.norm(value_now), rel=1e-3)
        assert measured(rows, "key_change", n, number, spec) == pytest.approx(0, abs=1e-6)
        np.testing.assert_allclose(key_now, key, rtol=1e-4, atol=1e-6)
    assert rows.loc[rows["metric"] == "value_change", "value"].max() > 0.1, "something moves"


def test_birth_is_the_row_of_the_edits_own_number(rows: pd.DataFrame) -> None:
    born = rows[rows["n_edits"].between(1, 4)]
    numbers = {request.case_id: i for i, request in enumerate(REQUESTS, 1)}
    assert (born["n_edits"] == born["case"].map(numbers)).all()
    assert (born.loc[born["metric"].isin(("value_change", "key_change")), "value"] == 0).all()
    assert set(rows["n_edits"]) == {0, 1, 2, 3, 4, 7}


def test_the_plane_holds_the_values_at_birth_best(rows: pd.DataFrame) -> None:
    born = rows[rows["n_edits"].between(1, 4)]
    sides = [born.loc[born["metric"] == f"principal:{i}", "value"].to_numpy() for i in (1, 2)]
    assert np.abs([side.mean() for side in sides]) == pytest.approx(0, abs=1e-4)
    assert np.var(sides[0]) >= np.var(sides[1]) > 0
    assert np.corrcoef(*sides)[0, 1] == pytest.approx(0, abs=1e-3)


def test_a_plane_that_is_known() -> None:
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    points = 3 + rng.normal(size=(40, 2)) * [5, 2] @ basis[:2] + 1e-9 * rng.normal(size=(40, 6))
    mean, components = principal_plane(points)
    np.testing.assert_allclose(mean, points.mean(axis=0))
    np.testing.assert_allclose(components @ components.T, np.eye(2), atol=1e-12)
    np.testing.assert_allclose((points - mean) @ components.T @ components, points - mean, atol=1e-7)
    assert all(row[np.abs(row).argmax()] > 0 for row in components)


def test_padding_changes_nothing(tiny_model: Model) -> None:
    narrow, wide = (keys_and_values(tiny_model, REQUESTS[:2], LAYER, width) for width in (None, 30))
    for one, other in zip(narrow, wide, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_the_summary_is_the_median_after_the_followed_edits(
    rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(values, "EARLY", 4)
    found = check(summary_of_early(rows))
    assert set(found["n_edits"]) == {0, 7}
    assert set(found["metric"]) == {"value_change", "key_change"}
    here = rows[(rows["n_edits"] == 7) & (rows["restraint"] == "clip") & (rows["metric"] == "value_change")]
    kept = found[(found["restraint"] == "clip") & (found["metric"] == "value_change")]
    assert kept["value"].item() == here["value"].median()


def test_counts_within_the_followed_edits_are_refused(run: Run, tiny_model: Model) -> None:
    with pytest.raises(InputError, match="edits 7: the first 50 are followed"):
        early_values(run, tiny_model, [7, 100], ["none"])
