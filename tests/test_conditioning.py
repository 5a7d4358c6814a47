"""The spectra of W_n along a run against a float64 SVD of each W_n."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
import pytest

from oracles import with_spectrum
from prunejax import conditioning
from prunejax.conditioning import spectra_along
from prunejax.spectra import RANK_TOLERANCE, Spectrum, singular_values
from prunejax.update import Dense, LowRank

SHAPES = [(40, 12), (12, 40), (12, 12)]
COUNTS = (0, 3, 4, 4, 10, 60)


def weight_of(kappa: float, d_in: int, d_out: int, seed: int = 0) -> np.ndarray:
    """Singular values from 5 to 5 / kappa; float32."""
    sigma = np.geomspace(5.0, 5.0 / kappa, min(d_in, d_out))
    return with_spectrum(np.random.default_rng(seed), d_in, d_out, list(sigma)).astype(np.float32)


def edits(n: int, d_in: int, d_out: int, length: float = 1.0, seed: int = 1) -> LowRank:
    rng = np.random.default_rng(seed)
    left, right = rng.normal(size=(d_in, n)), rng.normal(size=(n, d_out)) * length / math.sqrt(d_in * d_out)
    return LowRank(jnp.asarray(left, "f4"), jnp.asarray(right, "f4"))


def first(update: LowRank, n: int) -> LowRank:
    return LowRank(update.left[:, :n], update.right[:n])


def decomposed(weight: np.ndarray, update: LowRank | Dense) -> Spectrum:
    """What the docstring promises, by an SVD of the float64 sum."""
    parts = [np.asarray(part, np.float64) for part in update]
    sigma = np.linalg.svd(weight + (parts[0] @ parts[1] if len(parts) == 2 else parts[0]), compute_uv=False)
    counted = sigma[sigma > RANK_TOLERANCE * sigma[0]]
    return Spectrum(sigma[0], counted[-1], sigma[0] / counted[-1], float(np.linalg.norm(sigma)), len(counted))


def hold(weight: np.ndarray, updates: Sequence[LowRank | Dense], rel: float) -> None:
    found = list(spectra_along(weight, updates))
    assert len(found) == len(updates)
    for spectrum, update in zip(found, updates, strict=True):
        assert spectrum == pytest.approx(decomposed(weight, update), rel=rel)
        assert all(type(number) is float for number in spectrum)


@pytest.fixture
def decompositions(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes that were decomposed, as they are."""
    shapes: list[tuple[int, ...]] = []

    def counting(matrix: np.ndarray) -> np.ndarray:
        shapes.append(matrix.shape)
        return singular_values(matrix)

    monkeypatch.setattr(conditioning, "singular_values", counting)
    return shapes


@pytest.fixture
def grams(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of which a Gram matrix was formed, as they are."""
    shapes: list[tuple[int, ...]] = []

    def counting(matrix: np.ndarray) -> np.ndarray:
        shapes.append(matrix.shape)
        return matrix.T @ matrix

    monkeypatch.setattr(conditioning, "gram", counting)
    return shapes


@pytest.mark.parametrize(("d_in", "d_out"), SHAPES)
@pytest.mark.parametrize("kappa", [1e2, 1e4])
def test_sums_of_more_and_more_edits(kappa, d_in, d_out, decompositions, grams):
    """Nothing is decomposed, and one Gram matrix is formed."""
    weight, update = weight_of(kappa, d_in, d_out), edits(60, d_in, d_out, length=1e-3)
    hold(weight, [first(update, n) for n in COUNTS], 1e-7)
    assert len(grams) == 1
    assert not decompositions


@pytest.mark.parametrize(("d_in", "d_out"), SHAPES)
def test_a_thousand_edits_do_not_drift(d_in, d_out, decompositions, grams):
    """Of the weight's own length each, so that kappa comes and goes."""
    update = edits(1000, d_in, d_out)
    hold(weight_of(1e2, d_in, d_out), [first(update, n) for n in range(0, 1001, 50)], 1e-9)
    assert len(grams) == 1
    assert not decompositions


@pytest.mark.parametrize(("d_in", "d_out"), SHAPES)
def test_ill_conditioned_weights_are_decomposed(d_in, d_out, decompositions):
    update = edits(60, d_in, d_out, length=1e-9)
    hold(weight_of(1e7, d_in, d_out), [first(update, n) for n in COUNTS], 1e-9)
    assert len(decompositions) == len(COUNTS)


def test_a_weight_that_lost_a_direction(decompositions):
    weight = weight_of(1e2, 40, 12)
    left, sigma, right = np.linalg.svd(weight.astype(np.float64), full_matrices=False)
    gone = LowRank(
        jnp.asarray(np.stack([left[:, 0], -sigma[-1] * left[:, -1]], 1), "f4"), jnp.asarray(right[[0, -1]], "f4")
    )
    found = list(spectra_along(weight, [first(gone, 1), gone]))
    assert [spectrum.rank for spectrum in found] == [12, 11]
    assert found[1].kappa == pytest.approx((sigma[0] + 1) / sigma[-2], rel=1e-5)
    assert decompositions == [(40, 12)]


@pytest.mark.parametrize(("d_in", "d_out"), SHAPES)
def test_a_collapse_and_what_follows_it(d_in, d_out):
    """An edit a million times as large as the weight hides directions; another takes it back, and the digits that the
    carried Gram matrix lost to it do not show."""
    small, huge = edits(2, d_in, d_out), edits(1, d_in, d_out, length=5e6, seed=2)
    left = jnp.concatenate([small.left, huge.left, -huge.left], axis=1)
    right = jnp.concatenate([small.right, huge.right, huge.right])
    updates = [first(LowRank(left, right), n) for n in (2, 3, 4)]
    hold(weight_of(1e2, d_in, d_out), updates, 1e-6)
    collapsed = list(spectra_along(weight_of(1e2, d_in, d_out), updates))[1]
    assert collapsed.rank < 12
    assert collapsed.sigma_max > 1e6


def test_edits_that_cancel_within_a_step_form_the_gram_matrix_anew(grams, decompositions):
    weight, huge = weight_of(1e2, 40, 12), edits(1, 40, 12, length=5e6)
    both = LowRank(jnp.tile(huge.left, 2), jnp.concatenate([huge.right, -huge.right]))
    hold(weight, [first(both, 0), both], 1e-9)
    assert len(grams) == 2
    assert not decompositions


def test_updates_that_do_not_continue_one_another(grams):
    """As after a restraint during the run, or where the sum is held dense."""
    weight, one, other = weight_of(1e2, 40, 12), edits(9, 40, 12), edits(9, 40, 12, seed=3)
    whole = Dense(jnp.asarray(np.asarray(other.left) @ np.asarray(other.right)))
    hold(weight, [first(one, 4), other, one, first(one, 3), whole, whole, one], 1e-9)
    assert len(grams) == 7


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_collapsed_run_stays_collapsed(bad):
    update = edits(6, 40, 12)
    update = update._replace(right=update.right.at[3, 2].set(bad))
    found = list(spectra_along(weight_of(1e2, 40, 12), [first(update, n) for n in (2, 4, 6)]))
    assert not any(map(math.isnan, found[0]))
    assert all(map(math.isnan, [*found[1], *found[2]]))


def test_a_weight_beyond_float32_is_nan_as_the_models_is():
    huge = LowRank(jnp.full((40, 1), 1e20), jnp.full((1, 12), 1e20))
    (found,) = spectra_along(weight_of(1e2, 40, 12), [huge])
    assert all(map(math.isnan, found))


def test_what_is_handed_over_is_not_changed():
    weight, update = weight_of(1e2, 40, 12), edits(9, 40, 12)
    before = weight.copy()
    list(spectra_along(weight, [first(update, 4), update]))
    np.testing.assert_array_equal(weight, before)
    held = weight.astype(np.float64)
    list(spectra_along(held, [first(update, 4), update]))
    np.testing.assert_array_equal(held, before)
