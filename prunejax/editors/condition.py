"""What is inverted in place of a second moment, and the condition numbers that say whether the inverse means
anything."""

import math

import numpy as np
import scipy.linalg
from scipy.sparse.linalg import LinearOperator, eigsh

Factor = tuple[np.ndarray, bool]
"""A Cholesky factor as scipy gives it, and whether it is the lower one."""


def ridged(matrix: np.ndarray, ridge: float) -> np.ndarray:
    """C + ridge mean(diag C) I, in float64."""
    c = matrix.astype(np.float64)
    c[np.diag_indices(len(c))] += ridge * np.mean(np.diag(c))
    return c


def cholesky(c: np.ndarray) -> Factor | None:
    """The factor of a matrix in float64, None where it is not positive definite to float64."""
    try:
        return scipy.linalg.cho_factor(c.astype(np.float64), lower=True)
    except np.linalg.LinAlgError:
        return None


def condition_number(c: np.ndarray, factor: Factor | None, scaled: bool = False) -> float:
    """kappa(C) = lambda_max / lambda_min of a positive definite C in float64, inf without a factor; or that of S C S
    with S = diag(C)^-1/2, which makes every dimension's mean square 1.

    The scaled one says what rounding does to C^-1 k: each entry of C and of C^-1 is rounded by itself, so a change of
    the dimensions' units changes nothing. A neuron that is a thousand times as loud as the others makes kappa(C) a
    million and harms nothing. Both are products of two largest eigenvalues (Lanczos' method from a fixed vector), to
    three digits, at the price of some products with a vector.

    Misleads: a C stored in float32 owes its smallest eigenvalues to rounding where the scaled number is above some 1e7,
    as with fewer keys than dimensions; how far above means nothing then.
    """
    if factor is None:
        return math.inf
    scale = 1 / np.sqrt(np.diag(c)) if scaled else np.ones(len(c))
    top = _largest(LinearOperator(c.shape, lambda x: scale * (c @ (scale * x)), dtype=np.float64))
    solve = LinearOperator(c.shape, lambda x: scipy.linalg.cho_solve(factor, x / scale) / scale, dtype=np.float64)
    return float(f"{top * _largest(solve):.3g}")


def _largest(operator: LinearOperator) -> float:
    start = np.random.default_rng(0).normal(size=operator.shape[0])
    return float(eigsh(operator, k=1, which="LA", v0=start, tol=1e-3, return_eigenvectors=False)[0])
