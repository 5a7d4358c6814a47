"""What restraints of one accumulated update share, and the weight for given singular values."""

from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oracles import distance, with_spectrum
from prunejax import sweep as sweep_module
from prunejax.spectra import svd
from prunejax.sweep import ROWS, Sweep
from prunejax.update import Dense, LowRank

SIGMA = np.array([90.0, 31.0, 7.0, 2.5, 1.0, 0.1])
M = 2.6
TOUCHED = 3


def sweep_of(d_in: int = 24, d_out: int = 16, m: float = M, dtype: str = "float32", low_rank: bool = True) -> Sweep:
    rng = np.random.default_rng(0)
    weight = jnp.asarray(rng.normal(size=(d_in, d_out)), dtype)
    left, sigma, right = np.linalg.svd(with_spectrum(rng, d_in, d_out, list(SIGMA)), full_matrices=False)
    factors = LowRank(jnp.asarray(left[:, :6] * sigma[:6], "f4"), jnp.asarray(right[:6], "f4"))
    return Sweep(weight, factors if low_rank else Dense(factors.left @ factors.right), m)


def expected(sweep: Sweep, sigma: np.ndarray) -> np.ndarray:
    parts = [np.asarray(part, np.float64) for part in sweep.update]
    left, _, right = np.linalg.svd(parts[0] @ parts[1] if len(parts) == 2 else parts[0], full_matrices=False)
    return np.asarray(sweep.weight, np.float64) + left[:, : len(sigma)] * sigma @ right[: len(sigma)]


@pytest.mark.parametrize("low_rank", [True, False])
@pytest.mark.parametrize(
    "sigma", [[5.0, 4.0, 3.0, 2.5, 1.0, 0.1], [5.0, 4.0, 3.0, 2.0, 1.0, 0.1], [0.0] * 6, [1e4, 4.0, 3.0, 2.5, 1.0, 9.0]]
)
def test_the_weight_has_the_singular_values_that_are_asked_for(sigma, low_rank):
    sweep = sweep_of(low_rank=low_rank)
    asked = np.concatenate([sigma, np.zeros(0 if low_rank else 10)])
    left_alone = np.where(asked == np.r_[SIGMA, np.zeros(len(asked) - 6)], sweep.sigma, asked)  # as they were found
    found = sweep.weight_with(left_alone)
    assert found.dtype == jnp.float32
    assert distance(found, expected(sweep, asked)) < 1e-6


@pytest.mark.parametrize(("m", "touched"), [(M, 3), (0.01, 6), (100.0, 0), (31.0001, 1)])
def test_touched_and_below(m, touched):
    sweep = sweep_of(m=m)
    assert sweep.touched == touched
    np.testing.assert_allclose(sweep.sigma, SIGMA, rtol=1e-6)
    assert distance(sweep.below, expected(sweep, np.where(np.arange(6) < touched, 0.0, SIGMA))) < 1e-6


def test_what_is_shared_is_computed_once(monkeypatch):
    """The update is decomposed once; for each restraint only the triplets at or above m are multiplied out."""
    decomposed, ranks, plus = [], [], sweep_module._plus

    def decompose(update):
        decomposed.append(update)
        return svd(update)

    def multiply(weight, left, right):
        ranks.append(len(right))
        return plus(weight, left, right)

    monkeypatch.setattr(sweep_module, "svd", decompose)
    monkeypatch.setattr(sweep_module, "_plus", multiply)
    sweep = sweep_of()
    for largest in (5.0, 6.0, 7.0):
        sweep.weight_with(np.array([largest, 4.0, 3.0, *sweep.sigma[TOUCHED:]]))
    assert len(decomposed) == 1
    assert ranks == [len(SIGMA) - TOUCHED, TOUCHED, TOUCHED, TOUCHED]
    assert isinstance(Sweep.below, cached_property)
    with pytest.raises(AttributeError):
        sweep.m = 1.0


def test_a_matrix_longer_than_a_block_of_rows():
    sweep = sweep_of(d_in=ROWS + 3, d_out=7)
    assert (
        distance(
            sweep.weight_with(np.array([5.0, 4.0, 3.0, *sweep.sigma[TOUCHED:]])),
            expected(sweep, np.array([5.0, 4.0, 3.0, 2.5, 1.0, 0.1])),
        )
        < 1e-6
    )


def test_a_half_precision_weight_is_rounded_once():
    sweep = sweep_of(dtype="bfloat16")
    sigma = np.array([5.0, 4.0, 3.0, *sweep.sigma[TOUCHED:]])
    found = sweep.weight_with(sigma)
    assert found.dtype == jnp.bfloat16
    assert sweep.below.dtype == np.float32
    np.testing.assert_array_equal(found, jnp.asarray(expected(sweep, sigma), "f4").astype(jnp.bfloat16))


def test_the_weight_stays_where_it_was_and_what_is_shared_is_not_changed():
    sweep = sweep_of()
    sigma = np.array([5.0, 4.0, 3.0, *sweep.sigma[TOUCHED:]])
    found = sweep.weight_with(sigma)
    below, before = sweep.below.copy(), np.asarray(sweep.weight).copy()
    assert found.sharding == sweep.weight.sharding
    jax.jit(lambda x: x * 0, donate_argnums=0)(found).block_until_ready()
    np.testing.assert_array_equal(sweep.below, below)
    np.testing.assert_array_equal(sweep.weight, before)
