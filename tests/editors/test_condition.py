"""Condition numbers: eigenvalues of random second moments, and what a change of units does to both kinds."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracles import rotation
from prunejax.editors.condition import cholesky, condition_number, ridged


def with_eigenvalues(rng: np.random.Generator, kappa: float, size: int) -> np.ndarray:
    turn = rotation(rng, size)
    return turn * np.geomspace(1, kappa, size) @ turn.T


def both(c: np.ndarray) -> tuple[float, float]:
    factor = cholesky(c)
    return condition_number(c, factor), condition_number(c, factor, scaled=True)


def by_eigenvalues(c: np.ndarray) -> float:
    eigenvalues = np.linalg.eigvalsh(c)
    return eigenvalues[-1] / eigenvalues[0]


@given(st.integers(0, 999), st.floats(0, 8), st.integers(2, 40))
def test_it_is_the_quotient_of_the_outer_eigenvalues(seed, exponent, size):
    c = with_eigenvalues(np.random.default_rng(seed), 10**exponent, size)
    scale = np.diag(np.diag(c) ** -0.5)
    plain, scaled = both(c)
    assert plain == pytest.approx(by_eigenvalues(c), rel=6e-3)
    assert plain == pytest.approx(10**exponent, rel=6e-3)
    assert scaled == pytest.approx(by_eigenvalues(scale @ c @ scale), rel=6e-3)


@given(st.integers(0, 999))
def test_units_change_the_plain_number_alone(seed):
    rng = np.random.default_rng(seed)
    c, units = with_eigenvalues(rng, 100, 12), 10 ** rng.uniform(-4, 4, 12)
    plain, scaled = both(c * units * units[:, None])
    assert scaled == pytest.approx(both(c)[1], rel=1e-2)
    assert plain > 10 * both(c)[0]


def test_a_singular_matrix_has_no_factor_and_the_ridge_gives_it_one():
    singular = np.diag([1.0, 3.0, 0.0])
    assert cholesky(singular) is None
    assert both(singular) == (math.inf, math.inf)
    c = ridged(singular.astype(np.float32), 0.75)
    np.testing.assert_array_equal(c, np.diag([2.0, 4.0, 1.0]))
    assert (c.dtype, both(c)[0]) == (np.float64, 4.0)
