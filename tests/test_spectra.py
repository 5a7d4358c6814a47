import math

import jax.numpy as jnp
import numpy as np
import pytest

from oracles import distance, projector, rotation, with_spectrum
from prunejax.spectra import (
    RANK_TOLERANCE,
    SMALL,
    gram,
    gram_spectrum,
    mean_squares,
    sigma_max,
    singular_values,
    spectrum,
    spectrum_of,
    svd,
    thin_qr,
)
from prunejax.update import Dense, LowRank, apply, dense

SHAPES = [(24, 16), (16, 24), (16, 16)]
RANKS = [1, 10, 16, 30]  # one edit, several, exactly full, more factors than the matrix can use


def low_rank(rank: int, d_in: int, d_out: int, seed: int = 0) -> LowRank:
    """Columns of very different lengths, as edits near collapse have them."""
    rng = np.random.default_rng(seed)
    lengths = np.geomspace(1, 100, rank)
    left, right = rng.normal(size=(d_in, rank)), rng.normal(size=(rank, d_out)) * lengths[:, None]
    return LowRank(jnp.asarray(left, "f4"), jnp.asarray(right, "f4"))


def exact(update: LowRank) -> np.ndarray:
    return np.asarray(update.left, np.float64) @ np.asarray(update.right, np.float64)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize(("d_in", "d_out"), SHAPES)
def test_factored_svd_is_the_dense_svd(d_in, d_out, rank):
    update = low_rank(rank, d_in, d_out)
    left, sigma, right = svd(update)
    k = min(rank, d_in, d_out)
    assert (left.shape, sigma.shape, right.shape) == ((d_in, k), (k,), (k, d_out))
    expected = np.linalg.svd(exact(update), compute_uv=False)[:k]
    np.testing.assert_allclose(sigma, expected, rtol=1e-5, atol=1e-6 * expected[0])
    assert distance(np.asarray(left) * np.asarray(sigma) @ np.asarray(right), exact(update)) < 1e-5
    np.testing.assert_allclose(np.asarray(left).T @ np.asarray(left), np.eye(k), atol=1e-5)
    np.testing.assert_allclose(np.asarray(right) @ np.asarray(right).T, np.eye(k), atol=1e-5)


@pytest.mark.parametrize("as_dense", [False, True])
def test_svd_finds_the_singular_subspaces(as_dense):
    rng = np.random.default_rng(1)
    matrix = with_spectrum(rng, 20, 12, [9.0, 9.0, 4.0, 1.0])  # equal values: only the plane is determined
    left, _, right = np.linalg.svd(matrix)
    mix = rotation(rng, 4)
    factors = LowRank(jnp.asarray(left[:, :4] @ mix, "f4"), jnp.asarray(mix.T @ left[:, :4].T @ matrix, "f4"))
    found = svd(Dense(jnp.asarray(matrix, "f4")) if as_dense else factors)
    for start, stop in ((0, 2), (2, 3), (3, 4)):
        assert distance(projector(found.left[:, start:stop]), projector(left[:, start:stop])) < 1e-5
        assert distance(projector(found.right[start:stop].T), projector(right[start:stop].T)) < 1e-5


def test_rank_deficient_and_empty_factors():
    column = low_rank(1, 9, 7)
    twice = LowRank(jnp.tile(column.left, (1, 3)), jnp.tile(column.right, (3, 1)))
    np.testing.assert_allclose(svd(twice).sigma, [3 * sigma_max(exact(column)), 0, 0], rtol=1e-5, atol=1e-4)
    nothing = LowRank(jnp.zeros((9, 0)), jnp.zeros((0, 7)))
    assert svd(nothing).sigma.shape == (0,)
    assert spectrum(nothing)[:4:3] == (0.0, 0.0)


def test_svd_does_not_compile_twice():
    svd(low_rank(3, 11, 13))
    size = thin_qr._cache_size()
    svd(low_rank(3, 11, 13, seed=5))
    assert thin_qr._cache_size() == size
    svd(low_rank(4, 11, 13))
    assert thin_qr._cache_size() == size + 1  # the counter counts


@pytest.mark.parametrize(("d_in", "d_out"), SHAPES)
def test_sigma_max_is_the_spectral_norm(d_in, d_out):
    matrix = np.random.default_rng(2).normal(size=(d_in, d_out))
    assert sigma_max(matrix) == pytest.approx(np.linalg.norm(matrix, 2), rel=1e-12)
    assert sigma_max(jnp.zeros((d_in, d_out))) == 0.0


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("bad", [0.0, np.nan, -np.inf])
def test_sigma_max_of_large_matrices(bad, turned):
    rng = np.random.default_rng(9)
    matrix = np.asarray(rng.normal(size=(SMALL + 90, SMALL + 1)), np.float32)
    matrix = matrix.T if turned else matrix
    assert sigma_max(matrix) == pytest.approx(np.linalg.norm(matrix.astype(np.float64), 2), rel=1e-9)
    collapsed = matrix.copy()
    collapsed[3, 5] = bad
    assert math.isnan(sigma_max(collapsed)) == (bad != 0)
    assert sigma_max(0 * matrix) == 0.0
    half = jnp.asarray(matrix, jnp.bfloat16)
    assert sigma_max(half) == pytest.approx(np.linalg.norm(np.asarray(half, np.float64), 2), rel=1e-9)


def test_spectrum_of_a_matrix_with_known_singular_values():
    matrix = with_spectrum(np.random.default_rng(3), 30, 20, [8.0, 4.0, 1.0, 8.0 * RANK_TOLERANCE / 2])
    found = spectrum(matrix)
    assert found == pytest.approx((8.0, 1.0, 8.0, 9.0, 3), rel=1e-9)  # the fourth value is below the tolerance
    assert all(type(number) is float for number in found)
    assert spectrum(matrix.T) == pytest.approx(found)


@pytest.mark.parametrize("rank", RANKS)
def test_spectrum_of_factors_is_that_of_their_matrix(rank):
    update = low_rank(rank, 24, 16)
    assert spectrum(update) == pytest.approx(spectrum(exact(update)), rel=1e-9)
    assert spectrum(Dense(dense(update))).rank == min(rank, 16)
    assert len(singular_values(update)) == min(rank, 16)


def test_a_direction_lost_lowers_rank_and_may_lower_kappa():
    sigma = [4.0, 2.0, 1e-2]
    rng = np.random.default_rng(4)
    matrix = with_spectrum(rng, 3, 3, sigma)
    left, _, right = np.linalg.svd(matrix)
    weight = jnp.asarray(matrix, "f4")
    assert spectrum(weight).kappa == pytest.approx(400, rel=1e-4)
    removed = Dense(jnp.asarray(-1e-2 * np.outer(left[:, 2], right[2]), "f4"))
    found = spectrum(apply(weight, removed))
    assert (found.rank, found.kappa) == (2, pytest.approx(2, rel=1e-4))


def test_spectrum_of_singular_values_in_any_order():
    found = spectrum_of(np.array([1.0, 8.0, 8.0 * RANK_TOLERANCE / 2, 4.0]))
    assert found == pytest.approx((8.0, 1.0, 8.0, 9.0, 3))
    assert all(map(math.isnan, spectrum_of(np.array([1.0, np.inf]))))
    assert spectrum_of(np.zeros(0))[::3] == (0.0, 0.0)


@pytest.mark.parametrize(("d_in", "d_out"), SHAPES)
@pytest.mark.parametrize("kappa", [1.0, 1e2, 1e4, 3e5])
def test_a_gram_matrix_tells_kappa_up_to_some_hundred_thousands(kappa, d_in, d_out):
    sigma = np.geomspace(3.0, 3.0 / kappa, 16)
    matrix = with_spectrum(np.random.default_rng(6), d_in, d_out, list(sigma))
    found = gram_spectrum(gram(matrix))
    assert found is not None
    assert found[:3] == pytest.approx((3.0, 3.0 / kappa, kappa), rel=max(1e-9, 1e-15 * kappa**2))
    assert found[3:] == pytest.approx((np.linalg.norm(sigma), 16))


@pytest.mark.parametrize("smallest", [3e-7, 3e-9, 0.0])
def test_a_gram_matrix_that_cannot_tell_leaves_it_to_the_svd(smallest):
    matrix = with_spectrum(np.random.default_rng(7), 24, 16, [*np.geomspace(3.0, 1.0, 15), smallest])
    assert gram_spectrum(gram(matrix)) is None
    expected = np.linalg.svd(matrix, compute_uv=False)
    counted = expected[expected > RANK_TOLERANCE * expected[0]]
    assert spectrum(matrix) == pytest.approx(
        (expected[0], counted[-1], expected[0] / counted[-1], np.linalg.norm(expected), len(counted)), rel=1e-9
    )


def test_what_may_have_moved_the_eigenvalues_casts_doubt():
    matrix = with_spectrum(np.random.default_rng(8), 24, 16, list(np.geomspace(3.0, 0.1, 16)))
    assert gram_spectrum(gram(matrix), moved=0.9e-3 * 0.1**2) is not None
    assert gram_spectrum(gram(matrix), moved=1.1e-3 * 0.1**2) is None
    assert gram_spectrum(gram(matrix), moved=math.nan) is None


def test_spectrum_of_nothing():
    found = spectrum(jnp.zeros((5, 3)))
    assert found[:2] == (0.0, 0.0)
    assert found[3:] == (0.0, 0.0)
    assert math.isnan(found.kappa)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_collapsed_matrix_has_a_nan_spectrum(bad):
    matrix = jnp.ones((24, 16)).at[3, 2].set(bad)
    factors = low_rank(2, 24, 16)._replace(left=low_rank(2, 24, 16).left.at[0, 0].set(bad))
    assert math.isnan(sigma_max(matrix))
    for collapsed in (matrix, Dense(matrix), factors):
        assert all(map(math.isnan, spectrum(collapsed)))
    for collapsed, k in ((Dense(matrix), 16), (factors, 2)):
        left, sigma, right = svd(collapsed)
        assert (left.shape, sigma.shape, right.shape) == ((24, k), (k,), (k, 16))
        assert np.isnan(left).all()
        assert np.isnan(sigma).all()
        assert np.isnan(right).all()


def test_spectra_agree_with_the_published_code(shared):
    golden = np.load(shared / "golden" / "prune.npz")
    np.testing.assert_allclose(singular_values(golden["W_original"]), golden["singular_values_W"], rtol=1e-5)
    for name in ("sequence12", "around", "far", "below", "fullrank"):
        delta, expected = golden[f"{name}.delta"], golden[f"{name}.singular_values_delta"]
        np.testing.assert_allclose(singular_values(delta), expected, rtol=1e-5, atol=1e-6 * expected[0])
        assert spectrum(delta).rank == golden[f"{name}.rank"]


def test_mean_squares_are_those_of_the_keys():
    """Against the keys themselves, whose second moment is all that is handed over."""
    rng = np.random.default_rng(8)
    keys, columns = rng.normal(size=(50, 24)) * np.geomspace(0.1, 5, 24), rng.normal(size=(24, 16))
    expected = np.mean((keys @ columns) ** 2, axis=0)
    np.testing.assert_allclose(mean_squares(jnp.asarray(columns, "f4"), keys.T @ keys / 50), expected, rtol=1e-5)
    assert np.isnan(mean_squares(jnp.full((24, 16), jnp.nan), np.eye(24))).all()
