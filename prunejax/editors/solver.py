"""The linear solve of locate-then-edit methods: the metric in which an update is smallest, and keys turned by it."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax import Array

from prunejax.editors.moments import Moments
from prunejax.errors import InputError


def inverse_metric(moments: Moments | None, tensor: str, second_moment: str, ridge: float, d_in: int) -> Array:
    """C^-1 [d_in, d_in] of one tensor in float32, or I for second_moment="identity"."""
    if second_moment == "identity":
        return jnp.eye(d_in)
    if moments is None:
        raise InputError(
            "second_moment=corpus needs --moments FILE; make it with 'prunejax moments', or set second_moment=identity"
        )
    return jnp.asarray(inverse_second_moment(moments.of(tensor).matrix, ridge, d_in))


def inverse_second_moment(matrix: np.ndarray, ridge: float, d_in: int) -> np.ndarray:
    """(C + ridge mean(diag C) I)^-1 in float32, by a float64 Cholesky factorisation; InputError when C is not
    positive definite."""
    if matrix.shape != (d_in, d_in):
        raise InputError(f"moments: the second moment is {matrix.shape}, the model's keys have {d_in} dimensions")
    c = matrix.astype(np.float64)
    c[np.diag_indices(d_in)] += ridge * np.mean(np.diag(c))
    try:
        factor = scipy.linalg.cho_factor(c, lower=True)
    except np.linalg.LinAlgError:
        raise InputError("moments: the second moment is singular; collect more text, or set ridge=0.1") from None
    return scipy.linalg.cho_solve(factor, np.eye(d_in)).astype(np.float32)


def adjusted_keys(inverse: Array, keys: Array, moment_weight: float) -> Array:
    """(lambda C + K K^T)^-1 K [d_in, n] for keys K^T [n, d_in], from C^-1 [d_in, d_in]: MEMIT's solve.

    With B = (lambda C)^-1 K it is B (I + K^T B)^-1 (Woodbury), so that what is solved is n x n: C is inverted once a
    run, not once an edit.
    """
    turned = jnp.matmul(keys, inverse, precision="highest") / moment_weight
    gram = jnp.matmul(turned, keys.T, precision="highest")
    with jax.default_matmul_precision("highest"):
        return jnp.linalg.solve(jnp.eye(len(keys)) + gram, turned).T
